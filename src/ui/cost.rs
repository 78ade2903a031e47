//! What sberf costs: by collector, by thread, in memory and in time; and what BPF programs of others cost.

use std::time::Duration;

use crossterm::event::{KeyEvent, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::app::Reply;
use super::keys::{self, Command, Context};
use super::scroll::Scroll;
use super::{Theme, draw, format, watch};
use crate::model::Model;
use crate::tick::{Clockwork, Collector, Cost, OtherProgram, Watch};

/// The popup. What it shows is the model's newest tick.
#[derive(Default)]
pub(super) struct CostPopup {
    scroll: Scroll,
}

/// Time the screen took, which the model does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrawTime {
    /// The newest frame.
    pub last: Duration,
    /// The slowest since the start.
    pub longest: Duration,
}

impl DrawTime {
    /// A frame took that long.
    pub fn add(&mut self, took: Duration) {
        self.last = took;
        self.longest = self.longest.max(took);
    }
}

impl CostPopup {
    /// Scrolls; everything else closes it. It stands over `body`.
    pub fn key(&mut self, context: Context, event: &KeyEvent, model: &Model, body: Rect) -> Reply {
        let lines = count(model);
        match keys::key_of(event).and_then(|key| keys::lookup(context, key)) {
            Some(Command::Quit) => Reply::Pass,
            Some(command) if self.scroll.command(command, lines, body) => Reply::Stay,
            _ => Reply::Close,
        }
    }

    /// The wheel scrolls, a click closes.
    pub fn mouse(&mut self, mouse: MouseEvent, model: &Model, body: Rect) -> Reply {
        match mouse.kind {
            MouseEventKind::ScrollDown => self.scroll.by(3, count(model), body),
            MouseEventKind::ScrollUp => self.scroll.by(-3, count(model), body),
            MouseEventKind::Down(_) => return Reply::Close,
            _ => {}
        }
        Reply::Stay
    }

    /// Draws it over `body`.
    pub fn render(&self, model: &Model, draws: DrawTime, theme: &Theme, body: Rect, buf: &mut Buffer) {
        let lines = lines(model, draws, theme);
        let frame = draw::centred(body, WIDTH, (lines.len() + 2).min(u16::MAX.into()) as u16);
        let inner = draw::framed(buf, theme, frame, "what sberf costs: arrows scroll, any other key closes");
        let shown = lines.iter().skip(self.scroll.first(lines.len(), body)).take(inner.height.into());
        for (row, spans) in shown.enumerate() {
            let line = draw::line(inner, row as u16);
            draw::put_spans(buf, Rect { x: line.x + 1, width: line.width.saturating_sub(2), ..line }, spans);
        }
    }
}

const WIDTH: u16 = 78;
/// BPF programs of others that are listed.
const OTHERS: usize = 6;

type Line = Vec<Span<'static>>;

fn count(model: &Model) -> usize {
    lines(model, DrawTime::default(), &Theme::default()).len()
}

fn lines(model: &Model, draws: DrawTime, theme: &Theme) -> Vec<Line> {
    let Some(span) = model.span().filter(|span| span.len_ns() > 0) else {
        return vec![vec![Span::styled("nothing was measured yet", theme.dim())]];
    };
    let (cost, len_ns) = (model.cost(), span.len_ns());
    let mut lines = vec![sum(model, cost, len_ns, theme), Vec::new()];
    lines.push(header("in the kernel", ["events/s", "ns/event", "CPU %", "maps"], theme));
    lines.extend(cost.collectors.iter().map(|collector| collector_line(collector, len_ns, theme)));
    lines.push(vec![Span::styled(clock(cost), theme.dim())]);
    lines.push(header("in user space", ["", "", "CPU %", ""], theme));
    for thread in &cost.threads {
        lines.push(row(&thread.role, ["".into(), "".into(), share(thread.ns, len_ns), "".into()], theme));
    }
    let threads = cost.threads.iter().fold(0u64, |sum, thread| sum.saturating_add(thread.ns));
    let ended = cost.user_space_ns.saturating_sub(threads);
    lines.push(row("threads that ended, rounding", ["".into(), "".into(), share(ended, len_ns), "".into()], theme));
    lines.push(Vec::new());
    lines.push(vec![Span::styled(memory(cost), theme.text())]);
    lines.push(vec![Span::styled(times(cost, draws), theme.text())]);
    lines.push(Vec::new());
    lines.extend(watched(model.watch(), theme));
    lines.extend(others(cost, len_ns, theme));
    lines
}

/// All of it, of one CPU and of the machine.
fn sum(model: &Model, cost: &Cost, len_ns: u64, theme: &Theme) -> Line {
    let total = cost.total_ns() as f64 / len_ns as f64;
    let cpus = model.cpus().len().max(1);
    let text = format!("{} % of one CPU, {} % of the machine", format::percent(total), {
        format::percent(total / cpus as f64)
    });
    vec![Span::styled(text, theme.header())]
}

fn header(what: &str, columns: [&str; 4], theme: &Theme) -> Line {
    vec![Span::styled(cells(what, columns), theme.header())]
}

fn row(what: &str, columns: [String; 4], theme: &Theme) -> Line {
    let columns = columns.each_ref().map(String::as_str);
    vec![Span::styled(cells(what, columns), theme.text())]
}

fn cells(what: &str, columns: [&str; 4]) -> String {
    let what = format::left(&format::clean(what), 30);
    let columns = columns.map(|column| format::right(column, 11));
    format!("{what}{}", columns.concat())
}

