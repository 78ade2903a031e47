//! The help screen: what does not work here and what would mend it, every key, what the glyphs mean. Keys come from the table.

use crossterm::event::{KeyEvent, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use super::app::Reply;
use super::info::wrap;
use super::keys::{self, BINDINGS, Command, Context};
use super::{Theme, draw, format, watch};
use crate::model::Model;
use crate::tick::{Grade, Refusal, Signal, State};

/// Where we are in it.
pub struct Help {
    context: Context,
    scroll: usize,
}

const NUMBERS: [&str; 8] = [
    "Numbers have at most three digits that count; k, M, G are powers of 1000, also of bytes.",
    "bold    far from what was normal for that process lately",
    "–       does not apply: a percentile of nothing",
    "(blank) not measured",
    "?       the lens is off, see above",
    "name?   in an icicle: maybe no caller, found by a frame pointer in code that may keep none",
    "†       exited",
    "<.1     more than nothing, less than can be shown",
];

impl Help {
    /// Opened from that context, whose keys come first.
    pub fn new(context: Context) -> Self {
        Help { context, scroll: 0 }
    }

    /// Scrolls; everything else closes it.
    pub fn key(&mut self, context: Context, event: &KeyEvent) -> Reply {
        match keys::key_of(event).and_then(|key| keys::lookup(context, key)) {
            Some(Command::Down) => self.scroll += 1,
            Some(Command::Up) => self.scroll = self.scroll.saturating_sub(1),
            Some(Command::PageDown) => self.scroll += 10,
            Some(Command::PageUp) => self.scroll = self.scroll.saturating_sub(10),
            Some(Command::Top | Command::Live) => self.scroll = 0,
            Some(Command::Bottom) => self.scroll = BINDINGS.len(),
            Some(Command::Quit) => return Reply::Pass,
            _ => return Reply::Close,
        }
        Reply::Stay
    }

    /// The wheel scrolls, a click closes.
    pub fn mouse(&mut self, mouse: MouseEvent, _body: Rect) -> Reply {
        match mouse.kind {
            MouseEventKind::ScrollDown => self.scroll += 3,
            MouseEventKind::ScrollUp => self.scroll = self.scroll.saturating_sub(3),
            MouseEventKind::Down(_) => return Reply::Close,
            _ => {}
        }
        Reply::Stay
    }

    fn lines<'a>(&self, model: &'a Model, theme: &Theme) -> Vec<Vec<Span<'a>>> {
        let mut lines = lacks(model, theme);
        let nearest = self.context.chain();
        let rest = Context::ALL.iter().filter(|context| !nearest.contains(context));
        for &context in nearest.iter().chain(rest) {
            lines.extend(key_lines(context, theme));
        }
        lines.push(vec![Span::styled("Where time goes", theme.header())]);
        lines.extend(State::ALL.map(|state| state_line(state, theme)));
        lines.push(Vec::new());
        lines.push(vec![Span::styled("Numbers", theme.header())]);
        lines.extend(NUMBERS.map(|text| vec![Span::styled(format!("  {text}"), theme.text())]));
        lines
    }

    /// Draws it over `body`.
    pub fn render(&self, model: &Model, theme: &Theme, body: Rect, buf: &mut Buffer) {
        let lines = self.lines(model, theme);
        let height = (lines.len() + 2).min(u16::MAX.into()) as u16;
        let frame = draw::centred(body, 92, height);
        let inner = draw::framed(buf, theme, frame, "keys: arrows scroll, any other key closes");
        let last = lines.len().saturating_sub(inner.height.into());
        let shown = lines.iter().skip(self.scroll.min(last)).take(inner.height.into());
        for (row, spans) in shown.enumerate() {
            let line = draw::line(inner, row as u16);
            draw::put_spans(buf, Rect { x: line.x + 1, width: line.width.saturating_sub(2), ..line }, spans);
        }
    }
}

/// What does not work here, why, and what would mend it, each reason once; and what was lost.
fn lacks<'a>(model: &'a Model, theme: &Theme) -> Vec<Vec<Span<'a>>> {
    if model.session().signals.is_empty() {
        return lens_lines(model, theme);
    }
    let mut lines = Vec::new();
    for (titles, refusal) in reasons(&model.session().signals) {
        lines.extend(wrapped("off     ", &titles, theme.header(), theme));
        lines.extend(wrapped("        ", &refusal.why, theme.text(), theme));
        if !refusal.remedy.is_empty() {
            lines.extend(wrapped("mend    ", &refusal.remedy, theme.text(), theme));
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

/// A text broken into lines, the first with a word before it.
fn wrapped<'a>(word: &'static str, text: &str, style: Style, theme: &Theme) -> Vec<Vec<Span<'a>>> {
    let head = |at: usize| if at == 0 { Span::styled(word, theme.alert()) } else { Span::raw("        ") };
    let lines = wrap(&format::clean(text), 78).into_iter().enumerate();
    lines.map(|(at, line)| vec![head(at), Span::styled(line, style)]).collect()
}

/// What is off, and what was lost, where no verdicts were recorded.
fn lens_lines<'a>(model: &'a Model, theme: &Theme) -> Vec<Vec<Span<'a>>> {
    let off = model.session().lenses.iter().filter_map(|lens| Some((lens.name.as_str(), lens.off.as_deref()?)));
    let mut lines: Vec<_> = off
        .map(|(name, why)| {
            vec![
                Span::styled("off  ", theme.alert()),
                Span::styled(format::left(name, 8), theme.header()),
                Span::styled(why, theme.text()),
            ]
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

fn key_lines<'a>(context: Context, theme: &Theme) -> Vec<Vec<Span<'a>>> {
    let mut lines = vec![vec![Span::styled(context.title(), theme.header())]];
    for binding in BINDINGS.iter().filter(|binding| binding.when == context) {
        lines.push(vec![
            Span::styled(format::left(&format!("  {}", keys::names(binding)), 20), theme.accent()),
            Span::styled(binding.help, theme.text()),
        ]);
    }
    lines.push(Vec::new());
    lines
}

fn state_line<'a>(state: State, theme: &Theme) -> Vec<Span<'a>> {
    let glyph = theme.state_glyph(state).repeat(3);
    let means = match state {
        State::User => "on a CPU, outside the kernel",
        State::Kernel => "on a CPU, in the kernel",
        State::Woken => "woken, waits for a CPU",
        State::Preempted => "preempted, waits for a CPU",
        State::Disk => "blocked until a disk answers",
        State::Lock => "blocked on a futex, a file lock or a semaphore",
        State::Net => "blocked on a socket",
        State::Pipe => "blocked on a pipe",
        State::Timer => "sleeps for a time (idle)",
        State::Poll => "waits for an event: poll, select, epoll, accept, a child, a signal (idle)",
        State::Fault => "blocked in a page fault",
        State::Stopped => "stopped by a signal or a debugger",
        State::Other => "blocked for another reason",
    };
    vec![
        Span::styled(format!("  {glyph}  "), theme.state(state)),
        Span::styled(format::left(state.name(), 13), theme.text()),
        Span::styled(means, theme.dim()),
    ]
}
