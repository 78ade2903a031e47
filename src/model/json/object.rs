//! The shape of the object.

use serde::Serialize;

use super::cost::{self, CostObject};
use super::time::rfc3339;
use super::watch::{self, CheckObject, GovernorObject};
use crate::model::{IoTotals, Model, Process, Totals};
use crate::tick::{
    Basis, CpuTick, DiskOp, DiskOpTick, DiskTick, Event, Grade, Hist, Life, Loss, NodeTick, ProcessKey, Quota, Sampler,
    Session, Signal, SignalKind, SlowRequest, Span, State, StateNs, Stuck, ThreadKey, is_missing, signal,
};

#[derive(Serialize)]
pub struct TickObject<'a> {
    schema: &'static str,
    session: SessionObject<'a>,
    basis: &'static str,
    signals: Signals<'a>,
    span: SpanObject,
    host: HostObject<'a>,
    processes: Vec<ProcessObject<'a>>,
    cpus: Vec<CpuObject>,
    nodes: Vec<NodeObject>,
    disks: Vec<DiskObject<'a>>,
    slow_requests: Option<Vec<SlowObject<'a>>>,
    cpu_quotas: Vec<QuotaObject<'a>>,
    stuck: Vec<StuckObject<'a>>,
    events: Option<Vec<EventObject<'a>>>,
    losses: Losses<'a>,
    cost: CostObject<'a>,
    /// `null` without a budget.
    governor: Option<GovernorObject>,
    checks: Vec<CheckObject>,
}

#[derive(Serialize)]
struct SessionObject<'a> {
    version: &'a str,
    command: &'a str,
    started: String,
    interval_ns: u64,
    /// `null` where nothing is sampled.
    sampler: Option<SamplerObject>,
}

#[derive(Serialize)]
struct SamplerObject {
    by: &'static str,
    rate_hz: u32,
}

#[derive(Serialize)]
struct SpanObject {
    start_ns: u64,
    end_ns: u64,
    wall: String,
}

#[derive(Serialize)]
struct HostObject<'a> {
    cpus: usize,
    nodes: usize,
    hostname: &'a str,
    kernel: &'a str,
    arch: &'a str,
    load: [f32; 3],
    memory_total_bytes: u64,
    memory_available_bytes: u64,
    swap_total_bytes: u64,
    swap_free_bytes: u64,
    uptime_ns: u64,
    boot_offset_ns: u64,
}

#[derive(Serialize)]
struct ProcessObject<'a> {
    pid: u32,
    /// In its own pid namespace, where that is another one.
    inner_pid: Option<u32>,
    start_ns: u64,
    ppid: u32,
    comm: &'a str,
    cmdline: Option<&'a [String]>,
    uid: u32,
    user: Option<&'a str>,
    cgroup: Option<&'a str>,
    kernel_thread: bool,
    exited: Option<ExitObject>,
    threads: u32,
    on_cpu_user_ns: u64,
    on_cpu_kernel_ns: u64,
    runnable_ns: u64,
    preempted_ns: Option<u64>,
    blocked_ns: Blocked,
    runq_latency: Option<Distribution>,
    off_cpu: Option<Distribution>,
    slice: Option<Distribution>,
    disk: Option<ProcessDisk>,
    node_on_cpu_ns: Option<Vec<u64>>,
    voluntary_switches: Option<u64>,
    involuntary_switches: Option<u64>,
    wakeups: Option<u64>,
    migrations: Option<u64>,
    minor_faults: u64,
    major_faults: u64,
    rss_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    samples: Option<u64>,
    stacks_complete: Option<u64>,
}

#[derive(Serialize)]
struct ExitObject {
    at_ns: u64,
    status: Option<u32>,
}

#[derive(Serialize)]
struct Blocked {
    disk: Option<u64>,
    lock: Option<u64>,
    net: Option<u64>,
    pipe: Option<u64>,
    timer: Option<u64>,
    poll: Option<u64>,
    fault: Option<u64>,
    stopped: u64,
    other: u64,
}

