//! Machines of a stated size, for the benchmarks: one in ten threads works, the others sleep, as on most machines.

use sberf::tick::{
    CpuTick, Frame, FrameId, FrameKind, Hist, Lens, Module, ModuleId, ModuleKind, Names, ProcessFacts, ProcessKey,
    Session, Span, Stack, StackEnd, StackId, StackWeight, State, StateNs, Symbol, ThreadKey, ThreadTick, Tick,
};

const SECOND: u64 = 1_000_000_000;
/// Threads of each process.
const THREADS: u32 = 4;

/// A machine of two CPUs.
pub fn session() -> Session {
    Session {
        version: "0".into(),
        hostname: "bench".into(),
        kernel: "6.18".into(),
        arch: "x86_64".into(),
        cpus: vec![0, 1],
        nodes: vec![(0, vec![0, 1])],
        interval_ns: SECOND,
        page_bytes: 4096,
        ..Session::default()
    }
}

/// The span of the tick with that number.
pub fn span(number: u64) -> Span {
    let start_ns = (number + 1) * SECOND;
    Span { start_ns, end_ns: start_ns + SECOND, wall_ns: 1_790_000_000 * SECOND + start_ns }
}

/// Process with that number.
pub fn process(number: u32) -> ProcessKey {
    ProcessKey { tgid: 100 + number * THREADS, start_ns: u64::from(number) }
}

/// One tick of a machine with so many threads, four to a process; the first names every process.
pub fn tick(number: u64, threads: u32) -> Tick {
    let processes = threads.div_ceil(THREADS);
    let facts = |n| ProcessFacts {
        key: process(n),
        ppid: 1,
        comm: format!("worker-{n}"),
        cmdline: Some(vec![format!("/usr/bin/worker-{n}"), "--listen".into(), format!("127.0.0.1:{}", 1024 + n)]),
        uid: 1000 + n % 7,
        rss_bytes: Some(u64::from(n) << 14),
        ..ProcessFacts::default()
    };
    Tick {
        span: span(number),
        threads: (0..threads).map(|n| thread(number, n)).collect(),
        processes: if number == 0 { (0..processes).map(facts).collect() } else { Vec::new() },
        cpus: (0..2).map(|cpu| CpuTick { id: cpu, user_ns: SECOND / 3, ..CpuTick::default() }).collect(),
        ..Tick::default()
    }
}

fn thread(tick: u64, number: u32) -> ThreadTick {
    let owner = process(number / THREADS);
    let key = ThreadKey { tid: owner.tgid + number % THREADS, start_ns: u64::from(number) };
    let comm = format!("worker-{}", number / THREADS);
    let mut ns = StateNs::default();
    if !number.is_multiple_of(10) {
        ns[State::Poll] = SECOND;
        return ThreadTick { key, process: owner, comm, ns, now: Some(State::Poll), ..ThreadTick::default() };
    }
    let busy = (u64::from(number) * 7919 + tick * 104_729) % (SECOND / 2);
    ns[State::User] = busy;
    ns[State::Woken] = busy / 9;
    ns[State::Net] = SECOND - busy - busy / 9;
    let waits = (0..12).map(|n| 1000 + busy / (n + 1));
    ThreadTick {
        key,
        process: owner,
        comm,
        ns,
        now: Some(State::Net),
        voluntary: 12,
        wakeups: 12,
        runq: Hist::of(waits.clone()),
        off_cpu: Hist::of(waits.clone().map(|ns| ns * 40)),
        slice: Hist::of(waits.map(|ns| ns * 3)),
        ..ThreadTick::default()
    }
}

/// Depth of the stacks of [`deep`]; the frames above the last few are shared.
const DEPTH: u32 = 44;
const OWN: u32 = 40;

/// A tick in which process 0 was seen in so many stacks that their tree has about `nodes` nodes.
pub fn deep(nodes: u32) -> Tick {
    let stacks = nodes / OWN;
    let module = ModuleId(0);
    let shared = DEPTH - OWN;
    let frames = shared + stacks * OWN;
    let name = |n: u32| Symbol { function: format!("module_{}::function_{n}", n % 97), ..Symbol::default() };
    let frame = |n: u32| Frame { module, offset: 0x1000 + 16 * u64::from(n), kind: FrameKind::User };
    let stack = |n: u32| {
        let own = (0..OWN).map(|depth| FrameId(shared + n * OWN + depth));
        Stack { frames: (0..shared).map(FrameId).chain(own).collect(), end: StackEnd::Complete, ..Stack::default() }
    };
    let weight = |n: u32| StackWeight {
        process: process(0),
        lens: Lens::OnCpu,
        stack: StackId(n),
        weight: 1 + u64::from(n % 13),
        count: 1 + u64::from(n % 13),
    };
    let mut tick = tick(0, 100);
    // It works more than any other, so that it stands first in the table.
    tick.threads[0].ns = StateNs::default();
    tick.threads[0].ns[State::User] = SECOND;
    Tick {
        names: Names {
            modules: vec![(module, Module { path: "/usr/bin/deep".into(), kind: ModuleKind::File, build_id: None })],
            frames: (0..frames).map(|n| (FrameId(n), frame(n))).collect(),
            symbols: (0..frames).map(|n| (FrameId(n), name(n))).collect(),
            stacks: (0..stacks).map(|n| (StackId(n), stack(n))).collect(),
            ..Names::default()
        },
        stacks: (0..stacks).map(weight).collect(),
        ..tick
    }
}
