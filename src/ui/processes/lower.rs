//! Below the table, on tall screens: run-queue latency of all threads over time, and what runs on the CPUs, by stack.

use crossterm::event::MouseEvent;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::Model;
use crate::tick::Hist;
use crate::ui::heat::{self, Grid, Range};
use crate::ui::icicle::IciclePane;
use crate::ui::{Command, Outcome, Pane, Theme, draw, format};

/// Rows of the table that come before any of this.
const TABLE_FIRST: u16 = 24;
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
    icicle: IciclePane,
    shown: bool,
}

impl Default for Lower {
    fn default() -> Self {
        Lower { range: None, icicle: IciclePane::new(None), shown: false }
    }
}

/// The heat map, and the icicle to the right of it.
fn halves(area: Rect) -> (Rect, Rect) {
    let left = area.width / 2;
    let (x, width) = (area.x + left + 1, area.width.saturating_sub(left + 1));
    (Rect { width: left, ..area }, Rect { x, width, ..area })
}

impl Lower {
    /// A command of its icicle.
    pub fn command(&mut self, command: Command, model: &Model) -> Outcome {
        if command == Command::Lens && !self.shown {
            return Outcome::Say("the icicle below the table needs a taller screen; f opens it alone".into());
        }
        self.icicle.command(command, model)
    }

    /// Its icicle is drawn with idle waits, or without.
    pub fn show_idle(&mut self, idle: bool) {
        self.icicle.show_idle(idle);
    }

    /// A click or the wheel on its icicle.
    pub fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let icicle = halves(below_rule(area)).1;
        match icicle.contains((mouse.column, mouse.row).into()) {
            true => self.icicle.mouse(mouse, icicle, model),
            false => Outcome::Ignored,
        }
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
        // The tree is only made where it shows.
        if self.shown {
            self.icicle.tick(model, false);
        }
    }

    /// Its place on the screen.
    pub fn layout(&mut self, area: Rect, model: &Model) {
        let appeared = !std::mem::replace(&mut self.shown, area.height > 0) && self.shown;
        if appeared {
            self.icicle.tick(model, false);
        }
        if self.shown {
            self.icicle.layout(halves(below_rule(area)).1, model);
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
        self.icicle.render(model, theme, right, buf);
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
