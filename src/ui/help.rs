//! The help screen: what does not work here and what would mend it, every key, what the glyphs mean. Keys come from the table.

use crossterm::event::{KeyEvent, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use super::app::Reply;
use super::info::wrap;
use super::keys::{self, BINDINGS, Command, Context};
use super::scroll::Scroll;
use super::{Theme, draw, format, watch};
use crate::model::Model;
use crate::tick::{Grade, Refusal, Signal, State};

/// Where we are in it.
pub struct Help {
    context: Context,
    scroll: Scroll,
}

const NUMBERS: [(&str, &str); 8] = [
    ("", "Numbers have at most three digits that count; k, M, G are powers of 1000, also of bytes."),
    ("bold", "far from what was normal for that process lately"),
    ("–", "does not apply: a percentile of nothing"),
    ("(blank)", "not measured"),
    ("?", "the lens is off, see above"),
    ("name?", "in an icicle: maybe no caller, found by a frame pointer in code that may keep none"),
    ("†", "exited, with that status (†0), or killed by that signal (†TERM)"),
    ("<.1", "more than nothing, less than can be shown"),
];

/// The frame.
const WIDTH: u16 = 92;

/// Cells of a line over `body`.
fn cells(body: Rect) -> usize {
    body.width.min(WIDTH).saturating_sub(4).into()
}

impl Help {
    /// Opened from that context, whose keys come first.
    pub fn new(context: Context) -> Self {
        Help { context, scroll: Scroll::default() }
    }

    /// Scrolls; everything else closes it. It stands over `body`.
    pub fn key(&mut self, event: &KeyEvent, model: &Model, theme: &Theme, body: Rect) -> Reply {
        let lines = self.lines(model, theme, cells(body)).len();
        match keys::key_of(event).and_then(|key| keys::lookup(self.context, key)) {
            Some(Command::Quit) => Reply::Pass,
            Some(command) if self.scroll.command(command, lines, body) => Reply::Stay,
            _ => Reply::Close,
        }
    }

    /// The wheel scrolls, a click closes.
    pub fn mouse(&mut self, mouse: MouseEvent, model: &Model, theme: &Theme, body: Rect) -> Reply {
        let lines = self.lines(model, theme, cells(body)).len();
        match mouse.kind {
            MouseEventKind::ScrollDown => self.scroll.by(3, lines, body),
            MouseEventKind::ScrollUp => self.scroll.by(-3, lines, body),
            MouseEventKind::Down(_) => return Reply::Close,
            _ => {}
        }
        Reply::Stay
    }

    fn lines<'a>(&self, model: &'a Model, theme: &Theme, cells: usize) -> Vec<Vec<Span<'a>>> {
        let mut lines = lacks(model, theme, cells);
        let nearest = self.context.chain();
        let rest = Context::ALL.iter().filter(|context| !nearest.contains(context));
        for &context in nearest.iter().chain(rest) {
            lines.extend(key_lines(context, theme, cells));
        }
        lines.push(vec![Span::styled("Where time goes", theme.header())]);
        lines.extend(State::ALL.iter().flat_map(|&state| state_lines(state, theme, cells)));
        lines.push(Vec::new());
        lines.push(vec![Span::styled("Numbers", theme.header())]);
        for (what, means) in NUMBERS {
            let head = if what.is_empty() { "  ".into() } else { format::left(&format!("  {what}"), 10) };
            lines.extend(hung(vec![Span::styled(head, theme.text())], means, theme.text(), cells));
        }
        lines
    }

    /// Draws it over `body`.
    pub fn render(&self, model: &Model, theme: &Theme, body: Rect, buf: &mut Buffer) {
        let lines = self.lines(model, theme, cells(body));
        let height = (lines.len() + 2).min(u16::MAX.into()) as u16;
        let frame = draw::centred(body, WIDTH, height);
        let inner = draw::framed(buf, theme, frame, "keys: arrows scroll, any other key closes");
        let shown = lines.iter().skip(self.scroll.first(lines.len(), body)).take(inner.height.into());
        for (row, spans) in shown.enumerate() {
            let line = draw::line(inner, row as u16);
            draw::put_spans(buf, Rect { x: line.x + 1, width: line.width.saturating_sub(2), ..line }, spans);
        }
    }
}

/// A text after what it is about, broken into lines of so many cells, all of them right of the head.
fn hung<'a>(head: Vec<Span<'a>>, text: &str, style: Style, cells: usize) -> Vec<Vec<Span<'a>>> {
    let indent: usize = head.iter().map(|span| format::width(&span.content)).sum();
    let mut lines: Vec<_> = wrap(text, cells.saturating_sub(indent).max(1))
        .into_iter()
        .map(|line| vec![Span::raw(" ".repeat(indent)), Span::styled(line.trim_end().to_owned(), style)])
        .collect();
    lines[0].splice(..1, head);
    lines
}

