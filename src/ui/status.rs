//! The first line, which never goes away: where, how and how well we look, and what looking costs.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{Theme, draw, format};
use crate::model::Model;
use crate::tick::{Basis, LeverKind, Loss, Sampler};

/// What the screen itself knows.
pub struct Status {
    /// Length of a tick.
    pub interval: Duration,
    /// The picture is held.
    pub paused: bool,
    /// Ticks that wait meanwhile.
    pub behind: usize,
    /// A past tick is shown, which ended so long before the newest.
    pub past_ns: Option<u64>,
    /// What is shown was recorded.
    pub replay: bool,
    /// No more ticks will come.
    pub ended: bool,
    /// Local time minus UTC.
    pub utc_offset_s: i32,
    /// On-CPU samples of the newest tick, and how many of them have a complete stack.
    pub samples: (u64, u64),
}

/// A piece of the line, with how early it is dropped when there is no room: 0 never.
struct Piece<'a> {
    drop: u8,
    spans: Vec<Span<'a>>,
}

impl Piece<'_> {
    fn width(&self) -> usize {
        self.spans.iter().map(|span| format::width(&span.content)).sum()
    }
}

/// Draws it: left what is observed and how, right how much of it is known.
pub fn render(status: &Status, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if model.span().is_none() && model.session().cpus.is_empty() {
        // The source has not said what machine this is: whatever stood here would be made up.
        draw::put_spans(buf, from(area, area.x + 1), &[Span::styled("sberf", theme.header())]);
        return;
    }
    let left = vec![
        Piece { drop: 3, spans: vec![Span::styled("sberf", theme.header())] },
        Piece { drop: 4, spans: vec![Span::styled(model.session().hostname.clone(), theme.text())] },
        Piece { drop: 6, spans: vec![Span::styled(kernel(model), theme.dim())] },
        Piece { drop: 5, spans: vec![Span::styled(machine(model), theme.text())] },
        Piece { drop: 0, spans: procfs_only(model, theme) },
        Piece { drop: 2, spans: sampler(model, theme) },
        Piece { drop: 0, spans: vec![Span::styled(interval(status.interval), theme.text())] },
        Piece { drop: 0, spans: position(status, model, theme) },
    ];
    let right = |roomy| {
        vec![
            Piece { drop: 1, spans: stacks(status, model, roomy, theme) },
            Piece { drop: 0, spans: lost(model, roomy, theme) },
            Piece { drop: 0, spans: alarms(model, theme) },
            Piece { drop: 1, spans: own_cost(model, theme) },
        ]
    };
    let limit = |right: &[Piece<'_>]| {
        let fits = |&limit: &u8| width(&left, LEFT, limit) + width(right, RIGHT, limit) < area.width.into();
        (1..=7).rev().find(fits).unwrap_or(1)
    };
    // Words are written out where that costs no other piece its place.
    let (long, short) = (right(true), right(false));
    let right = if area.width >= ROOMY && limit(&long) >= limit(&short) { long } else { short };
    let limit = limit(&right);
    let mut x = area.x;
    for (at, piece) in shown(&left, limit).enumerate() {
        let gap = Span::styled(if at == 0 { " " } else { " │ " }, theme.border());
        x = draw::put_spans(buf, from(area, x), &[gap]);
        x = draw::put_spans(buf, from(area, x), &piece.spans);
    }
    let mut x = area.right().saturating_sub(width(&right, RIGHT, limit) as u16).max(x + 1);
    for piece in shown(&right, limit) {
        x = draw::put_spans(buf, from(area, x), &piece.spans) + RIGHT as u16;
    }
}

/// Cells between the pieces on the left, and after each on the right.
const LEFT: usize = 3;
const RIGHT: usize = 2;

fn from(area: Rect, x: u16) -> Rect {
    let x = x.min(area.right());
    Rect { x, width: area.right() - x, ..area }
}

