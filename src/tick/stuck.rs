//! Threads that nothing can wake but what they wait for.

use serde::{Deserialize, Serialize};

use super::{ProcessKey, ThreadKey};

/// A thread of a program that has been in uninterruptible sleep (`D` in `ps`) for a second or longer: no signal ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stuck {
    /// Which.
    pub thread: ThreadKey,
    /// Of which process.
    pub process: ProcessKey,
    /// Since when, CLOCK_MONOTONIC ns; longer if it slept before it was watched.
    pub since_ns: u64,
    /// Function of the kernel in which it waits (`/proc/PID/wchan`), where that is told.
    pub place: Option<String>,
}
