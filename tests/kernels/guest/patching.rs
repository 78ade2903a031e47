//! A kernel patches its own running code whenever a tracepoint gets its first program and loses its last. Here without us: whoever falls at
//! that, the kernel or its emulator, falls without us.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::check;

/// Beside a busy host QEMU 7.2 with a thread per CPU fell within the first 100 three times of three.
const TIMES: u32 = 100;
/// Among those that we attach to.
const EVENTS: [&str; 3] = ["sched_switch", "sched_wakeup", "sched_process_fork"];

/// By the kernel's own tracing.
pub fn alone() {
    check("tracepoints go on and off, without us", || {
        let begin = Instant::now();
        let switch = |to: &str| {
            for event in EVENTS {
                let file = Path::new("/sys/kernel/tracing/events/sched").join(event).join("enable");
                fs::write(&file, to).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            }
        };
        for _ in 0..TIMES {
            switch("1");
            switch("0");
        }
        format!("{TIMES} times, {:.1} s", begin.elapsed().as_secs_f64())
    });
}
