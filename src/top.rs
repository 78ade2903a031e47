//! `sberf top`: joins a source, the model and the screen, and runs the loop.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP, SIGWINCH};

use sberf::collect::{Request, signal};
use sberf::model::{Limits, Model};
use sberf::tick::{Batch, Session};
use sberf::ui::app::{App, Options};
use sberf::ui::signal::Signal;
use sberf::ui::{Action, Theme};

use crate::command::{self, Ended, Running};
use crate::exports::Exports;
use crate::feed::{Feed, News};
use crate::glance::Seen;
use crate::held::Held;
use crate::screen::Screen;
use crate::{Failure, input, save, terminal};

/// Frames are at least so far apart when ticks drive them …
const FRAME: Duration = Duration::from_millis(33);
/// … and when keys do: a wheel yields hundreds of events a second …
const KEY_FRAME: Duration = Duration::from_millis(8);
/// … and when only names came, as they do five times a second while programs start that were never seen: they can wait for
/// the next tick, unless somebody has just pressed a key.
const NAMES_FRAME: Duration = Duration::from_secs(1);
const WAITS_FOR_NAMES: Duration = Duration::from_secs(2);

/// Why the loop ended.
enum End {
    /// The person wanted it, or the terminal is gone.
    Quit,
    /// By this signal.
    Signal(i32),
    /// The source never came to run.
    Failed(String),
    /// The command could not be run.
    NotRun(Failure),
}

/// Runs the screen until it is left.
pub fn run(
    feed: Feed,
    glance: Receiver<Seen>,
    command: Option<Running>,
    theme: Theme,
    options: Options,
    limits: Limits,
) -> Result<(), Failure> {
    let signals = input::signals()?;
    let guard = terminal::enter().map_err(|error| Failure::line(format!("cannot take over the terminal: {error}")))?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let screen = Screen::new(std::fs::File::from(output))?;
    let mut top = Top { glance, ..Top::new(feed, command, theme, options, limits, screen) };
    let end = top.run(&input::events()?, &signals);
    let late_errors = top.leave();
    drop(guard);
    top.end_saving();
    top.end_command();
    match end {
        Ok(End::Quit) => late_errors.map_or(Ok(()), |error| Err(Failure::line(error))),
        Ok(End::Signal(signal)) => Err(Failure::Signal(signal)),
        Ok(End::Failed(error)) => Err(Failure::line(error)),
        Ok(End::NotRun(why)) => Err(why),
        // The terminal is gone: there is nobody to tell.
        Err(_) => Ok(()),
    }
}

struct Top {
    feed: Option<Feed>,
    /// Who is there, before the feed has anything to tell.
    glance: Receiver<Seen>,
    /// What the first tick goes into, while what is shown is only that.
    blank: Option<Model>,
    /// What was started to be watched.
    command: Option<Running>,
    /// Says how it ended; never after it did.
    command_ended: Receiver<Ended>,
    model: Model,
    app: App,
    screen: Screen,
    held: Held,
    /// Folded files that wait for names.
    exports: Exports,
    /// Says what became of what is being saved.
    saving: Option<Receiver<String>>,
    /// The tick to be looked at; `Some(None)`: the newest.
    look: Option<Option<u64>>,
    /// Ticks to be taken in although the picture is held.
    steps: u32,
    replay: bool,
    /// The source has ended, or told its session; before that, its error is the program's.
    loaded: bool,
    /// What went wrong meanwhile: said again at the end, where it stays.
    error: Option<String>,
    started: Instant,
    drawn: Option<Instant>,
    /// Names came that what is shown was not made with.
    named: bool,
    /// The last key.
    touched: Option<Instant>,
    /// The picture is not what it should be: draw, that long after the last frame.
    due: Option<Duration>,
}

impl Top {
    fn new(
        feed: Feed,
        command: Option<Running>,
        theme: Theme,
        options: Options,
        limits: Limits,
        screen: Screen,
    ) -> Self {
        let replay = options.replay;
        let mut app = App::new(theme, options);
        app.loading(if replay { "reading the capture" } else { "loading BPF programs" });
        let model = Model::new(Session::default(), limits);
        let started = Instant::now();
        let due = Some(Duration::ZERO);
        let (held, feed) = (Held::default(), Some(feed));
        if let Some(command) = &command {
            app.look_into(command.pid());
        }
        let command_ended = command.as_ref().map_or_else(never, |command| command.ended().clone());
        Top {
            feed,
            glance: never(),
            blank: None,
            command,
            command_ended,
            model,
            app,
            screen,
            held,
            exports: Exports::default(),
            saving: None,
            look: None,
            steps: 0,
            replay,
            loaded: false,
            error: None,
            started,
            drawn: None,
            named: false,
            touched: None,
            due,
        }
    }

