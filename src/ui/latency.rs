//! Latency histograms of a process, a thread, a CPU or the machine: side by side, or one large with its heat map.

use std::collections::VecDeque;
use std::time::Duration;

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::chart::Resolution;
use super::heat::Range;
use super::heatmap::{self, Slice};
use super::histogram::{self, Histogram};
use super::icicle::{next_window, window_name};
use super::{Command, Context, Outcome, Pane, Theme, draw, format};
use crate::model::{Latency, Model, Scope, Window};
use crate::tick::{Hist, State};

/// Ticks that a heat map remembers.
const SLICES: usize = 300;

/// One kind of latency: what it is, its name, what it means, the colour of its bars.
#[derive(Clone, Copy)]
struct Kind {
    what: Latency,
    name: &'static str,
    meaning: &'static str,
    state: State,
}

const KINDS: [Kind; 4] = [
    Kind { what: Latency::RunQueue, name: "run queue", meaning: "waits for a CPU", state: State::Woken },
    Kind { what: Latency::OffCpu, name: "off-CPU", meaning: "from leaving the CPU to being woken", state: State::Lock },
    Kind { what: Latency::Slice, name: "slices", meaning: "stays on a CPU", state: State::User },
    Kind { what: Latency::Disk, name: "disk", meaning: "requests, queue and device together", state: State::Disk },
];

/// A kind and what is known of it.
struct Panel {
    kind: Kind,
    hist: Hist,
    range: Option<Range>,
    slices: VecDeque<Slice>,
}

/// Histograms of one scope.
pub struct LatencyPane {
    scope: Scope,
    /// Of what, where the scope does not say it.
    name: Option<String>,
    window: Window,
    resolution: Resolution,
    panels: Vec<Panel>,
    at: usize,
    large: bool,
    /// A bucket of the column under the cursor.
    bucket: Option<u16>,
    /// What a click on the heat map said.
    said: Option<String>,
    /// Number of the newest tick in the heat maps.
    newest: u64,
    width: u16,
}

impl LatencyPane {
    /// Of that scope, for the last ten seconds.
    pub fn new(scope: Scope) -> Self {
        let has = |kind: &&Kind| match scope {
            Scope::Cpu(_) => kind.what == Latency::RunQueue,
            Scope::Thread(_) => kind.what != Latency::Disk,
            Scope::Process(_) | Scope::Machine => true,
        };
        LatencyPane::with(scope, None, KINDS.iter().filter(has).copied())
    }

    /// In the queue and on the device, of one disk.
    pub fn of_disk(dev: u32, model: &Model) -> Self {
        let name = model.disks().iter().find(|disk| disk.dev == dev).map(|disk| disk.name.clone());
        let (queued, device) = (Latency::DiskQueued(dev, None), Latency::DiskDevice(dev, None));
        let kinds = [
            Kind { what: queued, name: "queued", meaning: "until given to the device", state: State::Woken },
            Kind { what: device, name: "device", meaning: "until the device answered", state: State::Disk },
        ];
        LatencyPane::with(Scope::Machine, name, kinds.into_iter())
    }

    fn with(scope: Scope, name: Option<String>, kinds: impl Iterator<Item = Kind>) -> Self {
        let panel = |kind| Panel { kind, hist: Hist::default(), range: None, slices: VecDeque::new() };
        let panels: Vec<_> = kinds.map(panel).collect();
        LatencyPane {
            scope,
            name,
            window: Window::Last(Duration::from_secs(10)),
            resolution: Resolution::default(),
            large: panels.len() == 1,
            panels,
            at: 0,
            bucket: None,
            said: None,
            newest: 0,
            width: 0,
        }
    }

