//! By frame pointers alone, as on kernels that cannot walk by tables.

use sberf::tick::{Lens, StackEnd, Walk};

use crate::compile::compile;
use crate::machine::machine;
use crate::recording::Recording;
use crate::workload::Workload;

#[test]
fn a_program_with_frame_pointers_is_whole_without_tables() {
    let Some(_machine) = machine() else { return };
    let flags = ["-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    let program = compile("cc", "split", "split-fp", &flags).expect("a C compiler");
    let recording = Recording::with(|options| {
        options.by_tables = false;
        options.rate_hz = 499;
    });
    let mut split = Workload::prepare_program(&program, &["1"]);
    split.run();
    recording.wait_past(split.number("end_ns"));
    recording.wait_names(split.pid());
    let seen = recording.stop();
    let off = seen.session.lenses.iter().find(|lens| lens.name == "unwind").and_then(|lens| lens.off.clone());
    assert!(off.is_some_and(|why| why.contains("--unwind fp")), "{:?}", seen.session.lenses);
    let (mut all, mut whole) = (0, 0);
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != split.pid() || weight.lens != Lens::OnCpu {
            continue;
        }
        let stack = seen.stack(weight.stack).expect("every stack is named");
        assert_eq!(stack.walk, Walk::FramePointers);
        all += weight.weight;
        let is_whole = stack.end == StackEnd::Complete && seen.functions(stack).contains(&"main");
        whole += if is_whole { weight.weight } else { 0 };
    }
    // What is not is the start of the program, and what it does within the C library.
    assert!(all > 100 && whole * 100 >= all * 90, "{whole} of {all} samples");
}
