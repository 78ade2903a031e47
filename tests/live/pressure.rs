//! Unwind tables that find no room: what is not used goes, what comes back is found again, and nothing is wrong meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use crate::machine::{machine, now_ns, skipped, sleep_ms};
use crate::programs::{self, complete, ends, return_addresses};
use crate::recording::Recording;

/// Tables of all that a machine runs take some ten times as much.
const ROOM: u64 = 2 << 20;

#[test]
fn tables_without_room_make_stacks_incomplete_but_not_wrong() {
    let Some(_machine) = machine() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let recording = Recording::with(|options| {
        // Who was not used for ten intervals may go.
        options.interval = Duration::from_millis(100);
        options.table_bytes = Some(ROOM);
    });
    let (mut tgids, mut last) = (HashSet::new(), (0, 0));
    for name in ["perl", "python3", "cc1", "git", "openssl", "perl"] {
        last = (now_ns(), last.0);
        let Some(running) = programs::start(name, dir.path()) else {
            skipped(format!("in part: no {name}"));
            continue;
        };
        sleep_ms(2500);
        drop(running);
    }
    recording.wait_past(now_ns());
    let seen = recording.stop();
    let mut ran = 0;
    for name in ["perl", "python3", "cc1", "git", "openssl"] {
        let its = programs::processes(&seen, programs::comms(name));
        ran += usize::from(!its.is_empty());
        tgids.extend(its);
    }
    let (checked, wrong) = return_addresses(&seen, &tgids);
    println!("{ran} programs, {:?}, {} of {checked} return addresses wrong", ends(&seen, &tgids, true, 0), wrong.len());
    assert!(wrong.is_empty(), "{:?}", &wrong[..wrong.len().min(5)]);
    let bytes: Vec<u64> = seen.ticks().map(|tick| tick.cost.map_bytes).collect();
    let (least, most) = (bytes.iter().min().unwrap_or(&0), bytes.iter().max().unwrap_or(&0));
    // Chunks come by fours, with a page of their own each.
    assert!(most - least <= 2 * ROOM + (64 << 10), "{least} to {most} bytes of maps");
    // The first came back.
    let perl = programs::processes(&seen, programs::comms("perl"));
    let (whole, samples) = complete(&ends(&seen, &perl, true, last.0));
    assert!(perl.is_empty() || (samples > 20 && whole > 50.0), "{whole} % of {samples} samples are whole");
}
