//! The columns of the table: what each is worth when rows are sorted, and what stands in its cells.

use ratatui::style::Style;

use super::groups::Group;
use super::{findings, label};
use crate::model::{Model, Process, Thread, Totals, is_idle_wait};
use crate::tick::{Basis, Grade, Session, Signal, SignalKind, State, StateNs, signal};
use crate::ui::table::Column;
use crate::ui::{Theme, format};

/// A column, in the words of [`Field::title`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Pid,
    User,
    Cpu,
    Bar,
    RunqP50,
    RunqP99,
    RunqMax,
    Blocked,
    Disk,
    DiskP99,
    Switches,
    Faults,
    Nodes,
    Stacks,
    Rss,
    Threads,
    Command,
}

/// Every column, from the left.
pub const FIELDS: [Field; 17] = [
    Field::Pid,
    Field::User,
    Field::Cpu,
    Field::Bar,
    Field::RunqP50,
    Field::RunqP99,
    Field::RunqMax,
    Field::Blocked,
    Field::Disk,
    Field::DiskP99,
    Field::Switches,
    Field::Faults,
    Field::Nodes,
    Field::Stacks,
    Field::Rss,
    Field::Threads,
    Field::Command,
];

const fn column(head: &'static str, width: u16, extra: u16, drop: u8, right: bool) -> Column {
    Column { head, width, extra, drop, right }
}

impl Field {
    /// How wide, how soon dropped. `machine`: CPU shares are of the whole machine.
    pub const fn column(self, machine: bool) -> Column {
        match self {
            Field::Pid => column("PID", 7, 0, 0, true),
            Field::User => column("USER", 8, 0, 4, false),
            Field::Cpu if machine => column("MACH%", 6, 0, 0, true),
            Field::Cpu => column("CPU%", 6, 0, 0, true),
            Field::Bar => column("where the time goes", 20, 50, 1, false),
            Field::RunqP50 => column("rq p50", 6, 0, 10, true),
            Field::RunqP99 => column("rq p99", 6, 0, 2, true),
            Field::RunqMax => column("rq max", 6, 0, 8, true),
            Field::Blocked => column("blocked", 9, 11, 3, false),
            Field::Disk => column("disk/s", 6, 0, 7, true),
            Field::DiskP99 => column("dk p99", 6, 0, 9, true),
            Field::Switches => column("cs/s", 5, 0, 11, true),
            Field::Faults => column("majflt", 6, 0, 14, true),
            Field::Nodes => column("nodes", 9, 6, 12, false),
            Field::Stacks => column("stacks", 6, 0, 13, true),
            Field::Rss => column("RSS", 5, 0, 5, true),
            Field::Threads => column("thr", 4, 0, 6, true),
            Field::Command => column("COMMAND", 14, 400, 1, false),
        }
    }

    /// What the sort menu and the help say.
    pub const fn title(self) -> &'static str {
        match self {
            Field::Pid => "PID",
            Field::User => "user",
            Field::Cpu => "CPU",
            Field::Bar => "time not idle",
            Field::RunqP50 => "run-queue latency, median",
            Field::RunqP99 => "run-queue latency, 99th percentile",
            Field::RunqMax => "run-queue latency, longest",
            Field::Blocked => "time blocked, idle waits left out",
            Field::Disk => "bytes read and written per second",
            Field::DiskP99 => "disk latency, 99th percentile",
            Field::Switches => "context switches per second",
            Field::Faults => "major faults per second",
            Field::Nodes => "share of CPU time on its first node",
            Field::Stacks => "complete stacks",
            Field::Rss => "resident memory",
            Field::Threads => "threads",
            Field::Command => "command",
        }
    }

    /// Nothing tells it on this machine; help says why.
    pub fn has_no_source(self, session: &Session) -> bool {
        let by_procfs = session.basis == Basis::Procfs;
        let grade = |kind| signal(&session.signals, kind).map(Signal::grade);
        match self {
            Field::RunqP50 | Field::RunqP99 | Field::RunqMax => grade(SignalKind::RunqLatency) == Some(Grade::Missing),
            Field::Disk | Field::DiskP99 => grade(SignalKind::DiskLatency) >= Some(Grade::Reduced),
            Field::Stacks => grade(SignalKind::Samples) == Some(Grade::Missing),
            Field::Blocked | Field::Switches => by_procfs,
            Field::Nodes => by_procfs && session.nodes.len() > 1,
            _ => false,
        }
    }

    /// Told of an interval, not of a moment.
    const fn is_measured(self) -> bool {
        !matches!(
            self,
            Field::Pid | Field::User | Field::Bar | Field::Nodes | Field::Rss | Field::Threads | Field::Command
        )
    }

    /// Numbers start with the largest, names and PIDs with the smallest.
    pub const fn descending_first(self) -> bool {
        !matches!(self, Field::Pid | Field::User | Field::Command)
    }
}

