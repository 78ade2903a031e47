//! Stacks of programs that nobody knows yet, which are larger than what is copied of a stack.

use std::collections::BTreeMap;
use std::process::Command;

use sberf::tick::{Lens, StackEnd};

use crate::compile::compile;
use crate::machine::{machine, now_ns, scratch, sleep_ms};
use crate::programs::processes;
use crate::recording::Recording;

/// Each is another file, so each is unknown when it starts.
const COPIES: u32 = 8;

#[test]
fn a_frame_may_be_wider_than_what_is_copied_of_a_stack() {
    let Some(_machine) = machine() else { return };
    let program = compile("cc", "wide", "wide", &["-O2", "-fomit-frame-pointer"]).expect("a C compiler");
    let dir = scratch("wide");
    std::fs::create_dir_all(&dir).expect("room");
    let recording = Recording::with(|options| options.rate_hz = 499);
    for copy in 0..COPIES {
        for stack in ["first", "thread"] {
            let unknown = dir.join(format!("wide-{stack}-{copy}"));
            std::fs::copy(&program, &unknown).expect("room");
            let status = Command::new(&unknown).arg(stack).status().expect("it runs");
            assert!(status.success());
        }
    }
    recording.wait_past(now_ns());
    sleep_ms(1000);
    let seen = recording.stop();
    let _ = std::fs::remove_dir_all(dir);
    for stack in ["first", "thread"] {
        let comms: Vec<String> = (0..COPIES).map(|copy| format!("wide-{stack}-{copy}")).collect();
        // What the kernel keeps of a name.
        let comms: Vec<&str> = comms.iter().map(|comm| &comm[..comm.len().min(15)]).collect();
        let tgids = processes(&seen, &comms);
        let (mut spun, mut ends) = (0, BTreeMap::new());
        for weight in seen.ticks().flat_map(|tick| &tick.stacks).filter(|weight| weight.lens == Lens::OnCpu) {
            let Some(found) = seen.stack(weight.stack).filter(|_| tgids.contains(&weight.process.tgid)) else {
                continue;
            };
            let functions = seen.functions(found);
            if functions.contains(&"busy") {
                let whole = found.end == StackEnd::Complete && functions.contains(&"wide");
                spun += weight.weight;
                *ends.entry((found.end.name(), whole)).or_insert(0) += weight.weight;
            }
        }
        let whole = ends.get(&(StackEnd::Complete.name(), true)).copied().unwrap_or(0);
        println!("{stack}: {whole} of {spun} whole: {ends:?}");
        assert!(spun >= 20, "{spun} samples");
        assert!(whole * 100 >= spun * 99, "{stack}: {whole} of {spun} whole: {ends:?}");
    }
}
