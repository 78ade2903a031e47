//! Place 1: every process, where its time went, sorted.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Command, Context, Outcome, Pane, Target, Theme, Wants, draw, format};
use crate::model::Model;
use crate::tick::ProcessKey;

/// The table of processes.
#[derive(Default)]
pub struct ProcessesPane {
    rows: Vec<ProcessKey>,
    at: usize,
    first: usize,
    height: usize,
    ticks: u64,
}

impl Pane for ProcessesPane {
    fn context(&self) -> Context {
        Context::Processes
    }

    fn title(&self, _model: &Model) -> String {
        "Processes".into()
    }

    fn command(&mut self, command: Command, _model: &Model) -> Outcome {
        match command {
            Command::Up => self.at = self.at.saturating_sub(1),
            Command::Down => self.at = (self.at + 1).min(self.rows.len().saturating_sub(1)),
            Command::Enter => {
                return self.rows.get(self.at).map_or(Outcome::Done, |&key| Outcome::Open(Target::Process(key)));
            }
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, hold: bool) {
        if model.ticks() == self.ticks || hold {
            return;
        }
        self.ticks = model.ticks();
        let mut rows: Vec<_> = model.processes().map(|process| (process.tick.ns.on_cpu(), process.key)).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        self.rows = rows.into_iter().map(|(_, key)| key).collect();
    }

    fn layout(&mut self, area: Rect, _model: &Model) {
        self.height = usize::from(area.height).saturating_sub(1);
        self.first = self.first.min(self.at).max((self.at + 1).saturating_sub(self.height));
    }

    fn wants(&self) -> Wants {
        Wants { visible: self.rows.iter().skip(self.first).take(self.height).copied().collect(), focus: None }
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        draw::put(buf, area.x, area.y, "     PID   CPU%  COMMAND", area.width, theme.header());
        let span = model.span().map_or(1, |span| span.len_ns().max(1));
        for (row, &key) in self.rows.iter().enumerate().skip(self.first).take(self.height) {
            let Some(process) = model.process(key) else { continue };
            let share = format::percent(process.tick.ns.on_cpu() as f64 / span as f64);
            let text = format!("{:>8} {share:>6}  {}", key.tgid, format::clean(&process.facts.comm));
            let style = if row == self.at { theme.selected() } else { theme.text() };
            draw::put(buf, area.x, area.y + 1 + (row - self.first) as u16, &text, area.width, style);
        }
    }
}
