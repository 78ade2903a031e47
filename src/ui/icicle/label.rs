//! What stands in a frame: as much of its name as says something, and a mark of its kind.

use crate::tick::FrameKind;
use crate::ui::format;

/// The mark of a kind beside its colour, as in folded files but shorter.
pub fn suffix(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::User | FrameKind::Note => "",
        FrameKind::Kernel => "_k",
        FrameKind::Jit => "_j",
        FrameKind::Inlined => "_i",
    }
}

/// The word for a kind.
pub fn word(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::User => "user",
        FrameKind::Kernel => "kernel",
        FrameKind::Jit => "JIT",
        FrameKind::Inlined => "inlined",
        FrameKind::Note => "note",
    }
}

/// A name on `width` cells: whole if it fits, else without template arguments, else without leading namespaces, else
/// cut. The mark of the kind, and `?` for a guess, stay if at least three cells of the name do.
pub fn frame(name: &str, kind: FrameKind, guessed: bool, width: usize) -> String {
    let mark = format!("{}{}", if guessed { "?" } else { "" }, suffix(kind));
    if width < 3 && (name.len() > width * 4 || format::width(&format::clean(name)) > width) {
        return String::new();
    }
    if width < mark.len() + 3 {
        return format::fit(name, width);
    }
    format!("{}{mark}", short(name, width - mark.len()))
}

/// The fold of that many frames on `width` cells: `[small +7]`, `+7`, nothing.
pub fn fold(frames: u32, width: usize) -> String {
    let texts = [format!("[small +{frames}]"), format!("+{frames}"), "+".to_owned()];
    texts.into_iter().find(|text| text.len() <= width).unwrap_or_default()
}

fn short(name: &str, width: usize) -> String {
    // Longer than this, and only the front is looked at: a name may be kilobytes long.
    let fits = |text: &str| text.len() <= width * 4 && format::width(&format::clean(text)) <= width;
    if fits(name) || name.len() > 4096 {
        return format::fit(name, width);
    }
    let plain = brief(name);
    let mut tail = plain.as_str();
    while !fits(tail) {
        match tail.find("::") {
            Some(at) if at + 2 < tail.len() => tail = &tail[at + 2..],
            _ => break,
        }
    }
    format::fit(tail, width)
}

/// A name of Rust or C++ without types and arguments: `<Vec<T> as Drop>::drop` is `Vec::drop`, `int* find<int>(int*)
/// const` is `find`. Other names stay as they are.
pub fn brief(name: &str) -> String {
    if let Some((function, place)) = name.rsplit_once(' ')
        && place.rsplit_once(':').is_some_and(|(_, line)| !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()))
    {
        return format!("{} {place}", brief(function));
    }
    if !name.contains(['<', '(']) {
        return name.to_owned();
    }
    let plain = match impl_of(name) {
        Some((of, rest)) => format!("{}{}", brief(of), without_arguments(rest)),
        None => without_arguments(name),
    };
    let plain = without_type(plain.trim().trim_matches(':'));
    if plain.contains(char::is_alphanumeric) { plain.to_owned() } else { name.to_owned() }
}

/// `<A as B>::c` is of `A`, and `::c` follows.
fn impl_of(name: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    let mut before = ' ';
    for (at, c) in name.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let inner = name.get(1..at)?;
            // The trait may have arguments, too, and so may the type.
            let mut of = top_level(inner, " as ").map_or(inner, |as_at| &inner[..as_at]);
            while let Some(plainer) = ["&", "mut ", "*const ", "*mut ", "dyn "].iter().find_map(|p| of.strip_prefix(p))
            {
                of = plainer;
            }
            let of = if of.starts_with("fn(") { "fn" } else { of };
            return name.get(at + 1..).filter(|rest| rest.starts_with("::") && !of.is_empty()).map(|rest| (of, rest));
        }
        before = c;
    }
    None
}

/// Where a word stands that is within no brackets.
fn top_level(text: &str, word: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 && text[at..].starts_with(word) => return Some(at),
            _ => {}
        }
    }
    None
}

/// What may follow `operator` and look like brackets, longest first.
const OPERATORS: [&str; 14] = ["<<=", ">>=", "<=>", "->*", "()", "<<", ">>", "<=", ">=", "->", "<", ">", "[]", "\"\""];

/// Without what stands between angle brackets and parentheses: `Vec<T>::push(T)` is `Vec::push`.
fn without_arguments(name: &str) -> String {
    let mut depth = 0usize;
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if depth == 0 {
            if let Some(behind) = rest.strip_prefix("operator")
                && let Some(operator) = OPERATORS.iter().find(|operator| behind.starts_with(**operator))
            {
                plain.push_str("operator");
                plain.push_str(operator);
                rest = &behind[operator.len()..];
                continue;
            }
            if let Some(behind) = rest.strip_prefix("(anonymous namespace)") {
                plain.push_str("(anonymous namespace)");
                rest = behind;
                continue;
            }
        }
        let arrow = rest.starts_with("->");
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' if depth > 0 => depth -= 1,
            // A part that was nothing but arguments, as in `imp::<impl A for B>::fmt`.
            ':' if depth == 0 && plain.ends_with("::") => {}
            c if depth == 0 => plain.push(c),
            _ => {}
        }
        rest = &rest[if arrow { 2 } else { c.len_utf8() }..];
    }
    plain
}

