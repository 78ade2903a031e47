//! Shares over time as stacked columns: one column per tick, the newest at the right end.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::histogram::GUTTER;
use super::theme::Depth;
use super::{Theme, draw, format};
use crate::tick::State;

/// One tick: amounts by state, from below. 1 is one CPU, one thread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// CLOCK_MONOTONIC ns.
    pub end_ns: u64,
    /// Length of the tick, ns.
    pub len_ns: u64,
    /// What is stacked.
    pub parts: Vec<(State, f64)>,
}

impl Column {
    fn sum(&self) -> f64 {
        self.parts.iter().map(|(_, amount)| amount).sum()
    }

    /// Which state lies at a height.
    fn at(&self, height: f64) -> Option<State> {
        let mut below = 0.0;
        self.parts.iter().find_map(|&(state, amount)| {
            below += amount;
            (height < below).then_some(state)
        })
    }
}

/// Draws a title with a legend, the columns with a scale left of them, and a line of time.
pub fn draw(title: &str, legend: &[(State, &str)], columns: &[Column], theme: &Theme, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(*buf.area());
    if area.height < 3 || area.width <= GUTTER {
        return;
    }
    head(title, legend, theme, draw::line(area, 0), buf);
    let body = Rect { x: area.x + GUTTER, y: area.y + 1, width: area.width - GUTTER, height: area.height - 2 };
    let shown = &columns[columns.len().saturating_sub(body.width.into())..];
    let top = shown.iter().map(Column::sum).fold(1.0, f64::max).ceil();
    scale(top, theme, Rect { width: GUTTER, height: body.height, y: body.y, ..area }, buf);
    for (back, column) in shown.iter().rev().enumerate() {
        let x = body.right() - 1 - back as u16;
        for row in 0..body.height {
            cell(column, top, body.height, row, theme, (x, body.y + row), buf);
        }
    }
    times(shown, theme, Rect { y: body.bottom(), height: 1, ..body }, buf);
}

fn head(title: &str, legend: &[(State, &str)], theme: &Theme, line: Rect, buf: &mut Buffer) {
    let mut x = draw::put(buf, line.x + 2, line.y, title, line.width.saturating_sub(2), theme.header()) + 3;
    for (state, name) in legend {
        x = draw::put(buf, x, line.y, theme.state_glyph(*state), line.right().saturating_sub(x), theme.state(*state));
        x = draw::put(buf, x + 1, line.y, name, line.right().saturating_sub(x + 1), theme.dim()) + 2;
    }
}

/// Whole numbers left of the columns, where they are at least two lines apart; else the highest.
fn scale(top: f64, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let all = top * 2.0 <= f64::from(area.height);
    for amount in 1..=(top as u32).min(999) {
        let below = (f64::from(amount) / top * f64::from(area.height)).round() as u16;
        if all || f64::from(amount) == top {
            let label = format::right(&amount.to_string(), usize::from(GUTTER) - 2) + " ┤";
            draw::put(buf, area.x, (area.y + area.height).saturating_sub(below), &label, GUTTER, theme.dim());
        }
    }
}

/// One character: the state at its middle, or at its foot as high as it reaches.
fn cell(column: &Column, top: f64, rows: u16, row: u16, theme: &Theme, at: (u16, u16), buf: &mut Buffer) {
    let unit = top / f64::from(rows);
    let foot = f64::from(rows - 1 - row) * unit;
    let filled = ((column.sum() - foot) / unit).clamp(0.0, 1.0);
    let Some(state) = column.at(foot + unit * filled / 2.0).filter(|_| filled > 0.0) else { return };
    let eighths = ((filled * 8.0).round() as usize).max(1);
    let flat = theme.ascii || theme.depth == Depth::None;
    let glyph = match eighths {
        // Without colours density tells states apart, at the price of the finer heights.
        4.. if flat => theme.state_glyph(state),
        8 => "█",
        eighths => theme.level(eighths),
    };
    draw::put(buf, at.0, at.1, glyph, 1, theme.state(state));
}

fn times(shown: &[Column], theme: &Theme, line: Rect, buf: &mut Buffer) {
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else { return };
    draw::put_right(buf, line, "now", theme.dim());
    let x = line.right() - shown.len() as u16;
    let text = format!("{} ago", format::age(last.end_ns.saturating_sub(first.end_ns.saturating_sub(first.len_ns))));
    let room = line.right().saturating_sub(x + 4);
    if format::width(&text) as u16 <= room {
        draw::put(buf, x, line.y, &text, room, theme.dim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{mono, text};

    fn column(user: f64, waiting: f64) -> Column {
        Column { end_ns: 0, len_ns: 0, parts: vec![(State::User, user), (State::Woken, waiting)] }
    }

    #[test]
    fn stacked_from_below() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 14, 6));
        let columns = [column(0.5, 0.0), column(1.0, 0.0), column(1.0, 1.0), column(0.25, 0.0)];
        draw("", &[], &columns, &mono(), buf.area, &mut buf);
        assert_eq!(text(&buf)[1..5], ["     2 ┤    ▒", "            ▒", "     1 ┤   ██", "          ████",]);
    }

    #[test]
    fn any_size() {
        for (width, height) in (0..20).flat_map(|width| (0..8).map(move |height| (width, height))) {
            let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
            draw(
                "x",
                &[(State::User, "user")],
                &[column(0.1, 99.0), column(f64::NAN, 0.0)],
                &mono(),
                buf.area,
                &mut buf,
            );
        }
    }
}
