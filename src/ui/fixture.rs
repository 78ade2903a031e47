//! A small made-up machine for tests of the screen: ticks put together by hand, applied to a model.

use crate::model::{Limits, Model};
use crate::tick::{
    Cost, CpuTick, DiskOp, Event, Frame, FrameId, FrameKind, Hist, Lens, LensStatus, Life, Module, ModuleId,
    ModuleKind, Names, ProcessFacts, ProcessIo, ProcessKey, Sampler, Session, Span, Stack, StackEnd, StackId,
    StackWeight, State, StateNs, Symbol, ThreadKey, ThreadTick, Tick,
};

/// One second.
pub const SECOND: u64 = 1_000_000_000;
/// One millisecond.
pub const MS: u64 = 1_000_000;
/// 2026-11-21 14:03:21 UTC.
const WALL: u64 = 1_795_269_801 * SECOND;

/// Two CPUs, cpu-clock at 99 Hz.
pub fn session() -> Session {
    Session {
        version: "0.1.0".into(),
        hostname: "web-17".into(),
        kernel: "6.18.0".into(),
        arch: "x86_64".into(),
        cpus: vec![0, 1],
        nodes: vec![(0, vec![0, 1])],
        sampler: Sampler::CpuClock(99),
        interval_ns: SECOND,
        page_bytes: 4096,
        symbol_limit_bytes: 0,
        lenses: ["oncpu", "sched", "block"].map(|name| LensStatus { name: name.into(), off: None }).into(),
        ..Session::default()
    }
}

/// The `nth` tick, empty: one second from second `nth` on.
pub fn tick(nth: u64) -> Tick {
    let span = Span { start_ns: nth * SECOND, end_ns: (nth + 1) * SECOND, wall_ns: WALL + nth * SECOND };
    let cpu = |id| CpuTick { id, idle_ns: SECOND, ..CpuTick::default() };
    let cost = Cost { user_space_ns: 6 * MS, rss_bytes: 38_000_000, ..Cost::default() };
    let users = vec![(0, "root".into()), (33, "www".into()), (70, "postgres".into()), (1000, "ci".into())];
    let names = Names { users, ..Names::default() };
    Tick { span, cpus: vec![cpu(0), cpu(1)], cost, names, ..Tick::default() }
}

/// Identity of a process.
pub fn key(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ns: u64::from(tgid) * 1000 }
}

/// Facts of a process.
pub fn facts(tgid: u32, ppid: u32, uid: u32, command: &[&str]) -> ProcessFacts {
    let program = if command[0].starts_with('/') { command[0].rsplit('/').next() } else { Some(command[0]) };
    ProcessFacts {
        key: key(tgid),
        ppid,
        uid,
        comm: program.unwrap_or_default().chars().take(15).collect(),
        cmdline: Some(command.iter().map(ToString::to_string).collect()),
        rss_bytes: Some(u64::from(tgid) * 10_000),
        ..ProcessFacts::default()
    }
}

/// A thread of a process, whose time went like that.
pub fn thread(tgid: u32, tid: u32, times: &[(State, u64)]) -> ThreadTick {
    let mut ns = StateNs::default();
    times.iter().for_each(|&(state, time)| ns[state] = time);
    ThreadTick {
        key: ThreadKey { tid, start_ns: u64::from(tid) * 1000 },
        process: key(tgid),
        comm: format!("t{tid}"),
        ns,
        now: Some(State::Poll),
        ..ThreadTick::default()
    }
}

/// One tick of a database, a web server, a compiler, a thread of the kernel and a shell that ended.
pub fn busy(nth: u64) -> Tick {
    let mut tick = tick(nth);
    tick.processes = vec![
        facts(1, 0, 0, &["/sbin/init"]),
        facts(4711, 1, 70, &["postgres: writer"]),
        facts(8120, 1, 33, &["/usr/sbin/nginx", "-g", "daemon off;"]),
        facts(9904, 9871, 1000, &["cc1", "-O2", "main.c"]),
        facts(9871, 1, 1000, &["sh", "-c", "make"]),
        ProcessFacts { kernel: true, cmdline: None, rss_bytes: None, ..facts(15, 2, 0, &["kworker/0:1"]) },
    ];
    let ms = |times: &[(State, u64)]| times.iter().map(|&(state, ms)| (state, ms * MS)).collect::<Vec<_>>();
    let runq = |values: &[u64]| Hist::of(values.iter().copied());
    tick.threads = vec![
        thread(1, 1, &ms(&[(State::Poll, 1000)])),
        ThreadTick {
            runq: runq(&[4 * MS, 19 * MS]),
            voluntary: 1_200,
            major_faults: 3,
            ..thread(4711, 4711, &ms(&[(State::User, 700), (State::Kernel, 100), (State::Disk, 200)]))
        },
        thread(4711, 4712, &ms(&[(State::User, 200), (State::Disk, 500), (State::Lock, 100), (State::Timer, 200)])),
        ThreadTick {
            runq: runq(&[310_000]),
            ..thread(8120, 8120, &ms(&[(State::Kernel, 380), (State::Net, 500), (State::Poll, 120)]))
        },
        thread(9904, 9904, &ms(&[(State::User, 227), (State::Preempted, 773)])),
        thread(15, 15, &ms(&[(State::Other, 1000)])),
    ];
    let sh = thread(9871, 9871, &ms(&[(State::User, 91), (State::Woken, 9)]));
    tick.threads.push(ThreadTick { now: None, ..sh });
    let at_ns = tick.span.start_ns + 100 * MS;
    let what = Life::Exit { status: 0 };
    tick.events = vec![Event { at_ns, process: key(9871), comm: "sh".into(), what }];
    let latency = runq(&[12 * MS]);
    tick.io = vec![ProcessIo { process: key(4711), op: DiskOp::Write, requests: 1, bytes: 38_200_000, latency }];
    add_stacks(&mut tick);
    tick
}

/// `main` above `work`, seven samples of the database.
fn add_stacks(tick: &mut Tick) {
    let module = Module { path: "/usr/bin/postgres".into(), kind: ModuleKind::File, build_id: None };
    tick.names.modules = vec![(ModuleId(0), module)];
    for (id, function) in [(0, "main"), (1, "work")] {
        let frame = Frame { module: ModuleId(0), offset: 64 * u64::from(id), kind: FrameKind::User };
        tick.names.frames.push((FrameId(id), frame));
        tick.names.symbols.push((FrameId(id), Symbol { function: function.into(), ..Symbol::default() }));
    }
    let stack = Stack { frames: vec![FrameId(0), FrameId(1)], end: StackEnd::Complete, ..Stack::default() };
    tick.names.stacks = vec![(StackId(0), stack)];
    tick.stacks = vec![StackWeight { process: key(4711), lens: Lens::OnCpu, stack: StackId(0), weight: 7, count: 7 }];
}

/// A model that has seen one busy tick.
pub fn model() -> Model {
    model_of([busy(1)])
}

/// A model that has seen these ticks.
pub fn model_of(ticks: impl IntoIterator<Item = Tick>) -> Model {
    let mut model = Model::new(session(), Limits::default());
    ticks.into_iter().for_each(|tick| model.apply(tick));
    model
}
