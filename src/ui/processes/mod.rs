//! Place 1: every process, where its time went, sorted. Below it, on tall screens, run-queue latency over time and the
//! on-CPU stacks of all.

mod draw;
mod fields;
mod findings;
mod groups;
mod label;
mod lower;
mod normal;
mod rows;
#[cfg(test)]
mod tests;

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustc_hash::FxHashSet;

use self::fields::{FIELDS, Field};
use self::groups::{By, Group};
use self::lower::Lower;
use self::normal::Normals;
use self::rows::{Row, RowId, Selection};
use super::filter::Matcher;
use super::format;
use super::table::{self, Column, Cursor, Slot};
use super::{Answer, Choices, Command, Context, Outcome, Pane, Query, Target, Theme, Wants};
use crate::model::Model;
use crate::tick::ProcessKey;

/// Cells before the first column: the cursor, and a dagger.
const MARGIN: u16 = 2;
/// Lines above the rows: the legend, what is selected, the heads.
const ABOVE: u16 = 3;

/// The table of processes and its view state.
#[derive(Default)]
pub struct ProcessesPane {
    selection: Selection,
    machine_basis: bool,
    one_node: bool,
    idle: bool,
    short: bool,
    rows: Vec<Row>,
    /// What rows of groups are about.
    groups: Vec<Group>,
    cursor: Cursor,
    /// The row the cursor follows; `None`: it has not been moved and stays at the top.
    followed: Option<RowId>,
    filter_text: String,
    search_text: String,
    search: Option<Matcher>,
    found: FxHashSet<RowId>,
    seen: Option<u64>,
    held: bool,
    hidden: usize,
    counts: Counts,
    slots: Vec<Slot>,
    lower: Lower,
    normals: Normals,
}

/// Who lives, and who has just gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Processes that live.
    processes: usize,
    /// Their threads that live.
    threads: u64,
    /// Processes that are listed although they have exited.
    exited: usize,
    /// Of those that live, the ones that have a row.
    shown: usize,
}

impl Counts {
    fn of(model: &Model, rows: &[Row], groups: &[Group]) -> Self {
        let mut counts = Counts::default();
        for process in model.processes() {
            match process.exited {
                Some(_) => counts.exited += 1,
                None => counts.processes += 1,
            }
            counts.threads += u64::from(process.threads);
        }
        let lives = |row: &&Row| match row.id {
            RowId::Process(key) => model.process(key).is_some_and(|process| process.exited.is_none()),
            RowId::Thread(..) | RowId::Group(_) => false,
        };
        let grouped: u64 = groups.iter().map(|group| group.count - group.exited).sum();
        counts.shown = rows.iter().filter(lives).count() + grouped as usize;
        counts
    }

    /// `3 of 100 processes`, `1 process`.
    fn processes(self) -> String {
        let of = match self.shown == self.processes {
            true => String::new(),
            false => format!("{} of ", format::grouped(self.shown as u64)),
        };
        format!("{of}{}", format::counted(self.processes as u64, "process", "processes"))
    }
}

/// The areas of the pane.
#[derive(Clone, Copy)]
struct Parts {
    legend: Rect,
    summary: Rect,
    heads: Rect,
    rows: Rect,
    lower: Rect,
}

fn parts(area: Rect, model: &Model) -> Parts {
    // Before anything is measured, all the room is for who is there.
    let lower = if model.is_glance() { 0 } else { lower::height(area.height) };
    let line = |at: u16| super::draw::line(area, at);
    let rows_height = area.height.saturating_sub(ABOVE + lower);
    Parts {
        legend: line(0),
        summary: line(1),
        heads: line(2),
        rows: Rect { y: area.y + ABOVE.min(area.height), height: rows_height, ..area },
        lower: Rect { y: area.bottom() - lower, height: lower, ..area },
    }
}

impl ProcessesPane {
    /// The column sorted by is always among them.
    fn columns(&self) -> [Column; FIELDS.len()] {
        FIELDS.map(|field| {
            let mut column = field.column(self.machine_basis);
            if field == Field::Pid && self.selection.by.is_some() {
                column.head = "procs";
            }
            match field {
                field if field == self.selection.sort => Column { drop: 0, ..column },
                Field::Nodes if self.one_node => Column { drop: u8::MAX, ..column },
                _ => column,
            }
        })
    }

    /// Makes the rows anew, in their right order, and finds the cursor's row again.
    fn rank(&mut self, model: &Model) {
        let rows = self.wanted(model);
        self.set_rows(rows, model);
    }

