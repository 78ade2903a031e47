//! Recursion of known depth, compiled in every way that unwinders stumble over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use sberf::tick::{FrameId, FrameKind, Lens, StackEnd};

use crate::compile::compile;
use crate::machine::{machine, told};
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

/// Calls of `zero` and `one` that spell a depth, see `fixtures/depth.c`.
const BITS: usize = 7;
/// The deepest recursion.
const DEPTH: usize = 1 << BITS;
/// Frames of user space that a stack has at most, the innermost: `MAX_FRAMES` in `src/bpf/sberf.h`.
const DEEPEST: usize = 128;

/// One way of compiling: a name and the flags.
fn ways(clang: &str) -> Vec<(String, String, Vec<&'static str>)> {
    let mut ways = Vec::new();
    for compiler in ["gcc", clang] {
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
    let named = |(compiler, flags): (&str, Vec<&'static str>)| {
        (format!("depth-{compiler}{}", flags.concat()), compiler.to_owned(), flags)
    };
    ways.into_iter().map(named).collect()
}

/// The clang that sberf itself is built with.
fn clang() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/clang.sh");
    let output = Command::new(script).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

/// What a stack says of itself.
#[derive(Debug)]
struct Said<'a> {
    /// Functions outside of the recursion and of what spells its depth.
    above: &'a [&'a str],
    /// The calls that spell the depth, of which the outer ones may be cut off.
    bits: Vec<usize>,
    /// Calls of `rec`.
    deep: usize,
    /// Frames to each of them: two where the jump of `hop` remained a call.
    frames_each: usize,
}

