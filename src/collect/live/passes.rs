//! How the kernel side is asked for the threads of an interval: all of them, or, on a machine where most sleep, those that had an
//! event, and the rest every few seconds.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use libbpf_rs::{Iter, Link};
use rustix::time::ClockId;

use super::maps::{Closed, FlipPage};
use super::objects::Objects;
use super::tasks::Told;
use crate::collect::host;

/// How old may be what only a look at a sleeping thread tells: its memory, its parent, a name that somebody else gave it.
const STALE: Duration = Duration::from_millis(7500);

/// Passes over threads, and what the last one told.
pub struct Passes {
    bytes: Vec<u8>,
    all: bool,
    /// From so many threads on, not all are looked at each time.
    crowd: u64,
    /// How many there were.
    threads: u64,
    /// When all were looked at last.
    looked: Option<Instant>,
    /// Complete passes in a row: what is known of a thread comes from the second.
    complete: u32,
}

impl Passes {
    /// None yet.
    pub fn new(crowd: u64) -> Self {
        Passes { bytes: Vec::new(), all: false, crowd, threads: 0, looked: None, complete: 0 }
    }

    /// Looks at every thread.
    pub fn all(&mut self, objects: &Objects) -> io::Result<()> {
        (self.all, self.looked) = (true, Some(Instant::now()));
        self.read(&objects.tasks)?;
        objects.ids.records(&mut self.bytes);
        Ok(())
    }

    /// Looks at the threads of the closed interval, of which `awake` may have been awake without an event. What that took, ns of CPU.
    pub fn run(&mut self, objects: &Objects, flip: &FlipPage, closed: Closed, awake: &[u32]) -> io::Result<u64> {
        let before = host::now_ns(ClockId::ThreadCPUTime);
        let few = objects.some.as_ref().filter(|_| self.crowd <= self.threads && self.complete >= 2 && !self.is_due());
        let list = &objects.sched.maps.listed;
        match few {
            Some(link) if flip.list(list, closed.generation, awake).map_err(io::Error::other)? => {
                self.all = false;
                self.read(link)?;
            }
            _ => {
                self.complete += 1;
                self.all(objects)?;
            }
        }
        flip.passed(closed.generation);
        flip.unlist(closed.generation);
        Ok(host::now_ns(ClockId::ThreadCPUTime).saturating_sub(before))
    }

    fn is_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= STALE)
    }

    fn read(&mut self, link: &Link) -> io::Result<()> {
        self.bytes.clear();
        let mut iterator = Iter::new(link).map_err(io::Error::other)?;
        iterator.read_to_end(&mut self.bytes)?;
        Ok(())
    }

    /// What the last pass told.
    pub fn told(&self) -> Told<'_> {
        Told { records: &self.bytes, all: self.all }
    }

    /// It told of so many threads.
    pub fn learn(&mut self, threads: u64) {
        if self.all {
            self.threads = threads;
        }
    }
}
