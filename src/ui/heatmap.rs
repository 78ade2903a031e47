//! Draws a heat map of latency over time: slow is up, now is right, dense is many.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::heat::{Grid, Range};
use super::histogram::GUTTER;
use super::{Theme, draw, format};
use crate::tick::Hist;

/// One column of time.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// CLOCK_MONOTONIC ns of its end.
    pub end_ns: u64,
    /// Its length, ns.
    pub len_ns: u64,
    /// What was counted in it.
    pub hist: Hist,
}

/// Cells of a map within an area: gutter to the left, the line of time below.
fn body(area: Rect) -> Rect {
    let gutter = GUTTER.min(area.width);
    let below = u16::from(area.height > 2);
    Rect { x: area.x + gutter, width: area.width - gutter, height: area.height - below, ..area }
}

/// Draws it; `slices` oldest first.
pub fn draw(slices: &[Slice], range: Range, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(*buf.area());
    let body = body(area);
    if body.is_empty() {
        return;
    }
    let grid = grid(slices, range, body);
    for row in 0..grid.rows() {
        let y = body.y + row as u16;
        label(range, &grid, row, theme, Rect { y, height: 1, ..area }, buf);
        for column in 0..usize::from(body.width) {
            let count = grid.count(row, column);
            if count > 0 {
                let (glyph, style) = theme.shade(level(count, grid.max));
                draw::put(buf, body.x + column as u16, y, glyph.encode_utf8(&mut [0; 4]), 1, style);
            }
        }
    }
    let line = Rect { y: area.y + grid.rows() as u16, height: 1, ..area };
    if line.y < area.bottom() {
        times(slices, body, theme, line, buf);
    }
}

fn grid(slices: &[Slice], range: Range, body: Rect) -> Grid {
    Grid::new(slices.iter().map(|slice| &slice.hist), range, body.height.into(), body.width.into())
}

/// By the logarithm: counts of latencies span magnitudes.
fn level(count: u64, max: u64) -> f64 {
    ((count as f64).ln_1p() / (max as f64).ln_1p()).clamp(0.01, 1.0)
}

/// Lower bounds left of every third row, the lowest and the highest.
fn label(range: Range, grid: &Grid, row: usize, theme: &Theme, line: Rect, buf: &mut Buffer) {
    let from_below = grid.rows() - 1 - row;
    if !from_below.is_multiple_of(3) && row != 0 {
        return;
    }
    let (low, _) = range.band(from_below, grid.rows());
    let text = format::right(&format::duration(low), usize::from(GUTTER) - 2) + " ┤";
    draw::put(buf, line.x, line.y, &text, GUTTER.min(line.width), theme.dim());
}

fn times(slices: &[Slice], body: Rect, theme: &Theme, line: Rect, buf: &mut Buffer) {
    let Some(now) = slices.last() else { return };
    draw::put_right(buf, line, "now", theme.dim());
    let shown = slices.len().min(body.width.into());
    let first = &slices[slices.len() - shown];
    let x = body.right() - shown as u16;
    let age = now.end_ns.saturating_sub(first.end_ns.saturating_sub(first.len_ns));
    let text = format!("{} ago", format::age(age));
    let room = line.right().saturating_sub(x + 4);
    if (format::width(&text) as u16) < room {
        draw::put(buf, x, line.y, &text, room, theme.dim());
    }
}

/// What is under a cell: `4s ago, 2.0ms to 4.1ms: 12`.
pub fn explain(slices: &[Slice], range: Range, area: Rect, x: u16, y: u16) -> Option<String> {
    let body = body(area);
    if !body.contains((x, y).into()) {
        return None;
    }
    let grid = grid(slices, range, body);
    let row = usize::from(y - body.y);
    let pad = usize::from(body.width).saturating_sub(slices.len());
    let skip = slices.len().saturating_sub(body.width.into());
    let slice = slices.get((usize::from(x - body.x) + skip).checked_sub(pad)?)?;
    let (low, high) = range.band(grid.rows().checked_sub(row + 1)?, grid.rows());
    let ago = slices.last()?.end_ns.saturating_sub(slice.end_ns);
    let count = grid.count(row, usize::from(x - body.x));
    let when = if ago == 0 { "now".into() } else { format!("{} ago", format::duration(ago)) };
    let (low, high, count) = (format::duration(low), format::duration(high), format::grouped(count));
    Some(format!("{when}, {low} to {high}: {count}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::bucket_of;
    use crate::ui::theme::{Background, Depth};

    fn slices(values: &[&[u64]]) -> Vec<Slice> {
        let slice = |(at, values): (usize, &&[u64])| Slice {
            end_ns: (at as u64 + 1) * 1_000_000_000,
            len_ns: 1_000_000_000,
            hist: Hist::of(values.iter().copied()),
        };
        values.iter().enumerate().map(slice).collect()
    }

    fn range() -> Range {
        Range::of([bucket_of(1024), bucket_of(4000)]).unwrap()
    }

    #[test]
    fn drawn_with_scale_and_time() {
        let slices = slices(&[&[1024; 30], &[1024, 3000], &[], &[3000; 100]]);
        let theme = Theme::new(Depth::None, false, Background::Dark);
        let mut buf = Buffer::empty(Rect::new(0, 0, 20, 3));
        draw(&slices, range(), &theme, buf.area, &mut buf);
        let line = |y| (0..20).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!(
            [line(0), line(1), line(2)],
            [" 2.0µs ┤         · █", " 1.0µs ┤        ▓·  ", "                 now",]
        );
    }

    #[test]
    fn a_cell_in_words() {
        let slices = slices(&[&[1024; 30], &[1024, 3000]]);
        let area = Rect::new(0, 0, 20, 3);
        assert_eq!(explain(&slices, range(), area, 18, 1).unwrap(), "1.0s ago, 1.0µs to 2.0µs: 30");
        assert_eq!(explain(&slices, range(), area, 19, 0).unwrap(), "now, 2.0µs to 4.1µs: 1");
        assert_eq!(explain(&slices, range(), area, 10, 0), None);
        assert_eq!(explain(&slices, range(), area, 3, 0), None);
    }

    #[test]
    fn any_size() {
        let slices = slices(&[&[1, 2, 3], &[1_000_000]]);
        let range = Range::of([0, bucket_of(1_000_000)]).unwrap();
        for (width, height) in (0..20).flat_map(|width| (0..9).map(move |height| (width, height))) {
            let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
            draw(&slices, range, &Theme::default(), buf.area, &mut buf);
        }
    }
}