    /// The rows in their right order; of groups, these are made anew as well.
    fn wanted(&mut self, model: &Model) -> Vec<Row> {
        match self.selection.by {
            None => {
                self.groups.clear();
                rows::rows(model, &self.selection)
            }
            Some(by) => {
                let (groups, rows) = rows::grouped(by, model, &self.selection);
                self.groups = groups;
                rows
            }
        }
    }

    fn set_rows(&mut self, rows: Vec<Row>, model: &Model) {
        self.rows = rows;
        let listed = self.rows.iter().filter(|row| !matches!(row.id, RowId::Thread(..))).count();
        self.hidden = model.process_count().saturating_sub(listed);
        self.counts = Counts::of(model, &self.rows, &self.groups);
        self.follow();
        self.find(model);
    }

    /// Puts the cursor where its row is now; if that is gone, leaves it where it was.
    fn follow(&mut self) {
        let at = self.followed.and_then(|id| self.rows.iter().position(|row| row.id == id));
        match at {
            Some(at) => self.cursor.at = at,
            None => self.cursor.clamp(self.rows.len()),
        }
    }

    /// The cursor was moved: it follows the row it is on, or nothing at the top.
    fn moved(&mut self) {
        self.cursor.clamp(self.rows.len());
        self.followed = if self.cursor.at == 0 { None } else { self.current() };
    }

    fn current(&self) -> Option<RowId> {
        self.rows.get(self.cursor.at).map(|row| row.id)
    }

    /// Which rows match the search.
    fn find(&mut self, model: &Model) {
        self.found.clear();
        let Some(search) = &self.search else { return };
        let mut text = String::new();
        for row in &self.rows {
            let Some(subject) = row.id.subject(model, &self.groups) else { continue };
            match subject.thread {
                Some(thread) => {
                    text.clear();
                    text += &thread.key.tid.to_string();
                    text.push(' ');
                    text += &thread.comm;
                }
                None => {
                    let facts = &subject.process.facts;
                    label::haystack(facts, model.user(facts.uid).unwrap_or_default(), &mut text);
                }
            }
            if search.matches(&text) {
                self.found.insert(row.id);
            }
        }
    }

    /// To the nearest match, from the row `from` on or before it, around the ends.
    fn go_to_match(&mut self, from: usize, forward: bool) {
        let rows = self.rows.len();
        let step = |nth: usize| if forward { (from + nth) % rows } else { (from + rows - nth) % rows };
        if let Some(at) = (0..rows).map(step).find(|&at| self.found.contains(&self.rows[at].id)) {
            self.cursor.at = at;
            self.followed = self.current();
        }
    }

    fn next_match(&mut self, forward: bool) -> Outcome {
        if self.found.is_empty() {
            let text = if self.search.is_some() { "no row matches" } else { "nothing is searched for: / asks" };
            return Outcome::Say(text.into());
        }
        let from = self.cursor.at + if forward { 1 } else { self.rows.len() - 1 };
        self.go_to_match(from % self.rows.len(), forward);
        Outcome::Done
    }

    fn sort_by(&mut self, field: Field, model: &Model) {
        if self.selection.sort == field {
            self.selection.descending = !self.selection.descending;
        } else {
            self.selection.sort = field;
            self.selection.descending = field.descending_first();
        }
        self.rank(model);
    }

    fn pick_sort(&self) -> Outcome {
        Outcome::Pick(Choices {
            command: Command::Sort,
            title: "sort by".into(),
            items: FIELDS.iter().map(|field| field.title().to_string()).collect(),
            at: FIELDS.iter().position(|&field| field == self.selection.sort).unwrap_or(0),
        })
    }

    fn pick_user(&self, model: &Model) -> Outcome {
        let users = users(model);
        let all: usize = users.iter().map(|(_, count)| count).sum();
        let line = |name: &str, count: usize| format!("{} {count:>6}", format::left(name, 16));
        let names = users.iter().map(|&(uid, count)| line(&label::user(model, uid), count));
        let at = users.iter().position(|&(uid, _)| Some(uid) == self.selection.user);
        Outcome::Pick(Choices {
            command: Command::User,
            title: "processes of".into(),
            items: std::iter::once(line("everyone", all)).chain(names).collect(),
            at: at.map_or(0, |at| at + 1),
        })
    }

