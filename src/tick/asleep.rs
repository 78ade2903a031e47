//! Threads that only slept: on a large machine nearly all of them, and each tick says the same of them.

use super::{ProcessKey, State, StateNs, ThreadKey, ThreadTick, Tick};

/// A thread that slept through the whole interval, as it did at the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asleep {
    /// Which thread.
    pub key: ThreadKey,
    /// Of which process.
    pub process: ProcessKey,
    /// Its name, up to a NUL.
    pub comm: [u8; 16],
    /// What it waits for.
    pub state: State,
    /// Since when, CLOCK_MONOTONIC ns.
    pub since_ns: u64,
    /// CPU on which it ran last.
    pub cpu: u32,
    /// System call in which it waits.
    pub syscall: Option<u32>,
}

impl Asleep {
    /// Its name; raw bytes, which need not be UTF-8.
    pub fn name(&self) -> &[u8] {
        self.comm.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The same in many words. `span_ns`: length of the interval.
    pub fn unfold(&self, span_ns: u64) -> ThreadTick {
        let mut ns = StateNs::default();
        ns[self.state] = span_ns;
        ThreadTick {
            key: self.key,
            process: self.process,
            comm: String::from_utf8_lossy(self.name()).into_owned(),
            ns,
            now: Some(self.state),
            since_ns: self.since_ns,
            cpu: self.cpu,
            syscall: self.syscall,
            ..ThreadTick::default()
        }
    }
}

impl Tick {
    /// Every thread in many words.
    pub fn unfold(&mut self) {
        let span_ns = self.span.len_ns();
        self.threads.extend(self.asleep.drain(..).map(|slept| slept.unfold(span_ns)));
    }
}
