//! Inside a process: icicle, threads, latency, info. Stays when the process exits, and says so.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::icicle::IciclePane;
use super::info::InfoPane;
use super::latency::LatencyPane;
use super::threads::ThreadsPane;
use super::{Answer, Command, Context, Outcome, Pane, Query, Theme, Wants, draw, format};
use crate::model::{Exit, Model, Process, Scope};
use crate::tick::{Frame, FrameId, ProcessKey, Quota, Session, ThreadKey};

/// The tabs, in their order.
const TABS: [&str; 4] = ["icicle", "threads", "latency", "info"];
const THREADS: usize = 1;
const LATENCY: usize = 2;

/// One process.
pub struct ProcessPane {
    key: ProcessKey,
    tab: usize,
    icicle: IciclePane,
    threads: ThreadsPane,
    latency: LatencyPane,
    info: InfoPane,
    /// As it was last known: the model forgets the dead, this view does not.
    last: Process,
    known: Known,
    /// What the tabs show is of a past tick.
    shows_past: bool,
}

/// What the model has of the process, and so what the tabs show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is there.
    Now,
    /// It was forgotten: the tabs show what was last known.
    Last,
    /// It is not in the tick that is looked at, or was forgotten since: the tabs show another time.
    Elsewhen,
}

impl ProcessPane {
    /// `None` if the model knows nothing of it.
    pub fn open(key: ProcessKey, model: &Model) -> Option<Self> {
        let last = model.process(key)?.clone();
        Some(ProcessPane {
            key,
            tab: 0,
            icicle: IciclePane::new(Some(key)),
            threads: ThreadsPane::new(key),
            latency: LatencyPane::new(Scope::Process(key)),
            info: InfoPane::new(last.clone()),
            last,
            known: Known::Now,
            shows_past: model.is_past(),
        })
    }

    fn pane(&self) -> &dyn Pane {
        match self.tab {
            0 => &self.icicle,
            THREADS => &self.threads,
            LATENCY => &self.latency,
            _ => &self.info,
        }
    }

    fn pane_mut(&mut self) -> &mut dyn Pane {
        match self.tab {
            0 => &mut self.icicle,
            THREADS => &mut self.threads,
            LATENCY => &mut self.latency,
            _ => &mut self.info,
        }
    }

    fn show(&mut self, tab: usize, model: &Model) {
        self.tab = tab % TABS.len();
        if self.known == Known::Now {
            self.pane_mut().tick(model, false);
        }
    }

    /// Latency of one thread only.
    fn look_into(&mut self, thread: ThreadKey, model: &Model) {
        self.latency = LatencyPane::new(Scope::Thread(thread));
        self.show(LATENCY, model);
    }

    fn of_one_thread(&self) -> bool {
        matches!(self.latency.scope(), Scope::Thread(_))
    }

    /// Back from one thread to the list of them.
    fn leave_thread(&mut self, model: &Model) {
        self.latency = LatencyPane::new(Scope::Process(self.key));
        self.show(THREADS, model);
    }

    fn tab_at(&self, area: Rect, column: u16) -> Option<usize> {
        tab_places(area).into_iter().position(|place| place.contains(&column))
    }
}

/// Columns of each tab's name.
fn tab_places(area: Rect) -> Vec<std::ops::Range<u16>> {
    let mut x = area.x + 1;
    let place = |name: &&str| {
        let start = x;
        x += name.len() as u16 + 4;
        start..x - 1
    };
    TABS.iter().map(place).collect()
}

/// The line of tabs, and what lies below it.
fn parts(area: Rect) -> (Rect, Rect) {
    let tabs = draw::line(area, 0);
    (tabs, Rect { y: area.y + tabs.height, height: area.height - tabs.height, ..area })
}

impl Pane for ProcessPane {
    fn context(&self) -> Context {
        self.pane().context()
    }

    fn title(&self, _model: &Model) -> String {
        format!("{} {}", self.key.tgid, format::clean(&self.last.facts.comm))
    }

