//! Recursion of known depth, compiled in every way that unwinders stumble over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sberf::tick::{Lens, StackEnd};

use crate::compile::compile;
use crate::machine::{machine, skipped};
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

/// Calls of `zero` and `one` that spell a depth, see `fixtures/depth.c`.
const BITS: usize = 7;
/// Frames of one stack that are walked at most.
const DEEPEST: usize = 127;

/// One way of compiling: a name and the flags.
fn ways() -> Vec<(String, &'static str, Vec<&'static str>)> {
    let mut ways = Vec::new();
    for compiler in ["gcc", "clang"] {
        for level in ["-O0", "-O2", "-O3"] {
            for pointer in ["-fomit-frame-pointer", "-fno-omit-frame-pointer"] {
                ways.push((compiler, vec![level, pointer, "-pie", "-fPIE"]));
            }
        }
        ways.push((compiler, vec!["-O2", "-static"]));
        ways.push((compiler, vec!["-O2", "-no-pie", "-fno-pie"]));
        ways.push((compiler, vec!["-O2", "-DALLOCA"]));
        ways.push((compiler, vec!["-O2", "-DTAIL"]));
        ways.push((compiler, vec!["-O0", "-DTAIL"]));
        ways.push((compiler, vec!["-O2", "-fcf-protection"]));
    }
    let named = |(compiler, flags): (&'static str, Vec<&'static str>)| {
        (format!("depth-{compiler}{}", flags.concat()), compiler, flags)
    };
    ways.into_iter().map(named).collect()
}

/// The depth that a stack spells and the depth that it has. `None` for one that was not in the recursion.
fn depths(functions: &[&str]) -> Option<(usize, usize)> {
    let bits: Vec<usize> = functions
        .iter()
        .filter_map(|name| match *name {
            "zero" => Some(0),
            "one" => Some(1),
            _ => None,
        })
        .collect();
    let deep = functions.iter().filter(|name| **name == "rec").count();
    (deep > 0)
        .then(|| (bits.iter().rev().fold(0, |number, bit| number << 1 | bit) + 1, deep))
        .filter(|_| bits.len() == BITS)
}

/// Where every sample of the recursion has the depth that it says.
fn check(way: &str, seen: &Recorded, tgid: u32) -> Vec<String> {
    let mut wrong: BTreeMap<String, u64> = BTreeMap::new();
    let (mut right, mut seen_depths) = (0, [false; 129]);
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != tgid || weight.lens != Lens::OnCpu {
            continue;
        }
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let functions = seen.functions(stack);
        // On the way down, or up again, it is not as deep as it says.
        if !functions.contains(&"rec") || !functions.contains(&"spin") {
            continue;
        }
        let verdict = match (depths(&functions), stack.end) {
            (Some((spelled, deep)), StackEnd::Complete) if spelled == deep => {
                seen_depths[deep] = true;
                right += weight.weight;
                continue;
            }
            // A program that starts is unknown at first, and says so.
            (_, StackEnd::NoTable) => continue,
            // Beyond the innermost frames nothing is known, and that is said.
            (None, StackEnd::Truncated) if functions.len() >= DEEPEST => continue,
            (Some((spelled, deep)), StackEnd::Truncated) if functions.len() >= DEEPEST && spelled == deep => continue,
            (spelled, end) => format!("{spelled:?} {end:?} in {} frames: {}", functions.len(), functions.join(";")),
        };
        *wrong.entry(verdict).or_default() += weight.weight;
    }
    // Each call is two frames where the jump remains a call.
    let deepest = if way.ends_with("-O0-DTAIL") { 50 } else { 100 };
    let missed: Vec<usize> = (1..=deepest).filter(|&depth| !seen_depths[depth]).collect();
    let mut all: Vec<String> = wrong.iter().take(2).map(|(what, count)| format!("{way}: {count} × {what}")).collect();
    if !wrong.is_empty() {
        all.push(format!("{way}: {} samples wrong, {right} right", wrong.values().sum::<u64>()));
    }
    if missed.len() > 5 {
        all.push(format!("{way}: no sample at depths {missed:?}"));
    }
    all
}

#[test]
fn recursion_is_as_deep_as_it_is() {
    let Some(_machine) = machine() else { return };
    let mut programs: Vec<(String, PathBuf)> = Vec::new();
    for (name, compiler, flags) in ways() {
        match compile(compiler, "depth", &name, &flags) {
            Ok(program) => programs.push((name, program)),
            Err(error) => skipped(format!("{name}: {compiler}: {error}")),
        }
    }
    let recording = Recording::with(|options| options.rate_hz = 1999);
    let mut ran = Vec::new();
    for (name, program) in &programs {
        let mut depth = Workload::prepare_program(program, &["4"]);
        depth.run();
        recording.wait_past(depth.number("end_ns"));
        recording.wait_names(depth.pid());
        ran.push((name, depth.pid()));
    }
    let seen = recording.stop();
    let wrong: Vec<String> = ran.iter().flat_map(|(name, pid)| check(name, &seen, *pid)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
