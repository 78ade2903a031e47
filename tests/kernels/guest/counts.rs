//! Every program loads and is attached; how much work each was for the verifier.

use std::collections::{BTreeMap, BTreeSet};

use libbpf_rs::query::ProgInfoIter;
use sberf::tick::Sampler;

use super::{check, line, tell_lenses};
use crate::recording::Recording;

/// What may be off: a machine of one node has no use for the last.
const MUST_BE_ON: [&str; 9] =
    ["sched", "tasks", "unwind", "stacks", "oncpu", "life", "block", "numa", "kernel symbols"];

fn loaded() -> BTreeSet<u32> {
    ProgInfoIter::default().map(|program| program.id).collect()
}

/// Programs that were loaded since: instructions that the verifier looked at, by name (the kernel keeps 15 letters).
fn since(before: &BTreeSet<u32>) -> BTreeMap<String, u32> {
    ProgInfoIter::default()
        .filter(|program| !before.contains(&program.id))
        .map(|program| (program.name.to_string_lossy().into_owned(), program.verified_insns))
        .collect()
}

/// Starts sberf with and without tables.
pub fn programs() {
    let before = loaded();
    let mut insns = BTreeMap::new();
    check("loads and attaches, every lens on", || {
        let recording = Recording::start();
        insns.extend(since(&before));
        let session = recording.stop().session;
        tell_lenses(&session);
        assert_ne!(session.sampler, Sampler::Off, "nothing samples");
        let on = |name: &&str| session.lenses.iter().any(|lens| lens.name == **name && lens.off.is_none());
        let off: Vec<_> = MUST_BE_ON.iter().filter(|name| !on(name)).collect();
        assert!(off.is_empty(), "off: {off:?}; {:?}", session.lenses);
        format!("{} programs", insns.len())
    });
    check("loads and attaches without tables", || {
        let recording = Recording::with(|options| options.by_tables = false);
        let these = since(&before);
        recording.wait_ticks(2);
        recording.stop();
        assert!(these.contains_key("sample_fp"), "{these:?}");
        let count = these.len();
        insns.extend(these);
        format!("{count} programs")
    });
    check("detaches and unloads all of it", || {
        // Programs go when the last reader of them has, a moment later.
        crate::guest::known::until(|| since(&before).is_empty());
        "none left"
    });
    for (name, count) in insns {
        line(&[&"insns", &name, &count]);
    }
}