/// Percentiles are `null` where there is nothing to rank.
#[derive(Serialize)]
struct Distribution {
    count: u64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    max_ns: Option<u64>,
}

#[derive(Serialize)]
struct ProcessDisk {
    requests: u64,
    read_bytes: u64,
    write_bytes: u64,
    flushes: u64,
    discard_bytes: u64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    max_ns: Option<u64>,
}

#[derive(Serialize)]
struct CpuObject {
    id: u32,
    node: u32,
    user_ns: u64,
    kernel_ns: u64,
    irq_ns: u64,
    softirq_ns: u64,
    steal_ns: u64,
    idle_ns: u64,
    switches: Option<u64>,
    runnable_ns: Option<u64>,
    runq_latency: Option<Distribution>,
    samples: Option<u64>,
    running: Option<Running>,
    mhz: Option<u32>,
}

#[derive(Serialize)]
struct Running {
    tid: u32,
    pid: Option<u32>,
}

#[derive(Serialize)]
struct NodeObject {
    id: u32,
    on_cpu_ns: u64,
    total_bytes: u64,
    free_bytes: u64,
    moved_in: Option<u64>,
    moved_out: Option<u64>,
    numa_hit_pages: Option<u64>,
    numa_miss_pages: Option<u64>,
}

#[derive(Serialize)]
struct DiskObject<'a> {
    name: &'a str,
    major: u32,
    minor: u32,
    in_flight: u64,
    oldest_ns: Option<u64>,
    read: OpObject,
    write: OpObject,
    flush: OpObject,
    discard: OpObject,
}

#[derive(Serialize)]
struct OpObject {
    requests: u64,
    bytes: u64,
    errors: Option<u64>,
    queued: Option<Distribution>,
    device: Option<Distribution>,
}

#[derive(Serialize)]
struct QuotaObject<'a> {
    cgroup: &'a str,
    quota_ns: u64,
    period_ns: u64,
    periods: u64,
    throttled_periods: u64,
    throttled_ns: u64,
}

#[derive(Serialize)]
struct StuckObject<'a> {
    tid: u32,
    pid: u32,
    since_ns: u64,
    wchan: Option<&'a str>,
}

#[derive(Serialize)]
struct SlowObject<'a> {
    end_ns: u64,
    major: u32,
    minor: u32,
    op: &'static str,
    sector: u64,
    bytes: u64,
    queued_ns: u64,
    device_ns: u64,
    pid: u32,
    comm: &'a str,
}

#[derive(Serialize)]
struct EventObject<'a> {
    at_ns: u64,
    pid: u32,
    start_ns: u64,
    comm: &'a str,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ppid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u32>,
}

/// Counts by stable name, those that are not zero.
struct Losses<'a>(&'a [(Loss, u64)]);

impl Serialize for Losses<'_> {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(loss, count)| (loss_key(*loss), count)))
    }
}

/// How well each kind of knowledge is had, by stable name; empty where the source does not say.
struct Signals<'a>(&'a [Signal]);

impl Serialize for Signals<'_> {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|signal| (signal.kind.key(), signal.grade().name())))
    }
}

/// What there is a source for; what is not is `null`, never 0.
struct Has {
    /// Every switch of every thread.
    switches: bool,
    runq: bool,
    samples: bool,
    requests: bool,
    moves: bool,
    life: bool,
    /// CPU time by node.
    nodes: bool,
}

impl Has {
    fn of(session: &Session) -> Self {
        let has = |kind: SignalKind| !is_missing(&session.signals, kind);
        let by_bpf = session.basis == Basis::Bpf;
        Has {
            switches: by_bpf,
            runq: has(SignalKind::RunqLatency),
            samples: has(SignalKind::Samples),
            requests: signal(&session.signals, SignalKind::DiskLatency)
                .is_none_or(|disks| disks.grade() == Grade::Full),
            moves: has(SignalKind::NumaMoves),
            life: has(SignalKind::LifeEvents),
            nodes: by_bpf || session.nodes.len() <= 1,
        }
    }
}

