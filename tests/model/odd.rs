//! Ticks that no machine would give: ids that nobody named, spans without length or backwards, everything twice, numbers
//! at the end of their range.

use proptest::collection::vec;
use proptest::prelude::*;
use sberf::tick::{
    CpuTick, Detail, DiskOp, DiskOpTick, DiskTick, Event, Frame, FrameId, FrameKind, Hist, Inlined, Lens, Life, Line,
    Loss, Module, ModuleId, ModuleKind, Names, ProcessFacts, ProcessIo, ProcessKey, Quota, SlowRequest, Span, Stack,
    StackEnd, StackId, StackWeight, State, StateNs, Stuck, Symbol, ThreadKey, ThreadTick, Tick,
};

/// Small numbers mostly, the largest sometimes.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..10, 3 => 0u64..3_000_000_000, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..6, 1 => Just(u32::MAX)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-c]{1,2}", 1 => "\\PC{0,8}", 1 => "[;\\n\\x1b 0-9]{0,6}", 1 => Just("x".repeat(5000))]
}

fn process() -> impl Strategy<Value = ProcessKey> {
    (id(), 0u64..2).prop_map(|(tgid, start_ns)| ProcessKey { tgid, start_ns })
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(&State::ALL[..])
}

fn hist() -> impl Strategy<Value = Hist> {
    let bucket = prop_oneof![4 => 0u16..496, 1 => any::<u16>()];
    (vec((bucket, number()), 0..4), number(), number()).prop_map(|(counts, max, sum)| Hist { counts, max, sum })
}

fn thread() -> impl Strategy<Value = ThreadTick> {
    let who = (id(), 0u64..2, process(), text());
    let time = (vec((state(), number()), 0..4), prop::option::of(state()), number());
    let counts = (any::<u32>(), number(), hist(), hist(), vec(number(), 0..3));
    (who, time, counts).prop_map(|((tid, start_ns, process, comm), (times, now, since_ns), counts)| {
        let mut ns = StateNs::default();
        times.into_iter().for_each(|(state, time)| ns[state] = time);
        let (voluntary, major_faults, runq, off_cpu, node_ns) = counts;
        let key = ThreadKey { tid, start_ns };
        ThreadTick {
            key,
            process,
            comm,
            ns,
            now,
            since_ns,
            voluntary,
            major_faults,
            runq,
            off_cpu,
            node_ns,
            ..Default::default()
        }
    })
}

fn stack_weight() -> impl Strategy<Value = StackWeight> {
    let lens = prop_oneof![Just(Lens::OnCpu), state().prop_map(Lens::Blocked)];
    (process(), lens, id(), number(), number()).prop_map(|(process, lens, stack, weight, count)| StackWeight {
        process,
        lens,
        stack: StackId(stack),
        weight,
        count,
    })
}