    /// Threads of the process under the cursor: shown or not.
    fn open(&mut self, open: bool, model: &Model) -> Outcome {
        let Some(id) = self.current() else { return Outcome::Done };
        let Some(key) = id.process() else { return Outcome::Done };
        let changed = if open { self.selection.opened.insert(key) } else { self.selection.opened.remove(&key) };
        if changed {
            if !open {
                self.followed = Some(RowId::Process(key));
            }
            self.rank(model);
        }
        Outcome::Done
    }

    /// One step of what is narrowed down is taken back; `Ignored` when nothing is.
    fn back(&mut self, model: &Model) -> Outcome {
        if self.search.take().is_some() {
            self.search_text.clear();
        } else if self.selection.filter.take().is_some() {
            self.filter_text.clear();
        } else if let Some((by, _)) = self.selection.within.take() {
            // Back to the groups that it was chosen from.
            self.selection.by = Some(by);
        } else if self.selection.by.take().is_some() {
        } else if self.selection.user.take().is_none() {
            return self.lower.command(Command::Back, model);
        }
        self.rank(model);
        Outcome::Done
    }

    /// Looks into the process, or shows those of the group.
    fn enter(&mut self, model: &Model) -> Outcome {
        let Some(id) = self.current() else { return Outcome::Done };
        if let Some(key) = id.process() {
            return Outcome::Open(Target::Process(key));
        }
        if let Some(group) = self.groups.iter().find(|group| RowId::Group(group.id) == id) {
            self.selection.within = self.selection.by.take().map(|by| (by, group.process.facts.comm.clone()));
            self.followed = None;
            self.cursor.at = 0;
            self.rank(model);
        }
        Outcome::Done
    }

    fn pick_group(&self) -> Outcome {
        let names = By::ALL.iter().map(|by| by.name().to_owned());
        Outcome::Pick(Choices {
            command: Command::Group,
            title: "put together by".into(),
            items: std::iter::once("nothing: each process".into()).chain(names).collect(),
            at: By::ALL.iter().position(|&by| Some(by) == self.selection.by).map_or(0, |at| at + 1),
        })
    }

    /// A switch that changes which rows there are.
    fn toggle(&mut self, command: Command, model: &Model) {
        match command {
            Command::Reverse => self.selection.descending = !self.selection.descending,
            Command::Tree => self.selection.tree = !self.selection.tree,
            Command::Threads => {
                self.selection.threads = !self.selection.threads;
                self.selection.opened.clear();
            }
            Command::KernelThreads => self.selection.kernel = !self.selection.kernel,
            _ => {}
        }
        self.rank(model);
    }

    fn set_filter(&mut self, text: &str, model: &Model) -> Answer {
        match Matcher::parse(text) {
            Err(note) => Answer { note, bad: true },
            Ok(filter) => {
                self.selection.filter = filter;
                self.filter_text = text.into();
                self.rank(model);
                Answer { note: self.counts.processes(), bad: false }
            }
        }
    }

    fn set_search(&mut self, text: &str, model: &Model) -> Answer {
        match Matcher::parse(text) {
            Err(note) => Answer { note, bad: true },
            Ok(search) => {
                self.search = search;
                self.search_text = text.into();
                self.find(model);
                if !self.found.is_empty() {
                    self.go_to_match(self.cursor.at, true);
                }
                let note = if self.search.is_some() { format!("{} rows", self.found.len()) } else { String::new() };
                Answer { note, bad: false }
            }
        }
    }

    fn click(&mut self, mouse: MouseEvent, parts: Parts, model: &Model) -> Outcome {
        let at = (mouse.column, mouse.row).into();
        if parts.heads.contains(at) {
            if let Some(column) = table::column_at(&self.slots, mouse.column - parts.heads.x) {
                self.sort_by(FIELDS[column], model);
            }
            return Outcome::Done;
        }
        let row = self.cursor.first + usize::from(mouse.row.saturating_sub(parts.rows.y));
        if !parts.rows.contains(at) || row >= self.rows.len() {
            return Outcome::Done;
        }
        let again = self.cursor.at == row && self.followed == self.current();
        self.cursor.at = row;
        self.followed = self.current();
        if again { self.enter(model) } else { Outcome::Done }
    }
}

/// Users and how many processes each has, most first.
fn users(model: &Model) -> Vec<(u32, usize)> {
    let mut counts = rustc_hash::FxHashMap::default();
    model.processes().for_each(|process| *counts.entry(process.facts.uid).or_insert(0) += 1);
    let mut users: Vec<(u32, usize)> = counts.into_iter().collect();
    users.sort_unstable_by_key(|&(uid, count)| (std::cmp::Reverse(count), uid));
    users
}

