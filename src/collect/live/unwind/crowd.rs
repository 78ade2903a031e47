//! Whether others want the CPU that this thread has.
//!
//! The lowest priority does not tell: where the scheduler makes a group of each session (autogroup), it counts only among the
//! threads of ours, and beside a build that takes all CPUs this thread would get a third of one. How long it had to wait for a CPU does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// So many times as long as it ran, or four times waited if that is less, it rests where it has to wait: a fiftieth of a CPU where others
/// take all. What a stack misses is made at once, by another thread, and until then the stack is kept as it was; with a quarter of a CPU no
/// more stacks of a rustc that takes all CPUs are whole (100 and 99.9 % of 1 500), and two compilers are done 26 % later instead of 14 %.
const RESTS: u32 = 49;
/// It had to wait if that took more than this share of the time for which it ran.
const WAITED: u64 = 16;
/// It rests no longer at once.
const LONGEST: Duration = Duration::from_millis(500);
/// Having rested it gets a CPU at once, and has to wait after some milliseconds only: so much is judged together, ns.
const TOGETHER: u64 = 10_000_000;

/// What the scheduler keeps of the thread that made this.
pub struct Crowd {
    /// Where the kernel tells; it may not.
    schedstat: Option<File>,
    /// As it was when the time that is judged began.
    last: (u64, u64),
    until: Instant,
}

impl Crowd {
    /// Of the calling thread.
    pub fn new(now: Instant) -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        let mut crowd = Crowd { schedstat, last: (0, 0), until: now };
        crowd.last = crowd.read().unwrap_or_default();
        crowd
    }

    /// Something was done.
    pub fn settle(&mut self, now: Instant) {
        if let Some(read) = self.read() {
            let (ran, waited) = (read.0.saturating_sub(self.last.0), read.1.saturating_sub(self.last.1));
            let rest = rest_of(ran, waited);
            if !rest.is_zero() || ran >= TOGETHER {
                self.last = read;
                self.until = now + rest;
            }
        }
    }

    /// How long to leave the CPU to others yet.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        Some(self.until.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }

    /// ns on a CPU and ns waiting for one, of this thread.
    fn read(&self) -> Option<(u64, u64)> {
        let mut text = [0; 64];
        let length = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut numbers = std::str::from_utf8(text.get(..length)?).ok()?.split_whitespace();
        let mut next = || numbers.next()?.parse().ok();
        Some((next()?, next()?))
    }
}

/// After having run and waited for so many ns.
fn rest_of(ran: u64, waited: u64) -> Duration {
    match waited > ran / WAITED {
        true => (Duration::from_nanos(ran.min(4 * waited)) * RESTS).min(LONGEST),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_to_wait_rests() {
        assert_eq!(rest_of(2_000_000, 0), Duration::ZERO);
        assert_eq!(rest_of(2_000_000, 100_000), Duration::ZERO);
        assert_eq!(rest_of(2_000_000, 3_000_000), Duration::from_millis(98));
        assert_eq!(
            rest_of(2_000_000, 200_000),
            Duration::from_micros(39_200),
            "an odd wait on a quiet machine is no crowd"
        );
        assert_eq!(rest_of(1_000_000_000, 1_000_000_000), LONGEST);
        assert_eq!(rest_of(0, 0), Duration::ZERO);
    }

    #[test]
    fn the_kernel_tells_of_this_thread() {
        let now = Instant::now();
        let mut crowd = Crowd::new(now);
        let before = crowd.read().expect("Linux keeps it");
        while crowd.read().expect("still").0 < before.0 + 20_000_000 {
            std::hint::black_box(0);
        }
        crowd.settle(now);
        assert!(crowd.last.0 >= before.0 + 20_000_000, "{:?} {before:?}", crowd.last);
        crowd.until = now + Duration::from_millis(3);
        assert_eq!(crowd.rest(now), Some(Duration::from_millis(3)));
        assert_eq!(crowd.rest(now + Duration::from_millis(3)), None);
    }
}
