//! Place 4: each disk: rates, latency in the queue and on the device, what is in flight; who asked, and what was slowest.

mod rows;

use std::time::Duration;

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::rows::{askers, slow_line};
use super::chart::Resolution;
use super::heat::Range;
use super::heatmap::{self, Slice};
use super::histogram::{self, Histogram};
use super::icicle::{next_window, window_name};
use super::latency::unmeasured;
use super::table::{self, Cursor, Sorted};
use super::{Command, Context, Outcome, Pane, Target, Theme, copy, draw, format};
use crate::model::{Latency, Model, Scope, Window};
use crate::tick::{Hist, ProcessKey, SlowRequest, State};

/// Rows of who asked.
const ASKERS: usize = 6;
/// Ticks that the heat map remembers.
const SLICES: usize = 300;
/// The narrowest screen on which two things stand side by side.
const TWO_COLUMNS: u16 = 100;

/// Every disk, and the latency of the one under the cursor.
pub struct DisksPane {
    /// Over disks, then who asked, then slow requests.
    cursor: Cursor,
    /// Disk whose latency is shown.
    dev: Option<u32>,
    window: Window,
    resolution: Resolution,
    queued: Hist,
    device: Hist,
    /// Axis of both histograms and the heat map; only grows.
    range: Option<Range>,
    slices: Vec<Slice>,
    askers: Vec<ProcessKey>,
    slow: Vec<SlowRequest>,
}

impl Default for DisksPane {
    fn default() -> Self {
        DisksPane {
            cursor: Cursor::default(),
            dev: None,
            window: Window::Last(Duration::from_secs(10)),
            resolution: Resolution::default(),
            queued: Hist::default(),
            device: Hist::default(),
            range: None,
            slices: Vec::new(),
            askers: Vec::new(),
            slow: Vec::new(),
        }
    }
}

/// What a row under the cursor is.
enum Row {
    Disk(u32),
    Asker(ProcessKey),
    Slow(ProcessKey),
    Nothing,
}

/// Where everything is.
struct Parts {
    table: Rect,
    queued: Rect,
    device: Rect,
    heat: Rect,
    askers: Rect,
    slow: Rect,
}

fn parts(area: Rect, disks: usize) -> Parts {
    let wanted = disks.min(1000) as u16 + 1;
    let table = Rect { height: wanted.min(area.height.div_ceil(3)), ..area };
    let rest = Rect { y: table.bottom(), height: area.height - table.height, ..area };
    let lists = (rest.height * 2 / 5).min(ASKERS as u16 + 2);
    let charts = Rect { height: rest.height - lists, ..rest };
    let lists = Rect { y: charts.bottom(), height: lists, ..rest };
    let (askers, slow) = halves(lists);
    let heat = if charts.height >= 14 { charts.height / 2 } else { 0 };
    let bars = Rect { height: charts.height - heat, ..charts };
    let (queued, device) = halves(bars);
    Parts { table, queued, device, heat: Rect { y: bars.bottom(), height: heat, ..charts }, askers, slow }
}

/// Side by side where there is room, else one below the other.
fn halves(area: Rect) -> (Rect, Rect) {
    if area.width >= TWO_COLUMNS {
        let left = area.width / 2;
        return (Rect { width: left, ..area }, Rect { x: area.x + left, width: area.width - left, ..area });
    }
    let upper = area.height / 2;
    (Rect { height: upper, ..area }, Rect { y: area.y + upper, height: area.height - upper, ..area })
}

impl DisksPane {
    fn count(&self, model: &Model) -> usize {
        model.disks().len() + self.askers.len() + self.slow.len()
    }

    fn row(&self, model: &Model) -> Row {
        let at = self.cursor.at;
        if let Some(disk) = model.disks().get(at) {
            return Row::Disk(disk.dev);
        }
        let at = at.saturating_sub(model.disks().len());
        if let Some(&key) = self.askers.get(at) {
            return Row::Asker(key);
        }
        match self.slow.get(at.saturating_sub(self.askers.len())) {
            Some(request) if !model.disks().is_empty() => Row::Slow(request.process),
            _ => Row::Nothing,
        }
    }

    /// After the cursor moved: its disk is the one whose latency shows.
    fn follow(&mut self, model: &Model) {
        if let Row::Disk(dev) = self.row(model)
            && self.dev != Some(dev)
        {
            self.dev = Some(dev);
            self.range = None;
            self.update(model);
        }
    }

