//! What `y` hands to the clipboard: plain text of what is under the cursor, harmless wherever it is pasted.

use super::format;
use crate::model::is_idle_wait;
use crate::tick::{State, StateNs};

/// Terminals cut or refuse longer ones.
pub const LONGEST_BYTES: usize = 64 << 10;

/// A row of a table, and before it the heads of its columns; both separated by tabs. Cells without text are left out.
pub fn row<'a>(cells: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let cells: Vec<_> = cells.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    let heads = cells.iter().map(|(head, _)| format::clean(head)).collect::<Vec<_>>().join("\t");
    let texts = cells.iter().map(|(_, text)| format::clean(text)).collect::<Vec<_>>().join("\t");
    format!("{heads}\n{texts}")
}

/// A bar in words: `user 40% kernel 10% disk 50%`. Idle waits come last, as in the bar.
pub fn bar(ns: &StateNs, kernel_thread: bool) -> String {
    let total = ns.total();
    let of = |idle: bool| State::ALL.into_iter().filter(move |&state| is_idle_wait(state, kernel_thread) == idle);
    let shares = of(false).chain(of(true)).filter(|&state| ns[state] > 0);
    let word = |state: State| format!("{} {}%", state.name(), format::percent(ns[state] as f64 / total as f64));
    shares.map(word).collect::<Vec<_>>().join(" ")
}

/// At most [`LONGEST_BYTES`] of a text that may hold line ends and tabs, but nothing else that moves a cursor; and
/// whether that is all of it.
pub fn bounded(text: &str) -> (String, bool) {
    let mut out = String::with_capacity(text.len().min(LONGEST_BYTES));
    for c in text.chars() {
        let c = if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
        if out.len() + c.len_utf8() > LONGEST_BYTES {
            return (out, false);
        }
        out.push(c);
    }
    (out, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_below_its_heads_and_is_one_line() {
        let cells = [("PID", "7".into()), ("RSS", String::new()), ("COMMAND", "a\tb\n\x1b[31mc".to_owned())];
        assert_eq!(row(cells), "PID\tCOMMAND\n7\ta^Ib^J^[[31mc");
    }

    #[test]
    fn a_bar_in_words_keeps_the_order_of_the_bar() {
        let mut ns = StateNs::default();
        (ns[State::Poll], ns[State::User], ns[State::Disk]) = (250, 500, 250);
        assert_eq!(bar(&ns, false), "user 50.0% disk 25.0% poll 25.0%");
        assert_eq!(bar(&StateNs::default(), false), "");
    }

    #[test]
    fn too_much_is_cut_between_characters_and_controls_do_not_pass() {
        let (text, whole) = bounded("a\x1b]52;c;x\x07\tb\n\u{9b}");
        assert_eq!((text.as_str(), whole), ("a\u{fffd}]52;c;x\u{fffd}\tb\n\u{fffd}", true));
        let (text, whole) = bounded(&"日".repeat(LONGEST_BYTES));
        assert!(!whole && text.len() <= LONGEST_BYTES && text.chars().all(|c| c == '日'));
    }
}
