//! The kernel's own counters of a thread, read again and again, so that any interval lies between two readings.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::machine::now_ns;

/// Between two readings: short against the intervals compared, long against what a reading costs (20 µs a thread).
const EVERY: Duration = Duration::from_millis(10);

/// `/proc/PID/task/TID/{schedstat,status}` at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// CLOCK_MONOTONIC before and after reading.
    pub at: (u64, u64),
    /// Field 1 of schedstat. Brought up to date at the kernel's tick, so for a running thread up to 10 ms (HZ=100) old.
    pub on_cpu_ns: u64,
    /// Field 2: time it waited for a CPU, charged when the wait ends.
    pub run_delay_ns: u64,
    /// Field 3: times it got a CPU.
    pub runs: u64,
    /// `voluntary_ctxt_switches`.
    pub voluntary: u64,
    /// `nonvoluntary_ctxt_switches`.
    pub involuntary: u64,
}

impl Reading {
    fn take(tid: u32) -> Option<Reading> {
        let before = now_ns();
        let schedstat = std::fs::read_to_string(format!("/proc/{tid}/task/{tid}/schedstat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{tid}/task/{tid}/status")).ok()?;
        let fields = schedstat.split_whitespace().map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let counted = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.trim_start_matches(':').trim().parse::<u64>().ok())
        };
        Some(Reading {
            at: (before, now_ns()),
            on_cpu_ns: *fields.first()?,
            run_delay_ns: *fields.get(1)?,
            runs: *fields.get(2)?,
            voluntary: counted("voluntary_ctxt_switches")?,
            involuntary: counted("nonvoluntary_ctxt_switches")?,
        })
    }
}

/// Reads the counters of some threads until stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Readings>,
}

/// Readings by tid, in order of time.
pub struct Readings(HashMap<u32, Vec<Reading>>);

impl Watch {
    pub fn start(tids: Vec<u32>) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut readings: HashMap<u32, Vec<Reading>> = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for &tid in &tids {
                    readings.entry(tid).or_default().extend(Reading::take(tid));
                }
                std::thread::sleep(EVERY);
            }
            Readings(readings)
        });
        Watch { stop, thread }
    }

    pub fn stop(self) -> Readings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("readings")
    }
}

impl Readings {
    /// Least and most by which a rising counter can have grown in `[start, end)`.
    pub fn bounds(&self, tid: u32, (start, end): (u64, u64), counter: impl Fn(&Reading) -> u64) -> (u64, u64) {
        let readings = &self.0[&tid];
        let before = |at| readings.iter().rev().find(|reading| reading.at.1 <= at).map(&counter);
        let after = |at| readings.iter().find(|reading| reading.at.0 >= at).map(&counter);
        let missing = "a reading on both sides of the interval";
        let least = before(end).expect(missing).saturating_sub(after(start).expect(missing));
        let most = after(end).expect(missing) - before(start).expect(missing);
        (least, most)
    }
}
