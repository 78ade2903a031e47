//! Threads of a process: where the time of each goes, and what it is doing now.

use std::cmp::Ordering;

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::icicle::search::Pattern;
use super::table::{self, Column, Cursor, Slot, Sorted};
use super::{Answer, Choices, Command, Context, Outcome, Pane, Query, Theme, bar, copy, draw, format, syscalls};
use crate::model::{Model, Thread, Totals};
use crate::tick::{ProcessKey, State, StateNs, ThreadKey};

/// Columns, in their order on the screen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Tid,
    Cpu,
    Bar,
    RunqP99,
    RunqMax,
    Blocked,
    Now,
    Voluntary,
    Involuntary,
    Migrations,
    On,
    Name,
}

impl What {
    /// Only whoever sees every switch can tell.
    const fn takes_switches(self) -> bool {
        use What::{Blocked, Involuntary, Migrations, RunqMax, RunqP99, Voluntary};
        matches!(self, RunqP99 | RunqMax | Blocked | Voluntary | Involuntary | Migrations)
    }
}

const WHAT: [What; 12] = [
    What::Tid,
    What::Cpu,
    What::Bar,
    What::RunqP99,
    What::RunqMax,
    What::Blocked,
    What::Now,
    What::Voluntary,
    What::Involuntary,
    What::Migrations,
    What::On,
    What::Name,
];

const COLUMNS: [Column; 12] = [
    Column { head: "TID", width: 8, extra: 0, drop: 0, right: true },
    Column { head: "CPU%", width: 6, extra: 0, drop: 1, right: true },
    Column { head: "time", width: 10, extra: 30, drop: 5, right: false },
    Column { head: "runq p99", width: 8, extra: 0, drop: 6, right: true },
    Column { head: "max", width: 6, extra: 0, drop: 7, right: true },
    Column { head: "blocked by", width: 12, extra: 0, drop: 4, right: false },
    Column { head: "now, since", width: 22, extra: 6, drop: 3, right: false },
    Column { head: "vol/s", width: 6, extra: 0, drop: 8, right: true },
    Column { head: "invol/s", width: 7, extra: 0, drop: 9, right: true },
    Column { head: "migr/s", width: 6, extra: 0, drop: 10, right: true },
    Column { head: "on", width: 4, extra: 0, drop: 11, right: true },
    Column { head: "NAME", width: 12, extra: 8, drop: 2, right: false },
];

/// The threads of one process.
pub struct ThreadsPane {
    process: ProcessKey,
    rows: Vec<ThreadKey>,
    selected: Option<ThreadKey>,
    cursor: Cursor,
    sorted: Sorted,
    idle: bool,
    search: Option<Pattern>,
    ticks: u64,
}

impl ThreadsPane {
    /// Busiest first.
    pub fn new(process: ProcessKey) -> Self {
        ThreadsPane {
            process,
            rows: Vec::new(),
            selected: None,
            cursor: Cursor::default(),
            sorted: Sorted { column: 1, descending: true },
            idle: false,
            search: None,
            ticks: 0,
        }
    }

    /// The thread under the cursor.
    pub fn selected(&self) -> Option<ThreadKey> {
        self.rows.get(self.cursor.at).copied()
    }

    /// Rows anew: those that still live in their order if it is held, others where they belong.
    fn order(&mut self, model: &Model, hold: bool) {
        let mut threads = model.threads(self.process);
        let what = WHAT[self.sorted.column.min(WHAT.len() - 1)];
        match hold && !self.rows.is_empty() {
            true => {
                let place =
                    |thread: &&Thread| self.rows.iter().position(|&key| key == thread.key).unwrap_or(usize::MAX);
                threads.sort_by_cached_key(place);
            }
            false => threads.sort_by(|a, b| {
                let order = compare(what, a, b);
                let order = if self.sorted.descending { order.reverse() } else { order };
                order.then(a.key.cmp(&b.key))
            }),
        }
        self.rows = threads.iter().map(|thread| thread.key).collect();
        if let Some(at) = self.selected.and_then(|key| self.rows.iter().position(|&row| row == key)) {
            self.cursor.at = at;
        }
        self.cursor.clamp(self.rows.len());
        self.selected = self.selected();
    }

