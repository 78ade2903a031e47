//! Symbol names as their authors wrote them, within a bound: who makes a file chooses its symbol names, and a mangled
//! name of a few bytes can stand for one of many megabytes.

use std::fmt::{self, Write};

/// Names beyond this end in `…`.
const MAX_BYTES: usize = 2048;
/// Mangled names beyond this are not demangled; templates of real programs stay well below.
const MAX_MANGLED: usize = 16 << 10;

/// The demangled name of a Rust or C++ symbol, or the name itself, cut to 2 KiB.
pub fn demangle(name: &str) -> String {
    if name.len() > MAX_MANGLED {
        return bounded(name);
    }
    rust(name).or_else(|| cpp(name)).unwrap_or_else(|| bounded(name))
}

fn rust(name: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut text = Bounded::default();
    // Without the hash. An error means the bound was met.
    let _ = write!(text, "{demangled:#}");
    Some(text.finish())
}

fn cpp(name: &str) -> Option<String> {
    if !name.starts_with("_Z") && !name.starts_with("__Z") {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(name).ok()?;
    let mut text = Bounded::default();
    let options = cpp_demangle::DemangleOptions::default();
    let done = symbol.structured_demangle(&mut text, &options);
    (done.is_ok() || text.cut).then(|| text.finish())
}

fn bounded(name: &str) -> String {
    let mut text = Bounded::default();
    let _ = text.write_str(name);
    text.finish()
}

#[derive(Default)]
struct Bounded {
    text: String,
    cut: bool,
}

impl Bounded {
    fn finish(mut self) -> String {
        if self.cut {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = MAX_BYTES - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let whole = (0..=room).rev().find(|&end| more.is_char_boundary(end)).unwrap_or(0);
        self.text.push_str(&more[..whole]);
        self.cut = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages() {
        assert_eq!(demangle("_ZN4core3ptr13drop_in_place17h0123456789abcdefE"), "core::ptr::drop_in_place");
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(
            demangle("_ZNSt6vectorIiSaIiEE9push_backERKi"),
            "std::vector<int, std::allocator<int> >::push_back(int const&)"
        );
        assert_eq!(demangle("do_syscall_64"), "do_syscall_64");
        assert_eq!(demangle("_Znot mangled"), "_Znot mangled");
        assert_eq!(demangle(""), "");
    }

    #[test]
    fn hostile_names_stay_small() {
        let long = "é".repeat(100_000);
        assert!(demangle(&long).len() <= MAX_BYTES + 4);
        // Each back reference doubles what the name stands for.
        let doubling = format!("_Z1fI{}", (0..60).fold(String::from("i"), |name, _| format!("St4pairI{name}S_E")));
        assert!(demangle(&doubling).len() <= MAX_MANGLED);
        let deep = format!("_Z{}i", "P".repeat(10_000));
        assert!(demangle(&deep).len() <= MAX_MANGLED);
        let nested = format!("_ZN{}E", "1a".repeat(5_000));
        assert!(demangle(&nested).len() <= MAX_BYTES + 4);
        assert_eq!(demangle("\u{1b}[31mred"), "\u{1b}[31mred", "escaping is the screen's job");
    }
}
