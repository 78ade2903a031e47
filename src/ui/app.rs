//! The whole screen: what is always there, a stack of panes per place, and popups over them.
//!
//! ```text
//! status    host, sampler, interval, live or paused, stacks complete, lost, own cost
//! places    1 Processes  2 CPUs …           or, deeper: Processes › 4711 postgres
//! body      the pane on top of the place's stack
//! footer    keys; a prompt while one is open; a message until the next key
//! ```
//!
//! Pausing: the picture is the model, so `main` stops applying ticks to it while [`Action::Hold`] is on, and queues them.
//! Everything on the screen (also what is opened meanwhile) is then of one and the same moment.

mod frame;
mod time;

use std::time::Duration;

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::cost::{CostPopup, DrawTime};
use super::help::Help;
use super::keys::Keyboard;
use super::picker::Picker;
use super::places::{self, Place};
use super::prompt::Prompt;
use super::quality::Quality;
use super::signal::SignalPopup;
use super::wanted::Asked;
use super::{Action, Command, Context, Outcome, Pane, Target, Theme, copy, draw, footer};
use crate::model::{Model, Process};

/// Rows keep their order for so long after a key press.
const ORDER_HELD: Duration = Duration::from_secs(1);
/// The smallest screen on which everything has its place.
pub const MIN_SIZE: (u16, u16) = (80, 24);

/// What the command line says of the screen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is shown was recorded.
    pub replay: bool,
    /// Local time minus UTC, seconds.
    pub utc_offset_s: i32,
    /// PID of this program, where it is among the processes that are shown.
    pub own_pid: Option<u32>,
}

/// View state of the whole screen.
pub struct App {
    theme: Theme,
    options: Options,
    places: Vec<PlaceStack>,
    at: usize,
    popups: Vec<Popup>,
    keyboard: Keyboard,
    last_key: Option<Duration>,
    interval: Option<Duration>,
    paused: bool,
    behind: usize,
    /// The past tick that is looked at.
    position: Option<u64>,
    order_held: bool,
    ended: bool,
    message: Option<String>,
    loading: String,
    /// To be looked into as soon as it is known.
    awaited: Option<u32>,
    samples: (u64, u64),
    /// Idle waits are shown, in every pane that could.
    idle: bool,
    area: Rect,
    asked: Asked,
    looks_at_cost: bool,
    draws: DrawTime,
}

/// A place and what was opened in it.
struct PlaceStack {
    place: Place,
    inside: Vec<Box<dyn Pane>>,
}

impl PlaceStack {
    fn top(&self) -> &dyn Pane {
        self.inside.last().unwrap_or(&self.place.pane).as_ref()
    }

    fn top_mut(&mut self) -> &mut dyn Pane {
        self.inside.last_mut().unwrap_or(&mut self.place.pane).as_mut()
    }
}

/// What lies over the pane; the topmost is offered a key first.
enum Popup {
    Help(Help),
    Prompt(Prompt),
    Picker(Picker),
    Signal(SignalPopup),
    Quality(Quality),
    Cost(CostPopup),
}

/// What a popup did with a key or a click.
pub(super) enum Reply {
    /// Not its own.
    Pass,
    /// Taken.
    Stay,
    /// Taken, and it is done.
    Close,
    /// The text changed.
    Text,
    /// Item chosen, and it is done.
    Chosen(usize),
}

/// The parts of the screen.
#[derive(Clone, Copy)]
struct Parts {
    status: Rect,
    places: Rect,
    body: Rect,
    footer: Rect,
}

fn parts(area: Rect) -> Parts {
    let body = Rect { y: area.y + area.height.min(2), height: area.height.saturating_sub(3), ..area };
    let footer = draw::line(area, area.height.saturating_sub(1));
    Parts { status: draw::line(area, 0), places: draw::line(area, 1), body, footer }
}

impl App {
    /// The screen before anything is known.
    pub fn new(theme: Theme, options: Options) -> Self {
        let places = places::all().into_iter().map(|place| PlaceStack { place, inside: Vec::new() }).collect();
        App {
            theme,
            options,
            places,
            at: 0,
            popups: Vec::new(),
            keyboard: Keyboard::default(),
            last_key: None,
            interval: None,
            paused: false,
            behind: 0,
            position: None,
            order_held: false,
            ended: false,
            message: None,
            loading: "starting".into(),
            awaited: None,
            samples: (0, 0),
            idle: false,
            area: Rect::default(),
            asked: Asked::default(),
            looks_at_cost: false,
            draws: DrawTime::default(),
        }
    }