    fn update(&mut self, model: &Model) {
        let Some(dev) = self.dev else { return };
        self.queued = model.latency_hist(Latency::DiskQueued(dev, None), Scope::Machine, self.window);
        self.device = model.latency_hist(Latency::DiskDevice(dev, None), Scope::Machine, self.window);
        let history = model.history();
        self.slices = history.iter().skip(history.len().saturating_sub(SLICES)).map(|tick| slice(tick, dev)).collect();
        let hists = [&self.queued, &self.device].into_iter().chain(self.slices.iter().map(|slice| &slice.hist));
        let range = Range::of(hists.flat_map(|hist| hist.counts.iter().map(|&(at, _)| at)));
        self.range = self.range.map(|known| known.with(range)).or(range);
        self.slow = model.slow_requests().iter().filter(|request| request.dev == dev).cloned().collect();
    }

    fn enter(&self, model: &Model) -> Outcome {
        match self.row(model) {
            Row::Asker(key) | Row::Slow(key) => Outcome::Open(Target::Process(key)),
            Row::Disk(dev) => Outcome::Open(Target::Disk(dev)),
            Row::Nothing => Outcome::Done,
        }
    }
}

/// Device latency of one disk in one tick.
fn slice(tick: &crate::model::HistoryTick, dev: u32) -> Slice {
    let mut hist = Hist::default();
    let disks = tick.disks.iter().filter(|disk| disk.dev == dev);
    disks.flat_map(|disk| &disk.ops).for_each(|op| hist.merge(&op.device));
    Slice { end_ns: tick.span.end_ns, len_ns: tick.span.len_ns(), hist }
}

impl Pane for DisksPane {
    fn context(&self) -> Context {
        Context::Disks
    }

    fn title(&self, _model: &Model) -> String {
        "Disks".into()
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        if self.cursor.command(command, self.count(model)) {
            self.follow(model);
            return Outcome::Done;
        }
        match command {
            Command::Enter => return self.enter(model),
            Command::Window => {
                self.window = next_window(self.window);
                self.update(model);
                return Outcome::Say(format!("latency histograms: {}", window_name(self.window)));
            }
            Command::Buckets => {
                self.resolution = match self.resolution {
                    Resolution::Fine => Resolution::Powers,
                    Resolution::Powers => Resolution::Fine,
                }
            }
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn process(&self, model: &Model) -> Option<ProcessKey> {
        match self.row(model) {
            Row::Asker(key) | Row::Slow(key) => Some(key),
            Row::Disk(_) | Row::Nothing => None,
        }
    }

    fn copy(&self, model: &Model) -> Option<String> {
        match self.row(model) {
            Row::Disk(_) => {
                let disk = model.disks().get(self.cursor.at)?;
                let cell = |(at, column): (usize, &table::Column)| (column.head, rows::disk_text(disk, at, model));
                Some(copy::row(rows::COLUMNS.iter().enumerate().map(cell)))
            }
            Row::Asker(key) => {
                let line = rows::asker_line(model.process(key)?, model);
                Some(format!("{}\n{}", rows::ASKERS_HEAD, format::clean(&line)))
            }
            Row::Slow(_) => {
                let at = self.cursor.at.checked_sub(model.disks().len() + self.askers.len())?;
                let line = slow_line(self.slow.get(at)?, model);
                Some(format!("{}\n{}", rows::SLOW_HEAD, format::clean(&line)))
            }
            Row::Nothing => None,
        }
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let parts = parts(area, model.disks().len());
        let at = (mouse.column, mouse.row).into();
        let row = |place: Rect, first: usize| first + usize::from(mouse.row.saturating_sub(place.y + 1));
        let disks = model.disks().len();
        let hit = match mouse.kind {
            MouseEventKind::ScrollUp => return self.command(Command::Up, model),
            MouseEventKind::ScrollDown => return self.command(Command::Down, model),
            MouseEventKind::Down(MouseButton::Left) if parts.table.contains(at) => {
                row(parts.table, self.first_disk(parts.table))
            }
            MouseEventKind::Down(MouseButton::Left) if parts.askers.contains(at) => row(parts.askers, disks),
            MouseEventKind::Down(MouseButton::Left) if parts.slow.contains(at) => {
                row(parts.slow, disks + self.askers.len() + self.first_slow(parts.slow, model))
            }
            MouseEventKind::Down(MouseButton::Left) if parts.heat.contains(at) => {
                let said = self.range.and_then(|range| {
                    let body = Rect { y: parts.heat.y + 1, height: parts.heat.height.saturating_sub(1), ..parts.heat };
                    heatmap::explain(&self.slices, range, body, mouse.column, mouse.row)
                });
                return said.map_or(Outcome::Done, |said| Outcome::Say(format!("device latency {said} requests")));
            }
            _ => return Outcome::Ignored,
        };
        if hit == self.cursor.at {
            return self.enter(model);
        }
        self.cursor.at = hit;
        self.cursor.clamp(self.count(model));
        self.follow(model);
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, _hold: bool) {
        self.askers = askers(model, ASKERS);
        if self.dev.is_none_or(|dev| model.disks().iter().all(|disk| disk.dev != dev)) {
            self.dev = model.disks().first().map(|disk| disk.dev);
        }
        self.update(model);
        self.cursor.clamp(self.count(model));
        // The disk under the cursor is found by identity: disks come and go.
        if self.cursor.at < model.disks().len()
            && let Some(at) = model.disks().iter().position(|disk| Some(disk.dev) == self.dev)
        {
            self.cursor.at = at;
        }
    }

    fn layout(&mut self, area: Rect, model: &Model) {
        self.cursor.height = usize::from(parts(area, model.disks().len()).table.height.saturating_sub(1)).max(1);
        self.cursor.clamp(self.count(model));
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        let parts = parts(area, model.disks().len());
        if model.disks().is_empty() {
            draw::put(buf, area.x + 1, area.y, &no_disks(model), area.width.saturating_sub(1), theme.dim());
            return;
        }
        self.render_table(model, theme, parts.table, buf);
        self.render_charts(model, theme, &parts, buf);
        self.render_askers(model, theme, parts.askers, buf);
        self.render_slow(model, theme, parts.slow, buf);
    }
}

fn no_disks(model: &Model) -> String {
    let block = model.session().lenses.iter().find(|status| status.name == "block");
    match block.and_then(|status| status.off.as_deref()) {
        Some(why) => format!("{} block is off: {why}", format::OFF),
        None if model.ticks() == 0 => String::new(),
        None => "no disk".into(),
    }
}

impl DisksPane {
    fn name<'a>(&self, model: &'a Model) -> &'a str {
        model.disks().iter().find(|disk| Some(disk.dev) == self.dev).map_or("", |disk| &disk.name)
    }

