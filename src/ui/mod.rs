//! The screen: `&Model` and view state become a frame, keys become actions.
//!
//! [`app::App`] owns what is always there (status line, places, footer, popups) and a stack of [`Pane`]s per place;
//! `Enter` pushes one, `Esc` pops it. `main` feeds it keys, clicks and ticks, obeys the [`Action`]s that come back and
//! asks it to draw. Nothing here knows a clock, a file or a terminal; time is an argument.
//!
//! To add a pane: implement [`Pane`] in a file of its own, give it a [`keys::Context`] and bindings in [`keys::BINDINGS`],
//! and construct it in [`places`] (as a place of its own, or as what a [`Target`] opens).
#![forbid(unsafe_code)]

use std::time::Duration;

use crossterm::event::MouseEvent;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::{Model, Scope, TreeQuery};
use crate::tick::{Frame, FrameId, ProcessKey};

pub mod app;
pub mod bar;
pub mod chart;
mod copy;
pub mod cost;
mod cpus;
mod disks;
pub mod draw;
mod filter;
#[cfg(test)]
mod fixture;
mod footer;
pub mod format;
pub mod heat;
mod heatmap;
mod help;
mod histogram;
pub mod icicle;
mod info;
pub mod keys;
pub mod latency;
mod numa;
mod palette;
mod picker;
pub mod places;
mod process;
mod processes;
mod prompt;
mod quality;
mod ran;
mod scroll;
pub mod signal;
mod status;
mod strip;
pub mod syscalls;
pub mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod theme;
mod threads;
mod wanted;
mod watch;

pub use keys::{Command, Context};
pub use palette::Role;
pub use process::exit_words;
pub use theme::Theme;

/// What `main` must do for the screen.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// End the program.
    Quit,
    /// Ticks of that length from now on.
    Interval(Duration),
    /// Rows on the screen: their facts should be fresh. Sent when the set changes.
    Visible(Vec<ProcessKey>),
    /// The process that is looked into, if one is. Sent when it changes.
    Focus(Option<ProcessKey>),
    /// Frames whose lines and inlined functions are to be told.
    Detail(Vec<(FrameId, Frame)>),
    /// `true`: leave the model as it is and queue what comes (live; bounded, tell [`app::App::behind`] how many), or hold
    /// the source (replay). `false`: take in what was queued, in order, and go on.
    Hold(bool),
    /// Show that past tick, or the newest: give it to [`Model::look_at`], then call [`app::App::looked`].
    Look(Option<u64>),
    /// While the picture is held: take in the next tick, if there is one, then call [`app::App::looked`].
    Step,
    /// Write the stacks of that query as a folded file; the name is a proposal without characters that could harm.
    /// Answer with [`app::App::notify`].
    ExportFolded {
        /// Which stacks.
        query: TreeQuery,
        /// File name without a directory.
        file: String,
    },
    /// Save the ticks that are kept ([`Model::saved`]) as a capture; the name is a proposal without characters that could
    /// harm. Answer with [`app::App::notify`].
    SaveCapture {
        /// File name without a directory.
        file: String,
    },
    /// Hand a text to the clipboard of the terminal. No longer than a terminal takes, and without control characters but
    /// line ends and tabs.
    Copy(String),
    /// Send a signal to the process, if it is still that one. Answer with [`app::App::notify`].
    Signal {
        /// To whom.
        process: ProcessKey,
        /// What.
        signal: signal::Signal,
        /// What the person knows it by; fit for the screen.
        label: String,
    },
    /// Somebody looks at what BPF programs cost, or no more.
    Statistics(bool),
    /// Clear the terminal and draw everything anew.
    Redraw,
}

/// What became of a command or a click that a pane was offered.
#[derive(Debug)]
pub enum Outcome {
    /// Not for this pane: whoever is behind it may have it.
    Ignored,
    /// Taken.
    Done,
    /// Taken; look into this.
    Open(Target),
    /// Taken; ask for a line of text, beginning with this one. The text goes to [`Pane::query`] as it is typed.
    Ask(Query, String),
    /// Taken; let one of a list be chosen. The choice goes to [`Pane::picked`].
    Pick(Choices),
    /// Taken; `main` has to do something.
    Act(Action),
    /// Taken; tell the person.
    Say(String),
}