/// What a row is about: a process, or one thread of it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub process: &'a Process,
    pub thread: Option<&'a Thread>,
    /// Its waits count as idle unless they are of those that never are: it belongs to the kernel, or nobody says what it
    /// waits for.
    pub rests: bool,
    /// It is several processes, and `process` their sum.
    pub group: Option<&'a Group>,
}

impl<'a> Subject<'a> {
    /// A process, or one thread of it.
    pub fn of(model: &Model, process: &'a Process, thread: Option<&'a Thread>) -> Self {
        Subject { process, thread, rests: process.facts.kernel || model.waits_have_no_reasons(), group: None }
    }

    /// Several processes together.
    pub fn of_group(model: &Model, group: &'a Group) -> Self {
        Subject { group: Some(group), ..Subject::of(model, &group.process, None) }
    }

    /// Sums of the newest tick in which it lived.
    pub fn totals(&self) -> &'a Totals {
        self.thread.map_or(&self.process.tick, |thread| &thread.tick)
    }

    /// It is gone.
    pub fn exited(&self) -> bool {
        self.process.exited.is_some() || self.thread.is_some_and(|thread| thread.exited_ns.is_some())
    }

    /// PID or TID; of several processes how many they are.
    fn number(&self) -> u64 {
        let tid = self.thread.map(|thread| thread.key.tid.into());
        tid.unwrap_or_else(|| self.group.map_or(self.process.key.tgid.into(), |group| group.count))
    }

    /// Whose it is; of several processes, if they are all of one user.
    fn user(&self, model: &Model) -> String {
        match self.group {
            Some(Group { uid: None, .. }) => "several".into(),
            Some(Group { uid: Some(uid), .. }) => label::user(model, *uid),
            None => label::user(model, self.process.facts.uid),
        }
    }

    fn blocked(&self) -> u64 {
        reasons(&self.totals().ns, self.rests, false).map(|(_, ns)| ns).sum()
    }
}

/// Waits and their times, idle ones only on request; no order, no zeros.
fn reasons(ns: &StateNs, kernel: bool, idle: bool) -> impl Iterator<Item = (State, u64)> {
    let wanted = move |state: &State| state.is_blocked() && (idle || !is_idle_wait(*state, kernel));
    State::ALL.into_iter().filter(wanted).map(move |state| (state, ns[state])).filter(|&(_, ns)| ns > 0)
}

/// What a row is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Number(u64),
    Text(String),
}