    /// Whose latency.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    fn update(&mut self, model: &Model) {
        for panel in &mut self.panels {
            panel.hist = model.latency_hist(panel.kind.what, self.scope, self.window);
            panel.grow();
        }
        self.remember(model);
    }

    /// Adds the ticks since the last time to the heat maps; all there are if we have just begun.
    /// Takes back what came after a past tick that is looked at.
    fn remember(&mut self, model: &Model) {
        if model.ticks() < self.newest {
            let end_ns = model.span().map_or(0, |span| span.end_ns);
            self.panels.iter_mut().for_each(|panel| panel.slices.retain(|slice| slice.end_ns <= end_ns));
            self.newest = model.ticks();
        }
        // Before that, a past tick that is looked at knows nothing of single processes.
        let from = match self.scope {
            Scope::Process(_) | Scope::Thread(_) => model.accounts_from(),
            Scope::Cpu(_) | Scope::Machine => 0,
        };
        let known = self.newest.max(from.saturating_sub(1));
        let history = model.history();
        for tick in history.iter().skip(history.len().saturating_sub(SLICES)).filter(|tick| tick.number > known) {
            let window = Window::Ticks { first: tick.number, last: tick.number };
            for panel in &mut self.panels {
                let hist = model.latency_hist(panel.kind.what, self.scope, window);
                panel.push(Slice { end_ns: tick.span.end_ns, len_ns: tick.span.len_ns(), hist });
            }
            self.newest = tick.number;
        }
    }

    fn panel(&self) -> Option<&Panel> {
        self.panels.get(self.at)
    }

    /// One column to the left or right; the first time, the column of the median.
    fn move_column(&mut self, right: bool) {
        let Some(panel) = self.panels.get(self.at) else { return };
        let Some(chart) = self.chart(panel, &Theme::default()) else { return };
        let (columns, _) = chart.columns(self.width);
        let at = match chart.selected_column(self.width) {
            Some((at, _)) if right => (at + 1).min(columns.len() - 1),
            Some((at, _)) => at.saturating_sub(1),
            None => panel
                .hist
                .quantile(0.5)
                .map_or(0, |p50| chart.range.band_of(crate::tick::bucket_of(p50), columns.len())),
        };
        self.bucket = columns.get(at).map(|column| crate::tick::bucket_of(column.low));
    }

    fn chart<'a>(&self, panel: &'a Panel, theme: &Theme) -> Option<Histogram<'a>> {
        let selected = self.bucket.filter(|_| self.panel().is_some_and(|at| std::ptr::eq(at, panel)));
        Some(Histogram {
            hist: &panel.hist,
            range: panel.range?,
            resolution: self.resolution,
            style: theme.state(panel.kind.state),
            selected,
        })
    }

    /// The panels that show, and where: title, bars, and for a large one the heat map.
    fn places(&self, area: Rect) -> Vec<(usize, Rect)> {
        if self.large || area.height < 2 * self.panels.len() as u16 {
            return vec![(self.at, area)];
        }
        let each = area.height / self.panels.len().max(1) as u16;
        (0..self.panels.len()).map(|at| (at, Rect { y: area.y + at as u16 * each, height: each, ..area })).collect()
    }
}

impl Panel {
    fn push(&mut self, slice: Slice) {
        self.slices.push_back(slice);
        if self.slices.len() > SLICES {
            self.slices.pop_front();
        }
        self.grow();
    }

    /// The axis covers what was ever shown: it must not jump.
    fn grow(&mut self) {
        let newest = self.slices.back().map(|slice| &slice.hist);
        let buckets =
            [Some(&self.hist), newest].into_iter().flatten().flat_map(|hist| hist.counts.iter().map(|&(at, _)| at));
        let range = Range::of(buckets);
        self.range = self.range.map(|known| known.with(range)).or(range);
    }
}

/// Header, panels, and the line that explains what is under the cursor.
fn parts(area: Rect) -> (Rect, Rect, Rect) {
    let head = u16::from(area.height > 2);
    let foot = u16::from(area.height > 3);
    let middle = Rect { y: area.y + head, height: area.height - head - foot, ..area };
    (Rect { height: head, ..area }, middle, Rect { y: middle.bottom(), height: foot, ..area })
}

/// Title, bars, heat map of one panel.
fn panel_parts(area: Rect, large: bool) -> (Rect, Rect, Rect) {
    let title = draw::line(area, 0);
    let below = Rect { y: area.y + title.height, height: area.height - title.height, ..area };
    if !large || below.height < 8 {
        return (title, below, Rect { height: 0, ..below });
    }
    let bars = Rect { height: below.height / 2, ..below };
    (title, bars, Rect { y: bars.bottom(), height: below.height - bars.height, ..below })
}

impl Pane for LatencyPane {
    fn context(&self) -> Context {
        Context::Latency
    }

