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
/// cut. The mark of the kind stays if at least three cells of the name do.
pub fn frame(name: &str, kind: FrameKind, width: usize) -> String {
    let mark = suffix(kind);
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
    let plain = without_arguments(name);
    let mut tail = plain.as_str();
    while !fits(tail) {
        match tail.find("::") {
            Some(at) if at + 2 < tail.len() => tail = &tail[at + 2..],
            _ => break,
        }
    }
    format::fit(tail, width)
}

/// Without what stands between angle brackets and parentheses: `Vec<T>::push(T)` is `Vec::push`.
fn without_arguments(name: &str) -> String {
    let mut depth = 0usize;
    let mut plain = String::with_capacity(name.len());
    let mut before = ' ';
    for c in name.chars() {
        match c {
            '<' | '(' => depth += 1,
            // The arrow of `fn() -> T`, and what closes nothing, as in `operator>>`.
            '>' if before == '-' => {}
            '>' | ')' if depth > 0 => depth -= 1,
            c if depth == 0 => plain.push(c),
            _ => {}
        }
        before = c;
    }
    let plain = plain.trim().trim_start_matches("::").to_owned();
    if plain.is_empty() { name.to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_what_tells() {
        let name = "std::vec::Vec<alloc::string::String>::push(alloc::string::String)";
        let at = |width| frame(name, FrameKind::User, width);
        assert_eq!(at(80), name);
        assert_eq!(at(20), "std::vec::Vec::push");
        assert_eq!(at(12), "Vec::push");
        assert_eq!(at(4), "push");
        assert_eq!(at(3), "pu…");
        assert_eq!(at(2), "", "one letter says nothing");
        assert_eq!(at(0), "");
    }

    #[test]
    fn kinds_keep_their_mark() {
        assert_eq!(frame("schedule", FrameKind::Kernel, 10), "schedule_k");
        assert_eq!(frame("schedule", FrameKind::Kernel, 8), "sched…_k");
        assert_eq!(frame("schedule", FrameKind::Kernel, 4), "sch…");
    }

    #[test]
    fn odd_names_survive() {
        assert_eq!(frame("<T as X>", FrameKind::User, 4), "<T …");
        assert_eq!(frame("operator>>", FrameKind::User, 9), "operator…");
        assert_eq!(frame("((((((", FrameKind::User, 3), "((…");
        assert_eq!(frame("a::b::", FrameKind::User, 3), "b::");
        assert_eq!(frame("\u{1b}[31mred", FrameKind::User, 6), "^[[31…");
        assert_eq!(format::width(&frame(&"日本".repeat(2000), FrameKind::Jit, 9)), 9);
    }

    #[test]
    fn folds() {
        assert_eq!(fold(7, 10), "[small +7]");
        assert_eq!(fold(7, 9), "+7");
        assert_eq!(fold(7, 1), "+");
        assert_eq!(fold(7, 0), "");
    }
}
