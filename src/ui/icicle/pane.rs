//! The icicle as a pane: commands, search, export, mouse.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Icicle, draw, parts};
use crate::model::{Model, TreeLens, TreeNode};
use crate::tick::ProcessKey;
use crate::ui::{Action, Answer, Choices, Command, Context, Outcome, Pane, Query, Theme, Wants, format};

/// Rows that one turn of the wheel scrolls.
const WHEEL_ROWS: isize = 3;

/// Frames of a fold that are offered at once.
const OFFERED: usize = 500;

/// An icicle of a process, or of the whole machine.
pub struct IciclePane {
    icicle: Icicle,
    /// Frames of a fold that were offered to choose from.
    offered: Vec<u64>,
}

impl IciclePane {
    /// Of a process, or with `None` of all.
    pub fn new(process: Option<ProcessKey>) -> Self {
        IciclePane { icicle: Icicle::new(process), offered: Vec::new() }
    }

    fn search_text(&self) -> String {
        self.icicle.search().map(|(pattern, _)| pattern.text().to_owned()).unwrap_or_default()
    }

    /// Zooms into a frame; of a fold, lets one of its frames be chosen.
    fn enter(&mut self) -> Outcome {
        let folded = self.icicle.folded();
        if folded.is_empty() {
            self.icicle.command(Command::Enter);
            return Outcome::Done;
        }
        let nodes = &self.icicle.tree().nodes;
        let shown = || folded.iter().take(OFFERED).filter_map(|&at| nodes.get(at as usize));
        let item = |node: &TreeNode| {
            let share = format::percent(self.icicle.share(node.total_weight));
            format!("{share:>5} %  {}", format::fit(&node.name, 60))
        };
        let title = match folded.len() {
            count @ 0..=OFFERED => format!("{count} small frames: zoom into"),
            count => format!("{} small frames, the {OFFERED} largest: zoom into", format::grouped(count as u64)),
        };
        let choices = Choices { command: Command::Enter, title, items: shown().map(item).collect(), at: 0 };
        self.offered = shown().map(|node| node.id).collect();
        Outcome::Pick(choices)
    }

    fn export(&self, model: &Model) -> Outcome {
        let query = *self.icicle.query();
        let name = match query.process.and_then(|key| model.process(key)) {
            Some(process) => format!("{}-{}", file_part(&process.facts.comm), process.key.tgid),
            None => "machine".into(),
        };
        let lens = match query.lens {
            TreeLens::OnCpu => "on-cpu",
            TreeLens::Blocked => "blocked",
            TreeLens::All => "wall",
        };
        Outcome::Act(Action::ExportFolded { query, file: format!("sberf-{name}-{lens}.folded") })
    }
}

/// A name as part of a file name: letters, digits, dashes.
fn file_part(name: &str) -> String {
    let part: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    let part = part.trim_matches('-');
    if part.is_empty() { "process".into() } else { part.into() }
}

impl Pane for IciclePane {
    fn context(&self) -> Context {
        Context::Icicle
    }

    fn title(&self, _model: &Model) -> String {
        "icicle".into()
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        match command {
            Command::Search => return Outcome::Ask(Query::Search, self.search_text()),
            Command::Export => return self.export(model),
            Command::Enter => return self.enter(),
            Command::Back if self.icicle.is_zoomed() => {
                self.icicle.command(Command::Unzoom);
            }
            Command::Back if self.icicle.search().is_some() => self.icicle.set_search(""),
            command if self.icicle.command(command) => {}
            _ => return Outcome::Ignored,
        }
        self.icicle.refresh(model);
        Outcome::Done
    }

    fn query(&mut self, _query: Query, text: &str, _model: &Model) -> Answer {
        self.icicle.set_search(text);
        let note = match self.icicle.search() {
            Some((_, hits)) => {
                format!(
                    "{} frames, {} %",
                    format::grouped(hits.frames as u64),
                    format::percent(self.icicle.share(hits.weight))
                )
            }
            None => String::new(),
        };
        Answer { note, bad: false }
    }

    fn picked(&mut self, _command: Command, index: usize, _model: &Model) {
        let chosen = self.offered.get(index).and_then(|&id| self.icicle.tree().find(id));
        if let Some(node) = chosen {
            self.icicle.zoom_into(node);
        }
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, _model: &Model) -> Outcome {
        let (_, rows, _) = parts(area);
        match mouse.kind {
            MouseEventKind::ScrollUp => self.icicle.scroll_by(-WHEEL_ROWS),
            MouseEventKind::ScrollDown => self.icicle.scroll_by(WHEEL_ROWS),
            MouseEventKind::Down(MouseButton::Left) if rows.contains((mouse.column, mouse.row).into()) => {
                if self.icicle.click(mouse.row - rows.y, mouse.column - rows.x) {
                    return self.enter();
                }
            }
            MouseEventKind::Down(MouseButton::Right) => {
                self.icicle.command(Command::Unzoom);
            }
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, _hold: bool) {
        self.icicle.refresh(model);
    }

    fn layout(&mut self, area: Rect, _model: &Model) {
        let (_, rows, _) = parts(area);
        self.icicle.resize(rows.width, rows.height);
    }

    fn wants(&self) -> Wants {
        Wants { visible: Vec::new(), focus: self.icicle.query().process }
    }

    fn render(&self, _model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        draw(&self.icicle, theme, area, buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_harmless() {
        assert_eq!(file_part("../../etc/pass wd"), "etc-pass-wd");
        assert_eq!(file_part("\u{1b}[31m"), "31m");
        assert_eq!(file_part("///"), "process");
        assert_eq!(file_part(&"x".repeat(500)).len(), 32);
    }
}