/// What a row is worth in a column. Rows without a value come last when the largest come first.
pub fn value(field: Field, subject: Subject<'_>, model: &Model) -> Value {
    let Subject { process, .. } = subject;
    let totals = subject.totals();
    let of_process = |number: u64| if subject.thread.is_some() { 0 } else { number };
    Value::Number(match field {
        Field::Pid => subject.number(),
        Field::User => return Value::Text(subject.user(model)),
        Field::Command => return Value::Text(sort_name(subject)),
        Field::Cpu => totals.ns.on_cpu(),
        Field::Bar => totals.ns.on_cpu() + totals.ns.runnable() + subject.blocked(),
        Field::RunqP50 => totals.runq.quantile(0.5).map_or(0, |ns| ns + 1),
        Field::RunqP99 => totals.runq.quantile(0.99).map_or(0, |ns| ns + 1),
        Field::RunqMax => totals.runq.max,
        // Nothing is blocked more than what no signal ends.
        Field::Blocked => match findings::stuck_of(model, process, subject.thread) {
            Some(stuck) => (u64::MAX / 2).saturating_add(model.stuck_for(stuck).0),
            None => subject.blocked(),
        },
        Field::Disk => of_process(process.tick_io.moved_bytes()),
        Field::DiskP99 => of_process(process.tick_io.latency.quantile(0.99).map_or(0, |ns| ns + 1)),
        Field::Switches => totals.voluntary + totals.involuntary,
        Field::Faults => totals.major_faults,
        Field::Nodes => totals.node_ns.first().copied().unwrap_or(0),
        Field::Stacks => of_process(per_mille(process.samples_complete, process.samples).map_or(0, |share| share + 1)),
        Field::Rss => of_process(process.facts.rss_bytes.unwrap_or(0)),
        Field::Threads => of_process(process.threads.into()),
    })
}

fn sort_name(subject: Subject<'_>) -> String {
    match subject.thread {
        Some(thread) => thread.comm.to_lowercase(),
        None => label::command(subject.process, true, 64).to_lowercase(),
    }
}

fn per_mille(part: u64, all: u64) -> Option<u64> {
    (all > 0).then(|| (part as f64 / all as f64 * 1000.0) as u64)
}

/// What all cells of a frame have in common.
pub struct Frame<'a> {
    pub model: &'a Model,
    pub theme: &'a Theme,
    pub span_ns: u64,
    pub cpus: usize,
    /// CPU shares are of the whole machine.
    pub machine: bool,
    /// Idle waits count.
    pub idle: bool,
    /// Whole command lines.
    pub long: bool,
    pub sched_off: bool,
    pub block_off: bool,
}

impl Frame<'_> {
    fn per_s(&self, number: u64) -> f64 {
        number as f64 * 1e9 / self.span_ns.max(1) as f64
    }

    fn cpu_share(&self, ns: u64) -> f64 {
        let share = ns as f64 / self.span_ns.max(1) as f64;
        if self.machine { share / self.cpus.max(1) as f64 } else { share }
    }
}

/// The text of a cell and how it looks; the bar is drawn by its own. Blank: not measured, or not of a thread.
pub fn cell(field: Field, subject: Subject<'_>, frame: &Frame<'_>, width: usize) -> (String, Style) {
    let Subject { process, thread, .. } = subject;
    let totals = subject.totals();
    let plain = frame.theme.text();
    let of_process = |text: String| if thread.is_some() { String::new() } else { text };
    if field.has_no_source(frame.model.session()) {
        return (format::OFF.into(), frame.theme.dim());
    }
    if frame.span_ns == 0 && field.is_measured() {
        return (format::NONE.into(), frame.theme.dim());
    }
    let text = match field {
        Field::Pid => subject.number().to_string(),
        Field::User => subject.user(frame.model),
        Field::Cpu => return cpu_cell(totals, frame),
        Field::Bar => String::new(),
        Field::RunqP50 => runq(totals, frame, 0.5),
        Field::RunqP99 => runq(totals, frame, 0.99),
        Field::RunqMax => runq(totals, frame, 1.0),
        Field::Blocked => return blocked_cell(subject, frame, width),
        Field::Disk => of_process(disk_rate(process, frame)),
        Field::DiskP99 => of_process(disk_p99(process, frame)),
        Field::Switches => format::rate(frame.per_s(totals.voluntary + totals.involuntary)),
        Field::Faults => format::rate(frame.per_s(totals.major_faults)),
        Field::Nodes => nodes(totals),
        Field::Stacks => of_process(stacks(process)),
        Field::Rss => of_process(process.facts.rss_bytes.map_or(String::new(), format::bytes)),
        Field::Threads => of_process(process.threads.to_string()),
        Field::Command => String::new(),
    };
    let style = match text.as_str() {
        format::OFF => frame.theme.warn(),
        "0" | format::NONE => frame.theme.dim(),
        _ => plain,
    };
    (text, style)
}