/// Without the type that it returns, and what is said of the object: `int* S::find const` is `S::find`.
fn without_type(plain: &str) -> &str {
    let mut plain = plain;
    while let Some(shorter) =
        [" const", " volatile", " &", "&", " noexcept"].iter().find_map(|end| plain.strip_suffix(end))
    {
        plain = shorter.trim_end();
    }
    let plain = plain.split(" [clone").next().unwrap_or(plain).trim_end();
    match plain.rfind(' ') {
        // `operator new`, `operator bool`; and `(anonymous namespace)` has a blank of its own.
        Some(at) if !plain[..at].ends_with("operator") && !plain[at..].contains(')') => &plain[at + 1..],
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_what_tells() {
        let name = "std::vec::Vec<alloc::string::String>::push(alloc::string::String)";
        let at = |width| frame(name, FrameKind::User, false, width);
        assert_eq!(at(80), name);
        assert_eq!(at(20), "std::vec::Vec::push");
        assert_eq!(at(12), "Vec::push");
        assert_eq!(at(4), "push");
        assert_eq!(at(3), "pu…");
        assert_eq!(at(2), "", "one letter says nothing");
        assert_eq!(at(0), "");
    }

    #[test]
    fn brief_names_of_rust_and_cpp() {
        for (whole, short) in [
            ("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec::push"),
            ("<alloc::vec::Vec<T> as core::ops::Drop>::drop", "alloc::vec::Vec::drop"),
            ("<core::iter::Map<I, F> as Iterator<Item = X>>::next::<u8>", "core::iter::Map::next"),
            ("<&mut A as core::fmt::Write>::write_str", "A::write_str"),
            ("<alloc::string::String>::push", "alloc::string::String::push"),
            ("core::fmt::num::imp::<impl core::fmt::Display for u32>::fmt", "core::fmt::num::imp::fmt"),
            ("std::rt::lang_start::{{closure}}", "std::rt::lang_start::{{closure}}"),
            ("<fn() -> T as Call>::call(x)", "fn::call"),
            ("std::vector<int, std::allocator<int> >::push_back(int const&)", "std::vector::push_back"),
            ("void std::sort<int*>(int*, int*)", "std::sort"),
            ("std::map<int, int>::find(int) const", "std::map::find"),
            ("(anonymous namespace)::Pool::run(int)", "(anonymous namespace)::Pool::run"),
            ("Pool::operator()(int) const", "Pool::operator()"),
            ("std::ostream& std::operator<< <char>(std::ostream&, char)", "std::operator<<"),
            ("A::operator->() const", "A::operator->"),
            ("operator new(unsigned long)", "operator new"),
            ("S::operator bool() const", "S::operator bool"),
            ("sort(int) [clone .part.0]", "sort"),
            ("tuplesort(int*) sort.c:2214", "tuplesort sort.c:2214"),
            ("tuplesort sort.c:2214", "tuplesort sort.c:2214"),
            ("lib x.so:fn@0x1200", "lib x.so:fn@0x1200"),
            ("do_syscall_64", "do_syscall_64"),
            ("<>>><<(()))", "<>>><<(()))"),
            ("<", "<"),
            ("", ""),
        ] {
            assert_eq!(brief(whole), short, "{whole}");
        }
    }

    #[test]
    fn kinds_keep_their_mark() {
        assert_eq!(frame("schedule", FrameKind::Kernel, false, 10), "schedule_k");
        assert_eq!(frame("schedule", FrameKind::Kernel, false, 8), "sched…_k");
        assert_eq!(frame("schedule", FrameKind::Kernel, false, 4), "sch…");
        assert_eq!(frame("maybe", FrameKind::User, true, 10), "maybe?");
        assert_eq!(frame("maybe", FrameKind::User, true, 5), "may…?");
    }

    #[test]
    fn odd_names_survive() {
        assert_eq!(frame("<T as X>", FrameKind::User, false, 4), "<T …");
        assert_eq!(frame("operator>>", FrameKind::User, false, 9), "operator…");
        assert_eq!(frame("((((((", FrameKind::User, false, 3), "((…");
        assert_eq!(frame("a::b::", FrameKind::User, false, 3), "b::");
        assert_eq!(frame("\u{1b}[31mred", FrameKind::User, false, 6), "^[[31…");
        assert_eq!(format::width(&frame(&"日本".repeat(2000), FrameKind::Jit, false, 9)), 9);
    }

    #[test]
    fn folds() {
        assert_eq!(fold(7, 10), "[small +7]");
        assert_eq!(fold(7, 9), "+7");
        assert_eq!(fold(7, 1), "+");
        assert_eq!(fold(7, 0), "");
    }
}