    /// The first disk that shows: the one whose latency shows must.
    fn first_disk(&self, area: Rect) -> usize {
        let lines = usize::from(area.height.saturating_sub(1)).max(1);
        self.cursor.at.saturating_sub(lines - 1).min(self.cursor.first.max(self.cursor.at.saturating_sub(lines - 1)))
    }

    /// The first slow request that shows.
    fn first_slow(&self, area: Rect, model: &Model) -> usize {
        let lines = usize::from(area.height.saturating_sub(1)).max(1);
        let at = self.cursor.at.checked_sub(model.disks().len() + self.askers.len());
        at.map_or(0, |at| (at + 1).saturating_sub(lines))
    }

    fn render_table(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let slots = table::lay_out(&rows::COLUMNS, 2, area.width);
        let unsorted = Sorted { column: usize::MAX, descending: false };
        table::heads(buf, draw::line(area, 0), &rows::COLUMNS, &slots, unsorted, (theme.header(), theme.header()));
        let on_disk = self.cursor.at < model.disks().len();
        let first = if on_disk { self.first_disk(area) } else { 0 };
        for line in 1..area.height {
            let at = first + usize::from(line) - 1;
            let Some(disk) = model.disks().get(at) else { break };
            let line = draw::line(area, line);
            for &slot in &slots {
                let text = rows::disk_text(disk, slot.column, model);
                table::cell(buf, line, slot, rows::COLUMNS[slot.column].right, &text, theme.text());
            }
            mark(buf, line, Some(disk.dev) == self.dev, on_disk && at == self.cursor.at, theme);
        }
    }

    fn render_charts(&self, model: &Model, theme: &Theme, parts: &Parts, buf: &mut Buffer) {
        let note = format!("{}, {}", self.name(model), window_name(self.window));
        for (area, name, hist, state) in
            [(parts.queued, "queued", &self.queued, State::Woken), (parts.device, "device", &self.device, State::Disk)]
        {
            let title = draw::line(area, 0);
            if title.height == 0 {
                continue;
            }
            let below = Rect { y: title.bottom(), height: area.height - 1, ..area };
            if let Some(why) = unmeasured(model, Latency::Disk) {
                draw::put_spans(buf, title, &histogram::title_of_nothing(name, &note, false, theme));
                histogram::put_reason(&why, theme, below, buf);
                continue;
            }
            draw::put_spans(buf, title, &histogram::title(name, hist, &note, false, theme, title.width));
            let Some(range) = self.range.filter(|_| !hist.is_empty()) else { continue };
            let style = theme.state(state);
            Histogram { hist, range, resolution: self.resolution, style, selected: None }.draw(theme, below, buf);
        }
        let title = draw::line(parts.heat, 0);
        if title.height > 0
            && let Some(range) = self.range
        {
            let text = format!("  device latency of {} over time, one tick per cell, denser is more", self.name(model));
            draw::put(buf, title.x, title.y, &text, title.width, theme.header());
            let below = Rect { y: title.bottom(), height: parts.heat.height - 1, ..parts.heat };
            heatmap::draw(&self.slices, range, theme, below, buf);
        }
    }

