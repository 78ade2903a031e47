//! What is known of a process beside its time: identity, command line, memory, quality of its stacks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_segmentation::UnicodeSegmentation;

use super::help::reasons;
use super::process::{exit_words, nodes, used_up};
use super::{Command, Context, Outcome, Pane, Theme, copy, draw, format};
use crate::model::{EndSum, Hint, Model, Process};
use crate::tick::{DiskOp, Session};

/// Cells of the names on the left.
const NAMES: u16 = 20;

/// Facts of one process.
pub struct InfoPane {
    process: Process,
    /// How stacks end.
    ends: Vec<EndSum>,
    /// What would have to be done so that stacks say more.
    hints: Vec<Hint>,
    scroll: usize,
    lines: usize,
    height: usize,
}

impl InfoPane {
    /// Of that process.
    pub fn new(process: Process) -> Self {
        InfoPane { process, ends: Vec::new(), hints: Vec::new(), scroll: 0, lines: 0, height: 0 }
    }

    /// What is now known.
    pub fn update(&mut self, process: &Process) {
        self.process = process.clone();
    }

    /// Name and text of each line; a text that is wrapped goes on in lines without a name.
    fn text(&self, model: &Model, width: usize) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let mut add = |name: &'static str, text: &str| {
            for (at, part) in wrap(&format::clean(text), width).into_iter().enumerate() {
                lines.push((if at == 0 { name } else { "" }, part));
            }
        };
        identity(&self.process, model, &mut add);
        memory(&self.process, model.session(), &mut add);
        work(&self.process, &mut add);
        self.stacks(model.session(), &mut add);
        lines
    }

    fn stacks(&self, session: &Session, add: &mut impl FnMut(&'static str, &str)) {
        let (samples, complete) = (self.process.all_samples, self.process.all_samples_complete);
        add("", "");
        add("on-CPU samples", &format::grouped(samples));
        if samples > 0 {
            let share = format::percent(complete as f64 / samples as f64);
            add(
                "stacks complete",
                &format!("{share} %, {} of {}", format::grouped(complete), format::grouped(samples)),
            );
        }
        for sum in self.ends.iter().filter(|sum| !sum.is_complete() && sum.samples > 0) {
            add("stacks not complete", &format!("{}: {}", sum.end.name(), format::grouped(sum.samples)));
        }
        for (what, how) in self.hints.iter().map(|hint| advice(*hint, &self.process)) {
            add("missing", what);
            add("remedy", &how);
        }
        for (titles, refusal) in reasons(&session.signals) {
            add("off", &titles);
            add("reason", &refusal.why);
            if !refusal.remedy.is_empty() {
                add("remedy", &refusal.remedy);
            }
        }
        // Captures from before there were verdicts.
        for status in session.lenses.iter().filter(|_| session.signals.is_empty()) {
            if let Some(why) = &status.off {
                add("lens off", &format!("{}: {why}", status.name));
            }
        }
    }

    fn scroll_to(&mut self, line: usize) {
        self.scroll = line.min(self.lines.saturating_sub(self.height));
    }
}

impl Pane for InfoPane {
    fn context(&self) -> Context {
        Context::Anywhere
    }

    fn title(&self, _model: &Model) -> String {
        "info".into()
    }