/// What can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Stacks of all processes.
    Stacks,
    /// A process: icicle, threads, latency, info.
    Process(ProcessKey),
    /// Latency histograms of a CPU, or of the machine.
    Latency(Scope),
    /// Latency histograms of a disk, by its device number.
    Disk(u32),
}

/// What a line of text is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Find: nothing is hidden, matches are marked and can be walked.
    Search,
    /// Only what matches stays.
    Filter,
}

/// What a pane says to a text while it is typed; stands beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `3 rows`, or why the text cannot be used.
    pub note: String,
    /// The text cannot be used.
    pub bad: bool,
}

/// A list to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Which question: the pane gets it back with the answer.
    pub command: Command,
    /// Heading.
    pub title: String,
    /// One line each.
    pub items: Vec<String>,
    /// Where the cursor starts.
    pub at: usize,
}

/// What a pane would like to be kept fresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Processes whose rows can be seen.
    pub visible: Vec<ProcessKey>,
    /// The process looked into.
    pub focus: Option<ProcessKey>,
}

/// One screenful: view state, commands to changes of it, and state and model to cells.
///
/// Work that grows with what is known belongs into `tick` (once per tick), never into `render`.
pub trait Pane {
    /// Which bindings hold; may change with the tab that is shown.
    fn context(&self) -> Context;

    /// Its part of the breadcrumb: `Processes`, `4711 postgres`.
    fn title(&self, model: &Model) -> String;

    /// What stands to the right of the breadcrumb: facts of the thing looked at. May be empty.
    fn about(&self, _model: &Model) -> String {
        String::new()
    }

    /// Something is to be done. `Back` is offered too: a pane that has a step of its own to take back (a zoom, a filter)
    /// takes it; otherwise it ignores it, and is left.
    fn command(&mut self, command: Command, model: &Model) -> Outcome;

    /// The text of a query as it stands. Called for each change, with the text before it when it is given up.
    fn query(&mut self, _query: Query, _text: &str, _model: &Model) -> Answer {
        Answer::default()
    }

    /// An item of [`Outcome::Pick`] was chosen.
    fn picked(&mut self, _command: Command, _index: usize, _model: &Model) {}

    /// The process that is under the cursor, or looked into.
    fn process(&self, _model: &Model) -> Option<ProcessKey> {
        None
    }

    /// What is under the cursor, as text to be pasted elsewhere; may hold anything, [`copy::bounded`] makes it harmless.
    fn copy(&self, _model: &Model) -> Option<String> {
        None
    }

    /// A click or the wheel, within `area`, which is the one it was last drawn in.
    fn mouse(&mut self, _mouse: MouseEvent, _area: Rect, _model: &Model) -> Outcome {
        Outcome::Ignored
    }

    /// The model may have changed (see [`Model::ticks`] and [`Model::names_version`]), or the pane has just been opened:
    /// make caches again. With `hold` a key was pressed within the last second: update values, keep the order of rows.
    fn tick(&mut self, model: &Model, hold: bool);

    /// Whether it shows idle waits, where it could.
    fn idle(&self) -> Option<bool> {
        None
    }

    /// Idle waits are to be shown, or not: what was chosen in one pane holds in all. Before [`Pane::tick`].
    fn show_idle(&mut self, _idle: bool) {}

    /// It has rows whose order a key holds for a while.
    fn has_order(&self) -> bool {
        false
    }

    /// Called before `render`: the place to scroll the cursor into view.
    fn layout(&mut self, _area: Rect, _model: &Model) {}

    /// What should be kept fresh for it.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// Frames that came on the screen and of which no details (lines, inlined functions) are known; each is told once, or
    /// not at all.
    fn plain_frames(&mut self, _model: &Model) -> Vec<(FrameId, Frame)> {
        Vec::new()
    }

    /// Draws it into `area`, which may be as small as 1×1. Changes nothing.
    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer);
}