    fn run(&mut self, events: &Receiver<Event>, signals: &Receiver<i32>) -> io::Result<End> {
        loop {
            self.draw_if_due()?;
            let news = self.feed.as_ref().map_or_else(never, |feed| feed.news.clone());
            let written = self.screen.written().clone();
            let end = select! {
                recv(events) -> event => match event {
                    Ok(event) => self.events(event, events),
                    Err(_) => Some(End::Quit),
                },
                recv(news) -> news => self.all_news(news.ok(), events),
                recv(self.glance) -> seen => {
                    self.glanced(seen.ok());
                    None
                }
                recv(written) -> result => {
                    self.screen.finished(result.unwrap_or(Err(io::ErrorKind::BrokenPipe.into())))?;
                    None
                }
                recv(self.saving.clone().unwrap_or_else(never)) -> said => {
                    self.saved(said.ok());
                    None
                }
                recv(self.command_ended) -> end => self.command_ended(end.ok()),
                recv(signals) -> signal => self.signal(signal.unwrap_or(SIGHUP))?,
                default(self.until_due()) => None,
            };
            self.write_exports(false);
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Lets the source end, if a capture needs its end mark (otherwise the kernel detaches it sooner than we could). What it
    /// said at the end, if that was bad.
    fn leave(&mut self) -> Option<String> {
        terminal::restore();
        let recorder = self.feed.take().filter(Feed::records);
        for news in recorder.map(Feed::finish).unwrap_or_default() {
            if let News::Said(error) | News::Ended(Err(error)) = news {
                self.error = Some(error);
            }
        }
        self.error.take()
    }

    /// Lets what is being saved be saved whole, and says where.
    fn end_saving(&mut self) {
        for said in self.exports.write(&self.model, true) {
            crate::say(&said);
        }
        if let Some(said) = self.saving.take().and_then(|saving| saving.recv().ok()) {
            crate::say(&said);
        }
    }

    /// Ends the command, if it still runs, and says where what it wrote is.
    fn end_command(&mut self) {
        let Some(mut command) = self.command.take() else { return };
        command.end();
        if let Some(written) = command.written() {
            crate::say(&format!("{} {written}", command.name()));
        }
    }

    fn command_ended(&mut self, end: Option<Ended>) -> Option<End> {
        self.command_ended = never();
        let command = self.command.as_ref()?;
        match end? {
            Ended::Exited(status) => {
                let written = command.written().map_or(String::new(), |written| format!(", {written}"));
                self.app.notify(format!("{} {}{written}", command.name(), command::words(status)));
            }
            Ended::NotRun(why) => return Some(End::NotRun(why)),
        }
        self.draw_within(FRAME);
        None
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn until_due(&self) -> Duration {
        self.until_frame().min(self.exports.patience().unwrap_or(Duration::MAX))
    }

    fn until_frame(&self) -> Duration {
        match (self.due, self.drawn) {
            (Some(gap), Some(drawn)) if !self.screen.is_busy() => gap.saturating_sub(drawn.elapsed()),
            (Some(_), None) => Duration::ZERO,
            _ => Duration::from_secs(3600),
        }
    }

    fn draw_if_due(&mut self) -> io::Result<()> {
        let is_due = self.due.is_some_and(|gap| self.drawn.is_none_or(|drawn| drawn.elapsed() >= gap));
        if !is_due || self.screen.is_busy() {
            return Ok(());
        }
        crate::test_panic("main");
        if self.named {
            self.taken_in();
        }
        let (app, model) = (&mut self.app, &self.model);
        let began = Instant::now();
        self.screen.draw(|area, buf| app.render(model, area, buf))?;
        self.due = None;
        self.app.drawn(began.elapsed());
        self.drawn = Some(Instant::now());
        Ok(())
    }

    fn draw_within(&mut self, gap: Duration) {
        self.due = Some(self.due.map_or(gap, |due| due.min(gap)));
    }

    /// One event, and all that came with it.
    fn events(&mut self, first: Event, more: &Receiver<Event>) -> Option<End> {
        self.touched = Some(Instant::now());
        let mut next = Some(first);
        while let Some(event) = next {
            if self.event(event) {
                return Some(End::Quit);
            }
            next = more.try_recv().ok();
        }
        self.look();
        self.draw_within(KEY_FRAME);
        None
    }

    /// Yields true to quit.
    fn event(&mut self, event: Event) -> bool {
        let now = self.now();
        let actions = match event {
            Event::Key(key) if is_suspend(&key) => return self.suspend().is_err(),
            Event::Key(key) => self.app.on_key(key, &self.model, now),
            Event::Paste(text) => self.app.on_paste(&text, &self.model, now),
            Event::Mouse(mouse) => self.app.on_mouse(mouse, &self.model, now),
            _ => Vec::new(),
        };
        self.obey(actions)
    }

    /// Yields true to quit.
    fn obey(&mut self, actions: Vec<Action>) -> bool {
        for action in actions {
            match action {
                Action::Quit => return true,
                Action::Interval(length) => self.request(Request::Interval(length)),
                Action::Visible(processes) => self.request(Request::Visible(processes)),
                Action::Focus(process) => self.request(Request::Focus(process)),
                Action::Detail(frames) => self.request(Request::Detail(frames)),
                Action::Statistics(wanted) => self.request(Request::Statistics(wanted)),
                Action::Hold(hold) => self.hold(hold),
                Action::Look(tick) => self.look = Some(tick),
                Action::Step => self.step(),
                Action::ExportFolded { query, file } => {
                    let asks = self.exports.begin(&self.model, query, file);
                    // Nobody answers for what was recorded, or while the picture is held.
                    let at_once = self.replay || self.app.is_paused() || self.feed.is_none();
                    if !at_once && !asks.is_empty() {
                        self.app.notify("looking for lines and inlined functions …");
                        self.request(Request::Detail(asks));
                    }
                    self.write_exports(at_once);
                }
                Action::SaveCapture { file } => {
                    let said = self.save(&file);
                    self.app.notify(said);
                }
                Action::Signal { process, signal, label } => {
                    let said = match signal::send(process, number(signal)) {
                        Ok(()) => format!("sent {} to {label}", signal.name()),
                        Err(why) => format!("{} to {label}: {why}", signal.name()),
                    };
                    self.app.notify(said);
                }
                Action::Copy(text) => self.screen.copy(&text),
                Action::Redraw => {
                    if self.screen.forget().is_err() {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn write_exports(&mut self, all: bool) {
        for said in self.exports.write(&self.model, all) {
            self.app.notify(said);
            self.draw_within(FRAME);
        }
    }

    /// Shows the tick that was asked for last: keys may come faster than ticks can be rebuilt.
    fn look(&mut self) {
        match self.look.take() {
            Some(Some(tick)) => drop(self.model.look_at(tick)),
            Some(None) => self.model.look_live(),
            None => return,
        }
        let actions = self.app.looked(&self.model);
        self.obey(actions);
    }

    /// One tick more, if there is one.
    fn step(&mut self) {
        if self.held.ticks() > 0 {
            self.take_one();
        } else if self.replay && self.feed.is_some() {
            self.steps += 1;
            self.request(Request::Step);
        } else {
            let why = if self.replay { "the replay is over" } else { "nothing newer yet" };
            self.app.notify(why);
        }
    }

    /// Takes in the next tick that waits, and the names before it.
    fn take_one(&mut self) {
        while let Some(batch) = self.held.pop() {
            let is_tick = matches!(batch, Batch::Tick(_));
            self.take_in(batch);
            if is_tick {
                break;
            }
        }
        self.app.behind(self.held.ticks());
        self.look = Some(None);
        self.look();
    }

    fn save(&mut self, name: &str) -> String {
        if self.saving.is_some() {
            return "what was asked for before is still being saved".into();
        }
        match save::start(&self.model, name) {
            Ok((said, done)) => {
                self.saving = Some(done);
                said
            }
            Err(why) => why,
        }
    }

    fn saved(&mut self, said: Option<String>) {
        self.saving = None;
        if let Some(said) = said {
            self.app.notify(said);
            self.draw_within(FRAME);
        }
    }

    fn request(&self, request: Request) {
        if let Some(feed) = &self.feed {
            feed.request(request);
        }
    }

    fn hold(&mut self, hold: bool) {
        if self.replay {
            self.request(Request::Hold(hold));
        }
        if !hold {
            let batches: Vec<Batch> = self.held.drain().collect();
            batches.into_iter().for_each(|batch| self.take_in(batch));
            self.taken_in();
        }
    }

    /// News, and all that came with them; but keys go first.
    fn all_news(&mut self, first: Option<News>, events: &Receiver<Event>) -> Option<End> {
        let mut next = first;
        let mut only_names = true;
        while let Some(news) = next {
            only_names &= matches!(&news, News::Batch(batch) if matches!(batch, Batch::Names(_)));
            if let Some(end) = self.news(news) {
                return Some(end);
            }
            let more = if events.is_empty() { self.feed.as_ref() } else { None };
            next = more.and_then(|feed| feed.news.try_recv().ok());
        }
        if only_names && self.touched.is_none_or(|at| at.elapsed() > WAITS_FOR_NAMES) {
            self.named = true;
            self.draw_within(NAMES_FRAME);
        } else {
            self.taken_in();
        }
        None
    }

    fn news(&mut self, news: News) -> Option<End> {
        match news {
            News::Loaded(session) => {
                self.loaded = true;
                if let Some(command) = &mut self.command {
                    command.release();
                }
                let model = Model::new(*session, self.model.limits());
                match self.model.is_glance() {
                    true => self.blank = Some(model),
                    false => self.model = model,
                }
                self.app.loading("collecting the first tick");
            }
            News::Batch(mut batch) if self.app.is_paused() => {
                if let Batch::Tick(tick) = &mut batch {
                    tick.unfold();
                }
                self.held.push(&batch);
                self.app.behind(self.held.ticks());
            }
            News::Batch(batch) => self.take_in(batch),
            News::Said(text) => {
                self.app.notify(text.clone());
                self.error = Some(text);
            }
            News::Noted(text) => self.app.notify(text),
            News::Ended(Err(error)) if !self.loaded => return Some(End::Failed(error)),
            News::Ended(result) => {
                self.app.ended();
                if let Err(error) = result {
                    self.app.notify(error.clone());
                    self.error = Some(error);
                }
                drop(self.feed.take().map(Feed::finish));
            }
        }
        None
    }

    fn take_in(&mut self, batch: Batch) {
        match batch {
            Batch::Tick(tick) => {
                if let Some(blank) = self.blank.take() {
                    self.model = blank;
                }
                self.model.apply(*tick);
            }
            Batch::Names(names) => self.blank.as_mut().unwrap_or(&mut self.model).learn(*names),
        }
    }

    /// Shows who is there, unless more is known by now.
    fn glanced(&mut self, seen: Option<Seen>) {
        self.glance = never();
        if let Some((session, tick)) = seen.filter(|_| !self.loaded).map(|seen| *seen) {
            self.model = Model::glance(session, self.model.limits(), tick);
            self.taken_in();
        }
    }

    fn taken_in(&mut self) {
        self.named = false;
        if !self.app.is_paused() {
            self.steps = 0;
            let actions = self.app.on_tick(&self.model, self.now());
            self.obey(actions);
        }
        while self.steps > 0 && self.held.ticks() > 0 {
            self.steps -= 1;
            self.take_one();
        }
        self.draw_within(FRAME);
    }

    fn signal(&mut self, signal: i32) -> io::Result<Option<End>> {
        match signal {
            SIGWINCH => self.draw_within(Duration::ZERO),
            SIGTSTP => self.suspend()?,
            SIGCONT => self.resume()?,
            // As the terminal says goodbye.
            SIGHUP => return Ok(Some(End::Quit)),
            signal => return Ok(Some(End::Signal(signal))),
        }
        Ok(None)
    }

    /// Stops as Ctrl-Z does, with the terminal given back meanwhile.
    fn suspend(&mut self) -> io::Result<()> {
        terminal::restore();
        signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
        self.resume()
    }

    /// Whoever had the terminal meanwhile may have left it in any state.
    fn resume(&mut self) -> io::Result<()> {
        terminal::restore();
        terminal::take()?;
        self.screen.forget()?;
        self.draw_within(Duration::ZERO);
        Ok(())
    }
}

fn number(signal: Signal) -> rustix::process::Signal {
    use rustix::process::Signal as Number;
    match signal {
        Signal::Term => Number::TERM,
        Signal::Kill => Number::KILL,
        Signal::Stop => Number::STOP,
        Signal::Cont => Number::CONT,
        Signal::Int => Number::INT,
        Signal::Hup => Number::HUP,
        Signal::Usr1 => Number::USR1,
        Signal::Usr2 => Number::USR2,
    }
}

fn is_suspend(key: &KeyEvent) -> bool {
    key.code == KeyCode::Char('z') && key.modifiers == KeyModifiers::CONTROL && key.kind == KeyEventKind::Press
}
