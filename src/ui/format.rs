//! Numbers and names as they stand in cells: at most three significant digits, SI letters (powers of 1000), units glued
//! on; text made harmless and cut to a width in cells.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Does not apply: "no waits, so no percentile".
pub const NONE: &str = "–";
/// A lens is off; help says why.
pub const OFF: &str = "?";

/// A duration in ns: `0`, `310ns`, `4.1µs`, `19.2ms`, `1.5s`, `2m03s`, `3h12m`, `9d04h`.
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s")];
    if ns == 0 {
        return "0".into();
    }
    for (at, (unit, name)) in UNITS.iter().enumerate() {
        let value = ns as f64 / *unit as f64;
        if value < 999.5 && at < 3 || value < 99.95 {
            return digits(value, at == 0) + name;
        }
    }
    age(ns)
}

/// A long duration in ns, in its two largest units: `7s`, `2m03s`, `3h12m`, `9d04h`.
pub fn age(ns: u64) -> String {
    let s = ns / 1_000_000_000;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// Bytes: `0`, `512B`, `4.1k`, `38.2M`, `412M`, `1.5G`. Letters are powers of 1000.
pub fn bytes(bytes: u64) -> String {
    if (1..1000).contains(&bytes) { format!("{bytes}B") } else { count(bytes) }
}

/// A count: `0`, `999`, `1.4k`, `38.2M`.
pub fn count(count: u64) -> String {
    scaled(count as f64, true)
}

/// So many per second: `0`, `0.3`, `12`, `3.1k`.
pub fn rate(per_s: f64) -> String {
    match per_s {
        x if !x.is_finite() || x <= 0.0 => "0".into(),
        x if x < 0.05 => "<0.1".into(),
        x => scaled(x, false),
    }
}

/// A share of 0…1 (or of CPUs: may exceed 1): `0`, `0.4`, `61`, `141`, without the sign. Less than can be shown but not
/// nothing is `<.1`.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        x if !x.is_finite() || x <= 0.0 => "0".into(),
        x if x < 0.05 => "<.1".into(),
        x => digits(x, false),
    }
}