    fn sort_by(&mut self, column: usize, model: &Model) {
        let what = WHAT[column.min(WHAT.len() - 1)];
        let descending = match self.sorted.column == column {
            true => !self.sorted.descending,
            false => !matches!(what, What::Tid | What::Name | What::On | What::Now),
        };
        self.sorted = Sorted { column, descending };
        self.order(model, false);
    }

    fn next_match(&mut self, model: &Model, forward: bool) {
        let Some(pattern) = &self.search else { return };
        let hit = |&at: &usize| {
            let thread = self.rows.get(at).and_then(|&key| model.thread(key));
            thread.is_some_and(|thread| pattern.matches(&thread.comm) || pattern.matches(&thread.key.tid.to_string()))
        };
        let (count, at) = (self.rows.len(), self.cursor.at);
        let found = match forward {
            true => (at + 1..count).chain(0..count.min(at + 1)).find(hit),
            false => (0..at.min(count)).rev().chain((at.min(count)..count).rev()).find(hit),
        };
        if let Some(found) = found {
            self.cursor.at = found;
            self.selected = self.selected();
        }
    }

    fn slots(area: Rect) -> Vec<Slot> {
        table::lay_out(&COLUMNS, 2, area.width)
    }
}

impl Pane for ThreadsPane {
    fn context(&self) -> Context {
        Context::Threads
    }

    fn title(&self, _model: &Model) -> String {
        "threads".into()
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        if self.cursor.command(command, self.rows.len()) {
            self.selected = self.selected();
            return Outcome::Done;
        }
        match command {
            Command::Idle => self.idle = !self.idle,
            Command::Reverse => self.sort_by(self.sorted.column, model),
            Command::Search => {
                return Outcome::Ask(Query::Search, self.search.as_ref().map_or(String::new(), |p| p.text().into()));
            }
            Command::NextMatch => self.next_match(model, true),
            Command::PrevMatch => self.next_match(model, false),
            Command::Sort => {
                let items = COLUMNS.iter().map(|column| column.head.to_owned()).collect();
                let choices = Choices { command, title: "sort threads by".into(), items, at: self.sorted.column };
                return Outcome::Pick(choices);
            }
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn query(&mut self, _query: Query, text: &str, model: &Model) -> Answer {
        self.search = Pattern::new(text);
        let Some(pattern) = &self.search else { return Answer::default() };
        let threads = model.threads(self.process);
        let matches = |thread: &&Thread| pattern.matches(&thread.comm) || pattern.matches(&thread.key.tid.to_string());
        let count = threads.into_iter().filter(matches).count();
        self.next_match(model, true);
        Answer { note: format!("{count} threads"), bad: false }
    }

    fn picked(&mut self, _command: Command, index: usize, model: &Model) {
        self.sort_by(index, model);
    }

    fn copy(&self, model: &Model) -> Option<String> {
        let (thread, theme) = (model.thread(self.selected()?)?, Theme::default());
        let row = Row { thread, model, theme: &theme, idle: true };
        let text = |what: What| match what {
            What::Bar => copy::bar(&thread.tick.ns, row.is_kernel()),
            what => row.text(what),
        };
        Some(copy::row(WHAT.iter().zip(&COLUMNS).map(|(&what, column)| (column.head, text(what)))))
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        match mouse.kind {
            MouseEventKind::ScrollUp => drop(self.cursor.command(Command::Up, self.rows.len())),
            MouseEventKind::ScrollDown => drop(self.cursor.command(Command::Down, self.rows.len())),
            MouseEventKind::Down(MouseButton::Left) if mouse.row == area.y => {
                if let Some(column) = table::column_at(&Self::slots(area), mouse.column - area.x) {
                    self.sort_by(column, model);
                }
            }
            MouseEventKind::Down(MouseButton::Left) => {
                let row = self.cursor.first + usize::from(mouse.row.saturating_sub(area.y + 1));
                if row < self.rows.len() {
                    self.cursor.at = row;
                }
            }
            _ => return Outcome::Ignored,
        }
        self.selected = self.selected();
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, hold: bool) {
        if self.ticks != model.ticks() {
            self.ticks = model.ticks();
            self.order(model, hold);
        }
    }

    fn idle(&self) -> Option<bool> {
        Some(self.idle)
    }

    fn show_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    fn has_order(&self) -> bool {
        true
    }

    fn layout(&mut self, area: Rect, _model: &Model) {
        self.cursor.show(self.rows.len(), usize::from(area.height.saturating_sub(1)));
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        let slots = Self::slots(area);
        let styles = (theme.header(), theme.accent());
        table::heads(buf, draw::line(area, 0), &COLUMNS, &slots, self.sorted, styles);
        for (line, at) in self.cursor.shown(self.rows.len()).enumerate() {
            let line = draw::line(area, line as u16 + 1);
            let Some(thread) = model.thread(self.rows[at]) else { continue };
            let row = Row { thread, model, theme, idle: self.idle };
            slots.iter().for_each(|&slot| row.cell(slot, line, buf));
            if at == self.cursor.at && line.height > 0 {
                draw::put(buf, line.x, line.y, "▸", 1, theme.accent());
                buf.set_style(line, theme.selected());
            }
        }
    }
}

/// What a row is drawn from.
struct Row<'a> {
    thread: &'a Thread,
    model: &'a Model,
    theme: &'a Theme,
    idle: bool,
}

impl Row<'_> {
    fn cell(&self, slot: Slot, line: Rect, buf: &mut Buffer) {
        let what = WHAT[slot.column];
        if what == What::Bar {
            let place = Rect { x: line.x + slot.x, width: slot.width, ..line };
            let kernel = self.is_kernel();
            return bar::render(&self.thread.tick.ns, kernel, self.idle, self.theme, place, buf);
        }
        let style = if self.thread.now.is_none() { self.theme.dim() } else { self.theme.text() };
        table::cell(buf, line, slot, COLUMNS[slot.column].right, &self.text(what), style);
    }