/// Pieces with `drop` below the limit.
fn shown<'p, 'a>(pieces: &'p [Piece<'a>], limit: u8) -> impl Iterator<Item = &'p Piece<'a>> {
    pieces.iter().filter(move |piece| piece.drop < limit && piece.width() > 0)
}

fn width(pieces: &[Piece<'_>], gap: usize, limit: u8) -> usize {
    shown(pieces, limit).map(|piece| piece.width() + gap).sum()
}

fn kernel(model: &Model) -> String {
    model.session().kernel.clone()
}

fn machine(model: &Model) -> String {
    let session = model.session();
    let (cpus, nodes) = (session.cpus.len(), session.nodes.len().max(1));
    format!("{cpus} CPU {nodes} node{}", if nodes == 1 { "" } else { "s" })
}

/// Nothing of BPF runs: most of what the screen is for is not there, and help says why.
fn procfs_only<'a>(model: &Model, theme: &Theme) -> Vec<Span<'a>> {
    match model.session().basis {
        Basis::Procfs => {
            vec![Span::styled("procfs only", theme.alert()), Span::styled(", ? says why", theme.warn())]
        }
        Basis::Bpf => Vec::new(),
    }
}

fn sampler<'a>(model: &Model, theme: &Theme) -> Vec<Span<'a>> {
    let session = model.session();
    let (asked, by) = match session.sampler {
        Sampler::Off if session.basis == Basis::Procfs || model.is_glance() => return Vec::new(),
        Sampler::Off => return vec![Span::styled("sampling off", theme.warn())],
        Sampler::Cycles(hz) => (hz, "cycles"),
        Sampler::CpuClock(hz) => (hz, "cpu-clock"),
    };
    let governor = model.watch().governor.as_ref();
    let now = governor.and_then(|governor| governor.lever(LeverKind::Rate)).map_or(asked, |lever| lever.now);
    vec![match now {
        0 => Span::styled("sampling off", theme.warn()),
        hz if hz < asked => Span::styled(format!("{hz}Hz {by}"), theme.warn()),
        hz => Span::styled(format!("{hz}Hz {by}"), theme.text()),
    }]
}

fn interval(interval: Duration) -> String {
    match interval.as_millis() {
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

fn position<'a>(status: &Status, model: &Model, theme: &Theme) -> Vec<Span<'a>> {
    let clock = model.span().map(|span| {
        let local = (span.wall_ns + span.len_ns()) as i64 + i64::from(status.utc_offset_s) * 1_000_000_000;
        format!(" {}", format::clock(local.max(0) as u64))
    });
    if let Some(past_ns) = status.past_ns {
        let text = format!("past{} -{}", clock.unwrap_or_default(), format::duration(past_ns));
        return vec![Span::styled(text, theme.warn())];
    }
    let (word, style) = match (status.paused, status.replay, status.ended) {
        (true, _, _) => ("paused", theme.warn()),
        (_, true, true) => ("replay over", theme.warn()),
        (_, false, true) => ("stopped", theme.alert()),
        (_, true, false) => ("replay", theme.accent()),
        (_, false, false) => ("live", theme.accent()),
    };
    let mut spans = vec![Span::styled(word, style), Span::styled(clock.unwrap_or_default(), theme.text())];
    if status.paused && status.behind > 0 {
        spans.push(Span::styled(format!(" +{}", format::count(status.behind as u64)), theme.warn()));
    }
    spans
}

/// From that width on words may be written out.
const ROOMY: u16 = 110;

/// How whole stacks are; nothing where there are none to be had.
fn stacks<'a>(status: &Status, model: &Model, roomy: bool, theme: &Theme) -> Vec<Span<'a>> {
    match model.session().basis {
        _ if model.is_glance() => Vec::new(),
        Basis::Procfs => Vec::new(),
        Basis::Bpf => complete(status.samples, roomy, by_fp(model), theme),
    }
}

/// Share of the tick's samples whose user stack reaches its first function.
fn complete<'a>((samples, complete): (u64, u64), roomy: bool, by_fp: bool, theme: &Theme) -> Vec<Span<'a>> {
    let what = match (by_fp, roomy) {
        (true, _) => "fp stacks ",
        (false, true) => "stacks complete ",
        (false, false) => "stacks ",
    };
    if samples == 0 {
        return vec![Span::styled(what, theme.dim()), Span::styled(format::NONE, theme.text())];
    }
    let share = complete as f64 / samples as f64;
    let style = if share < 0.9 { theme.warn() } else { theme.text() };
    // Rounded down: 100 % is said only when it is all of them.
    let tenths = (share * 1000.0).floor() / 10.0;
    let text = if complete == samples { "100%".into() } else { format!("{tenths:.1}%") };
    vec![Span::styled(what, theme.dim()), Span::styled(text, style)]
}

/// Stacks are walked by frame pointers, for a reason that help tells.
fn by_fp(model: &Model) -> bool {
    model.session().lenses.iter().any(|lens| lens.name == "unwind" && lens.off.is_some())
}

/// `lost 0`; `lost 7 (1.4k in all)`, or `lost 7 (1.4k)`: records of this tick, and since the start. Red while what is shown is
/// less true for it.
fn lost<'a>(model: &Model, roomy: bool, theme: &Theme) -> Vec<Span<'a>> {
    // What we let go ourselves to stay within our memory is not lost: help tells of it.
    let sum = |losses: &[(Loss, u64)]| {
        let lost = losses.iter().filter(|(loss, _)| *loss != Loss::Evicted);
        lost.fold(0u64, |sum, &(_, count)| sum.saturating_add(count))
    };
    let (all, now) = (sum(model.losses()), sum(model.tick_losses()));
    let text = match (all, roomy) {
        (0, _) => "lost 0".into(),
        (_, true) => format!("lost {} ({} in all)", format::count(now), format::count(all)),
        (_, false) => format!("lost {} ({})", format::count(now), format::count(all)),
    };
    let style = match model.tick_losses().iter().any(|&(loss, count)| weighs(loss, count, model)) {
        true => theme.alert(),
        false if all > 0 => theme.text(),
        false => theme.dim(),
    };
    vec![Span::styled(text, style)]
}

/// Where what there is of it is known, one in a thousand makes no number that is shown another one.
fn weighs(loss: Loss, count: u64, model: &Model) -> bool {
    let machine = model.machine();
    let of = match loss {
        // Requests of other kinds would be in no number that is shown.
        Loss::Evicted | Loss::OtherRequest => return false,
        Loss::Unseen => machine.voluntary.saturating_add(machine.involuntary).saturating_add(machine.wakeups),
        _ => 0,
    };
    count > of / 1000
}

/// Lenses whose counts are not those of procfs.
fn alarms<'a>(model: &Model, theme: &Theme) -> Vec<Span<'a>> {
    let mut lenses: Vec<&str> = model.watch().alarms().map(|check| check.what.lens()).collect();
    lenses.dedup();
    if lenses.is_empty() {
        return Vec::new();
    }
    vec![Span::styled(format!("doubt {}", lenses.join(" ")), theme.warn())]
}

fn own_cost<'a>(model: &Model, theme: &Theme) -> Vec<Span<'a>> {
    let Some(span) = model.span().filter(|span| span.len_ns() > 0) else { return Vec::new() };
    let cost = model.cost();
    let share = cost.total_ns() as f64 / span.len_ns() as f64;
    let text = format!("{}% {}", format::percent(share), format::bytes(cost.rss_bytes));
    let over = model.watch().governor.as_ref().is_some_and(|governor| governor.cost_ppm > governor.budget_ppm);
    let style = if over { theme.warn() } else { theme.text() };
    vec![Span::styled("self ", theme.dim()), Span::styled(text, style)]
}
