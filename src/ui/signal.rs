//! Which signal to send to a process: asked before anything is sent.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::Reply;
use super::picker::Picker;
use super::{Action, Choices, Command, Context, Theme, format};
use crate::model::{Model, Process};
use crate::tick::ProcessKey;

/// A signal that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Asks it to end.
    Term,
    /// Ends it.
    Kill,
    /// Stops it until CONT.
    Stop,
    /// Lets it go on.
    Cont,
    /// As Ctrl-C does.
    Int,
    /// Its terminal is gone; many read their configuration anew.
    Hup,
    /// What it makes of it.
    Usr1,
    /// What it makes of it.
    Usr2,
}

impl Signal {
    /// In the order of the list.
    const ALL: [Signal; 8] =
        [Signal::Term, Signal::Kill, Signal::Stop, Signal::Cont, Signal::Int, Signal::Hup, Signal::Usr1, Signal::Usr2];

    /// `SIGTERM`.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Term => "SIGTERM",
            Signal::Kill => "SIGKILL",
            Signal::Stop => "SIGSTOP",
            Signal::Cont => "SIGCONT",
            Signal::Int => "SIGINT",
            Signal::Hup => "SIGHUP",
            Signal::Usr1 => "SIGUSR1",
            Signal::Usr2 => "SIGUSR2",
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Signal::Term => "asks it to end",
            Signal::Kill => "ends it, without asking",
            Signal::Stop => "stops it",
            Signal::Cont => "lets it go on",
            Signal::Int => "as Ctrl-C",
            Signal::Hup => "hangs up; many reload",
            Signal::Usr1 | Signal::Usr2 => "what it makes of it",
        }
    }
}

/// The question, and of whom it is.
pub(super) struct SignalPopup {
    process: ProcessKey,
    label: String,
    picker: Picker,
}

impl SignalPopup {
    /// Asks, or says why there is nothing to ask. `own` is the PID of this program.
    pub fn new(key: ProcessKey, model: &Model, own: Option<u32>) -> Result<Self, String> {
        let process = model.process(key).ok_or("nothing is known of it any more")?;
        let label = label(process);
        match process {
            _ if key.tgid == 1 => return Err(format!("{label}: sberf sends no signals to PID 1")),
            _ if Some(key.tgid) == own => return Err(format!("{label} is sberf itself: q ends it")),
            process if process.facts.kernel => return Err(format!("{label}: threads of the kernel take no signals")),
            process if process.exited.is_some() => return Err(format!("{label} has exited")),
            _ => {}
        }
        let item = |signal: Signal| format!("{:<6}{}", signal.name().trim_start_matches("SIG"), signal.meaning());
        let choices = Choices {
            command: Command::Signal,
            title: format!("signal to {label}; Esc: none"),
            items: Signal::ALL.map(item).into(),
            at: 0,
        };
        Ok(SignalPopup { process: key, label, picker: Picker::new(choices) })
    }

    /// A key of the list.
    pub fn key(&mut self, context: Context, event: &KeyEvent) -> Reply {
        self.picker.key(context, event)
    }

    /// A click or the wheel.
    pub fn mouse(&mut self, mouse: MouseEvent, body: Rect) -> Reply {
        self.picker.mouse(mouse, body)
    }

    /// What to do about the choice.
    pub fn chosen(self, index: usize) -> Option<Action> {
        let signal = *Signal::ALL.get(index)?;
        Some(Action::Signal { process: self.process, signal, label: self.label })
    }

    /// Draws it over `body`.
    pub fn render(&self, theme: &Theme, body: Rect, buf: &mut Buffer) {
        self.picker.render(theme, body, buf);
    }
}

/// `4711 postgres: writer`, cut to what fits on the smallest screen.
fn label(process: &Process) -> String {
    let facts = &process.facts;
    let line = facts.cmdline.as_ref().filter(|arguments| !arguments.is_empty()).map(|arguments| arguments.join(" "));
    format!("{} {}", process.key.tgid, format::fit(line.as_ref().unwrap_or(&facts.comm), 40))
}