impl Pane for ProcessesPane {
    fn context(&self) -> Context {
        Context::Processes
    }

    fn title(&self, _model: &Model) -> String {
        "Processes".into()
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        if self.cursor.command(command, self.rows.len()) {
            self.moved();
            return Outcome::Done;
        }
        match command {
            Command::Enter => return self.enter(model),
            Command::Left => return self.open(false, model),
            Command::Right => return self.open(true, model),
            Command::Back => return self.back(model),
            Command::Search => return Outcome::Ask(Query::Search, self.search_text.clone()),
            Command::Filter => return Outcome::Ask(Query::Filter, self.filter_text.clone()),
            Command::NextMatch => return self.next_match(true),
            Command::PrevMatch => return self.next_match(false),
            Command::Sort => return self.pick_sort(),
            Command::User => return self.pick_user(model),
            Command::Group => return self.pick_group(),
            Command::Reverse | Command::Tree | Command::Threads | Command::KernelThreads => self.toggle(command, model),
            Command::Idle => {
                self.show_idle(!self.idle);
                self.lower.tick(model);
            }
            Command::PercentBasis => self.machine_basis = !self.machine_basis,
            Command::LongCommand => self.short = !self.short,
            Command::Lens | Command::Export => return self.lower.command(command, model),
            Command::Stacks => return Outcome::Open(Target::Stacks),
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn query(&mut self, query: Query, text: &str, model: &Model) -> Answer {
        match query {
            Query::Filter => self.set_filter(text, model),
            Query::Search => self.set_search(text, model),
        }
    }

    fn picked(&mut self, command: Command, index: usize, model: &Model) {
        match command {
            Command::Sort => {
                if let Some(&field) = FIELDS.get(index).filter(|&&field| field != self.selection.sort) {
                    self.sort_by(field, model);
                }
            }
            Command::Group => {
                self.selection.by = index.checked_sub(1).and_then(|at| By::ALL.get(at).copied());
                self.selection.within = None;
                self.rank(model);
            }
            _ => {
                self.selection.user = index.checked_sub(1).and_then(|at| users(model).get(at).map(|&(uid, _)| uid));
                self.rank(model);
            }
        }
    }

    fn process(&self, _model: &Model) -> Option<ProcessKey> {
        self.current().and_then(RowId::process)
    }

    fn copy(&self, model: &Model) -> Option<String> {
        self.row_text(self.rows.get(self.cursor.at)?.id, model)
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let lower = parts(area, model).lower;
        if lower.contains((mouse.column, mouse.row).into()) {
            return self.lower.mouse(mouse, lower, model);
        }
        match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => return self.click(mouse, parts(area, model), model),
            MouseEventKind::ScrollUp => self.cursor.at = self.cursor.at.saturating_sub(3),
            MouseEventKind::ScrollDown => self.cursor.at += 3,
            _ => return Outcome::Ignored,
        }
        self.moved();
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, hold: bool) {
        self.lower.tick(model);
        let fresh = self.seen != Some(model.ticks());
        if !fresh && (hold || !self.held) {
            return;
        }
        if self.seen.replace(model.ticks()) != Some(model.ticks()) {
            self.normals.tick(model);
        }
        self.held = hold;
        if hold && !self.rows.is_empty() {
            let wanted = self.wanted(model);
            self.set_rows(rows::held(&self.rows, wanted), model);
        } else {
            self.rank(model);
        }
    }

    fn idle(&self) -> Option<bool> {
        Some(self.idle)
    }

    fn show_idle(&mut self, idle: bool) {
        self.idle = idle;
        self.lower.show_idle(idle);
    }

    fn has_order(&self) -> bool {
        true
    }

    fn layout(&mut self, area: Rect, model: &Model) {
        let parts = parts(area, model);
        self.cursor.show(self.rows.len(), parts.rows.height.into());
        self.one_node = model.session().nodes.len() < 2;
        self.slots = table::lay_out(&self.columns(), MARGIN, parts.rows.width);
        self.lower.layout(parts.lower, model);
    }

    fn wants(&self) -> Wants {
        let shown = &self.rows[self.cursor.shown(self.rows.len())];
        let mut visible: Vec<ProcessKey> = shown.iter().filter_map(|row| row.id.process()).collect();
        visible.sort_unstable();
        visible.dedup();
        Wants { visible, focus: None }
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        if !area.is_empty() {
            self.draw(model, theme, parts(area, model), buf);
        }
    }
}