    fn about(&self, model: &Model) -> String {
        match self.known {
            Known::Elsewhen => String::new(),
            _ => about(&self.last, model),
        }
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        match command {
            Command::NextTab => self.show(self.tab + 1, model),
            Command::PrevTab => self.show(self.tab + TABS.len() - 1, model),
            Command::Enter if self.tab == THREADS => match self.threads.selected() {
                Some(thread) => self.look_into(thread, model),
                None => return Outcome::Done,
            },
            _ if self.known == Known::Last && self.asks_the_model(command) => {
                return Outcome::Say("it has exited: what is shown is what was last known".into());
            }
            _ if self.known == Known::Elsewhen && self.asks_the_model(command) => {
                return Outcome::Say(self.elsewhen(model));
            }
            Command::Idle if self.pane().idle().is_some() => {
                let idle = self.pane().idle() == Some(false);
                self.show_idle(idle);
                self.pane_mut().tick(model, false);
            }
            _ => {
                return match self.pane_mut().command(command, model) {
                    Outcome::Ignored if command == Command::Back && self.tab == LATENCY && self.of_one_thread() => {
                        self.leave_thread(model);
                        Outcome::Done
                    }
                    outcome => outcome,
                };
            }
        }
        Outcome::Done
    }

    fn query(&mut self, query: Query, text: &str, model: &Model) -> Answer {
        self.pane_mut().query(query, text, model)
    }

    fn picked(&mut self, command: Command, index: usize, model: &Model) {
        self.pane_mut().picked(command, index, model);
    }

    fn process(&self, _model: &Model) -> Option<ProcessKey> {
        Some(self.key)
    }

    fn copy(&self, model: &Model) -> Option<String> {
        self.pane().copy(model)
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let (tabs, body) = parts(area);
        if !tabs.contains((mouse.column, mouse.row).into()) {
            return self.pane_mut().mouse(mouse, body, model);
        }
        if mouse.kind == MouseEventKind::Down(MouseButton::Left)
            && let Some(tab) = self.tab_at(tabs, mouse.column)
        {
            self.show(tab, model);
        }
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, hold: bool) {
        match model.process(self.key) {
            Some(process) => {
                self.last = process.clone();
                self.known = Known::Now;
                self.shows_past = model.is_past();
                self.info.update(&self.last);
                self.pane_mut().tick(model, hold);
            }
            None if model.is_past() || self.shows_past => self.known = Known::Elsewhen,
            None => self.known = Known::Last,
        }
    }

    fn idle(&self) -> Option<bool> {
        self.pane().idle()
    }

    fn show_idle(&mut self, idle: bool) {
        // What is only remembered stays as it is.
        if self.known == Known::Now {
            self.icicle.show_idle(idle);
            self.threads.show_idle(idle);
        }
    }

    fn has_order(&self) -> bool {
        self.pane().has_order()
    }

    fn layout(&mut self, area: Rect, model: &Model) {
        self.pane_mut().layout(parts(area).1, model);
    }

    fn plain_frames(&mut self, model: &Model) -> Vec<(FrameId, Frame)> {
        if self.known == Known::Now { self.pane_mut().plain_frames(model) } else { Vec::new() }
    }

    fn wants(&self) -> Wants {
        Wants { visible: vec![self.key], focus: Some(self.key) }
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let (tabs, body) = parts(area);
        for ((at, name), place) in TABS.iter().enumerate().zip(tab_places(tabs)) {
            let style = if at == self.tab { theme.accent() } else { theme.dim() };
            let name = if at == self.tab { format!("[{name}]") } else { format!(" {name} ") };
            let room = tabs.right().saturating_sub(place.start);
            draw::put(buf, place.start, tabs.y, &name, room.min(tabs.height * room), style);
        }
        if let Scope::Thread(thread) = self.latency.scope()
            && self.tab == LATENCY
        {
            draw::put_right(buf, tabs, &format!("thread {} only   Esc: all ", thread.tid), theme.accent());
        }
        if self.known == Known::Elsewhen {
            let text = self.elsewhen(model);
            let middle = draw::centred(body, format::width(&text) as u16, 1);
            draw::put(buf, middle.x, middle.y, &text, middle.width, theme.dim());
            return;
        }
        self.pane().render(model, theme, body, buf);
    }
}

impl ProcessPane {
    /// Why there is nothing to show.
    fn elsewhen(&self, model: &Model) -> String {
        match model.is_past() {
            true => format!("there was no process {} at that time", self.title(model)),
            false => "it has exited; [ goes back to when it lived".into(),
        }
    }

    /// Would make a view anew from a model that holds nothing of this process any more.
    fn asks_the_model(&self, command: Command) -> bool {
        use Command::{Idle, Invert, Lens, Merge, Window};
        matches!(command, Lens | Invert | Merge | Window | Idle)
    }
}