    fn title(&self, _model: &Model) -> String {
        match self.scope {
            _ if self.name.is_some() => self.name.as_deref().map(format::clean).unwrap_or_default().into_owned(),
            Scope::Cpu(cpu) => format!("CPU {cpu}"),
            Scope::Thread(thread) => format!("thread {}", thread.tid),
            Scope::Process(process) => format!("{}", process.tgid),
            Scope::Machine => "all threads".into(),
        }
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        self.said = None;
        let last = self.panels.len().saturating_sub(1);
        match command {
            Command::Up => self.at = self.at.saturating_sub(1),
            Command::Down => self.at = (self.at + 1).min(last),
            Command::Top => self.at = 0,
            Command::Bottom => self.at = last,
            Command::Left => self.move_column(false),
            Command::Right => self.move_column(true),
            Command::Enter => self.large = !self.large || last == 0,
            Command::Back if self.bucket.is_some() => self.bucket = None,
            Command::Back if self.large && last > 0 => self.large = false,
            Command::Window => {
                self.window = next_window(self.window);
                self.update(model);
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

    fn copy(&self, model: &Model) -> Option<String> {
        let panel = self.panel()?;
        let (kind, theme) = (panel.kind, Theme::default());
        let spans = match unmeasured(model, kind.what) {
            Some(_) => histogram::title_of_nothing(kind.name, kind.meaning, false, &theme),
            None => histogram::title(kind.name, &panel.hist, kind.meaning, false, &theme, u16::MAX),
        };
        let title: String = spans.iter().map(|span| &*span.content).collect();
        Some(format!("{}, {}, {}", self.title(model), title.trim(), window_name(self.window)))
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, _model: &Model) -> Outcome {
        let (_, middle, _) = parts(area);
        let at = (mouse.column, mouse.row);
        match mouse.kind {
            MouseEventKind::ScrollUp => self.at = self.at.saturating_sub(1),
            MouseEventKind::ScrollDown => self.at = (self.at + 1).min(self.panels.len().saturating_sub(1)),
            MouseEventKind::Down(MouseButton::Left) => self.click(at, middle),
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, _hold: bool) {
        self.update(model);
    }

    fn layout(&mut self, area: Rect, _model: &Model) {
        self.width = area.width;
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        let (head, middle, foot) = parts(area);
        self.render_head(model, theme, head, buf);
        for (at, place) in self.places(middle) {
            self.render_panel(model, at, theme, place, buf);
        }
        if foot.height > 0 {
            let width = foot.width.saturating_sub(1);
            draw::put(buf, foot.x + 1, foot.y, &self.explain(area.width), width, theme.text());
        }
    }
}

impl LatencyPane {
    fn click(&mut self, (x, y): (u16, u16), middle: Rect) {
        self.said = None;
        let Some((at, place)) = self.places(middle).into_iter().find(|(_, place)| place.contains((x, y).into())) else {
            return;
        };
        let (title, bars, heat) = panel_parts(place, self.large);
        if title.contains((x, y).into()) && at == self.at {
            self.large = !self.large || self.panels.len() == 1;
        }
        self.at = at;
        let Some(panel) = self.panels.get(at) else { return };
        if bars.contains((x, y).into())
            && let Some(chart) = self.chart(panel, &Theme::default())
        {
            let column = chart.column_at(bars, x).and_then(|column| chart.columns(bars.width).0.get(column).copied());
            self.bucket = column.map(|column| crate::tick::bucket_of(column.low));
        }
        if let Some(range) = panel.range {
            self.said = heatmap::explain(&Vec::from_iter(panel.slices.iter().cloned()), range, heat, x, y);
        }
    }

    fn render_head(&self, model: &Model, theme: &Theme, line: Rect, buf: &mut Buffer) {
        if line.height == 0 {
            return;
        }
        let buckets = match self.resolution {
            Resolution::Fine => "up to 8 buckets per power of two",
            Resolution::Powers => "powers of two",
        };
        let text = format!(" counts, {}   {buckets}", window_name(self.window));
        let x = draw::put(buf, line.x, line.y, &text, line.width, theme.dim());
        if let Some(missing) = self.missing(model) {
            draw::put(buf, x, line.y, &format!("   {missing}"), line.right().saturating_sub(x), theme.warn());
        }
    }

    /// What of the heat map is not known any more of a past tick.
    fn missing(&self, model: &Model) -> Option<String> {
        let single = matches!(self.scope, Scope::Process(_) | Scope::Thread(_));
        let has = self.panels.first().map_or(0, |panel| panel.slices.len());
        let short = has < model.history().len().min(SLICES);
        (single && model.is_past() && short).then(|| format!("over time: {has} ticks, no more are kept of it"))
    }

    fn render_panel(&self, model: &Model, at: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let Some(panel) = self.panels.get(at) else { return };
        let (title, bars, heat) = panel_parts(area, self.large);
        let kind = panel.kind;
        if let Some(why) = unmeasured(model, kind.what) {
            draw::put_spans(buf, title, &histogram::title_of_nothing(kind.name, kind.meaning, at == self.at, theme));
            histogram::put_reason(&why, theme, bars, buf);
            return;
        }
        let spans = histogram::title(kind.name, &panel.hist, kind.meaning, at == self.at, theme, title.width);
        draw::put_spans(buf, title, &spans);
        match self.chart(panel, theme) {
            Some(chart) => chart.draw(theme, bars, buf),
            None => {
                let text = format!("none, {}", window_name(self.window));
                let width = bars.width.saturating_sub(3).min(bars.height * 999);
                draw::put(buf, bars.x + 3, bars.y, &text, width, theme.dim());
            }
        }
        if let Some(range) = panel.range
            && heat.height > 0
        {
            let slices: Vec<Slice> =
                panel.slices.iter().skip(panel.slices.len().saturating_sub(heat.width.into())).cloned().collect();
            heatmap::draw(&slices, range, theme, heat, buf);
        }
    }

    /// What is under the cursor, or which keys lead there.
    fn explain(&self, width: u16) -> String {
        if let Some(said) = &self.said {
            return said.clone();
        }
        let chart = self.panel().and_then(|panel| self.chart(panel, &Theme::default()));
        let column = chart.and_then(|chart| {
            let (at, _) = chart.selected_column(width)?;
            histogram::explain(&chart.columns(width).0, at)
        });
        column.unwrap_or_else(|| match self.large {
            true => "← → a column   below: the same over time, one tick per cell, denser is more".into(),
            false => "↑ ↓ a histogram   ← → a column   Enter larger, with its heat map".into(),
        })
    }
}

/// Why a latency is not measured here, if it is not: `? block is off: …`.
pub(super) fn unmeasured(model: &Model, what: Latency) -> Option<String> {
    let lens = match what {
        Latency::Disk | Latency::DiskQueued(..) | Latency::DiskDevice(..) => "block",
        _ => "sched",
    };
    let status = model.session().lenses.iter().find(|status| status.name == lens)?;
    status.off.as_deref().map(|why| format!("{} {lens} is off: {}", format::OFF, format::clean(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Source;
    use crate::collect::invented::{Invented, Invention};
    use crate::model::Limits;
    use crate::tick::Tick;
    use crate::ui::testing::{any_size, lines, model};

    #[test]
    fn titles_count_what_the_model_counts() {
        let model = model(Invention::default(), 12);
        let mut pane = LatencyPane::new(Scope::Machine);
        let drawn = lines(&mut pane, &model, 118, 40);
        for kind in KINDS {
            let hist = model.latency_hist(kind.what, Scope::Machine, pane.window);
            let title = drawn.iter().find(|line| line.trim_start_matches(['▸', ' ']).starts_with(kind.name)).unwrap();
            assert!(title.contains(&format!(" n {}", format::grouped(hist.count()))), "{title}");
            let p99 = format::duration(hist.quantile(0.99).unwrap());
            assert!(title.contains(&format!("p99 {p99}")), "{title}: {p99}");
        }
    }

    #[test]
    fn one_is_enlarged_with_its_heat_map() {
        let model = model(Invention::default(), 12);
        let mut pane = LatencyPane::new(Scope::Machine);
        pane.command(Command::Down, &model);
        pane.command(Command::Enter, &model);
        let drawn = lines(&mut pane, &model, 80, 24).join("\n");
        assert!(drawn.contains("▸ off-CPU") && !drawn.contains("slices"), "{drawn}");
        assert!(drawn.contains("12s ago"), "the heat map goes back to the first tick: {drawn}");
        pane.command(Command::Back, &model);
        assert!(lines(&mut pane, &model, 80, 24).join("\n").contains("slices"));
    }

    #[test]
    fn columns_are_walked_and_explained() {
        let model = model(Invention::default(), 12);
        let mut pane = LatencyPane::new(Scope::Machine);
        lines(&mut pane, &model, 118, 40);
        pane.command(Command::Right, &model);
        let at_median = lines(&mut pane, &model, 118, 40).pop().unwrap();
        assert!(at_median.contains("are no longer than that"), "{at_median}");
        pane.command(Command::Left, &model);
        assert_ne!(lines(&mut pane, &model, 118, 40).pop().unwrap(), at_median);
        pane.command(Command::Right, &model);
        assert_eq!(lines(&mut pane, &model, 118, 40).pop().unwrap(), at_median);
        pane.command(Command::Buckets, &model);
        let powers = lines(&mut pane, &model, 118, 40);
        assert!(powers[0].contains("powers of two"));
        pane.command(Command::Back, &model);
        assert!(matches!(pane.command(Command::Back, &model), Outcome::Ignored));
    }

    #[test]
    fn the_heat_map_takes_each_tick_once() {
        let mut source = Invented::new(Invention::default());
        let mut model = Model::new(source.session(), Limits::default());
        let mut pane = LatencyPane::new(Scope::Machine);
        for tick in 1..=30 {
            model.apply(source.tick());
            pane.tick(&model, false);
            pane.tick(&model, false);
            assert_eq!(pane.panels[0].slices.len(), tick);
        }
        let counted: u64 = pane.panels[0].slices.iter().map(|slice| slice.hist.count()).sum();
        assert_eq!(counted, model.latency_hist(Latency::RunQueue, Scope::Machine, Window::All).count());
    }

    #[test]
    fn a_lens_that_is_off_says_why() {
        let mut source = Invented::new(Invention::default());
        let mut session = source.session();
        session.lenses.iter_mut().find(|lens| lens.name == "block").unwrap().off = Some("no block tracepoints".into());
        let mut model = Model::new(session, Limits::default());
        model.apply(Tick { io: Vec::new(), ..source.tick() });
        let drawn = lines(&mut LatencyPane::new(Scope::Machine), &model, 118, 40).join("\n");
        assert!(drawn.contains("? block is off: no block tracepoints"), "{drawn}");
        assert!(drawn.contains("disk      n ?  not measured  requests, queue"), "{drawn}");
        assert!(!drawn.contains("n 0"), "{drawn}");
    }

    #[test]
    fn a_long_reason_is_broken_into_lines() {
        let mut source = Invented::new(Invention::default());
        let mut session = source.session();
        let why = "missing CAP_BPF ".repeat(16) + "and so on";
        session.lenses.iter_mut().for_each(|lens| lens.off = Some(why.clone()));
        let mut model = Model::new(session, Limits::default());
        model.apply(Tick { io: Vec::new(), ..source.tick() });
        let drawn = lines(&mut LatencyPane::new(Scope::Machine), &model, 80, 30);
        assert_eq!(drawn.iter().filter(|line| line.contains("n ?")).count(), 4, "{drawn:#?}");
        assert!(drawn.iter().any(|line| line.trim_end().ends_with("and so on")), "{drawn:#?}");
        assert!(!drawn.iter().any(|line| line.ends_with('…')), "{drawn:#?}");
        let small = lines(&mut LatencyPane::new(Scope::Machine), &model, 80, 12);
        assert!(small.iter().any(|line| line.ends_with("… ? says all")), "{small:#?}");
    }

    #[test]
    fn sizes() {
        let model = model(Invention::default(), 4);
        let mut pane = LatencyPane::new(Scope::Machine);
        any_size(&mut pane, &model);
        pane.command(Command::Enter, &model);
        pane.command(Command::Right, &model);
        any_size(&mut pane, &model);
        any_size(&mut LatencyPane::new(Scope::Cpu(0)), &model);
        any_size(&mut LatencyPane::of_disk(model.disks()[0].dev, &model), &model);
        any_size(&mut LatencyPane::of_disk(12345, &model), &model);
    }
}
