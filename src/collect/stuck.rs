//! Finds threads that have been in uninterruptible sleep for long. The scheduler programs know what a thread waits for and
//! since when; whether a signal would end that, procfs tells. It is asked once for each wait, for who sleeps on changes
//! neither.

use rustc_hash::FxHashMap;

use super::mappings::{ns_per_clock_tick, start_ticks};
use crate::tick::{ProcessKey, State, Stuck, ThreadKey, Tick};

/// Shorter waits are what disks are like.
const LONG_NS: u64 = 1_000_000_000;
/// Threads of which procfs is asked in one tick; the others have to wait for the next.
const ASKED: usize = 64;
/// Of those that are told of, at most so many, the longest.
const TOLD: usize = 64;

/// What is known of the long waits of the last tick.
#[derive(Default)]
pub struct StuckThreads {
    known: FxHashMap<(ThreadKey, u64), Option<Stuck>>,
}

impl StuckThreads {
    /// Those of a tick, longest first. `kernel`: whether a process is a thread of the kernel; those idle that way.
    pub fn find(&mut self, tick: &Tick, kernel: impl Fn(ProcessKey) -> bool) -> Vec<Stuck> {
        let few = tick.asleep.iter().map(|slept| (slept.key, slept.process, Some(slept.state), slept.since_ns));
        let many = tick.threads.iter().map(|thread| (thread.key, thread.process, thread.now, thread.since_ns));
        let end_ns = tick.span.end_ns;
        let mut before = std::mem::take(&mut self.known);
        let mut asked = 0;
        for (thread, process, state, since_ns) in few.chain(many) {
            // Whoever waits otherwise does so in a call that a signal ends.
            let may_be = matches!(state, Some(State::Disk | State::Fault | State::Other));
            if !may_be || end_ns.saturating_sub(since_ns) < LONG_NS || kernel(process) {
                continue;
            }
            let verdict = match before.remove(&(thread, since_ns)) {
                Some(verdict) => verdict,
                None if asked == ASKED => continue,
                None => {
                    asked += 1;
                    place(process, thread).map(|place| Stuck { thread, process, since_ns, place })
                }
            };
            self.known.insert((thread, since_ns), verdict);
        }
        let mut stuck: Vec<Stuck> = self.known.values().flatten().cloned().collect();
        stuck.sort_by_key(|stuck| (stuck.since_ns, stuck.thread));
        stuck.truncate(TOLD);
        stuck
    }
}

/// Where a thread waits if no signal wakes it; `None`: one does, or it is gone.
fn place(process: ProcessKey, thread: ThreadKey) -> Option<Option<String>> {
    let dir = format!("/proc/{}/task/{}", process.tgid, thread.tid);
    let stat = std::fs::read(format!("{dir}/stat")).ok()?;
    let is_it = start_ticks(&stat) == Some(thread.start_ns / ns_per_clock_tick());
    (is_it && is_uninterruptible(&stat)?).then(|| {
        let place = std::fs::read_to_string(format!("{dir}/wchan")).ok()?;
        Some(place.trim().to_owned()).filter(|place| !place.is_empty() && place != "0")
    })
}

/// By the state in `/proc/PID/stat`; the name before it may hold anything.
fn is_uninterruptible(stat: &[u8]) -> Option<bool> {
    let behind_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    Some(stat.get(behind_name + 1)? == &b'D')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::host;
    use crate::tick::{Asleep, ThreadTick};
    use std::process::Command;

    #[test]
    fn states_in_stat() {
        assert_eq!(is_uninterruptible(b"7 (a) D 1 7"), Some(true));
        assert_eq!(is_uninterruptible(b"7 (a) D) S 1 7"), Some(false));
        assert_eq!(is_uninterruptible(b"7 (a)"), None);
    }

    #[test]
    fn procfs_is_asked_once_for_each_long_wait() {
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let key = |tid: u32| {
            let stat = std::fs::read(format!("/proc/{tid}/stat")).unwrap();
            let start_ns = start_ticks(&stat).unwrap() * ns_per_clock_tick();
            (ThreadKey { tid, start_ns }, ProcessKey { tgid: tid, start_ns })
        };
        let (thread, process) = key(sleeper.id());
        let now_ns = host::now_ns(rustix::time::ClockId::Monotonic);
        let mut tick = Tick::default();
        tick.span.end_ns = now_ns;
        let since_ns = now_ns - 2 * LONG_NS;
        let slept = ThreadTick { key: thread, process, now: Some(State::Other), since_ns, ..ThreadTick::default() };
        tick.threads.push(slept);
        let mut threads = StuckThreads::default();
        assert_eq!(threads.find(&tick, |_| false), [], "a signal would end what it waits for");
        assert_eq!(threads.known.len(), 1, "and that is not asked again");
        assert_eq!(threads.find(&tick, |_| true), [], "of the kernel");
        assert!(threads.known.is_empty());
        // One of which procfs said so is told of for as long as it waits there.
        let told = Stuck { thread, process, since_ns, place: Some("folio_wait".into()) };
        threads.known.insert((thread, since_ns), Some(told.clone()));
        assert_eq!(threads.find(&tick, |_| false), [told]);
        tick.asleep.push(Asleep {
            key: thread,
            process,
            comm: [0; 16],
            state: State::Poll,
            since_ns,
            cpu: 0,
            syscall: None,
        });
        tick.threads.clear();
        assert_eq!(threads.find(&tick, |_| false), [], "it waits for something else now");
        let _ = sleeper.kill();
        let _ = sleeper.wait();
    }
}
