//! Walking user stacks by tables, the user-space side: makes tables of the files that stacks lead through, puts them where the
//! kernel side reads them, and finishes the walks that had to stop for want of one.
//!
//! One thread does what stacks have missed, woken by the kernel side; another one, of the lowest priority, makes the rest of
//! the tables meanwhile. On a busy machine the lowest priority gets nothing done for seconds, in which all stacks would stay
//! incomplete: `nice 19` beside three busy loops on two CPUs had 6 % of cc1's stacks complete in the first five seconds, the
//! normal priority 99 %. Both have a budget of CPU time. Nobody waits for either.

mod aside;
mod budget;
mod busiest;
mod chunks;
mod crowd;
mod filler;
mod finish;
pub mod layout;
mod spaces;
mod tables;
mod worker;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use self::filler::Filler;
use self::tables::TableMaps;
use self::worker::{MAX_ROW_BYTES, Wiring, Worker};
use super::ids::Ids;
use super::maps::FlipPage;
use super::rings::Ring;
use super::skel::mappings::MappingsSkel;
use super::skel::sched::SchedMaps;
use crate::collect::modules::TabledFile;
use crate::collect::taken::Tag;
use crate::collect::unwind::Stop;

/// What the thread tells.
pub enum News {
    /// Frames in that file are named by this tag from now on.
    File(Tag, Box<TabledFile>),
    /// The same of the vDSO.
    Vdso(Tag),
    /// A stack was walked that the kernel side could not walk.
    Walked(Walked),
}

/// The user part of a stack, as [`crate::collect::taken::Taken`] has it.
pub struct Walked {
    /// Names the stack.
    pub hash: u64,
    /// Leaf first.
    pub words: Vec<u64>,
    /// How it ended.
    pub stop: Stop,
}

/// The other end of the thread. Dropping it ends the thread.
pub struct Unwinder {
    news: Receiver<News>,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    rows_bytes: Arc<AtomicU64>,
}

impl Unwinder {
    /// Starts it with what runs now. `only`: the processes that matter, by PID; empty: all. `most`: bytes of rows; `None`: the
    /// default.
    ///
    /// # Errors
    /// What could not be had: memory, a thread.
    pub fn start(
        maps: &SchedMaps<'_>,
        mappings: &MappingsSkel<'_>,
        ids: Ids,
        only: Vec<u32>,
        most: Option<u64>,
    ) -> Result<Self, libbpf_rs::Error> {
        let (tell, news) = unbounded();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?);
        let stop = Arc::new(AtomicBool::new(false));
        let tables = TableMaps::new(maps, tell.clone())?;
        let (made, rows_bytes) = (Arc::clone(&wake), Arc::clone(tables.bytes()));
        let wiring = Wiring {
            filler: Filler::start(tables.reader().clone(), move || wake_up(&made))?,
            tables,
            needs: Ring::new(&maps.unwind_needs)?,
            snapshots: Ring::new(&maps.unwind_snapshots)?,
            flip: FlipPage::new(&maps.data_flip)?,
            iterator: mappings.progs.mappings.as_fd().try_clone_to_owned()?,
            ids,
            only,
            most: most.unwrap_or(MAX_ROW_BYTES),
            news: tell,
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
        };
        std::thread::Builder::new().name("sberf-unwind".into()).spawn(move || Worker::new(wiring).run())?;
        Ok(Unwinder { news, wake, stop, rows_bytes })
    }

    /// Memory of the rows of all tables in the kernel, with what is not filled yet.
    pub fn rows_bytes(&self) -> u64 {
        self.rows_bytes.load(Ordering::Relaxed)
    }

    /// What it has told since the last call.
    pub fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }
}

fn wake_up(event: &OwnedFd) {
    // Full: it is awake.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

impl Drop for Unwinder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        wake_up(&self.wake);
        // Not joined: it may be reading a file whose file system does not answer.
    }
}