    fn is_kernel(&self) -> bool {
        let kernel = self.model.process(self.thread.process).is_some_and(|process| process.facts.kernel);
        kernel || self.model.waits_have_no_reasons()
    }

    fn text(&self, what: What) -> String {
        let tick = &self.thread.tick;
        let seconds = self.model.span().map_or(1.0, |span| span.len_ns().max(1) as f64 / 1e9);
        let rate = |count: u64| format::rate(count as f64 / seconds);
        let some = |value: Option<u64>| value.map_or_else(|| format::NONE.to_owned(), format::duration);
        if what.takes_switches() && self.model.waits_have_no_reasons() {
            return format::OFF.into();
        }
        match what {
            What::Tid => self.thread.key.tid.to_string(),
            What::Cpu => format::percent(tick.ns.on_cpu() as f64 / (seconds * 1e9)),
            What::Bar => String::new(),
            What::RunqP99 => some(tick.runq.quantile(0.99)),
            What::RunqMax => some((!tick.runq.is_empty()).then_some(tick.runq.max)),
            What::Blocked => blocked_by(&tick.ns),
            What::Now => self.now(),
            What::Voluntary => rate(tick.voluntary),
            What::Involuntary => rate(tick.involuntary),
            What::Migrations => rate(tick.migrations),
            What::On => self.thread.cpu.to_string(),
            What::Name => self.thread.comm.clone(),
        }
    }

    /// `lock 4.2s futex`: state, for how long, in which system call.
    fn now(&self) -> String {
        let Some(now) = self.thread.now else { return "exited".into() };
        let end = self.model.span().map_or(0, |span| span.end_ns);
        // What began after the tick ended, but before it was drained, has no age in it.
        let age = match end.saturating_sub(self.thread.since_ns) {
            0 => "just now".into(),
            age => format::duration(age),
        };
        let mut text = format!("{} {age}", now_name(now));
        if let Some(number) = self.thread.syscall.filter(|_| now.is_blocked()) {
            match syscalls::name(&self.model.session().arch, number) {
                Some(name) => text += &format!(" {name}"),
                None => text += &format!(" syscall {number}"),
            }
        }
        text
    }
}

/// The state a thread is in: running is not split until the kernel's tick says where.
fn now_name(state: State) -> &'static str {
    match state {
        State::User | State::Kernel => "running",
        State::Woken => "runnable",
        state => state.name(),
    }
}

/// The largest reason for which it was blocked, and its share of the blocked time; idle waiting counts as well.
pub fn blocked_by(ns: &StateNs) -> String {
    let reasons = State::ALL.into_iter().filter(|state| state.is_blocked());
    let largest = reasons.rev().max_by_key(|&state| ns[state]).filter(|&state| ns[state] > 0);
    match largest {
        Some(state) => format!("{} {} %", state.name(), format::percent(ns[state] as f64 / ns.blocked() as f64)),
        None => format::NONE.into(),
    }
}