    fn command(&mut self, command: Command, _model: &Model) -> Outcome {
        let page = self.height.max(1);
        match command {
            Command::Up => self.scroll_to(self.scroll.saturating_sub(1)),
            Command::Down => self.scroll_to(self.scroll + 1),
            Command::PageUp => self.scroll_to(self.scroll.saturating_sub(page)),
            Command::PageDown => self.scroll_to(self.scroll + page),
            Command::Top => self.scroll_to(0),
            Command::Bottom => self.scroll_to(usize::MAX),
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn copy(&self, model: &Model) -> Option<String> {
        let line = |(name, text): &(&str, String)| format!("{name}\t{}", format::clean(text));
        Some(self.text(model, copy::LONGEST_BYTES).iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    fn mouse(&mut self, mouse: crossterm::event::MouseEvent, _area: Rect, model: &Model) -> Outcome {
        match mouse.kind {
            crossterm::event::MouseEventKind::ScrollUp => self.command(Command::Up, model),
            crossterm::event::MouseEventKind::ScrollDown => self.command(Command::Down, model),
            _ => Outcome::Ignored,
        }
    }

    fn tick(&mut self, model: &Model, _hold: bool) {
        self.ends = model.stack_ends(Some(self.process.key));
        self.hints = model.hints(self.process.key);
    }

    fn layout(&mut self, area: Rect, model: &Model) {
        self.lines = self.text(model, text_width(area)).len();
        self.height = area.height.into();
        self.scroll_to(self.scroll);
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let lines = self.text(model, text_width(area));
        for (at, (name, text)) in lines.iter().skip(self.scroll).take(area.height.into()).enumerate() {
            let y = area.y + at as u16;
            draw::put(buf, area.x, y, &format::right(name, NAMES.into()), NAMES.min(area.width), theme.dim());
            let x = area.x + NAMES + 2;
            draw::put(buf, x, y, text, area.right().saturating_sub(x), theme.text());
        }
    }
}

/// What is missing in the stacks, and exactly what would mend it.
fn advice(hint: Hint, process: &Process) -> (&'static str, String) {
    let (pid, place) = match process.facts.inner_pid {
        Some(inner) => (inner, " within its container"),
        None => (process.key.tgid, ""),
    };
    match hint {
        Hint::JavaStacks => (
            "callers of Java code: HotSpot keeps no frame pointers",
            "start it with java -XX:+PreserveFramePointer".to_owned(),
        ),
        Hint::JavaNames => (
            "names of Java code",
            format!("run jcmd {pid} Compiler.perfmap{place} (JDK 17 and newer), and again when more was compiled"),
        ),
        Hint::NodeNames => ("names of JavaScript code", "start it with node --perf-basic-prof".to_owned()),
        Hint::PythonNames(minor) => (
            "names of Python code",
            format!("start it with python3.{minor} -X perf, or call sys.activate_stack_trampoline(\"perf\") in it"),
        ),
        Hint::PythonTooOld(minor) => {
            ("names of Python code", format!("Python 3.{minor} cannot tell them; 3.12 and newer can (-X perf)"))
        }
    }
}

fn text_width(area: Rect) -> usize {
    usize::from(area.width.saturating_sub(NAMES + 3)).max(8)
}

fn identity(process: &Process, model: &Model, add: &mut impl FnMut(&'static str, &str)) {
    let facts = &process.facts;
    add("PID", &process.key.tgid.to_string());
    if let Some(inner) = facts.inner_pid {
        add("PID in its namespace", &inner.to_string());
    }
    let parent = model.processes().find(|other| other.key.tgid == facts.ppid && other.exited.is_none());
    match (facts.ppid, parent) {
        (0, _) => add("parent", format::NONE),
        (ppid, Some(parent)) => add("parent", &format!("{ppid} {}", parent.facts.comm)),
        (ppid, None) => add("parent", &ppid.to_string()),
    }
    let user = model.user(facts.uid).unwrap_or("no name");
    add("user", &format!("{user} (uid {})", facts.uid));
    if let Some(span) = model.span() {
        let now = span.end_ns.saturating_add(model.boot_offset_ns());
        add("started", &format!("{} ago", format::age(now.saturating_sub(process.key.start_ns))));
        if let Some(exit) = process.exited {
            let ago = format::age(span.end_ns.saturating_sub(exit.at_ns));
            add("ended", &format!("{}, {ago} ago", exit_words(exit.status)));
        }
    }
    add("name", &facts.comm);
    add("program", facts.exe.as_deref().unwrap_or(if facts.kernel { "thread of the kernel" } else { "" }));
    match &facts.cmdline {
        Some(arguments) => add("command line", &arguments.join(" ")),
        None => add("command line", if facts.kernel { format::NONE } else { "" }),
    }
    add("cgroup", facts.cgroup.as_deref().unwrap_or(""));
    if let Some(quota) = model.quota_of(process).filter(|_| process.exited.is_none()) {
        let (cpus, whose) = (quota.quota_ns as f64 / quota.period_ns.max(1) as f64, &quota.cgroup);
        add("CPU quota", &format!("{cpus:.2} CPUs for {whose}, used up in {} of the last tick", used_up(quota)));
    }
    add("threads", &format::grouped(process.threads.into()));
}

fn memory(process: &Process, session: &Session, add: &mut impl FnMut(&'static str, &str)) {
    let facts = &process.facts;
    add("resident memory", &facts.rss_bytes.map(format::bytes).unwrap_or_default());
    add("virtual memory", &facts.virtual_bytes.map(format::bytes).unwrap_or_default());
    if let Some(by_node) = &facts.node_bytes {
        let ids = session.nodes.iter().map(|(id, _)| *id);
        let parts: Vec<_> =
            ids.zip(by_node).map(|(id, &bytes)| format!("node {id}: {}", format::bytes(bytes))).collect();
        add("memory by node", &parts.join("  "));
    }
    let ran = nodes(&process.all.node_ns, session);
    if !ran.is_empty() {
        add("ran on", &ran.join("  "));
    }
}

fn work(process: &Process, add: &mut impl FnMut(&'static str, &str)) {
    let all = &process.all;
    let time = |ns: u64| format::duration(ns);
    add("", "");
    add("since first seen", &format!("{} of thread time", time(all.ns.total())));
    add("on-CPU", &time(all.ns.on_cpu()));
    add("runnable", &time(all.ns.runnable()));
    add("blocked", &time(all.ns.blocked()));
    let switches = format!("{} voluntary, {} not", format::grouped(all.voluntary), format::grouped(all.involuntary));
    add("switches", &switches);
    add("migrations", &format::grouped(all.migrations));
    let faults = format!("{} minor, {} major", format::grouped(all.minor_faults), format::grouped(all.major_faults));
    add("page faults", &faults);
    for op in DiskOp::ALL {
        let (requests, bytes) = (process.all_io.requests[op as usize], process.all_io.bytes[op as usize]);
        if requests > 0 {
            add(disk_line(op), &format!("{} requests, {}", format::grouped(requests), format::bytes(bytes)));
        }
    }
}

fn disk_line(op: DiskOp) -> &'static str {
    match op {
        DiskOp::Read => "disk reads",
        DiskOp::Write => "disk writes",
        DiskOp::Flush => "disk flushes",
        DiskOp::Discard => "disk discards",
    }
}

/// A text in lines of at most `width` cells, broken at blanks where there are any. At least one line.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if !line.is_empty() && format::width(&line) + format::width(word.trim_end()) > width {
            lines.push(std::mem::take(&mut line));
        }
        for grapheme in word.graphemes(true) {
            if format::width(&line) + format::width(grapheme) > width && grapheme != " " {
                lines.push(std::mem::take(&mut line));
            }
            line.push_str(grapheme);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_at_blanks_and_within_long_words() {
        assert_eq!(wrap("cc1 -O2 main.c", 8), ["cc1 -O2 ", "main.c"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("日本語日本", 5), ["日本", "語日", "本"]);
        assert_eq!(wrap("", 5), [""]);
        let long = "x".repeat(4096);
        assert!(wrap(&long, 57).iter().all(|line| line.len() <= 57));
    }
}