fn names() -> impl Strategy<Value = Names> {
    let kinds = [FrameKind::User, FrameKind::Kernel, FrameKind::Jit, FrameKind::Inlined, FrameKind::Note];
    let module_kinds = [ModuleKind::File, ModuleKind::Kernel, ModuleKind::Anonymous, ModuleKind::Note];
    let module = (id(), text(), prop::sample::select(module_kinds.to_vec()))
        .prop_map(|(id, path, kind)| (ModuleId(id), Module { path, kind, build_id: None }));
    let frame = (id(), id(), number(), prop::sample::select(kinds.to_vec()))
        .prop_map(|(id, module, offset, kind)| (FrameId(id), Frame { module: ModuleId(module), offset, kind }));
    let symbol = (id(), text(), number(), any::<bool>())
        .prop_map(|(id, function, offset, nameless)| (FrameId(id), Symbol { function, offset, nameless }));
    let line = || prop::option::of((text(), any::<u32>()).prop_map(|(file, number)| Line { file, number }));
    let inlined = (text(), line()).prop_map(|(function, call)| Inlined { function, call });
    let detail = (id(), prop::option::of(text()), vec(inlined, 0..3), line())
        .prop_map(|(id, function, inlined, line)| (FrameId(id), Detail { function, inlined, line }));
    let ends =
        [StackEnd::Complete, StackEnd::Broken, StackEnd::Unreadable(-14), StackEnd::NotTaken, StackEnd::Truncated];
    let length = prop_oneof![9 => 0usize..5, 1 => Just(3000usize)];
    let frames = length.prop_flat_map(|length| vec(id(), length));
    let stack = (id(), frames, prop::sample::select(ends.to_vec())).prop_map(|(id, frames, end)| {
        (StackId(id), Stack { frames: frames.into_iter().map(FrameId).collect(), end, ..Stack::default() })
    });
    (vec(module, 0..3), vec(frame, 0..5), vec(symbol, 0..4), vec(detail, 0..4), vec(stack, 0..4)).prop_map(
        |(modules, frames, symbols, details, stacks)| Names {
            users: vec![],
            modules,
            frames,
            symbols,
            details,
            stacks,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let what = prop_oneof![
        id().prop_map(|parent| Life::Fork { parent }),
        Just(Life::Exec),
        any::<u32>().prop_map(|status| Life::Exit { status }),
    ];
    (number(), process(), text(), what).prop_map(|(at_ns, process, comm, what)| Event { at_ns, process, comm, what })
}

fn disk() -> impl Strategy<Value = DiskTick> {
    (id(), text(), hist(), number()).prop_map(|(dev, name, queued, requests)| {
        let op = DiskOpTick { requests, bytes: requests, device: queued.clone(), queued, ..Default::default() };
        DiskTick { dev, name, ops: [op.clone(), op.clone(), op.clone(), op], in_flight: requests, oldest_ns: requests }
    })
}

fn io() -> impl Strategy<Value = ProcessIo> {
    (process(), prop::sample::select(&DiskOp::ALL[..]), number(), number(), hist())
        .prop_map(|(process, op, requests, bytes, latency)| ProcessIo { process, op, requests, bytes, latency })
}

fn slow() -> impl Strategy<Value = SlowRequest> {
    (number(), id(), number(), process(), text()).prop_map(|(end_ns, dev, queued_ns, process, comm)| SlowRequest {
        end_ns,
        dev,
        op: DiskOp::Read,
        sector: end_ns,
        bytes: queued_ns,
        queued_ns,
        device_ns: queued_ns,
        process,
        comm,
    })
}

/// One such tick.
pub fn tick() -> impl Strategy<Value = Tick> {
    let span =
        (number(), number(), number()).prop_map(|(start_ns, end_ns, wall_ns)| Span { start_ns, end_ns, wall_ns });
    let facts = (process(), text(), any::<bool>()).prop_map(|(key, comm, kernel)| ProcessFacts {
        key,
        comm,
        kernel,
        ..Default::default()
    });
    let cpu =
        (id(), number(), hist()).prop_map(|(id, user_ns, runq)| CpuTick { id, user_ns, runq, ..Default::default() });
    let losses = vec((prop::sample::select(vec![Loss::Torn, Loss::Malformed]), number()), 0..3);
    let entities = (vec(thread(), 0..8), vec(facts, 0..4), vec(io(), 0..3), vec(stack_weight(), 0..12));
    let quota = (text(), number(), number()).prop_map(|(cgroup, periods, throttled)| Quota {
        cgroup,
        periods,
        throttled,
        ..Default::default()
    });
    let stuck = (process(), number(), text()).prop_map(|(process, since_ns, place)| Stuck {
        process,
        since_ns,
        place: Some(place),
        ..Default::default()
    });
    let held = (vec(quota, 0..3), vec(stuck, 0..3));
    let devices = (vec(cpu, 0..3), vec(disk(), 0..3), vec(slow(), 0..3), vec(event(), 0..4));
    (span, entities, devices, held, losses, names()).prop_map(|(span, entities, devices, held, losses, names)| {
        let (threads, processes, io, stacks) = entities;
        let (cpus, disks, slow_requests, events) = devices;
        let (quotas, stuck) = held;
        Tick {
            span,
            threads,
            processes,
            io,
            stacks,
            cpus,
            disks,
            slow_requests,
            quotas,
            stuck,
            events,
            losses,
            names,
            ..Default::default()
        }
    })
}
