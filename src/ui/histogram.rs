//! One latency histogram: a title with count and percentiles, bars, an axis.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::chart::{Column, Resolution, columns, counts_of, height};
use super::heat::Range;
use super::info::wrap;
use super::{Theme, draw, format};
use crate::tick::Hist;

/// Cells left of bars and heat maps, for the scale.
pub const GUTTER: u16 = 8;

/// What is drawn.
pub struct Histogram<'a> {
    /// Values, ns.
    pub hist: &'a Hist,
    /// What the axis covers.
    pub range: Range,
    /// Buckets to a column.
    pub resolution: Resolution,
    /// Look of the bars.
    pub style: Style,
    /// A bucket of the column under the cursor.
    pub selected: Option<u16>,
}

/// `name  n 12 345  p50 4.1µs  p90 …  p99 …  p99.9 …  max 19ms`; percentiles drop from the left where there is no room.
pub fn title<'a>(
    name: &'a str,
    hist: &Hist,
    note: &'a str,
    selected: bool,
    theme: &Theme,
    width: u16,
) -> Vec<Span<'a>> {
    let name_style = if selected { theme.accent() } else { theme.header() };
    let mark = if selected { "▸ " } else { "  " };
    let mut spans = vec![Span::styled(mark, name_style), Span::styled(format!("{name:<9}"), name_style)];
    spans.push(Span::styled(" n ", theme.dim()));
    spans.push(Span::styled(format::grouped(hist.count()), theme.text()));
    let text = |q: f64| hist.quantile(q).map_or_else(|| format::NONE.to_owned(), format::duration);
    let mut numbers = vec![("p50", text(0.5)), ("p90", text(0.9)), ("p99", text(0.99)), ("p99.9", text(0.999))];
    let max = if hist.is_empty() { format::NONE.into() } else { format::duration(hist.max) };
    numbers.push(("max", max));
    let used: usize = spans.iter().map(|span| format::width(&span.content)).sum();
    let mut room = usize::from(width).saturating_sub(used);
    let mut kept = Vec::new();
    // The right end of a distribution says most about trouble: it goes last.
    for (label, number) in numbers.into_iter().rev() {
        let cells = label.len() + format::width(&number) + 3;
        if cells > room {
            break;
        }
        room -= cells;
        kept.push((label, number));
    }
    for (label, number) in kept.into_iter().rev() {
        spans.push(Span::styled(format!("  {label} "), theme.dim()));
        spans.push(Span::styled(number, theme.text()));
    }
    if room >= format::width(note) + 2 {
        spans.push(Span::styled(format!("  {note}"), theme.dim()));
    }
    spans
}

/// As [`title`], of what is not measured here: that it is not, instead of numbers.
pub fn title_of_nothing<'a>(name: &'a str, note: &'a str, selected: bool, theme: &Theme) -> Vec<Span<'a>> {
    let name_style = if selected { theme.accent() } else { theme.header() };
    let mark = if selected { "▸ " } else { "  " };
    vec![
        Span::styled(mark, name_style),
        Span::styled(format!("{name:<9}"), name_style),
        Span::styled(" n ", theme.dim()),
        Span::styled(format::OFF, theme.warn()),
        Span::styled("  not measured", theme.text()),
        Span::styled(format!("  {note}"), theme.dim()),
    ]
}

/// Why it is not, in as many lines as there are.
pub fn put_reason(why: &str, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let width = area.width.saturating_sub(4);
    let lines = wrap(why, width.max(1).into());
    for (at, text) in lines.iter().map(|line| line.trim_end()).enumerate().take(area.height.into()) {
        let line = draw::line(area, at as u16);
        let is_cut = at + 1 == usize::from(area.height) && at + 1 < lines.len();
        let rest = if is_cut { " ? says all" } else { "" };
        // Of a line that is full the last word makes room.
        let room = usize::from(width).saturating_sub(rest.len());
        let text = if is_cut { format::fit(&format!("{text}…"), room) } else { text.to_owned() };
        draw::put(buf, line.x + 3, line.y, &format!("{text}{rest}"), width, theme.dim());
    }
}

impl Histogram<'_> {
    /// Columns on that many cells, and how many cells each is wide.
    pub fn columns(&self, cells: u16) -> (Vec<Column>, u16) {
        let room = cells.saturating_sub(GUTTER);
        let columns = columns(&counts_of(self.hist), self.range, self.resolution, room.into());
        let each = room.checked_div(columns.len() as u16).unwrap_or(0);
        (columns, each.clamp(u16::from(room > 0), 10))
    }

    /// The column of a cell of the line.
    pub fn column_at(&self, area: Rect, x: u16) -> Option<usize> {
        let (columns, each) = self.columns(area.width);
        let at = usize::from(x.checked_sub(area.x + GUTTER)?.checked_div(each)?);
        (at < columns.len()).then_some(at)
    }

    /// The column under the cursor.
    pub fn selected_column(&self, cells: u16) -> Option<(usize, Column)> {
        let (columns, _) = self.columns(cells);
        let at = self.range.band_of(self.selected?, columns.len());
        Some((at, *columns.get(at)?))
    }

    /// Draws bars, and below them the axis.
    pub fn draw(&self, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        if area.is_empty() {
            return;
        }
        let rows = if area.height > 1 { area.height - 1 } else { 1 };
        let (columns, each) = self.columns(area.width);
        let max = columns.iter().map(|column| column.count).max().unwrap_or(0);
        let selected = self.selected_column(area.width).map(|(at, _)| at);
        self.scale(max, rows, theme, area, buf);
        for (at, column) in columns.iter().enumerate() {
            let x = area.x + GUTTER + at as u16 * each;
            let width = if each > 2 { each - 1 } else { each };
            let place = Rect { x, width, height: rows, ..area };
            self.bar(height(column.count, max, rows.into()), place, selected == Some(at), theme, buf);
        }
        if area.height > 1 {
            let line = Rect { y: area.bottom() - 1, height: 1, ..area };
            axis(&columns, each, self.resolution, theme, line, buf);
        }
    }

    /// The largest count, left of the highest bar.
    fn scale(&self, max: u64, rows: u16, theme: &Theme, area: Rect, buf: &mut Buffer) {
        if max == 0 {
            return;
        }
        let text = format::right(&format::count(max), usize::from(GUTTER) - 2) + " ┤";
        draw::put(buf, area.x, area.y, &text, GUTTER.min(area.width), theme.dim());
        for y in 1..rows {
            draw::put(buf, area.x, area.y + y, "       │", GUTTER.min(area.width), theme.dim());
        }
    }

    fn bar(&self, eighths: usize, place: Rect, selected: bool, theme: &Theme, buf: &mut Buffer) {
        let style = if selected { self.style.add_modifier(Modifier::BOLD).patch(theme.selected()) } else { self.style };
        for row in 0..place.height {
            let below = usize::from(place.height - 1 - row) * 8;
            let filled = eighths.saturating_sub(below).min(8);
            if filled == 0 && !selected {
                continue;
            }
            for x in place.x..place.right() {
                draw::put(buf, x, place.y + row, theme.level(filled), 1, style);
            }
        }
    }
}