/// What does not work here, why, and what would mend it, each reason once; and what was lost.
fn lacks<'a>(model: &'a Model, theme: &Theme, cells: usize) -> Vec<Vec<Span<'a>>> {
    if model.session().signals.is_empty() {
        return lens_lines(model, theme, cells);
    }
    let mut lines = Vec::new();
    for (titles, refusal) in reasons(&model.session().signals) {
        let mut say = |word, text: &str, style| {
            lines.extend(hung(vec![Span::styled(word, theme.alert())], &format::clean(text), style, cells));
        };
        say("off     ", &titles, theme.header());
        say("        ", &refusal.why, theme.text());
        if !refusal.remedy.is_empty() {
            say("mend    ", &refusal.remedy, theme.text());
        }
    }
    if lines.is_empty() {
        lines.push(vec![Span::styled("Everything works here.", theme.dim())]);
    }
    lines.extend(lost_lines(model, theme));
    lines
}

/// What is less than whole and counts, by reason: names of signals, and the reason.
pub(super) fn reasons(signals: &[Signal]) -> Vec<(String, &Refusal)> {
    let mut reasons: Vec<(String, &Refusal)> = Vec::new();
    for signal in signals.iter().filter(|signal| signal.kind.counts() && signal.grade() >= Grade::Reduced) {
        let Some(lack) = signal.lack() else { continue };
        let partly = if signal.grade() == Grade::Reduced { " (reduced)" } else { "" };
        let title = format!("{}{partly}", signal.kind.title());
        match reasons.iter_mut().find(|(_, refusal)| *refusal == lack) {
            Some((titles, _)) => *titles += &format!(", {title}"),
            None => reasons.push((title, lack)),
        }
    }
    reasons
}

/// What is off, and what was lost, where no verdicts were recorded.
fn lens_lines<'a>(model: &'a Model, theme: &Theme, cells: usize) -> Vec<Vec<Span<'a>>> {
    let off = model.session().lenses.iter().filter_map(|lens| Some((lens.name.as_str(), lens.off.as_deref()?)));
    let mut lines: Vec<_> = off
        .flat_map(|(name, why)| {
            let head = vec![Span::styled("off  ", theme.alert()), Span::styled(format::left(name, 8), theme.header())];
            hung(head, &format::clean(why), theme.text(), cells)
        })
        .collect();
    for check in model.watch().alarms() {
        lines.push(vec![
            Span::styled("doubt ", theme.warn()),
            Span::styled(watch::said(check), theme.text()),
            Span::styled(", in the last five ticks", theme.dim()),
        ]);
    }
    if lines.is_empty() {
        lines.push(vec![Span::styled("Every lens works here.", theme.dim())]);
    }
    lines.extend(lost_lines(model, theme));
    lines
}

fn lost_lines<'a>(model: &Model, theme: &Theme) -> Vec<Vec<Span<'a>>> {
    let mut lines = Vec::new();
    for &(loss, count) in model.losses() {
        let now = model.tick_losses().iter().find(|(other, _)| *other == loss).map_or(0, |&(_, count)| count);
        let when = format!(", since the start; {} of them this tick", format::count(now));
        lines.push(vec![
            Span::styled("lost ", if now > 0 { theme.alert() } else { theme.text() }),
            Span::styled(format::left(&format::count(count), 8), theme.header()),
            Span::styled(loss.name(), theme.text()),
            Span::styled(when, theme.dim()),
        ]);
    }
    lines.push(Vec::new());
    lines
}

fn key_lines<'a>(context: Context, theme: &Theme, cells: usize) -> Vec<Vec<Span<'a>>> {
    let mut lines = vec![vec![Span::styled(context.title(), theme.header())]];
    for binding in BINDINGS.iter().filter(|binding| binding.when == context) {
        let names = format::left(&format!("  {}", keys::names(binding)), 20);
        lines.extend(hung(vec![Span::styled(names, theme.accent())], binding.help, theme.text(), cells));
    }
    lines.push(Vec::new());
    lines
}

fn state_lines<'a>(state: State, theme: &Theme, cells: usize) -> Vec<Vec<Span<'a>>> {
    let glyph = theme.state_glyph(state).repeat(3);
    let means = match state {
        State::User => "on a CPU, outside the kernel",
        State::Kernel => "on a CPU, in the kernel",
        State::Woken => "woken, waits for a CPU",
        State::Preempted => "preempted, waits for a CPU",
        State::Disk => "blocked until a disk answers",
        State::Lock => "blocked on a lock, or for less than 10 ms at a time on another thread",
        State::Net => "blocked on a socket",
        State::Pipe => "blocked on a pipe",
        State::Timer => "sleeps for a time (idle)",
        State::Poll => "waits for an event: poll, epoll, accept, a child, a signal, a condition (idle)",
        State::Fault => "blocked in a page fault",
        State::Stopped => "stopped by a signal or a debugger",
        State::Other => "blocked for another reason",
    };
    let head = vec![
        Span::styled(format!("  {glyph}  "), theme.state(state)),
        Span::styled(format::left(state.name(), 13), theme.text()),
    ];
    hung(head, means, theme.dim(), cells)
}