    /// What the first frames say, until there is a tick: `loading BPF programs`.
    pub fn loading(&mut self, text: impl Into<String>) {
        self.loading = text.into();
    }

    /// Looks into the process with that PID as soon as it is known.
    pub fn look_into(&mut self, pid: u32) {
        self.awaited = Some(pid);
    }

    /// Tells the person something; it stands on the last line until the next key.
    pub fn notify(&mut self, text: impl Into<String>) {
        self.message = Some(text.into());
    }

    /// How many ticks wait while the picture is held.
    pub fn behind(&mut self, ticks: usize) {
        self.behind = ticks;
    }

    /// No more ticks will come: the replay is over, or the source failed (say why with [`App::notify`]).
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// A frame took that long to draw.
    pub fn drawn(&mut self, took: Duration) {
        self.draws.add(took);
    }

    /// The picture is held.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// How everything looks.
    pub fn theme(&self) -> &Theme {
        &self.theme
    }

    /// The model has taken in a tick or names. `now` is the time since the start of the program.
    pub fn on_tick(&mut self, model: &Model, now: Duration) -> Vec<Action> {
        self.position = None;
        self.order_held = self.last_key.is_some_and(|key| now.saturating_sub(key) < ORDER_HELD);
        self.refresh(model, self.order_held)
    }

    /// The model shows another tick, as it was asked to.
    pub fn looked(&mut self, model: &Model) -> Vec<Action> {
        self.order_held = false;
        self.refresh(model, false)
    }

    fn refresh(&mut self, model: &Model, hold: bool) -> Vec<Action> {
        let count = |(all, good), process: &Process| (all + process.samples, good + process.samples_complete);
        self.samples = model.processes().fold((0, 0), count);
        let awaited = self.awaited.and_then(|tgid| model.processes().find(|process| process.key.tgid == tgid));
        if let Some(process) = awaited {
            self.awaited = None;
            self.open(Target::Process(process.key), model);
        }
        self.pane_mut().tick(model, hold);
        for popup in &mut self.popups {
            if let Popup::Quality(popup) = popup {
                popup.update(model);
            }
        }
        self.place_cursor(model);
        self.wanted(Vec::new(), model)
    }

    /// A key was pressed.
    pub fn on_key(&mut self, event: KeyEvent, model: &Model, now: Duration) -> Vec<Action> {
        if super::keys::key_of(&event).is_none() {
            return Vec::new();
        }
        self.last_key = Some(now);
        self.message = None;
        let actions = match self.popup_key(&event, model) {
            Some(actions) => actions,
            None => match self.keyboard.press(self.pane().context(), &event) {
                Some(command) => self.run(command, model),
                None => Vec::new(),
            },
        };
        self.place_cursor(model);
        self.wanted(actions, model)
    }

    /// Text was pasted: it goes where text is asked for. It is no commands.
    pub fn on_paste(&mut self, text: &str, model: &Model, now: Duration) -> Vec<Action> {
        self.last_key = Some(now);
        match self.popups.last_mut() {
            Some(Popup::Prompt(prompt)) => {
                prompt.insert(text);
                self.text_changed(model);
            }
            _ => self.message = Some("what is pasted is not taken for keys: / and \\ ask for text".into()),
        }
        self.place_cursor(model);
        self.wanted(Vec::new(), model)
    }

    /// The mouse did something.
    pub fn on_mouse(&mut self, mouse: MouseEvent, model: &Model, now: Duration) -> Vec<Action> {
        if matches!(mouse.kind, MouseEventKind::Moved | MouseEventKind::Up(_) | MouseEventKind::Drag(_)) {
            return Vec::new();
        }
        self.last_key = Some(now);
        let actions = match self.popup_mouse(mouse, model) {
            Some(actions) => actions,
            None => self.click(mouse, model),
        };
        self.place_cursor(model);
        self.wanted(actions, model)
    }

    /// Does what a key would.
    pub fn run(&mut self, command: Command, model: &Model) -> Vec<Action> {
        let offered = command != Command::BackOrQuit;
        let outcome = if offered { self.pane_mut().command(command, model) } else { Outcome::Ignored };
        self.idle = self.pane().idle().unwrap_or(self.idle);
        match outcome {
            Outcome::Ignored => self.own(command, model),
            outcome => self.take(outcome, model),
        }
    }

