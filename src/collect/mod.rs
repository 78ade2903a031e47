//! All the input there is: a live kernel, by BPF or by procfs alone, a capture file, or an invented machine. Each is a [`Source`] of batches.

pub mod capture;
mod checks;
pub mod cpus;
pub mod disks;
mod diskstats;
pub mod facts;
pub mod host;
pub mod invented;
pub mod live;
pub mod modules;
pub mod nodes;
pub mod privileges;
pub mod process_facts;
pub mod procfs_only;
pub mod signal;
pub mod symbols;
pub mod unwind;

mod demangle;
mod dwarf;
mod files;
mod governor;
mod hidden;
mod intern;
mod kernel;
mod mappings;
mod object;
mod outermost;
mod perf_map;
mod probe;
mod processes;
mod quotas;
mod reconcile;
mod reread;
mod spaces;
mod stuck;
mod taken;
mod verdicts;
mod watched;

pub mod local_time;
#[cfg(test)]
mod modules_test;

use crossbeam_channel::Receiver;
use std::time::Duration;

use crate::tick::{Batch, Frame, FrameId, ProcessKey, Refusal, Session};

/// What the layers above ask of a source. A source that cannot obey ignores it.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Length of a tick from now on.
    Interval(Duration),
    /// Processes whose rows are on the screen: keep their facts fresh (memory, command line).
    Visible(Vec<ProcessKey>),
    /// The process that is being looked at, if one is: its memory placement, its symbols first.
    Focus(Option<ProcessKey>),
    /// Live: end the interval now, not when it is due.
    EndTick,
    /// Frames whose lines and inlined functions are wanted; a source that can tell answers for each of them.
    Detail(Vec<(FrameId, Frame)>),
    /// Live: have the kernel count what BPF programs cost, all of them, for as long as somebody looks.
    Statistics(bool),
    /// Replay: hold before the next tick, or go on.
    Hold(bool),
    /// Replay, while it is held: one tick.
    Step,
}

/// Why a source ended early. The message names what was tried, what went wrong and what would mend it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

impl From<Refusal> for SourceError {
    fn from(refusal: Refusal) -> Self {
        SourceError(refusal.to_string())
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        Refusal::from(error.0)
    }
}

/// Something that yields ticks.
pub trait Source: Send {
    /// What does not change while it runs.
    fn session(&self) -> Session;

    /// What a person may want to know of how it goes, since the last call. What is lost by it is in the ticks.
    fn said(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Waits for the next batch, obeying `requests` meanwhile. `None` when there is no more, or when the other end of
    /// `requests` is gone.
    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError>;
}

/// The live machine: by BPF, or by procfs alone where nothing of BPF can run. The session says which, and why.
pub fn observe(options: live::LiveOptions) -> Box<dyn Source> {
    match live::Live::start(options.clone()) {
        Ok(live) => Box::new(live),
        Err(why) => Box::new(procfs_only::ProcfsOnly::start(&options, &why)),
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn session(&self) -> Session {
        (**self).session()
    }

    fn said(&mut self) -> Vec<String> {
        (**self).said()
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        (**self).next(requests)
    }
}