/// The newest tick of a model.
pub fn tick(model: &Model) -> TickObject<'_> {
    let span = model.span().unwrap_or_default();
    let mut processes: Vec<&Process> = model.processes().filter(|process| lived(process, span)).collect();
    processes.sort_unstable_by_key(|process| process.key);
    let slow = model.slow_requests().iter().filter(|request| (span.start_ns..span.end_ns).contains(&request.end_ns));
    let session = model.session();
    let has = Has::of(session);
    TickObject {
        schema: "sberf.tick/1",
        session: session_object(session),
        basis: match session.basis {
            Basis::Bpf => "bpf",
            Basis::Procfs => "procfs",
        },
        signals: Signals(&session.signals),
        span: SpanObject { start_ns: span.start_ns, end_ns: span.end_ns, wall: rfc3339(span.wall_ns) },
        host: host(model),
        processes: processes.into_iter().map(|process| process_object(model, process, &has)).collect(),
        cpus: model.cpus().iter().map(|cpu| cpu_object(model, cpu, &has)).collect(),
        nodes: model.nodes().iter().map(|node| node_object(node, &has)).collect(),
        disks: model.disks().iter().map(|disk| disk_object(disk, &has)).collect(),
        slow_requests: has.requests.then(|| slow.map(slow_object).collect()),
        cpu_quotas: model.quotas().iter().map(quota_object).collect(),
        stuck: model.stuck().iter().map(stuck_object).collect(),
        events: has.life.then(|| model.tick_events().map(event_object).collect()),
        losses: Losses(model.tick_losses()),
        cost: cost::object(model.cost()),
        governor: model.watch().governor.as_ref().map(watch::governor),
        checks: model.watch().checks.iter().map(watch::check).collect(),
    }
}

/// What was observed, by what: the same in each line.
fn session_object(session: &Session) -> SessionObject<'_> {
    let sampler = match session.sampler {
        Sampler::Off => None,
        Sampler::Cycles(rate_hz) => Some(SamplerObject { by: "cycles", rate_hz }),
        Sampler::CpuClock(rate_hz) => Some(SamplerObject { by: "cpu-clock", rate_hz }),
    };
    SessionObject {
        version: &session.version,
        command: &session.command,
        started: rfc3339(session.started_wall_ns),
        interval_ns: session.interval_ns,
        sampler,
    }
}

/// Whether any of the tick is about it.
fn lived(process: &Process, span: Span) -> bool {
    let exited_before = process.exited.is_some_and(|exit| exit.at_ns < span.start_ns);
    process.threads > 0 || process.is_active() || process.tick.ns != StateNs::default() || !exited_before
}

fn host(model: &Model) -> HostObject<'_> {
    let (session, host) = (model.session(), model.host());
    HostObject {
        cpus: if model.cpus().is_empty() { session.cpus.len() } else { model.cpus().len() },
        nodes: session.nodes.len(),
        hostname: &session.hostname,
        kernel: &session.kernel,
        arch: &session.arch,
        load: host.load.map(|load| if load.is_finite() { load } else { 0.0 }),
        memory_total_bytes: host.memory_total,
        memory_available_bytes: host.memory_available,
        swap_total_bytes: host.swap_total,
        swap_free_bytes: host.swap_free,
        uptime_ns: host.uptime_ns,
        boot_offset_ns: model.boot_offset_ns(),
    }
}