/// Lower bounds of columns below them, where they do not touch.
fn axis(columns: &[Column], each: u16, resolution: Resolution, theme: &Theme, line: Rect, buf: &mut Buffer) {
    let mut free = line.x;
    for (at, column) in columns.iter().enumerate() {
        let x = line.x + GUTTER + at as u16 * each;
        // In fine charts only whole powers of two are marked: they stay when the axis grows.
        let is_marked = resolution == Resolution::Powers || column.low.is_power_of_two() || at == 0;
        let text = format::duration(column.low);
        let width = format::width(&text) as u16;
        if is_marked && x >= free && x + width <= line.right() {
            draw::put(buf, x, line.y, &text, width, theme.dim());
            free = x + width + 2;
        }
    }
}

/// `4.1ms–4.6ms: 123 of 12 345 (1.0 %), 97.3 % are no longer`.
pub fn explain(columns: &[Column], at: usize) -> Option<String> {
    let column = columns.get(at)?;
    let total: u64 = columns.iter().map(|column| column.count).sum();
    let until: u64 = columns[..=at].iter().map(|column| column.count).sum();
    let share = |count: u64| format::percent(if total > 0 { count as f64 / total as f64 } else { 0.0 });
    Some(format!(
        "{} to {}: {} of {} ({} %)   {} % are no longer than that",
        format::duration(column.low),
        format::duration(column.high),
        format::grouped(column.count),
        format::grouped(total),
        share(column.count),
        share(until),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::theme::{Background, Depth};

    fn drawn(hist: &Hist, resolution: Resolution, width: u16, height: u16) -> Vec<String> {
        let range = Range::of(hist.counts.iter().map(|&(at, _)| at)).unwrap();
        let theme = Theme::new(Depth::None, false, Background::Dark);
        let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
        Histogram { hist, range, resolution, style: Style::new(), selected: None }.draw(&theme, buf.area, &mut buf);
        let line = |y| (0..width).map(|x| buf[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn bars_stand_over_their_bounds() {
        let hist = Hist::of([1000, 1100, 1100, 1100, 1100, 5000, 5000]);
        assert_eq!(
            drawn(&hist, Resolution::Powers, 48, 3),
            [
                "     4 ┤          █████████",
                "       │▄▄▄▄▄▄▄▄▄ █████████           █████████",
                "        512ns     1.0µs     2.0µs     4.1µs",
            ]
        );
    }

    #[test]
    fn fine_bars_tell_values_of_one_power_apart() {
        let hist = Hist::of([1024, 1024, 1500, 2000]);
        assert_eq!(drawn(&hist, Resolution::Fine, 16, 2), ["     2 ┤█  ▄   ▄", "        1.0µs"]);
    }

    #[test]
    fn titles_keep_the_right_end() {
        let hist = Hist::of(std::iter::repeat_n(4_100, 12_345).chain([19_000_000]));
        let theme = Theme::default();
        let text = |width| {
            title("run queue", &hist, "", false, &theme, width).iter().map(|s| s.content.clone()).collect::<String>()
        };
        assert_eq!(
            text(118).trim_end(),
            "  run queue n 12 346  p50 4.4µs  p90 4.4µs  p99 4.4µs  p99.9 4.4µs  max 19.0ms"
        );
        assert_eq!(text(79).trim_end(), text(118).trim_end(), "all of it on the smallest screen");
        assert_eq!(text(60).trim_end(), "  run queue n 12 346  p99 4.4µs  p99.9 4.4µs  max 19.0ms");
        assert!(title("x", &Hist::default(), "", true, &theme, 80).iter().any(|span| span.content == "–"));
    }

    #[test]
    fn a_column_in_words() {
        let columns = [Column { low: 4096, high: 4607, count: 1 }, Column { low: 4608, high: 5119, count: 3 }];
        assert_eq!(explain(&columns, 0).unwrap(), "4.1µs to 4.6µs: 1 of 4 (25.0 %)   25.0 % are no longer than that");
        assert_eq!(explain(&columns, 7), None);
    }

    #[test]
    fn any_size() {
        let hist = Hist::of([1, 1_000, 1_000_000_000_000]);
        for width in 0..30 {
            for height in 0..6 {
                drawn(&hist, Resolution::Fine, width, height);
                drawn(&hist, Resolution::Powers, width, height);
            }
        }
    }
}
