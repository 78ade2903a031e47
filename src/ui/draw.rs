//! Small helpers to put text into cells. All of them clip to their area and never panic.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;
use ratatui::widgets::{Block, Clear, Widget};

use super::Theme;
use super::format::fit;

/// Puts cleaned text at a place, cut to `width` cells and to the buffer. Returns the column after it.
pub fn put(buf: &mut Buffer, x: u16, y: u16, text: &str, width: u16, style: Style) -> u16 {
    let area = *buf.area();
    if y < area.y || y >= area.bottom() || x < area.x || x >= area.right() || width == 0 {
        return x;
    }
    let width = width.min(area.right() - x);
    if text.chars().all(is_simple) {
        return put_simple(buf, x, y, text, width, style);
    }
    let text = fit(text, width.into());
    buf.set_stringn(x, y, text, width.into(), style).0
}

/// One cell each, whatever stands beside it: nearly all that is ever drawn.
fn is_simple(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{2500}'..='\u{259f}' | '…')
}

/// The same for such text, without asking of each letter how wide it is and what it combines with.
fn put_simple(buf: &mut Buffer, x: u16, y: u16, text: &str, width: u16, style: Style) -> u16 {
    let cut = text.chars().nth(width.into()).is_some();
    let shown = text.chars().take(usize::from(width) - usize::from(cut)).chain(cut.then_some('…'));
    let mut at = x;
    for c in shown {
        if let Some(cell) = buf.cell_mut((at, y)) {
            cell.set_char(c).set_style(style);
        }
        at += 1;
    }
    at
}

/// Puts pieces one after the other on the first line of `area`. Returns the column after them.
pub fn put_spans(buf: &mut Buffer, area: Rect, spans: &[Span<'_>]) -> u16 {
    let mut x = area.x;
    for span in spans {
        if area.height == 0 || x >= area.right() {
            break;
        }
        x = put(buf, x, area.y, &span.content, area.right() - x, span.style);
    }
    x
}

/// Puts text so that it ends at the right edge of `area`'s first line.
pub fn put_right(buf: &mut Buffer, area: Rect, text: &str, style: Style) {
    let text = fit(text, area.width.into());
    let width = super::format::width(&text) as u16;
    if area.height > 0 {
        put(buf, area.right().saturating_sub(width), area.y, &text, width, style);
    }
}

/// The line at index `at` of an area; empty when there is none.
pub fn line(area: Rect, at: u16) -> Rect {
    if at >= area.height {
        return Rect { height: 0, ..area };
    }
    Rect { y: area.y + at, height: 1, ..area }
}

/// A rectangle of that size in the middle of `area`, never larger than it.
pub fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

/// Clears `area`, frames it with a title and returns what is inside.
pub fn framed(buf: &mut Buffer, theme: &Theme, area: Rect, title: &str) -> Rect {
    let block =
        Block::bordered().border_style(theme.border()).title(Span::styled(format!(" {title} "), theme.header()));
    let inner = block.inner(area);
    Clear.render(area, buf);
    block.render(area, buf);
    inner
}

/// A thin horizontal line.
pub fn rule(buf: &mut Buffer, theme: &Theme, area: Rect) {
    if area.height > 0 {
        put(buf, area.x, area.y, &"─".repeat(area.width.into()), area.width, theme.border());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_text_is_put_as_any_other() {
        let texts =
            ["", "a", "sberf", " two  words ", "▏█▓▒░▌─│├┤", "12 345…", "…", "ends in ä", "^[[31m", "a\u{301}b"];
        for (text, width) in texts.iter().flat_map(|text| (0..12).map(move |width| (*text, width))) {
            let area = Rect::new(0, 0, 10, 1);
            let (mut ours, mut theirs) = (Buffer::empty(area), Buffer::empty(area));
            let style = Style::new().bold();
            let end = put(&mut ours, 2, 0, text, width, style);
            let room = width.min(8);
            let after = theirs.set_stringn(2, 0, fit(text, room.into()), room.into(), style).0;
            assert_eq!((end, ours), (after, theirs), "{text:?} in {width}");
        }
    }
}
