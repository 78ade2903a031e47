//! A process that becomes another program between a sample and the moment at which its addresses are looked up.

use std::collections::BTreeMap;

use sberf::tick::{FrameKind, Lens, ModuleKind};

use crate::compile::compile;
use crate::machine::{machine, skipped};
use crate::recording::Recording;
use crate::workload::Workload;

/// Where both programs have code, see `fixtures/successor.c`; its length.
const CODE_BYTES: u64 = 64;

#[test]
fn addresses_of_a_program_are_not_looked_up_in_its_successor() {
    let Some(_machine) = machine() else { return };
    if std::fs::read_to_string("/proc/sys/kernel/randomize_va_space").is_ok_and(|how| how.trim() == "0") {
        return skipped("addresses are not randomized here, so one program looks like the next");
    }
    let program = compile("cc", "successor", "successor", &["-O2"]).expect("a C compiler");
    let recording = Recording::with(|options| options.rate_hz = 997);
    let mut successor = Workload::prepare_program(&program, &["first", "12"]);
    successor.run();
    recording.wait_past(crate::machine::now_ns());
    let seen = recording.stop();
    let mut frames: BTreeMap<String, u64> = BTreeMap::new();
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != successor.pid() || weight.lens != Lens::OnCpu {
            continue;
        }
        let stack = seen.stack(weight.stack).expect("every stack is named");
        for (frame, module) in stack.frames.iter().filter_map(|id| seen.place(*id)) {
            // The second program maps the start of its file there, which is no code.
            let wrong = module.kind == ModuleKind::File && frame.offset < CODE_BYTES;
            assert!(!wrong, "made at run time, but found in {} at {:#x}", module.path, frame.offset);
            let is_made = module.kind == ModuleKind::Anonymous && frame.kind != FrameKind::Kernel;
            *frames.entry(module.path.to_string()).or_default() += if is_made { weight.weight } else { 0 };
        }
    }
    let count = |name: &str| frames.get(name).copied().unwrap_or(0);
    // Some were looked up in time, the others too late: otherwise this shows nothing.
    assert!(count("[anon]") > 20 && count("[exited]") > 20, "{frames:?}");
}
