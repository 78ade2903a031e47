//! What a piece of work takes: memory and CPU time of the thread that does it.

use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator does the work; the counters are plain cells that allocate nothing themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.set(NOW.get() + layout.size());
        MOST.set(MOST.get().max(NOW.get()));
        // SAFETY: as our caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // What another thread allocated may end here.
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: as our caller promised us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What some work took.
#[derive(Debug)]
pub struct Taken {
    /// More than the thread had before, at most.
    pub bytes: usize,
    /// Of the CPU, so that it does not matter who else is busy.
    pub time: Duration,
}

/// Does it, and says what it took.
pub fn taken<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let (before, begun) = (NOW.get(), cpu());
    MOST.set(before);
    let result = work();
    (result, Taken { bytes: MOST.get().saturating_sub(before), time: cpu() - begun })
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