fn cpu_cell(totals: &Totals, frame: &Frame<'_>) -> (String, Style) {
    if frame.sched_off && totals.ns.total() == 0 {
        return (format::OFF.into(), frame.theme.warn());
    }
    let on_cpu = totals.ns.on_cpu();
    let style = if on_cpu == 0 { frame.theme.dim() } else { frame.theme.text() };
    (format::percent(frame.cpu_share(on_cpu)), style)
}

fn runq(totals: &Totals, frame: &Frame<'_>, quantile: f64) -> String {
    if frame.sched_off {
        return format::OFF.into();
    }
    let value = if quantile >= 1.0 { (!totals.runq.is_empty()).then_some(totals.runq.max) } else { None };
    value.or_else(|| totals.runq.quantile(quantile)).map_or(format::NONE.into(), format::duration)
}

/// The largest reasons, as many as fit: `disk 61% net 12%`, of the wall time of its threads.
fn blocked_cell(subject: Subject<'_>, frame: &Frame<'_>, width: usize) -> (String, Style) {
    if let Some(stuck) = findings::stuck_of(frame.model, subject.process, subject.thread) {
        return (findings::stuck_cell(frame.model, stuck, width), frame.theme.warn());
    }
    let (ns, kernel) = (&subject.totals().ns, subject.rests);
    let mut reasons: Vec<(State, u64)> = reasons(ns, kernel, frame.idle).collect();
    reasons.sort_by_key(|&(state, ns)| (std::cmp::Reverse(ns), state));
    let Some(&(largest, _)) = reasons.first() else {
        return (format::NONE.into(), frame.theme.dim());
    };
    let mut text = String::new();
    for (state, time) in reasons {
        let share = time as f64 / ns.total().max(1) as f64;
        let gap = if text.is_empty() { "" } else { " " };
        let piece = format!("{gap}{} {:.0}%", state.name(), share * 100.0);
        if share < 0.005 || !text.is_empty() && format::width(&text) + format::width(&piece) > width {
            break;
        }
        text += &piece;
    }
    if text.is_empty() {
        text = format!("{} <1%", largest.name());
    }
    (text, frame.theme.state(largest))
}

fn disk_rate(process: &Process, frame: &Frame<'_>) -> String {
    if frame.block_off {
        return format::OFF.into();
    }
    match process.tick_io.moved_bytes() {
        0 => "0".into(),
        bytes => format::count(frame.per_s(bytes) as u64),
    }
}

fn disk_p99(process: &Process, frame: &Frame<'_>) -> String {
    if frame.block_off {
        return format::OFF.into();
    }
    process.tick_io.latency.quantile(0.99).map_or(format::NONE.into(), format::duration)
}

/// Share of on-CPU time by node: `73 27`; blank on one node.
fn nodes(totals: &Totals) -> String {
    let all: u64 = totals.node_ns.iter().sum();
    if all == 0 {
        return String::new();
    }
    let share = |&ns: &u64| format!("{:.0}", ns as f64 * 100.0 / all as f64);
    totals.node_ns.iter().map(share).collect::<Vec<_>>().join(" ")
}

fn stacks(process: &Process) -> String {
    match per_mille(process.samples_complete, process.samples) {
        Some(1000) => "100%".into(),
        Some(share) => format!("{:.1}%", share as f64 / 10.0),
        None => format::NONE.into(),
    }
}