    /// Draws the whole screen into `area` of the buffer.
    pub fn render(&mut self, model: &Model, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        self.area = area;
        self.place_cursor(model);
        if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
            self.render_too_small(area, buf);
        } else {
            self.render_parts(model, parts(area), buf);
        }
        self.theme.to_ascii(buf);
    }

    fn pane(&self) -> &dyn Pane {
        self.places[self.at].top()
    }

    fn pane_mut(&mut self) -> &mut dyn Pane {
        self.places[self.at].top_mut()
    }

    fn place_cursor(&mut self, model: &Model) {
        let body = parts(self.area).body;
        self.pane_mut().layout(body, model);
    }

    /// Adds what the pane wants kept fresh or explained, if that has changed.
    fn wanted(&mut self, mut actions: Vec<Action>, model: &Model) -> Vec<Action> {
        let pane = self.pane_mut();
        let (wants, plain) = (pane.wants(), pane.plain_frames(model));
        actions.extend(self.asked.news(wants, plain));
        let looks_at_cost = self.popups.iter().any(|popup| matches!(popup, Popup::Cost(_)));
        if looks_at_cost != std::mem::replace(&mut self.looks_at_cost, looks_at_cost) {
            actions.push(Action::Statistics(looks_at_cost));
        }
        actions
    }

    /// What a pane's outcome asks of the screen.
    fn take(&mut self, outcome: Outcome, model: &Model) -> Vec<Action> {
        match outcome {
            Outcome::Ignored | Outcome::Done => {}
            Outcome::Open(target) => self.open(target, model),
            Outcome::Ask(query, text) => {
                let answer = self.pane_mut().query(query, &text, model);
                self.popups.push(Popup::Prompt(Prompt::new(query, text, answer)));
            }
            Outcome::Pick(choices) => self.popups.push(Popup::Picker(Picker::new(choices))),
            Outcome::Act(action) => return vec![action],
            Outcome::Say(text) => self.message = Some(text),
        }
        Vec::new()
    }

    fn open(&mut self, target: Target, model: &Model) {
        match places::open(target, model) {
            Some(mut pane) => {
                pane.show_idle(self.idle);
                pane.tick(model, false);
                self.places[self.at].inside.push(pane);
            }
            None => self.message = Some("nothing is known of it any more".into()),
        }
    }

    /// Commands that no pane took.
    fn own(&mut self, command: Command, model: &Model) -> Vec<Action> {
        match command {
            Command::Quit => return vec![Action::Quit],
            Command::Redraw => return vec![Action::Redraw],
            Command::Save => return vec![Action::SaveCapture { file: self.capture_name(model) }],
            Command::Copy => return self.copy(model),
            Command::Signal => self.ask_signal(model),
            Command::Quality => self.popups.push(Popup::Quality(Quality::new(self.pane().process(model), model))),
            Command::Cost => self.popups.push(Popup::Cost(CostPopup::default())),
            Command::Back => self.leave(model),
            Command::BackOrQuit if self.places[self.at].inside.is_empty() => return vec![Action::Quit],
            Command::BackOrQuit => self.leave(model),
            Command::Help => self.popups.push(Popup::Help(Help::new(self.pane().context()))),
            Command::Pause if self.paused => return self.go_live(),
            Command::Pause => return self.pause(),
            Command::Earlier => return self.earlier(model),
            Command::Later => return self.later(model),
            Command::Live if self.paused => return self.go_live(),
            Command::Live => return self.run(Command::Top, model),
            Command::Slower => return self.step_interval(model, true),
            Command::Faster => return self.step_interval(model, false),
            Command::NextTab => self.go((self.at + 1) % self.places.len(), model),
            Command::PrevTab => self.go((self.at + self.places.len() - 1) % self.places.len(), model),
            command => {
                if let Some(at) = self.places.iter().position(|stack| stack.place.command == command) {
                    self.go(at, model);
                }
            }
        }
        Vec::new()
    }

    fn ask_signal(&mut self, model: &Model) {
        let asked = match self.pane().process(model) {
            _ if self.options.replay => Err("what was recorded takes no signals".into()),
            None => Err("no process is selected".into()),
            Some(process) => SignalPopup::new(process, model, self.options.own_pid),
        };
        match asked {
            Ok(popup) => self.popups.push(Popup::Signal(popup)),
            Err(why) => self.message = Some(why),
        }
    }

    fn copy(&mut self, model: &Model) -> Vec<Action> {
        let Some(text) = self.pane().copy(model) else {
            self.message = Some("there is nothing to copy here".into());
            return Vec::new();
        };
        let (text, whole) = copy::bounded(&text);
        let cut = if whole { "" } else { ", the rest was cut" };
        let bytes = super::format::bytes(text.len() as u64);
        // What the terminal makes of it, it does not tell.
        self.message = Some(format!("handed {bytes} to the terminal's clipboard (OSC 52){cut}"));
        vec![Action::Copy(text)]
    }

    fn leave(&mut self, model: &Model) {
        if self.places[self.at].inside.pop().is_some() {
            self.appear(model);
        }
    }

    /// To a place; to the bottom of it when we are there already.
    fn go(&mut self, at: usize, model: &Model) {
        if at == self.at {
            self.places[at].inside.clear();
        }
        self.at = at;
        self.appear(model);
    }

    /// The pane on top is another one.
    fn appear(&mut self, model: &Model) {
        let idle = self.idle;
        let pane = self.pane_mut();
        pane.show_idle(idle);
        pane.tick(model, false);
    }

    /// Offers a key to the popups; `None` when there is none or it passed.
    fn popup_key(&mut self, event: &KeyEvent, model: &Model) -> Option<Vec<Action>> {
        let (context, body) = (self.pane().context(), parts(self.area).body);
        let reply = match self.popups.last_mut()? {
            Popup::Help(help) => help.key(event, model, &self.theme, body),
            Popup::Prompt(prompt) => prompt.key(event),
            Popup::Picker(picker) => picker.key(context, event),
            Popup::Signal(popup) => popup.key(context, event),
            Popup::Quality(popup) => popup.key(context, event),
            Popup::Cost(popup) => popup.key(context, event, model, body),
        };
        self.popup_reply(reply, model)
    }

    fn popup_mouse(&mut self, mouse: MouseEvent, model: &Model) -> Option<Vec<Action>> {
        let body = parts(self.area).body;
        let reply = match self.popups.last_mut()? {
            Popup::Help(help) => help.mouse(mouse, model, &self.theme, body),
            Popup::Prompt(_) => Reply::Pass,
            Popup::Picker(picker) => picker.mouse(mouse, body),
            Popup::Signal(popup) => popup.mouse(mouse, body),
            Popup::Quality(popup) => popup.mouse(mouse),
            Popup::Cost(popup) => popup.mouse(mouse, model, body),
        };
        self.popup_reply(reply, model)
    }

    fn popup_reply(&mut self, reply: Reply, model: &Model) -> Option<Vec<Action>> {
        match reply {
            Reply::Pass => return None,
            Reply::Stay => {}
            Reply::Close => {
                self.popups.pop();
            }
            Reply::Text => self.text_changed(model),
            Reply::Chosen(index) => match self.popups.pop() {
                Some(Popup::Picker(picker)) => self.pane_mut().picked(picker.command(), index, model),
                Some(Popup::Signal(popup)) => return Some(popup.chosen(index).into_iter().collect()),
                _ => {}
            },
        }
        Some(Vec::new())
    }

    /// Shows the pane what is typed, and closes the prompt when that was accepted or given up.
    fn text_changed(&mut self, model: &Model) {
        let Some(Popup::Prompt(mut prompt)) = self.popups.pop() else { return };
        prompt.answer = self.pane_mut().query(prompt.query, prompt.text(), model);
        if !prompt.is_done() {
            self.popups.push(Popup::Prompt(prompt));
        }
    }

    fn click(&mut self, mouse: MouseEvent, model: &Model) -> Vec<Action> {
        let parts = parts(self.area);
        let at = (mouse.column, mouse.row).into();
        let pressed = mouse.kind == MouseEventKind::Down(MouseButton::Left);
        if parts.body.contains(at) {
            let outcome = self.pane_mut().mouse(mouse, parts.body, model);
            return self.take(outcome, model);
        }
        if pressed && parts.places.contains(at) {
            match self.tab_at(parts.places, mouse.column) {
                Some(place) => self.go(place, model),
                None if !self.places[self.at].inside.is_empty() => self.leave(model),
                None => {}
            }
        }
        if pressed && parts.footer.contains(at) {
            let context = self.pane().context();
            return match footer::at(context, parts.footer, mouse.column) {
                Some(command) => self.run(command, model),
                None => Vec::new(),
            };
        }
        Vec::new()
    }

    /// Columns of each tab: start and end.
    fn tabs(&self, area: Rect) -> impl Iterator<Item = (u16, u16)> {
        self.places.iter().scan(area.x + 1, |x, stack| {
            let start = *x;
            *x += stack.place.name.len() as u16 + 4;
            Some((start, *x - 2))
        })
    }

    fn tab_at(&self, area: Rect, column: u16) -> Option<usize> {
        if !self.places[self.at].inside.is_empty() {
            return None;
        }
        self.tabs(area).position(|(start, end)| (start..end).contains(&column))
    }

    /// Which bindings hold now.
    pub fn context(&self) -> Context {
        self.pane().context()
    }
}