/// Takes a stack of user space apart, root first; `None` if it is on the way into the recursion or out of it, or not what can be.
fn read<'a>(functions: &'a [&'a str]) -> Option<Said<'a>> {
    let first = functions.iter().position(|name| ["zero", "one", "rec", "hop"].contains(name))?;
    let (above, rest) = functions.split_at(first);
    let bits: Vec<usize> =
        rest.iter().map_while(|name| ["zero", "one"].iter().position(|digit| digit == name)).collect();
    let (inner, calls) = rest[bits.len()..].split_last()?;
    let deep = calls.iter().filter(|name| **name == "rec").count();
    let has_hops = calls.contains(&"hop");
    // From the innermost on, so that it does not matter where it is cut.
    let expected = |at: usize| if has_hops && at % 2 == 1 { "hop" } else { "rec" };
    let in_order = calls.iter().rev().enumerate().all(|(at, name)| *name == expected(at));
    (*inner == "spin" && in_order).then_some(Said { above, bits, deep, frames_each: 1 + usize::from(has_hops) })
}

/// Samples of one way of compiling.
#[derive(Default)]
struct Seen {
    /// By depth: of whole stacks, and of those that are cut, as deep as the innermost of the spelling calls say.
    whole: BTreeSet<usize>,
    cut: BTreeSet<usize>,
    /// Samples of such of which not even one of these was left.
    beyond: u64,
    right: u64,
    early: u64,
    wrong: BTreeMap<String, u64>,
    above: usize,
    frames_each: usize,
}

impl Seen {
    fn add(&mut self, functions: &[&str], end: StackEnd, weight: u64) {
        let Some(said) = read(functions) else {
            // On the way down or up: `rec` or `hop` itself, or their callee at its first or last instruction.
            return;
        };
        let spelled = said.bits.iter().rev().fold(0, |number, bit| number << 1 | bit);
        let is_right = match end {
            StackEnd::Complete => said.bits.len() == BITS && spelled + 1 == said.deep && !said.above.is_empty(),
            StackEnd::Truncated if functions.len() != DEEPEST => false,
            StackEnd::Truncated if !said.above.is_empty() => said.bits.len() == BITS && spelled + 1 == said.deep,
            // The inner ones spell the higher bits.
            StackEnd::Truncated if !said.bits.is_empty() => (said.deep - 1) >> (BITS - said.bits.len()) == spelled,
            StackEnd::Truncated => said.deep * said.frames_each + 1 >= DEEPEST,
            // A program that starts is unknown at first, and says so.
            StackEnd::NoTable => {
                self.early += weight;
                return;
            }
            _ => false,
        };
        if !is_right {
            let what =
                format!("{end:?} in {} frames, of them {} rec: {}", functions.len(), said.deep, functions.join(";"));
            *self.wrong.entry(what).or_default() += weight;
            return;
        }
        self.right += weight;
        self.frames_each = self.frames_each.max(said.frames_each);
        match end {
            StackEnd::Complete => {
                self.above = self.above.max(said.above.len());
                self.whole.insert(said.deep);
            }
            _ if !said.bits.is_empty() => drop(self.cut.insert(said.deep)),
            _ => self.beyond += weight,
        }
    }

    /// What is missing or wrong.
    ///
    /// A recursion of depth `d` is `d` calls of `rec` (between them, `d - 1` of `hop` in one way), then `spin`: `inner(d)` frames. Outside
    /// are the seven calls that spell `d`, and `main` and what called it. All of it is there if it is no more than [`DEEPEST`];
    /// `d` is still known if one of the seven is; and of the deepest ones it is known that they are deeper than that.
    fn verdict(&self, way: &str) -> Vec<String> {
        let inner = |depth: usize| self.frames_each * (depth - 1) + 2;
        let is_whole = |depth: &usize| inner(*depth) + BITS + self.above <= DEEPEST;
        let missed = |of: &BTreeSet<usize>, which: &dyn Fn(&usize) -> bool| {
            (1..=DEPTH).filter(|depth| which(depth) && !of.contains(depth)).collect::<Vec<_>>()
        };
        // What `_start` calls is a first function as well: a stack that is cut above it is whole.
        let known: BTreeSet<usize> = self.whole.union(&self.cut).copied().collect();
        let (whole, cut) = (missed(&self.whole, &is_whole), missed(&known, &|depth| inner(*depth) < DEEPEST));
        let deepest_whole = (1..=DEPTH).rev().find(is_whole);
        told(format!(
            "{way}: {} right, {} early; {} above; whole to {deepest_whole:?}, cut {:?}, beyond {}",
            self.right,
            self.early,
            self.above,
            self.cut.last(),
            self.beyond
        ));
        let mut all: Vec<String> =
            self.wrong.iter().take(2).map(|(what, count)| format!("{way}: {count} × {what}")).collect();
        if !self.wrong.is_empty() {
            all.push(format!("{way}: {} wrong, {} right", self.wrong.values().sum::<u64>(), self.right));
        }
        if !whole.is_empty() || !cut.is_empty() || (self.beyond == 0 && inner(DEPTH) >= DEEPEST) {
            all.push(format!(
                "{way}: no whole sample at depths {whole:?}, none at all at {cut:?}, {} beyond",
                self.beyond
            ));
        }
        if self.early * 20 > self.right {
            all.push(format!("{way}: {} samples without a table, {} right", self.early, self.right));
        }
        all
    }
}

/// Where every sample of the recursion has the depth that it says.
fn check(way: &str, seen: &Recorded, tgid: u32) -> Vec<String> {
    let mut all = Seen::default();
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != tgid || weight.lens != Lens::OnCpu {
            continue;
        }
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let is_user = |id: &FrameId| seen.place(*id).is_some_and(|(frame, _)| frame.kind == FrameKind::User);
        let users = stack.frames.iter().take_while(|id| is_user(id)).count();
        all.add(&seen.functions(stack)[..users], stack.end, weight.weight);
    }
    all.verdict(way)
}

#[test]
fn recursion_is_as_deep_as_it_is() {
    let Some(_machine) = machine() else { return };
    let build = |(name, compiler, flags): (String, String, Vec<&'static str>)| {
        let program = compile(&compiler, "depth", &name, &flags);
        let program = program.unwrap_or_else(|error| panic!("{compiler}, a C compiler, is needed: {error}"));
        (name, program)
    };
    let programs: Vec<(String, PathBuf)> = ways(&clang()).into_iter().map(build).collect();
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