/// `14 threads  up 3h12m  /system.slice/postgresql  node 0: 73 %`, or how it ended.
fn about(process: &Process, model: &Model) -> String {
    let mut parts = Vec::new();
    match process.exited {
        Some(exit) => parts.push(ended(&exit, model)),
        None => parts.push(match process.threads {
            1 => "1 thread".into(),
            threads => format!("{} threads", format::grouped(threads.into())),
        }),
    }
    if process.exited.is_none()
        && let Some(span) = model.span()
    {
        let age = span.end_ns.saturating_add(model.boot_offset_ns()).saturating_sub(process.key.start_ns);
        parts.push(format!("up {}", format::age(age)));
    }
    parts.extend(
        process.facts.cgroup.as_deref().filter(|path| *path != "/").map(|path| format::clean(path).into_owned()),
    );
    // That it is held back explains its waits for a CPU, and stands first: the line may be cut.
    if process.exited.is_none()
        && let Some(quota) = model.quota_of(process).filter(|quota| quota.throttled > 0)
    {
        parts.insert(0, format!("CPU quota used up in {}", used_up(quota)));
    }
    parts.extend(nodes(&process.all.node_ns, model.session()));
    parts.join("  ")
}

/// `9 of 10 periods`.
pub fn used_up(quota: &Quota) -> String {
    format!("{} of {}", format::grouped(quota.throttled), format::counted(quota.periods, "period", "periods"))
}

/// `exited (status 3), 12s ago`, `killed by SIGKILL, …`.
fn ended(exit: &Exit, model: &Model) -> String {
    let words = exit_words(exit.status);
    match model.span() {
        Some(span) => format!("{words}, {} ago", format::age(span.end_ns.saturating_sub(exit.at_ns))),
        None => words,
    }
}

/// How a process ended, from its wait status.
pub fn exit_words(status: Option<u32>) -> String {
    match status {
        None => "exited (status not known)".into(),
        Some(status) if status & 0x7f == 0 => format!("exited (status {})", status >> 8 & 0xff),
        Some(status) => format!("killed by {}", signal_name(status & 0x7f)),
    }
}