    fn render_askers(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let head = draw::line(area, 0);
        draw::put(buf, head.x, head.y, rows::ASKERS_HEAD, head.width.min(head.height * 999), theme.header());
        put_unmeasured(model, theme, area, buf);
        for (at, &key) in self.askers.iter().enumerate() {
            let line = draw::line(area, at as u16 + 1);
            let Some(process) = model.process(key).filter(|_| line.height > 0) else { continue };
            draw::put(buf, line.x, line.y, &rows::asker_line(process, model), line.width, theme.text());
            mark(buf, line, false, self.cursor.at == model.disks().len() + at, theme);
        }
    }

    fn render_slow(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let head = draw::line(area, 0);
        draw::put(buf, head.x, head.y, rows::SLOW_HEAD, head.width.min(head.height * 999), theme.header());
        put_unmeasured(model, theme, area, buf);
        let first = self.first_slow(area, model);
        for line in 1..area.height {
            let at = first + usize::from(line) - 1;
            let Some(request) = self.slow.get(at) else { break };
            let line = draw::line(area, line);
            draw::put(buf, line.x, line.y, &slow_line(request, model), line.width, theme.text());
            mark(buf, line, false, self.cursor.at == model.disks().len() + self.askers.len() + at, theme);
        }
    }
}

/// Instead of rows: an empty list would say that nobody asked.
fn put_unmeasured(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let line = draw::line(area, 1);
    if line.height > 0 && unmeasured(model, Latency::Disk).is_some() {
        draw::put(buf, line.x + 2, line.y, "? not measured", line.width.saturating_sub(2), theme.dim());
    }
}

/// Marks a row: the disk that is shown, the row under the cursor.
fn mark(buf: &mut Buffer, line: Rect, shown: bool, cursor: bool, theme: &Theme) {
    if line.height == 0 {
        return;
    }
    if shown || cursor {
        draw::put(buf, line.x, line.y, if cursor { "▸" } else { "·" }, 1, theme.accent());
    }
    if cursor {
        buf.set_style(line, theme.selected());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Source;
    use crate::collect::invented::{Invented, Invention};
    use crate::model::Limits;
    use crate::tick::DiskOpTick;
    use crate::ui::testing::{any_size, lines, model};

    #[test]
    fn everything_is_named_and_leads_on() {
        let model = model(Invention::default(), 20);
        let mut pane = DisksPane::default();
        let drawn = lines(&mut pane, &model, 118, 37);
        let all = drawn.join("\n");
        for text in ["in flight", "oldest", "queued", "device", "over time", "who asked", "slowest"] {
            assert!(all.contains(text), "{text}");
        }
        assert!(
            matches!(pane.command(Command::Enter, &model), Outcome::Open(Target::Disk(dev)) if dev == model.disks()[0].dev)
        );
        for _ in model.disks() {
            pane.command(Command::Down, &model);
        }
        assert!(
            matches!(pane.command(Command::Enter, &model), Outcome::Open(Target::Process(key)) if key == pane.askers[0])
        );
        pane.command(Command::Bottom, &model);
        assert!(matches!(pane.command(Command::Enter, &model), Outcome::Open(Target::Process(_))));
    }

    #[test]
    fn what_is_not_measured_is_no_nothing() {
        let mut source = Invented::new(Invention::default());
        let mut session = source.session();
        session.lenses.iter_mut().find(|lens| lens.name == "block").unwrap().off = Some("no CAP_BPF".into());
        let mut model = Model::new(session, Limits::default());
        let mut tick = source.tick();
        (tick.io, tick.slow_requests) = (Vec::new(), Vec::new());
        tick.disks.iter_mut().flat_map(|disk| &mut disk.ops).for_each(|op| *op = DiskOpTick::default());
        model.apply(tick);
        let drawn = lines(&mut DisksPane::default(), &model, 118, 37).join("\n");
        for text in ["queued    n ?  not measured", "device    n ?  not measured", "? block is off: no CAP_BPF"] {
            assert!(drawn.contains(text), "{text}: {drawn}");
        }
        assert!(!drawn.contains("n 0"), "{drawn}");
        assert_eq!(drawn.matches("? not measured").count(), 2, "who asked, and the slowest: {drawn}");
    }

    #[test]
    fn at_the_smallest_screen() {
        let model = model(Invention::default(), 20);
        let drawn = lines(&mut DisksPane::default(), &model, 80, 21);
        assert!(drawn.iter().any(|line| line.contains("who asked")));
    }

    #[test]
    fn sizes() {
        any_size(&mut DisksPane::default(), &model(Invention { hostile: true, ..Invention::default() }, 6));
        any_size(&mut DisksPane::default(), &model(Invention::default(), 0));
    }
}
