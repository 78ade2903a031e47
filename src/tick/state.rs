//! What threads can be doing, and for how long they did.

use serde::{Deserialize, Serialize};

/// What a thread can be doing. Each nanosecond of its life belongs to exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum State {
    /// On a CPU, outside the kernel. (The split user/kernel is the kernel's own tick accounting.)
    User,
    /// On a CPU, inside the kernel.
    Kernel,
    /// Woken, waiting for a CPU.
    Woken,
    /// Preempted, waiting for a CPU.
    Preempted,
    /// Blocked until a disk answers.
    Disk,
    /// Blocked on a lock (a futex that says it is held, a file lock, a semaphore of System V), or for under 10 ms at a
    /// time on another futex.
    Lock,
    /// Blocked on a socket.
    Net,
    /// Blocked on a pipe.
    Pipe,
    /// Sleeping for a time.
    Timer,
    /// Waiting for an event: poll, select, epoll, accept, a child, a signal, or for longer on a futex that is no lock (a
    /// condition, a semaphore).
    Poll,
    /// Blocked in a page fault.
    Fault,
    /// Stopped by a signal or a debugger.
    Stopped,
    /// Blocked for another reason.
    Other,
}

impl State {
    /// Every state, in the order in which bars are drawn.
    pub const ALL: [State; 13] = [
        State::User,
        State::Kernel,
        State::Woken,
        State::Preempted,
        State::Disk,
        State::Lock,
        State::Net,
        State::Pipe,
        State::Timer,
        State::Poll,
        State::Fault,
        State::Stopped,
        State::Other,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The word on the screen and in exports.
    pub const fn name(self) -> &'static str {
        match self {
            State::User => "user",
            State::Kernel => "kernel",
            State::Woken => "runnable",
            State::Preempted => "preempted",
            State::Disk => "disk",
            State::Lock => "lock",
            State::Net => "net",
            State::Pipe => "pipe",
            State::Timer => "timer",
            State::Poll => "poll",
            State::Fault => "fault",
            State::Stopped => "stopped",
            State::Other => "other",
        }
    }

    /// On a CPU.
    pub const fn is_on_cpu(self) -> bool {
        matches!(self, State::User | State::Kernel)
    }

    /// Wants a CPU and has none.
    pub const fn is_runnable(self) -> bool {
        matches!(self, State::Woken | State::Preempted)
    }

    /// Neither on a CPU nor wanting one.
    pub const fn is_blocked(self) -> bool {
        !self.is_on_cpu() && !self.is_runnable()
    }
}

/// Nanoseconds by [`State`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateNs(pub [u64; State::COUNT]);

impl StateNs {
    /// Time in all states together: the wall time it accounts for.
    pub fn total(&self) -> u64 {
        self.sum_of(|_| true)
    }

    /// Time on a CPU, in the kernel or outside.
    pub fn on_cpu(&self) -> u64 {
        self.sum_of(State::is_on_cpu)
    }

    /// Time waiting for a CPU.
    pub fn runnable(&self) -> u64 {
        self.sum_of(State::is_runnable)
    }

    /// Time blocked, for whatever reason.
    pub fn blocked(&self) -> u64 {
        self.sum_of(State::is_blocked)
    }

    /// Saturates: ticks may come from a damaged file.
    fn sum_of(&self, wanted: impl Fn(State) -> bool) -> u64 {
        let wanted = State::ALL.into_iter().filter(|&state| wanted(state));
        wanted.fold(0, |sum: u64, state| sum.saturating_add(self[state]))
    }

    /// Adds another's time, state by state.
    pub fn add(&mut self, other: &StateNs) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }
}

impl std::ops::Index<State> for StateNs {
    type Output = u64;
    fn index(&self, state: State) -> &u64 {
        &self.0[state as usize]
    }
}

impl std::ops::IndexMut<State> for StateNs {
    fn index_mut(&mut self, state: State) -> &mut u64 {
        &mut self.0[state as usize]
    }
}
