//! Every program loads and is attached; how much work each was for the verifier.

use std::collections::BTreeMap;

use sberf::tick::Sampler;

use super::{check, line, tell_lenses};
use crate::recording::Recording;
use crate::verifier::{held, still_there};

/// What may be off: a machine of one node has no use for the last.
const MUST_BE_ON: [&str; 9] =
    ["sched", "tasks", "unwind", "stacks", "oncpu", "life", "block", "numa", "kernel symbols"];

/// Starts sberf with and without tables.
pub fn programs() {
    let mut insns = BTreeMap::new();
    let mut ids = Vec::new();
    check("loads and attaches, every lens on", || {
        let recording = Recording::start();
        for (name, program) in held() {
            ids.push(program.id);
            insns.insert(name, program.insns);
        }
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
        let these = held();
        recording.wait_ticks(2);
        recording.stop();
        assert!(these.contains_key("sample_fp"), "{these:?}");
        let count = these.len();
        for (name, program) in these {
            ids.push(program.id);
            insns.insert(name, program.insns);
        }
        format!("{count} programs")
    });
    check("detaches and unloads all of it", || {
        // Programs go when the last reader of them has, a moment later.
        crate::guest::known::until(|| still_there(&ids) == 0);
        "none left"
    });
    for (name, count) in insns {
        line(&[&"insns", &name, &count]);
    }
}
