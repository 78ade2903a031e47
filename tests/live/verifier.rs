//! How much work each program is for the verifier.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libbpf_rs::query::ProgInfoIter;

use crate::machine::{machine, sleep_ms, told};
use crate::recording::Recording;

/// The verifier gives up at a million, and takes a second or so for that; more than this is too close to either.
pub const MOST_INSNS: u32 = 100_000;

/// A program that this process holds.
#[derive(Debug)]
pub struct Loaded {
    pub id: u32,
    /// Instructions that the verifier looked at (`verified_insns` of `bpf_prog_info`, from Linux 5.16 on).
    pub insns: u32,
}

/// All of them by name, of which the kernel keeps 15 letters.
pub fn held() -> BTreeMap<String, Loaded> {
    let files = std::fs::read_dir("/proc/self/fdinfo").expect("descriptors");
    let held: BTreeSet<u32> = files
        .filter_map(|entry| {
            let info = std::fs::read_to_string(entry.ok()?.path()).ok()?;
            info.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
        })
        .collect();
    ProgInfoIter::default()
        .filter(|program| held.contains(&program.id))
        .map(|program| (program.name, Loaded { id: program.id, insns: program.verified_insns }))
        .map(|(name, loaded)| (name.to_string_lossy().into_owned(), loaded))
        .collect()
}

/// How many of these programs the kernel still has.
pub fn still_there(ids: &[u32]) -> usize {
    ProgInfoIter::default().filter(|program| ids.contains(&program.id)).count()
}

#[test]
fn no_program_is_much_work_for_the_verifier_and_none_stays() {
    let Some(_machine) = machine() else { return };
    let (mut all, mut ids) = (BTreeMap::new(), Vec::new());
    for by_tables in [true, false] {
        let recording = Recording::with(|options| options.by_tables = by_tables);
        let held = held();
        recording.stop();
        ids.extend(held.values().map(|program| program.id));
        all.extend(held);
    }
    let counts: Vec<String> = all.iter().map(|(name, program)| format!("{name} {}", program.insns)).collect();
    told(format!("verifier, instructions processed: {}", counts.join(", ")));
    assert!(all.contains_key("look_tables") && all.contains_key("look_fp"), "{counts:?}");
    let heavy: Vec<_> = all.iter().filter(|(_, program)| program.insns > MOST_INSNS).collect();
    assert!(heavy.is_empty(), "{heavy:?}");
    // The kernel lets go of them a moment after we did.
    let patience = Instant::now() + Duration::from_secs(30);
    while still_there(&ids) > 0 {
        assert!(Instant::now() < patience, "{} of {} programs stay", still_there(&ids), ids.len());
        sleep_ms(50);
    }
}
