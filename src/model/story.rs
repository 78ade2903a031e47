//! Ticks written by hand, for the tests of the model.

use super::{Limits, Model};
use crate::tick::{
    Frame, FrameId, FrameKind, Lens, Module, ModuleId, ModuleKind, Names, ProcessFacts, ProcessKey, Session, Span,
    Stack, StackEnd, StackId, StackWeight, State, StateNs, Symbol, ThreadKey, ThreadTick, Tick,
};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

pub fn model() -> Model {
    Model::new(Session::default(), Limits::default())
}

pub fn process(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ns: 5 }
}

pub fn thread_key(tid: u32) -> ThreadKey {
    ThreadKey { tid, start_ns: 5 }
}

/// An empty tick, the `nth` second of the story.
pub fn tick(nth: u64) -> Tick {
    let span = Span { start_ns: nth * SECOND, end_ns: (nth + 1) * SECOND, wall_ns: 0 };
    Tick { span, ..Tick::default() }
}

/// A thread that spent its time so; it is blocked at the end unless it was only on a CPU.
pub fn thread(tgid: u32, tid: u32, times: &[(State, u64)]) -> ThreadTick {
    let mut ns = StateNs::default();
    times.iter().for_each(|&(state, time)| ns[state] += time);
    let now = times.last().map(|(state, _)| *state);
    ThreadTick {
        key: thread_key(tid),
        process: process(tgid),
        comm: format!("t{tid}"),
        ns,
        now,
        ..ThreadTick::default()
    }
}

pub fn facts(tgid: u32, comm: &str) -> ProcessFacts {
    ProcessFacts { key: process(tgid), comm: comm.to_owned(), ..ProcessFacts::default() }
}

pub fn weight(tgid: u32, lens: Lens, stack: u32, weight: u64) -> StackWeight {
    StackWeight { process: process(tgid), lens, stack: StackId(stack), weight, count: 1 }
}

/// A frame per function, in `/bin/app` or, with `k!` before the name, in the kernel; `?` has no symbol. Stacks are lists
/// of functions, all complete.
pub fn names(functions: &[&str], stacks: &[&[&str]]) -> Names {
    let mut names = Names::default();
    names.modules.push((ModuleId(0), Module { path: "/bin/app".into(), ..Module::default() }));
    let kernel = Module { path: "[kernel]".into(), kind: ModuleKind::Kernel, build_id: None };
    names.modules.push((ModuleId(1), kernel));
    for (id, function) in (0..).map(FrameId).zip(functions) {
        let (module, kind, name) = match function.strip_prefix("k!") {
            Some(name) => (ModuleId(1), FrameKind::Kernel, name),
            None => (ModuleId(0), FrameKind::User, *function),
        };
        names.frames.push((id, Frame { module, offset: 0x10 * u64::from(id.0), kind }));
        if !function.contains('?') {
            names.symbols.push((id, Symbol { function: name.to_owned(), ..Symbol::default() }));
        }
    }
    let place = |function: &&str| functions.iter().position(|have| have == function).map(|at| FrameId(at as u32));
    for (id, stack) in (0..).map(StackId).zip(stacks) {
        let frames = stack.iter().filter_map(place).collect();
        names.stacks.push((id, Stack { frames, end: StackEnd::Complete, ..Stack::default() }));
    }
    names
}
