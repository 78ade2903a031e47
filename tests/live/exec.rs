//! A process that becomes another program between a sample and the moment at which its addresses are looked up.

use std::collections::BTreeMap;
use std::path::Path;

use sberf::tick::{FrameKind, Lens, ModuleKind};

use crate::compile::compile;
use crate::machine::{machine, now_ns, skipped};
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
    let mut frames = BTreeMap::new();
    for _ in 0..3 {
        samples(&program, &mut frames);
        // Some were looked up in time, others too late: otherwise this shows nothing.
        if ["[anon]", "[exited]"].iter().all(|name| frames.get(*name).is_some_and(|&samples| samples > 20)) {
            return;
        }
    }
    skipped(format!("samples were always looked up in time, or never: {frames:?}"));
}

/// Adds up samples of code made at run time by what they are found in, which must not be a file.
fn samples(program: &Path, frames: &mut BTreeMap<String, u64>) {
    let recording = Recording::with(|options| options.rate_hz = 997);
    let mut successor = Workload::prepare_program(program, &["first", "12"]);
    successor.run();
    recording.wait_past(now_ns());
    let seen = recording.stop();
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != successor.pid() || weight.lens != Lens::OnCpu {
            continue;
        }
        let stack = seen.stack(weight.stack).expect("every stack is named");
        for (frame, module) in stack.frames.iter().filter_map(|id| seen.place(*id)) {
            // The second program maps the start of its file there, which is no code.
            let wrong = module.kind == ModuleKind::File && frame.offset < CODE_BYTES;
            assert!(!wrong, "made at run time, but found in {} at {:#x}", module.path, frame.offset);
            if module.kind == ModuleKind::Anonymous && frame.kind != FrameKind::Kernel {
                *frames.entry(module.path.to_string()).or_default() += weight.weight;
            }
        }
    }
}