fn signal_name(signal: u32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    match (signal as usize).checked_sub(1).and_then(|at| NAMES.get(at)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

/// `node 0: 73 %` for each node on which it ran; empty on one node.
pub fn nodes(node_ns: &[u64], session: &Session) -> Vec<String> {
    let total: u64 = node_ns.iter().fold(0, |sum: u64, &ns| sum.saturating_add(ns));
    if total == 0 || session.nodes.len() < 2 {
        return Vec::new();
    }
    let share = |ns: u64| format::percent(ns as f64 / total as f64);
    let ids = session.nodes.iter().map(|(id, _)| *id);
    ids.zip(node_ns).filter(|&(_, &ns)| ns > 0).map(|(id, &ns)| format!("node {id}: {} %", share(ns))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Source;
    use crate::collect::invented::{Invented, Invention};
    use crate::model::Limits;
    use crate::ui::testing::{any_size, lines, model};

    fn busiest(model: &Model) -> ProcessKey {
        model.processes().max_by_key(|process| process.tick.ns.on_cpu()).unwrap().key
    }

    #[test]
    fn tabs_go_round_and_each_shows_its_own() {
        let model = model(Invention::default(), 12);
        let key = busiest(&model);
        let mut pane = ProcessPane::open(key, &model).unwrap();
        for (context, needle) in [
            (Context::Icicle, "[on-CPU]"),
            (Context::Threads, "now, since"),
            (Context::Latency, "run queue"),
            (Context::Anywhere, "command line"),
            (Context::Icicle, "[on-CPU]"),
        ] {
            let drawn = lines(&mut pane, &model, 80, 21).join("\n");
            assert_eq!(pane.context(), context);
            assert!(drawn.contains(needle), "{context:?}: {drawn}");
            pane.command(Command::NextTab, &model);
        }
        assert!(pane.title(&model).starts_with(&key.tgid.to_string()));
        let threads = model.process(key).unwrap().threads;
        assert!(pane.about(&model).starts_with(&format!("{threads} thread")), "{}", pane.about(&model));
        assert_eq!(pane.wants().focus, Some(key));
    }

    #[test]
    fn a_thread_leads_to_its_latency_and_back() {
        let model = model(Invention::default(), 12);
        let mut pane = ProcessPane::open(busiest(&model), &model).unwrap();
        pane.command(Command::NextTab, &model);
        let thread = pane.threads.selected().unwrap();
        pane.command(Command::Enter, &model);
        let drawn = lines(&mut pane, &model, 100, 30).join("\n");
        assert!(drawn.contains(&format!("thread {} only", thread.tid)), "{drawn}");
        assert!(!drawn.contains("requests, queue and device"), "a thread has no requests of its own");
        assert!(matches!(pane.command(Command::Back, &model), Outcome::Done));
        assert_eq!(pane.context(), Context::Threads);
        assert!(matches!(pane.command(Command::Back, &model), Outcome::Ignored), "and out of the process");
    }

    #[test]
    fn the_view_outlives_the_process() {
        let mut source = Invented::new(Invention::default());
        let limits = Limits { keep_exited: std::time::Duration::from_secs(2), ..Limits::default() };
        let mut model = Model::new(source.session(), limits);
        // Watches everything from the start, until something that was watched is gone.
        let mut panes: Vec<ProcessPane> = Vec::new();
        for _ in 0..200 {
            model.apply(source.tick());
            for process in model.processes() {
                if panes.iter().all(|pane| pane.key != process.key) && process.exited.is_none() {
                    panes.extend(ProcessPane::open(process.key, &model));
                }
            }
            panes.iter_mut().for_each(|pane| pane.tick(&model, false));
            if panes.iter().any(|pane| pane.known == Known::Last) {
                break;
            }
        }
        let pane = panes.iter_mut().find(|pane| pane.known == Known::Last).expect("a compiler that ended");
        assert!(model.process(pane.key).is_none());
        let about = pane.about(&model);
        assert!(about.contains("exited (status ") || about.contains("killed by "), "{about}");
        assert!(about.contains("s ago"), "{about}");
        assert!(matches!(pane.command(Command::Lens, &model), Outcome::Say(_)), "there is nothing left to ask");
        let drawn = lines(pane, &model, 80, 21).join("\n");
        assert!(drawn.contains("[on-CPU]"), "{drawn}");
        (0..4).for_each(|_| {
            pane.command(Command::NextTab, &model);
            lines(pane, &model, 80, 21);
        });
    }

    #[test]
    fn any_size_of_any_process() {
        let model = model(Invention { hostile: true, nodes: 2, ..Invention::default() }, 6);
        let hostile = model.processes().filter(|process| process.facts.comm.contains(char::is_control));
        let keys: Vec<ProcessKey> = hostile.map(|process| process.key).chain([busiest(&model)]).collect();
        assert!(keys.len() > 1, "there is a hostile process");
        for key in keys {
            let mut pane = ProcessPane::open(key, &model).unwrap();
            for _ in TABS {
                any_size(&mut pane, &model);
                pane.command(Command::NextTab, &model);
            }
            assert!(!pane.title(&model).contains(char::is_control));
            assert!(!pane.about(&model).contains(char::is_control));
        }
    }

    #[test]
    fn a_quota_that_holds_it_back_stands_first_whoever_set_it() {
        use crate::tick::ProcessFacts;
        use crate::ui::fixture::{self, MS, facts, model_of};
        let quota = |cgroup: &str, throttled| Quota {
            cgroup: cgroup.into(),
            quota_ns: 20 * MS,
            period_ns: 100 * MS,
            periods: 10,
            throttled,
            throttled_ns: 700 * MS,
        };
        let mut tick = fixture::busy(1);
        tick.processes.push(ProcessFacts { cgroup: Some("/pods/a/c1".into()), ..facts(9904, 1, 0, &["cc1"]) });
        tick.quotas = vec![quota("/pods/a", 9), quota("/pods/a/c1", 2), quota("/pods/a/c", 10), quota("/pods/b", 10)];
        let model = model_of([tick]);
        let of = |tgid| about(model.process(fixture::key(tgid)).unwrap(), &model);
        assert!(of(9904).starts_with("CPU quota used up in 9 of 10 periods  1 thread  "), "{}", of(9904));
        assert!(!of(4711).contains("quota"), "{}", of(4711));
    }

    #[test]
    fn wait_statuses_in_words() {
        assert_eq!(exit_words(Some(0)), "exited (status 0)");
        assert_eq!(exit_words(Some(3 << 8)), "exited (status 3)");
        assert_eq!(exit_words(Some(9)), "killed by SIGKILL");
        assert_eq!(exit_words(Some(11 | 0x80)), "killed by SIGSEGV");
        assert_eq!(exit_words(Some(40)), "killed by signal 40");
        assert_eq!(exit_words(None), "exited (status not known)");
    }

    #[test]
    fn node_spread() {
        let session = Session { nodes: vec![(0, vec![0]), (2, vec![1])], ..Session::default() };
        assert_eq!(nodes(&[73, 27], &session), ["node 0: 73.0 %", "node 2: 27.0 %"]);
        assert!(nodes(&[0, 0], &session).is_empty());
        assert!(nodes(&[5], &Session::default()).is_empty());
    }
}