fn process_object<'a>(model: &'a Model, process: &'a Process, has: &Has) -> ProcessObject<'a> {
    let (facts, tick) = (&process.facts, &process.tick);
    ProcessObject {
        pid: process.key.tgid,
        inner_pid: facts.inner_pid,
        start_ns: process.key.start_ns,
        ppid: facts.ppid,
        comm: &facts.comm,
        cmdline: facts.cmdline.as_deref(),
        uid: facts.uid,
        user: model.user(facts.uid),
        cgroup: facts.cgroup.as_deref(),
        kernel_thread: facts.kernel,
        exited: process.exited.map(|exit| ExitObject { at_ns: exit.at_ns, status: exit.status }),
        threads: process.threads,
        on_cpu_user_ns: tick.ns[State::User],
        on_cpu_kernel_ns: tick.ns[State::Kernel],
        runnable_ns: tick.ns.runnable(),
        preempted_ns: has.switches.then_some(tick.ns[State::Preempted]),
        blocked_ns: blocked(&tick.ns, has.switches),
        runq_latency: has.runq.then(|| distribution(&tick.runq)),
        off_cpu: has.switches.then(|| distribution(&tick.off_cpu)),
        slice: has.switches.then(|| distribution(&tick.slice)),
        disk: has.requests.then(|| process_disk(&process.tick_io)),
        node_on_cpu_ns: has.nodes.then(|| node_ns(tick)),
        voluntary_switches: has.switches.then_some(tick.voluntary),
        involuntary_switches: has.switches.then_some(tick.involuntary),
        wakeups: has.switches.then_some(tick.wakeups),
        migrations: has.switches.then_some(tick.migrations),
        minor_faults: tick.minor_faults,
        major_faults: tick.major_faults,
        rss_bytes: facts.rss_bytes,
        virtual_bytes: facts.virtual_bytes,
        samples: has.samples.then_some(process.samples),
        stacks_complete: has.samples.then_some(process.samples_complete),
    }
}

/// On one node all time was there.
fn node_ns(totals: &Totals) -> Vec<u64> {
    if totals.node_ns.is_empty() { vec![totals.ns.on_cpu()] } else { totals.node_ns.clone() }
}

/// `reasons` are known; otherwise all but what was stopped is `other`.
fn blocked(ns: &StateNs, reasons: bool) -> Blocked {
    let of = |state: State| reasons.then_some(ns[state]);
    Blocked {
        disk: of(State::Disk),
        lock: of(State::Lock),
        net: of(State::Net),
        pipe: of(State::Pipe),
        timer: of(State::Timer),
        poll: of(State::Poll),
        fault: of(State::Fault),
        stopped: ns[State::Stopped],
        other: ns[State::Other],
    }
}

fn distribution(hist: &Hist) -> Distribution {
    Distribution {
        count: hist.count(),
        p50_ns: hist.quantile(0.5),
        p99_ns: hist.quantile(0.99),
        max_ns: (!hist.is_empty()).then_some(hist.max),
    }
}

fn process_disk(io: &IoTotals) -> ProcessDisk {
    let Distribution { p50_ns, p99_ns, max_ns, .. } = distribution(&io.latency);
    ProcessDisk {
        requests: io.all_requests(),
        read_bytes: io.bytes[DiskOp::Read as usize],
        write_bytes: io.bytes[DiskOp::Write as usize],
        flushes: io.requests[DiskOp::Flush as usize],
        discard_bytes: io.bytes[DiskOp::Discard as usize],
        p50_ns,
        p99_ns,
        max_ns,
    }
}

fn cpu_object(model: &Model, cpu: &CpuTick, has: &Has) -> CpuObject {
    let pid = |thread: ThreadKey| model.thread(thread).map(|thread| thread.process.tgid);
    CpuObject {
        id: cpu.id,
        node: cpu.node,
        user_ns: cpu.user_ns,
        kernel_ns: cpu.kernel_ns,
        irq_ns: cpu.irq_ns,
        softirq_ns: cpu.softirq_ns,
        steal_ns: cpu.steal_ns,
        idle_ns: cpu.idle_ns,
        switches: has.switches.then_some(cpu.switches),
        runnable_ns: has.switches.then_some(cpu.runnable_ns),
        runq_latency: has.runq.then(|| distribution(&cpu.runq)),
        samples: has.samples.then_some(cpu.samples),
        running: cpu.running.map(|thread| Running { tid: thread.tid, pid: pid(thread) }),
        mhz: cpu.mhz,
    }
}