fn collector_line(collector: &Collector, len_ns: u64, theme: &Theme) -> Line {
    let Collector { name, events, ns, map_bytes, in_user_space } = collector;
    let what = match name.as_str() {
        "sched" => "sched: switches, wakeups",
        "stacks" => "stacks: walks when blocked",
        "oncpu" => "oncpu: samples",
        "life" => "life: fork, exec, exit",
        "block" => "block: disk requests",
        "numa" => "numa: moves",
        "tasks" => "tasks: threads in a pass",
        name => name,
    };
    let each = ns.filter(|_| *events > 0).map_or(format::NONE.to_owned(), |ns| format::grouped(ns / events));
    // What is part of the threads' time already is in brackets.
    let cpu = ns.map_or(format::NONE.to_owned(), |ns| match in_user_space {
        true => format!("({})", share(ns, len_ns)),
        false => share(ns, len_ns),
    });
    let rate = format::rate(*events as f64 / (len_ns as f64 / 1e9));
    row(what, [rate, each, cpu, format::bytes(*map_bytes)], theme)
}

fn share(ns: u64, of_ns: u64) -> String {
    format::percent(ns as f64 / of_ns as f64)
}

fn clock(cost: &Cost) -> &'static str {
    match cost.clockwork {
        Clockwork::None => "the time in BPF programs is not known",
        Clockwork::Kernel => "by the kernel's statistics: they cost all BPF programs some 35 ns a run",
        Clockwork::Own => "by the programs' own clock: one of 64 switches and wakeups, all others",
    }
}

fn memory(cost: &Cost) -> String {
    let [rss, maps, symbols] = [cost.rss_bytes, cost.map_bytes, cost.symbol_bytes].map(format::bytes);
    format!("resident {rss}, of that symbols {symbols}; BPF maps {maps}")
}

fn times(cost: &Cost, draws: DrawTime) -> String {
    let frame = |time: Duration| format::duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    format!(
        "tick ready {} after its end; frame drawn in {}, longest {}",
        format::duration(cost.late_ns),
        frame(draws.last),
        frame(draws.longest)
    )
}

/// The budget and what was given up for it; what was compared with procfs.
fn watched(watch: &Watch, theme: &Theme) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(governor) = &watch.governor {
        let is_governing = governor.is_governing() || governor.exhausted;
        let [budget, cost] = [governor.budget_ppm, governor.cost_ppm].map(|ppm| format::percent(f64::from(ppm) / 1e6));
        lines.push(match is_governing {
            true => vec![Span::styled(watch::gave_up(governor), theme.warn())],
            false => {
                let text = format!("budget {budget} % of the machine; {cost} % used, without tables and names");
                vec![Span::styled(text, theme.text())]
            }
        });
        lines.push(Vec::new());
    }
    if !watch.checks.is_empty() {
        lines.push(header("beside procfs, five ticks", ["", "", "", ""], theme));
    }
    for check in &watch.checks {
        let style = if check.verdict.is_alarm() { theme.warn() } else { theme.text() };
        let text = format!("{}: {}", watch::said(check), watch::verdict(check.verdict));
        lines.push(vec![Span::styled(text, style)]);
    }
    if !watch.checks.is_empty() {
        lines.push(Vec::new());
    }
    lines
}

fn others(cost: &Cost, len_ns: u64, theme: &Theme) -> Vec<Line> {
    let Some(others) = &cost.others else {
        let why = "BPF programs of others: not counted (that needs CAP_SYS_ADMIN, and a tick)";
        return vec![vec![Span::styled(why, theme.dim())]];
    };
    let mut lines = vec![header("BPF programs of others", ["runs/s", "ns/run", "CPU %", "id"], theme)];
    lines.extend(others.iter().take(OTHERS).map(|other| {
        let OtherProgram { id, name, runs, ns } = other;
        let rate = format::rate(*runs as f64 / (len_ns as f64 / 1e9));
        row(name, [rate, format::grouped(ns / (*runs).max(1)), share(*ns, len_ns), id.to_string()], theme)
    }));
    if others.is_empty() {
        lines.push(vec![Span::styled("none ran", theme.dim())]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::invented::Invention;
    use crate::ui::testing::{model, mono, text};

    fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        let mut draws = DrawTime::default();
        draws.add(Duration::from_millis(9));
        draws.add(Duration::from_millis(2));
        CostPopup::default().render(model, draws, &mono(), area, &mut buf);
        text(&buf)
    }

    #[test]
    fn what_was_measured_stands_there() {
        let model = model(Invention::default(), 3);
        let lines = drawn(&model, 80, 40);
        let found = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
        let cost = model.cost();
        for collector in &cost.collectors {
            assert!(found(&[&collector.name, &format::bytes(collector.map_bytes)]), "{collector:?}: {lines:#?}");
        }
        for thread in &cost.threads {
            assert!(found(&[&thread.role]), "{thread:?}: {lines:#?}");
        }
        assert!(
            found(&["frame drawn in 2.0ms, longest 9.0ms"]) || found(&["frame drawn in 2ms, longest 9ms"]),
            "{lines:#?}"
        );
        assert!(found(&["own clock"]) && found(&["of the machine"]), "{lines:#?}");
        assert!(found(&["others", "id"]) && found(&["tcp_probe"]), "{lines:#?}");
    }

    #[test]
    fn any_size() {
        let model = model(Invention { hostile: true, ..Invention::default() }, 3);
        (0..30).for_each(|width| (0..9).for_each(|height| drop(drawn(&model, width, height))));
    }
}
