//! The icicle as a pane: commands, search, export, mouse.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::explain::lens_at;
use super::{Icicle, Under, draw, parts};
use crate::model::{Model, TreeLens, TreeNode, folded};
use crate::tick::{Frame, FrameId, ProcessKey};
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
            Some(process) => {
                let name = format::file_part(&process.facts.comm).unwrap_or_else(|| "process".into());
                format!("{name}-{}", process.key.tgid)
            }
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
        self.icicle.look_behind(model);
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

    fn plain_frames(&mut self, model: &Model) -> Vec<(FrameId, Frame)> {
        self.icicle.plain_frames(model)
    }

    /// The line that a folded file has for the frame.
    fn copy(&self, _model: &Model) -> Option<String> {
        match self.icicle.under() {
            Under::Frame(at, _) => folded::line_of(self.icicle.tree(), at),
            Under::Small(node, ..) => folded::line_of(self.icicle.tree(), self.icicle.tree().find(node.id)?),
            Under::Gone(seen) => Some(seen.node.name.to_string()),
            Under::Nothing => None,
        }
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let (head, rows, _) = parts(area);
        match mouse.kind {
            MouseEventKind::ScrollUp => self.icicle.scroll_by(-WHEEL_ROWS),
            MouseEventKind::ScrollDown => self.icicle.scroll_by(WHEEL_ROWS),
            MouseEventKind::Down(MouseButton::Left) if rows.contains((mouse.column, mouse.row).into()) => {
                if self.icicle.click(mouse.row - rows.y, mouse.column - rows.x) {
                    return self.enter();
                }
            }
            MouseEventKind::Down(MouseButton::Left) if head.contains((mouse.column, mouse.row).into()) => {
                if let Some(lens) = lens_at(head, mouse.column) {
                    self.icicle.set_lens(lens);
                    self.icicle.refresh(model);
                }
            }
            MouseEventKind::Down(MouseButton::Right) => {
                self.icicle.command(Command::Unzoom);
            }
            _ => return Outcome::Ignored,
        }
        self.icicle.look_behind(model);
        Outcome::Done
    }

    fn idle(&self) -> Option<bool> {
        Some(!self.icicle.query().hide_idle)
    }

    fn show_idle(&mut self, idle: bool) {
        self.icicle.show_idle(idle);
    }

    fn tick(&mut self, model: &Model, _hold: bool) {
        self.icicle.refresh(model);
        self.icicle.look_behind(model);
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
    use crossterm::event::KeyModifiers;

    use super::*;
    use crate::collect::invented::Invention;
    use crate::model::Window;
    use crate::ui::testing::{any_size, lines, model};

    fn press(pane: &mut IciclePane, model: &Model, column: u16, row: u16) {
        let kind = MouseEventKind::Down(MouseButton::Left);
        pane.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }, Rect::new(0, 0, 80, 21), model);
    }

    #[test]
    fn lenses_can_be_pressed() {
        let model = model(Invention::default(), 5);
        let mut pane = IciclePane::new(None);
        lines(&mut pane, &model, 80, 21);
        for (column, lens, shown) in
            [(10, TreeLens::Blocked, "[blocked]"), (19, TreeLens::All, "[all]"), (0, TreeLens::OnCpu, "[on-CPU]")]
        {
            press(&mut pane, &model, column, 0);
            assert_eq!(pane.icicle.query().lens, lens);
            assert!(lines(&mut pane, &model, 80, 21)[0].contains(shown));
        }
    }

    #[test]
    fn what_is_shown_is_what_the_model_counts() {
        let model = model(Invention::default(), 8);
        let mut pane = IciclePane::new(None);
        let drawn = lines(&mut pane, &model, 118, 30);
        let samples: u64 = model.processes().map(|process| process.all_samples).sum();
        assert!(samples > 0);
        assert!(drawn[0].contains(&format!("{} samples, last 10 s", format::grouped(samples))), "{}", drawn[0]);
        pane.command(Command::Lens, &model);
        pane.command(Command::Idle, &model);
        let blocked = model.machine_totals(pane.icicle.query().window).ns.blocked();
        let drawn = lines(&mut pane, &model, 118, 30);
        assert!(drawn[0].contains(&format!("{} blocked,", format::duration(blocked))), "{}", drawn[0]);
        assert_eq!(pane.icicle.tree().total(), blocked);
    }

    #[test]
    fn idle_waits_are_left_out_until_asked_for_and_counted() {
        let model = model(Invention::default(), 8);
        let machine = model.machine_totals(Window::Last(std::time::Duration::from_secs(10))).ns;
        let busiest = model.processes().max_by_key(|process| process.all_samples).unwrap().key;
        for process in [None, Some(busiest)] {
            let ns = process.map_or(machine, |key| model.totals(key, Window::All).ns);
            let mut pane = IciclePane::new(process);
            for whole in [ns.blocked(), ns.total()] {
                pane.command(Command::Lens, &model);
                let drawn = lines(&mut pane, &model, 118, 30);
                let (shown, hidden) = (pane.icicle.tree().total(), pane.icicle.hidden_ns());
                assert_eq!(shown + hidden, whole);
                let words = match hidden {
                    0 => ", no idle waits".to_owned(),
                    ns => format!(", idle waits hidden ({})", format::duration(ns)),
                };
                assert!(drawn[0].contains(&words), "{}", drawn[0]);
                pane.command(Command::Idle, &model);
                assert_eq!(pane.icicle.tree().total(), whole);
                assert!(lines(&mut pane, &model, 118, 30)[0].contains(", idle waits included"));
                pane.command(Command::Idle, &model);
            }
        }
        let mut pane = IciclePane::new(None);
        pane.command(Command::Lens, &model);
        assert!(pane.icicle.hidden_ns() > 0, "somebody idles");
        let narrow = lines(&mut pane, &model, 80, 21);
        assert!(narrow[0].contains(", idle hidden (") && narrow[0].contains(", last 10 s"), "{}", narrow[0]);
        let half = lines(&mut pane, &model, 60, 21);
        assert!(half[0].contains(", idle hidden"), "below the table as well: {}", half[0]);
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        let model = model(Invention::default(), 3);
        let process = model.processes().max_by_key(|process| process.samples).unwrap();
        let mut pane = IciclePane::new(Some(process.key));
        pane.command(Command::Invert, &model);
        let Outcome::Act(Action::ExportFolded { query, file }) = pane.command(Command::Export, &model) else {
            panic!("an export");
        };
        assert_eq!(query, *pane.icicle.query());
        assert!(file.ends_with("-on-cpu.folded") && file.contains(&process.key.tgid.to_string()), "{file}");
    }

    #[test]
    fn back_undoes_zoom_and_search_before_it_leaves() {
        let model = model(Invention::default(), 5);
        let mut pane = IciclePane::new(None);
        lines(&mut pane, &model, 80, 21);
        pane.query(Query::Search, "a", &model);
        pane.command(Command::Down, &model);
        pane.command(Command::Enter, &model);
        assert!(pane.icicle.is_zoomed());
        assert!(matches!(pane.command(Command::Back, &model), Outcome::Done));
        assert!(!pane.icicle.is_zoomed() && pane.icicle.search().is_some());
        assert!(matches!(pane.command(Command::Back, &model), Outcome::Done));
        assert!(pane.icicle.search().is_none());
        assert!(matches!(pane.command(Command::Back, &model), Outcome::Ignored));
    }

    #[test]
    fn a_fold_offers_its_frames() {
        let model = model(Invention::default(), 30);
        let mut pane = IciclePane::new(None);
        // On a narrow screen much is folded.
        lines(&mut pane, &model, 12, 40);
        for _ in 0..40 {
            if !pane.icicle.folded().is_empty() {
                break;
            }
            pane.command(Command::Right, &model);
            pane.command(Command::Down, &model);
        }
        let folded = pane.icicle.folded();
        assert!(!folded.is_empty(), "something is folded");
        let Outcome::Pick(choices) = pane.command(Command::Enter, &model) else { panic!("a choice") };
        assert_eq!(choices.items.len(), folded.len().min(OFFERED));
        pane.picked(Command::Enter, 0, &model);
        assert_eq!(pane.icicle.zoomed(), folded[0]);
    }

    #[test]
    fn sizes() {
        let model = model(Invention { hostile: true, ..Invention::default() }, 5);
        let mut pane = IciclePane::new(None);
        for _ in 0..3 {
            any_size(&mut pane, &model);
            pane.command(Command::Lens, &model);
        }
    }
}