fn node_object(node: &NodeTick, has: &Has) -> NodeObject {
    NodeObject {
        id: node.id,
        on_cpu_ns: node.on_cpu_ns,
        total_bytes: node.total_bytes,
        free_bytes: node.free_bytes,
        moved_in: has.moves.then_some(node.moved_in),
        moved_out: has.moves.then_some(node.moved_out),
        numa_hit_pages: node.numa_hit,
        numa_miss_pages: node.numa_miss,
    }
}

fn disk_object<'a>(disk: &'a DiskTick, has: &Has) -> DiskObject<'a> {
    let op = |op: DiskOp| {
        let DiskOpTick { requests, bytes, errors, queued, device, .. } = &disk.ops[op as usize];
        let of = |hist: &Hist| has.requests.then(|| distribution(hist));
        let (queued, device) = (of(queued), of(device));
        OpObject { requests: *requests, bytes: *bytes, errors: has.requests.then_some(*errors), queued, device }
    };
    let (major, minor) = numbers(disk.dev);
    DiskObject {
        name: &disk.name,
        major,
        minor,
        in_flight: disk.in_flight,
        oldest_ns: has.requests.then_some(disk.oldest_ns),
        read: op(DiskOp::Read),
        write: op(DiskOp::Write),
        flush: op(DiskOp::Flush),
        discard: op(DiskOp::Discard),
    }
}

/// Major and minor of the kernel's device number.
fn numbers(dev: u32) -> (u32, u32) {
    (dev >> 20, dev & 0xf_ffff)
}

fn quota_object(quota: &Quota) -> QuotaObject<'_> {
    let Quota { cgroup, quota_ns, period_ns, periods, throttled, throttled_ns } = quota;
    let (quota_ns, period_ns, periods) = (*quota_ns, *period_ns, *periods);
    QuotaObject { cgroup, quota_ns, period_ns, periods, throttled_periods: *throttled, throttled_ns: *throttled_ns }
}

fn stuck_object(stuck: &Stuck) -> StuckObject<'_> {
    let Stuck { thread, process, since_ns, place } = stuck;
    StuckObject { tid: thread.tid, pid: process.tgid, since_ns: *since_ns, wchan: place.as_deref() }
}

fn slow_object(request: &SlowRequest) -> SlowObject<'_> {
    let (major, minor) = numbers(request.dev);
    SlowObject {
        end_ns: request.end_ns,
        major,
        minor,
        op: request.op.name(),
        sector: request.sector,
        bytes: request.bytes,
        queued_ns: request.queued_ns,
        device_ns: request.device_ns,
        pid: request.process.tgid,
        comm: &request.comm,
    }
}

fn event_object(event: &Event) -> EventObject<'_> {
    let (what, ppid, status) = match event.what {
        Life::Fork { parent } => ("fork", Some(parent), None),
        Life::Exec => ("exec", None, None),
        Life::Exit { status } => ("exit", None, Some(status)),
    };
    let ProcessKey { tgid: pid, start_ns } = event.process;
    EventObject { at_ns: event.at_ns, pid, start_ns, comm: &event.comm, what, ppid, status }
}

/// The name of a loss that scripts may rely on.
fn loss_key(loss: Loss) -> &'static str {
    match loss {
        Loss::StackMapFull => "stack_map_full",
        Loss::FrameRingFull => "frame_ring_full",
        Loss::HistMapFull => "hist_map_full",
        Loss::LifeRingFull => "life_ring_full",
        Loss::DeadRingFull => "dead_ring_full",
        Loss::RequestMapFull => "request_map_full",
        Loss::SlowRingFull => "slow_ring_full",
        Loss::Torn => "torn",
        Loss::Underflow => "underflow",
        Loss::Malformed => "malformed",
        Loss::HiddenTasks => "hidden_tasks",
        Loss::NoStorage => "no_storage",
        Loss::LateTick => "late_tick",
        Loss::Evicted => "evicted",
        Loss::Unseen => "unseen_switches",
        Loss::Unsampled => "unsampled_cpus",
        Loss::Elsewhere => "elsewhere",
        Loss::OtherRequest => "other_requests",
        Loss::Node => "node_stays",
    }
}