/// A whole number in groups of three: `1 402`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 process`, `1 204 processes`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Time of day in UTC of a Unix time in ns: `14:03:22`.
pub fn clock(wall_ns: u64) -> String {
    let s = wall_ns / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

fn scaled(value: f64, whole: bool) -> String {
    let mut value = value;
    for (at, letter) in ["", "k", "M", "G", "T", "P"].iter().enumerate() {
        if value < 999.5 {
            return digits(value, whole && at == 0) + letter;
        }
        value /= 1000.0;
    }
    digits(value, false) + "E"
}

/// One decimal below 100, none from there on or when whole.
fn digits(value: f64, whole: bool) -> String {
    if whole || value >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text that cannot move the cursor, hide or reorder what stands beside it: control characters as `^[`, other invisible
/// ones (bidirectional marks, zero width, unassigned joiners) as `�`, and no more than three marks on one letter.
pub fn clean(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        match c {
            '\0'..='\x1f' => clean.extend(['^', (c as u8 ^ 0x40) as char]),
            '\x7f' => clean.push_str("^?"),
            c if is_hidden(c) => clean.push('�'),
            c if c.width() == Some(0) => {
                marks += 1;
                if marks <= 3 && !clean.is_empty() {
                    clean.push(c);
                }
                continue;
            }
            c => clean.push(c),
        }
        marks = 0;
    }
    Cow::Owned(clean)
}

/// Printable ASCII: one cell a byte.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// C1 controls, bidirectional controls, separators and what else has no shape of its own.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A name as part of a file name: letters, digits, dashes, 32 at most. `None` if nothing is left.
pub fn file_part(name: &str) -> Option<String> {
    let part: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    Some(part.trim_matches('-')).filter(|part| !part.is_empty()).map(String::from)
}

/// Width in cells.
pub fn width(text: &str) -> usize {
    if is_plain(text) { text.len() } else { text.width() }
}

/// The text cleaned and cut to at most `width` cells, ending in `…` if anything was cut. Reads no more of it than shows.
pub fn fit(text: &str, width: usize) -> String {
    if text.len() <= width && is_plain(text) {
        return text.to_owned();
    }
    let (head, more) = head_of(text, width);
    let clean = clean(head);
    if !more && clean.width() <= width {
        return clean.into_owned();
    }
    if width == 0 {
        return String::new();
    }
    let mut fitted = String::new();
    let mut used = 0;
    for grapheme in clean.graphemes(true) {
        let cells = grapheme.width();
        if used + cells > width - 1 {
            break;
        }
        used += cells;
        fitted.push_str(grapheme);
    }
    fitted.push('…');
    fitted
}

/// The end of a text cleaned, at most `width` cells of it with the `…` before it if anything was cut.
pub fn fit_end(text: &str, width: usize) -> String {
    let clean = clean(text);
    if clean.width() <= width {
        return clean.into_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let mut from = clean.len();
    let mut used = 0;
    for (at, grapheme) in clean.grapheme_indices(true).rev() {
        used += grapheme.width();
        if used > room {
            break;
        }
        from = at;
    }
    format!("…{}", &clean[from..])
}

/// So much of the front as can be needed for that many cells (marks add none), and whether there is more.
fn head_of(text: &str, width: usize) -> (&str, bool) {
    let limit = width.saturating_mul(4).saturating_add(16);
    match text.char_indices().nth(limit) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

/// [`fit`], then blanks before it up to that width.
pub fn right(text: &str, width: usize) -> String {
    let text = fit(text, width);
    let blanks = width.saturating_sub(text.width());
    format!("{:blanks$}{text}", "")
}

/// [`fit`], then blanks after it up to that width.
pub fn left(text: &str, width: usize) -> String {
    let text = fit(text, width);
    let blanks = width.saturating_sub(text.width());
    format!("{text}{:blanks$}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            (0, "0"),
            (7, "7ns"),
            (310, "310ns"),
            (4_130, "4.1µs"),
            (310_000, "310µs"),
            (999_499, "999µs"),
            (999_600, "1.0ms"),
            (4_130_000, "4.1ms"),
            (19_200_000, "19.2ms"),
            (130_000_000, "130ms"),
            (1_500_000_000, "1.5s"),
            (99_940_000_000, "99.9s"),
            (123_000_000_000, "2m03s"),
            (11_520_000_000_000, "3h12m"),
            (792_000_000_000_000, "9d04h"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text);
        }
        assert!(duration(u64::MAX).ends_with('h'));
    }

    #[test]
    fn amounts() {
        let cases = [(0, "0"), (512, "512B"), (4_130, "4.1k"), (38_249_000, "38.2M"), (412_000_000, "412M")];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(1_500_000_000), "1.5G");
        assert_eq!(count(999), "999");
        assert_eq!(count(999_960), "1.0M");
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(grouped(1402), "1 402");
        assert_eq!(grouped(12), "12");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }

    #[test]
    fn small_is_not_nothing() {
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(0.01), "<0.1");
        assert_eq!(rate(0.3), "0.3");
        assert_eq!(rate(3_100.0), "3.1k");
        assert_eq!(percent(0.0), "0");
        assert_eq!(percent(0.0001), "<.1");
        assert_eq!(percent(1.412), "141");
        assert_eq!(percent(0.227), "22.7");
        assert_eq!(percent(f64::NAN), "0");
    }

    #[test]
    fn hostile_text_is_shown_not_obeyed() {
        assert_eq!(clean("\x1b[31mred\x07\n"), "^[[31mred^G^J");
        assert_eq!(clean("a\u{202e}b\u{9b}c"), "a�b�c");
        assert_eq!(clean("plain"), "plain");
        let zalgo = format!("e{}", "\u{301}".repeat(1000));
        assert_eq!(clean(&zalgo).chars().count(), 4);
        assert_eq!(clean("\u{301}x"), "x", "no mark without a letter");
    }

    #[test]
    fn names_of_files_are_harmless() {
        assert_eq!(file_part("../../etc/pass wd").as_deref(), Some("etc-pass-wd"));
        assert_eq!(file_part("\u{1b}[31m").as_deref(), Some("31m"));
        assert_eq!(file_part("///"), None);
        assert_eq!(file_part(&"x".repeat(500)).map(|part| part.len()), Some(32));
    }

    #[test]
    fn cutting_counts_cells() {
        assert_eq!(fit("nginx", 5), "nginx");
        assert_eq!(fit("nginx", 4), "ngi…");
        assert_eq!(fit("nginx", 1), "…");
        assert_eq!(fit("nginx", 0), "");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        let long = "x".repeat(4096);
        assert_eq!(width(&fit(&long, 40)), 40);
        let marks = format!("a{}", "\u{301}".repeat(4096));
        assert!(width(&fit(&marks, 10)) <= 10);
    }

    #[test]
    fn columns_keep_their_width() {
        assert_eq!(right("7", 3), "  7");
        assert_eq!(left("7", 3), "7  ");
        assert_eq!(left("日本語", 4), "日… ");
    }
}
