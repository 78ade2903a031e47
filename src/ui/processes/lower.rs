//! Below the table, on tall screens: run-queue latency of all threads over time, and what runs on the CPUs, by stack.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::{Model, Window};
use crate::tick::Hist;
use crate::ui::heat::{self, Grid, Range};
use crate::ui::icicle::{self, Icicle};
use crate::ui::{Theme, draw, format};

/// Rows of the table that come before any of this.
const TABLE_FIRST: u16 = 24;
/// Most of what stacks are taken of.
const PAST: Duration = Duration::from_secs(10);
/// Cells of the axis.
const AXIS: u16 = 7;

/// How many lines there are for it on a pane of that height; 0: none.
pub fn height(pane: u16) -> u16 {
    match pane.saturating_sub(TABLE_FIRST) {
        0..=7 => 0,
        spare => spare.min(8 + (spare - 8) / 2).min(20),
    }
}

/// What it remembers from tick to tick.
pub struct Lower {
    range: Option<Range>,
    icicle: Icicle,
    size: (u16, u16),
}

impl Default for Lower {
    fn default() -> Self {
        Lower { range: None, icicle: Icicle::new(None), size: (0, 0) }
    }
}

/// The heat map, and the icicle to the right of it.
fn halves(area: Rect) -> (Rect, Rect) {
    let left = area.width / 2;
    let (x, width) = (area.x + left + 1, area.width.saturating_sub(left + 1));
    (Rect { width: left, ..area }, Rect { x, width, ..area })
}

impl Lower {
    /// How much of the past its stacks are of.
    pub fn window(&self) -> Window {
        Window::Last(PAST)
    }

    /// New data: the axis grows if it has to, and the tree is made anew if it shows.
    pub fn tick(&mut self, model: &Model) {
        if let Some(tick) = model.history().back() {
            let fresh = Range::of(tick.runq.counts.iter().map(|&(bucket, _)| bucket));
            self.range = match self.range {
                Some(range) => Some(range.with(fresh)),
                None => Range::of(model.history().iter().flat_map(|tick| tick.runq.counts.iter().map(|&(at, _)| at))),
            };
        }
        self.refresh(model);
    }

    /// Its place on the screen.
    pub fn layout(&mut self, area: Rect, model: &Model) {
        let right = icicle::parts(halves(below_rule(area)).1).1;
        let appeared = self.size.1 == 0 && right.height > 0;
        if self.size != (right.width, right.height) {
            self.size = (right.width, right.height);
            self.icicle.resize(right.width, right.height);
        }
        if appeared {
            self.refresh(model);
        }
    }

    /// The tree is only made where it shows.
    fn refresh(&mut self, model: &Model) {
        if self.size.1 > 0 {
            self.icicle.refresh(model);
        }
    }

    /// Draws it.
    pub fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        if area.height < 4 || area.width < 40 {
            return;
        }
        draw::rule(buf, theme, area);
        let (left, right) = halves(below_rule(area));
        self.render_heat(model, theme, left, buf);
        for y in right.top()..right.bottom() {
            draw::put(buf, right.x.saturating_sub(1), y, "│", 1, theme.border());
        }
        icicle::draw(&self.icicle, theme, right, buf);
    }

    fn render_heat(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let title = " run-queue latency, all threads, each tick a column (log)";
        draw::put(buf, area.x, area.y, title, area.width, theme.header());
        let Some(range) = self.range else {
            draw::put(buf, area.x + 1, area.y + 1, "nobody waited for a CPU", area.width, theme.dim());
            return;
        };
        let rows = usize::from(area.height) - 1;
        let columns = usize::from(area.width.saturating_sub(AXIS + 2));
        let ticks: Vec<&Hist> = model.history().iter().rev().take(columns).map(|tick| &tick.runq).collect();
        let grid = Grid::new(ticks.iter().rev().copied(), range, rows, columns);
        for row in 0..grid.rows() {
            let y = area.y + 1 + row as u16;
            let (low, _) = range.band(grid.rows() - 1 - row, grid.rows());
            let label = format::right(&format::duration(low), usize::from(AXIS) - 1);
            let x = draw::put(buf, area.x, y, &label, AXIS, theme.dim());
            let x = draw::put(buf, x, y, " ┤", 2, theme.border());
            for column in 0..columns {
                let (glyph, style) = level(grid.count(row, column), grid.max, theme);
                if glyph != ' ' {
                    buf[(x + column as u16, y)].set_char(glyph).set_style(style);
                }
            }
        }
    }
}

fn below_rule(area: Rect) -> Rect {
    Rect { y: area.y + area.height.min(1), height: area.height.saturating_sub(1), ..area }
}

const STEPS: usize = 5;

fn level(count: u64, max: u64, theme: &Theme) -> (char, ratatui::style::Style) {
    theme.shade(heat::shade(count, max, STEPS) as f64 / STEPS as f64)
}