fn compare(what: What, a: &Thread, b: &Thread) -> Ordering {
    let by = |of: fn(&Totals) -> u64| of(&a.tick).cmp(&of(&b.tick));
    match what {
        What::Tid => a.key.tid.cmp(&b.key.tid),
        What::Cpu => by(|tick| tick.ns.on_cpu()),
        What::Bar => by(|tick| tick.ns.on_cpu() + tick.ns.runnable()),
        What::RunqP99 => a.tick.runq.quantile(0.99).cmp(&b.tick.runq.quantile(0.99)),
        What::RunqMax => by(|tick| tick.runq.max),
        What::Blocked => by(|tick| tick.ns.blocked()),
        What::Now => {
            a.now.map(|state| state as u8).cmp(&b.now.map(|state| state as u8)).then(a.since_ns.cmp(&b.since_ns))
        }
        What::Voluntary => by(|tick| tick.voluntary),
        What::Involuntary => by(|tick| tick.involuntary),
        What::Migrations => by(|tick| tick.migrations),
        What::On => a.cpu.cmp(&b.cpu),
        What::Name => a.comm.cmp(&b.comm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Source;
    use crate::collect::invented::{Invented, Invention};
    use crate::ui::testing::{lines, model};

    #[test]
    fn largest_reason_with_its_share() {
        let mut ns = StateNs::default();
        assert_eq!(blocked_by(&ns), "–");
        ns[State::User] = 100;
        assert_eq!(blocked_by(&ns), "–");
        ns[State::Disk] = 30;
        ns[State::Lock] = 10;
        assert_eq!(blocked_by(&ns), "disk 75.0 %");
    }

    #[test]
    fn rows_are_the_threads_in_order() {
        let model = model(Invention::default(), 8);
        let process = model.processes().max_by_key(|process| process.threads).unwrap();
        let mut pane = ThreadsPane::new(process.key);
        let drawn = lines(&mut pane, &model, 160, 40);
        assert_eq!(pane.rows.len(), model.threads(process.key).len());
        let on_cpu = |key: &ThreadKey| model.thread(*key).unwrap().tick.ns.on_cpu();
        assert!(pane.rows.windows(2).all(|pair| on_cpu(&pair[0]) >= on_cpu(&pair[1])));
        for (row, key) in drawn[1..].iter().zip(&pane.rows) {
            let thread = model.thread(*key).unwrap();
            let words: Vec<&str> = row.split_whitespace().collect();
            assert!(words.contains(&&*key.tid.to_string()), "{row}");
            if let (Some(now), Some(number)) = (thread.now, thread.syscall)
                && now.is_blocked()
            {
                let name = syscalls::name("x86_64", number).unwrap();
                assert!(row.contains(now.name()) && row.contains(name), "{row}: {name}");
            }
        }
    }

    #[test]
    fn cursor_stays_on_its_thread_and_order_can_be_held() {
        let mut source = Invented::new(Invention::default());
        let mut model = Model::new(source.session(), crate::model::Limits::default());
        (0..3).for_each(|_| model.apply(source.tick()));
        let key = model.processes().max_by_key(|process| process.threads).unwrap().key;
        let mut pane = ThreadsPane::new(key);
        pane.tick(&model, false);
        pane.command(Command::Down, &model);
        let (selected, order) = (pane.selected(), pane.rows.clone());
        model.apply(source.tick());
        pane.tick(&model, true);
        assert_eq!(pane.rows[..order.len().min(pane.rows.len())], order, "held");
        (0..5).for_each(|_| {
            model.apply(source.tick());
            pane.tick(&model, false);
            assert_eq!(pane.selected(), selected);
        });
        pane.command(Command::Reverse, &model);
        assert_eq!(pane.selected(), selected);
        let on_cpu = |key: &ThreadKey| model.thread(*key).unwrap().tick.ns.on_cpu();
        assert!(pane.rows.windows(2).all(|pair| on_cpu(&pair[0]) <= on_cpu(&pair[1])));
    }

    #[test]
    fn every_column_has_its_meaning() {
        assert_eq!(WHAT.len(), COLUMNS.len());
        assert!(WHAT[0] == What::Tid && WHAT[11] == What::Name && WHAT[1] == What::Cpu);
        assert!(!ThreadsPane::slots(Rect::new(0, 0, 80, 9)).is_empty());
    }
}
