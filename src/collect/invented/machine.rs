//! The machine itself: who lives, who runs where, who waits for what, one tick at a time.

use super::Invention;
use super::programs::{COMPILER, HOSTILE, PROGRAMS, Program, Role, SLEEPER, Wait};
use super::random::Random;
use super::stacks::Stacks;
use crate::tick::{
    Check, Clockwork, Collector, Cost, Counter, CpuTick, DiskOp, DiskTick, Event, Governor, Hist, Host, Lens, Lever,
    LeverKind, Life, NodeTick, OtherProgram, ProcessFacts, ProcessIo, ProcessKey, ProgramCost, SlowRequest, Span,
    StackWeight, State, ThreadCost, ThreadKey, ThreadTick, Tick, Verdict, Watch, bucket_of,
};

/// Samples per second and CPU.
pub const SAMPLE_HZ: u32 = 99;

/// 2026-11-21 03:00:00 UTC.
pub const STARTED_WALL_NS: u64 = 1_795_230_000_000_000_000;

/// The machine was up for an hour when watching began.
const STARTED_NS: u64 = 3_600_000_000_000;

const MIB: u64 = 1 << 20;

struct Thread {
    key: ThreadKey,
    role: &'static Role,
    comm: String,
    cpu: u32,
    since_ns: u64,
    state: State,
    /// Sleeps through most ticks.
    dozes: bool,
}

struct Process {
    key: ProcessKey,
    ppid: u32,
    program: &'static Program,
    threads: Vec<Thread>,
    /// Ticks until it exits.
    left: Option<u32>,
    told: bool,
}

/// Everything that lives.
pub struct Machine {
    random: Random,
    pub stacks: Stacks,
    processes: Vec<Process>,
    cpus: u32,
    nodes: u32,
    next_id: u32,
    now_ns: u64,
    ticks: u64,
}

/// What is added up while a tick is made.
struct Making {
    tick: Tick,
    /// By CPU: the share of what its threads want that they get.
    granted: Vec<f64>,
    running: Vec<Option<ThreadKey>>,
}

impl Machine {
    pub fn new(options: &Invention) -> Self {
        let mut machine = Machine {
            random: Random::new(options.seed),
            stacks: Stacks::default(),
            processes: Vec::new(),
            cpus: options.cpus.max(1),
            nodes: options.nodes.max(1),
            next_id: 0,
            now_ns: STARTED_NS,
            ticks: 0,
        };
        for (nth, program) in PROGRAMS.iter().cycle().take(options.processes).enumerate() {
            machine.start(program, 1, nth as u64 * 1_000_000_000, 1);
        }
        if options.hostile {
            machine.start(&HOSTILE, 1, 50_000_000_000, 1);
        }
        for nth in 0..options.sleepers {
            machine.start(&SLEEPER, 1, 60_000_000_000 + nth as u64 * 1_000_000, options.sleeper_threads.max(1));
        }
        machine
    }

    /// Starts a process whose first role has `times` as many threads as the table says.
    fn start(&mut self, program: &'static Program, ppid: u32, start_ns: u64, times: u32) -> usize {
        self.next_id += 1 + self.random.below(7) as u32;
        let key = ProcessKey { tgid: self.next_id, start_ns };
        let kernel = program.cmdline.is_empty();
        let mut threads = Vec::new();
        for (nth, role) in program.roles.iter().enumerate() {
            let count = role.threads * if nth == 0 { times } else { 1 };
            threads.extend((0..count).map(|_| Thread {
                key: ThreadKey { tid: 0, start_ns },
                role,
                comm: if role.comm.is_empty() { program.comm } else { role.comm }.to_owned(),
                cpu: 0,
                since_ns: start_ns,
                state: role.waits.first().map_or(State::Other, |wait| wait.0),
                dozes: program.comm == SLEEPER.comm,
            }));
        }
        for (nth, thread) in (0..).zip(&mut threads) {
            thread.key.tid = key.tgid + nth;
            thread.cpu = self.random.below(self.cpus.into()) as u32;
        }
        self.next_id += threads.len() as u32;
        let ppid = if kernel { 2 } else { ppid };
        self.processes.push(Process { key, ppid, program, threads, left: None, told: false });
        self.processes.len() - 1
    }

    /// The next tick, without the symbols of its new frames, which stay in `stacks`.
    pub fn tick(&mut self, len_ns: u64) -> Tick {
        self.ticks += 1;
        let span = Span {
            start_ns: self.now_ns,
            end_ns: self.now_ns + len_ns,
            wall_ns: STARTED_WALL_NS + (self.now_ns - STARTED_NS),
        };
        let mut making = Making {
            tick: Tick { span, ..Tick::default() },
            granted: Vec::new(),
            running: vec![None; self.cpus as usize],
        };
        making.tick.cpus =
            (0..self.cpus).map(|id| CpuTick { id, node: id % self.nodes, ..CpuTick::default() }).collect();
        making.tick.nodes = (0..self.nodes).map(|id| self.node(id)).collect();
        making.tick.disks = vec![disk(254 << 20, "vda"), disk(259 << 20, "nvme0n1")];
        self.spawn(&mut making);
        making.granted = self.granted();
        let mut processes = std::mem::take(&mut self.processes);
        processes.iter_mut().for_each(|process| self.process(process, &mut making));
        processes.retain(|process| process.left != Some(0));
        self.processes = processes;
        self.now_ns = span.end_ns;
        self.finish(making)
    }

    fn spawn(&mut self, making: &mut Making) {
        let span = making.tick.span;
        let parents: Vec<(ProcessKey, f64)> = self.processes.iter().map(|p| (p.key, p.program.spawns)).collect();
        for (parent, spawns) in parents.into_iter().filter(|(_, spawns)| *spawns > 0.0) {
            for _ in 0..self.random.whole(spawns) {
                let at_ns = span.start_ns + self.random.below(span.len_ns() / 2);
                let child = self.start(&COMPILER, parent.tgid, at_ns, 1);
                let life = 1 + self.random.below(4) as u32;
                let process = &mut self.processes[child];
                process.left = Some(life);
                let event =
                    |at_ns, comm: &str, what| Event { at_ns, process: process.key, comm: comm.to_owned(), what };
                making.tick.events.push(event(at_ns, "make", Life::Fork { parent: parent.tgid }));
                making.tick.events.push(event(at_ns + 900_000, COMPILER.comm, Life::Exec));
            }
        }
    }

    /// By CPU, the share of what is wanted that there is.
    fn granted(&self) -> Vec<f64> {
        let mut wanted = vec![0.0; self.cpus as usize];
        for thread in self.processes.iter().flat_map(|process| &process.threads) {
            wanted[thread.cpu as usize] += thread.role.busy * 1.25;
        }
        wanted.into_iter().map(|wanted: f64| (0.96 / wanted.max(0.01)).min(1.0)).collect()
    }

    fn process(&mut self, process: &mut Process, making: &mut Making) {
        process.left = process.left.map(|left| left.saturating_sub(1));
        if !process.told
            || self.ticks.is_multiple_of(5) && process.left.is_none() && process.program.roles[0].busy > 0.0
        {
            making.tick.processes.push(self.facts(process));
            process.told = true;
        }
        let exits = process.left == Some(0);
        let mut threads = std::mem::take(&mut process.threads);
        for thread in &mut threads {
            self.thread(process, thread, exits, making);
        }
        process.threads = threads;
        if exits {
            let status = if self.random.chance(0.1) { 1 << 8 } else { 0 };
            let (at_ns, comm) = (making.tick.span.end_ns - 1_000_000, process.program.comm.to_owned());
            making.tick.events.push(Event { at_ns, process: process.key, comm, what: Life::Exit { status } });
        }
    }

    fn facts(&mut self, process: &Process) -> ProcessFacts {
        let program = process.program;
        let kernel = program.cmdline.is_empty();
        let rss_bytes = (self.random.about(program.rss_mib as f64, 0.02) * MIB as f64) as u64 / 4096 * 4096;
        ProcessFacts {
            key: process.key,
            ppid: process.ppid,
            comm: program.comm.to_owned(),
            cmdline: (!kernel).then(|| program.cmdline.iter().map(|arg| (*arg).to_owned()).collect()),
            uid: program.uid,
            cgroup: Some(if kernel { "/".to_owned() } else { format!("/system.slice/{}.service", program.comm) }),
            kernel,
            rss_bytes: (!kernel).then_some(rss_bytes),
            virtual_bytes: (!kernel).then_some(rss_bytes * 3),
            exe: (!kernel).then(|| format!("/usr/bin/{}", program.comm)),
            inner_pid: None,
            node_bytes: (self.nodes > 1 && !kernel).then(|| spread(rss_bytes, self.nodes)),
        }
    }

    fn thread(&mut self, process: &Process, thread: &mut Thread, exits: bool, making: &mut Making) {
        let span = making.tick.span;
        let start_ns = span.start_ns.max(thread.key.start_ns);
        let end_ns = if exits { span.end_ns - 1_000_000 } else { span.end_ns };
        let lived = end_ns.saturating_sub(start_ns);
        let wakes = !thread.dozes || self.random.chance(0.01);
        let mut tick = ThreadTick {
            key: thread.key,
            process: process.key,
            comm: thread.comm.clone(),
            syscall: thread.state.is_blocked().then_some(202),
            ..ThreadTick::default()
        };
        let role = thread.role;
        if wakes && (thread.dozes || role.busy > 0.0) {
            self.run(thread, lived, &mut tick, making);
        }
        let off = lived - tick.ns.on_cpu() - tick.ns.runnable();
        self.wait(process, role, off, &mut tick, making);
        self.on_cpu_stacks(process, &tick, making);
        self.requests(process, &tick, making);
        self.stand(thread, &mut tick, exits, making);
        making.tick.threads.push(tick);
    }

    /// Time on a CPU and waiting for one.
    fn run(&mut self, thread: &mut Thread, lived: u64, tick: &mut ThreadTick, making: &mut Making) {
        if self.random.chance(0.03) {
            thread.cpu = self.random.below(self.cpus.into()) as u32;
            tick.migrations = 1;
        }
        let (role, cpu) = (thread.role, thread.cpu as usize);
        let busy = if thread.dozes { 0.0002 } else { role.busy };
        let wanted = self.random.about(busy, 0.25).min(1.0) * lived as f64;
        let used = making.tick.cpus[cpu].user_ns + making.tick.cpus[cpu].kernel_ns;
        let room = (making.tick.span.len_ns() / 100 * 97).saturating_sub(used);
        let on_cpu = ((wanted * making.granted[cpu]) as u64).min(room).min(lived);
        let runnable = ((wanted * 1.02) as u64).saturating_sub(on_cpu).min(lived - on_cpu);
        let kernel = (on_cpu as f64 * self.random.about(role.kernel, 0.1).min(1.0)) as u64;
        let woken = (runnable as f64 * self.random.unit()) as u64;
        tick.ns[State::User] = on_cpu - kernel;
        tick.ns[State::Kernel] = kernel;
        tick.ns[State::Woken] = woken;
        tick.ns[State::Preempted] = runnable - woken;
        tick.minor_faults = self.random.below(on_cpu / 4_000_000 + 1);
        tick.involuntary = (tick.ns[State::Preempted] / 4_000_000) as u32 + u32::from(runnable > woken);
        if self.nodes > 1 {
            tick.node_ns = vec![0; self.nodes as usize];
            tick.node_ns[(thread.cpu % self.nodes) as usize] = on_cpu;
        }
        let row = &mut making.tick.cpus[cpu];
        row.user_ns += on_cpu - kernel;
        row.kernel_ns += kernel;
        row.runnable_ns += runnable;
    }

    /// Time off the CPU, by what it waits for, and the switches that make it.
    fn wait(&mut self, process: &Process, role: &Role, off: u64, tick: &mut ThreadTick, making: &mut Making) {
        let mut left = off;
        for (nth, wait) in role.waits.iter().enumerate() {
            let &(state, share, typical_us, stack) = wait;
            let last = nth + 1 == role.waits.len();
            let ns = if last { left } else { ((off as f64 * self.random.about(share, 0.2)) as u64).min(left) };
            left -= ns;
            tick.ns[state] += ns;
            let ended = if tick.ns.on_cpu() > 0 { self.random.whole(ns as f64 / (typical_us * 1200.0)) } else { 0 };
            tick.voluntary += ended as u32;
            record(&mut tick.off_cpu, &mut self.random, ended, typical_us * 1000.0, ns);
            if state == State::Fault {
                tick.major_faults += ended;
            }
            self.blocked_stack(process, (state, stack), (ns, ended), making);
        }
        tick.wakeups = tick.voluntary;
        let waits = u64::from(tick.wakeups + tick.involuntary);
        let runnable = tick.ns.runnable();
        record(&mut tick.runq, &mut self.random, waits, runnable as f64 / waits.max(1) as f64, runnable);
        let on_cpu = tick.ns.on_cpu();
        record(&mut tick.slice, &mut self.random, waits, on_cpu as f64 / waits.max(1) as f64, on_cpu);
    }

    fn blocked_stack(
        &mut self,
        process: &Process,
        (state, stack): (State, &str),
        (ns, ended): (u64, u64),
        making: &mut Making,
    ) {
        // One wait in twenty is over budget; who never woke was never walked.
        let walked = if self.random.chance(0.05) { 0 } else { ns / 100 * self.random.about(95.0, 0.05) as u64 };
        if walked > 0 && ended > 0 {
            let stack = self.stacks.intern(stack, 0, process.program.end);
            let (process, lens) = (process.key, Lens::Blocked(state));
            making.tick.stacks.push(StackWeight { process, lens, stack, weight: walked, count: ended });
        }
    }

    fn on_cpu_stacks(&mut self, process: &Process, tick: &ThreadTick, making: &mut Making) {
        let samples = self.random.whole(tick.ns.on_cpu() as f64 * f64::from(SAMPLE_HZ) / 1e9);
        let on_cpu = process.program.on_cpu;
        for _ in 0..samples {
            let Some(nth) = self.random.pick(on_cpu.iter().map(|(weight, _)| *weight)) else { return };
            let stack = self.stacks.intern(on_cpu[nth].1, self.random.below(3), process.program.end);
            let (key, lens) = (process.key, Lens::OnCpu);
            let weights = &mut making.tick.stacks;
            match weights.iter_mut().find(|have| have.process == key && have.lens == lens && have.stack == stack) {
                Some(have) => (have.weight, have.count) = (have.weight + 1, have.count + 1),
                None => weights.push(StackWeight { process: key, lens, stack, weight: 1, count: 1 }),
            }
        }
    }

    /// Block requests: about as many as there were waits for a disk.
    fn requests(&mut self, process: &Process, tick: &ThreadTick, making: &mut Making) {
        let count = tick.ns[State::Disk] / 4_000_000;
        if count == 0 {
            return;
        }
        let disk = usize::from(process.program.comm != "postgres");
        let op = if self.random.chance(0.6) { DiskOp::Read } else { DiskOp::Write };
        let (queued, device) = (40_000.0, if disk == 0 { 1_900_000.0 } else { 140_000.0 });
        let mut io = ProcessIo { process: process.key, op, requests: count, bytes: 0, latency: Hist::default() };
        for _ in 0..count {
            let bytes = 4096 << self.random.below(6);
            let (queued_ns, device_ns) = (self.random.latency(queued), self.random.latency(device));
            io.bytes += bytes;
            io.latency.record(queued_ns + device_ns);
            let row = &mut making.tick.disks[disk];
            let ops = &mut row.ops[op as usize];
            ops.requests += 1;
            ops.bytes += bytes;
            ops.queued.record(queued_ns);
            ops.device.record(device_ns);
            ops.size.record(bytes);
            if queued_ns + device_ns > 8_000_000 {
                let end_ns = making.tick.span.start_ns + self.random.below(making.tick.span.len_ns());
                let (sector, dev) = (self.random.below(1 << 31), row.dev);
                let (process, comm) = (process.key, tick.comm.clone());
                making.tick.slow_requests.push(SlowRequest {
                    end_ns,
                    dev,
                    op,
                    sector,
                    bytes,
                    queued_ns,
                    device_ns,
                    process,
                    comm,
                });
            }
        }
        making.tick.io.push(io);
    }

    /// Where the thread stands at the end of the tick.
    fn stand(&mut self, thread: &mut Thread, tick: &mut ThreadTick, exits: bool, making: &mut Making) {
        let (end_ns, cpu) = (making.tick.span.end_ns, thread.cpu as usize);
        tick.cpu = thread.cpu;
        if !exits && tick.ns.on_cpu() > 0 {
            let share = tick.ns.on_cpu() as f64 / making.tick.span.len_ns().max(1) as f64;
            let blocked = thread.role.waits.iter().max_by(|a: &&Wait, b| a.1.total_cmp(&b.1));
            let (state, for_ns) = match making.running[cpu] {
                None if self.random.chance(share) => (State::User, self.random.latency(700_000.0)),
                Some(_) if tick.ns.runnable() > 0 && self.random.chance(share) => (State::Preempted, 2_000_000),
                _ => blocked.map_or((State::Other, 0), |wait| (wait.0, self.random.latency(wait.2 * 400.0))),
            };
            if state == State::User {
                making.running[cpu] = Some(thread.key);
            }
            thread.state = state;
            thread.since_ns = end_ns.saturating_sub(for_ns).max(thread.key.start_ns);
        }
        tick.now = (!exits).then_some(thread.state);
        tick.since_ns = thread.since_ns;
        tick.syscall = (!exits && thread.state.is_blocked()).then_some(202);
        let row = &mut making.tick.cpus[cpu];
        row.runq.merge(&tick.runq);
        row.switches += u64::from(tick.voluntary + tick.involuntary);
    }

    fn node(&self, id: u32) -> NodeTick {
        let (total_bytes, several) = (8192 * MIB / u64::from(self.nodes), self.nodes > 1);
        NodeTick {
            id,
            total_bytes,
            free_bytes: total_bytes / 4,
            numa_hit: several.then_some(41_000),
            numa_miss: several.then_some(130),
            ..NodeTick::default()
        }
    }

    fn finish(&mut self, making: Making) -> Tick {
        let Making { mut tick, running, .. } = making;
        let len_ns = tick.span.len_ns();
        for (row, running) in tick.cpus.iter_mut().zip(running) {
            let busy = row.user_ns + row.kernel_ns;
            row.irq_ns = len_ns / 400;
            row.softirq_ns = (len_ns / 150).min(len_ns.saturating_sub(busy + row.irq_ns));
            row.idle_ns = len_ns.saturating_sub(busy + row.irq_ns + row.softirq_ns);
            row.samples = busy * u64::from(SAMPLE_HZ) / 1_000_000_000;
            row.running = running;
            row.mhz = Some(2900 + self.random.below(200) as u32);
            tick.nodes[row.node as usize].on_cpu_ns += busy;
        }
        if self.nodes > 1 {
            (tick.nodes[0].moved_in, tick.nodes[1].moved_out) = (2, 2);
        }
        for disk in &mut tick.disks {
            disk.in_flight = self.random.below(4);
            disk.oldest_ns = if disk.in_flight > 0 { self.random.latency(3_000_000.0) } else { 0 };
        }
        tick.slow_requests.sort_by_key(|request| std::cmp::Reverse(request.queued_ns + request.device_ns));
        tick.slow_requests.truncate(16);
        tick.events.sort_by_key(|event| event.at_ns);
        tick.host = self.host(tick.span.end_ns);
        tick.cost = cost(len_ns, tick.threads.len() as u64);
        tick.watch = watch(len_ns);
        if self.ticks == 1 {
            self.stacks.new.users = USERS.iter().map(|(uid, name)| (*uid, (*name).to_owned())).collect();
        }
        tick.names = std::mem::take(&mut self.stacks.new);
        tick
    }

    fn host(&mut self, uptime_ns: u64) -> Host {
        Host {
            load: [self.random.about(2.4, 0.1) as f32, 2.1, 1.8],
            memory_total: 8192 * MIB,
            memory_available: self.random.about(3000.0, 0.01) as u64 * MIB,
            swap_total: 1024 * MIB,
            swap_free: 1000 * MIB,
            uptime_ns,
            boot_offset_ns: 0,
        }
    }
}

const USERS: &[(u32, &str)] = &[
    (0, "root"),
    (26, "postgres"),
    (33, "www"),
    (110, "redis"),
    (1001, "ann"),
    (1002, "search"),
    (1666, "ev\x1b[5mil"),
];

fn disk(dev: u32, name: &str) -> DiskTick {
    DiskTick { dev, name: name.to_owned(), ..DiskTick::default() }
}

fn spread(bytes: u64, nodes: u32) -> Vec<u64> {
    let other = bytes / 5 / u64::from(nodes);
    (0..nodes).map(|node| if node == 0 { bytes - other * u64::from(nodes - 1) } else { other }).collect()
}

fn cost(len_ns: u64, threads: u64) -> Cost {
    let program = |name: &str, runs: u64, ns: u64| ProgramCost { name: name.to_owned(), runs, ns: runs * ns };
    let collector = |name: &str, events, ns, map_bytes| Collector {
        name: name.to_owned(),
        events,
        ns,
        map_bytes,
        in_user_space: false,
    };
    Cost {
        user_space_ns: len_ns / 500 + threads * 600,
        rss_bytes: 38 * MIB,
        map_bytes: 21 * MIB,
        symbol_bytes: 7 * MIB,
        programs: vec![
            program("sched_switch", 9_000, 55),
            program("sched_wakeup", 4_500, 48),
            program("oncpu", 150, 2_100),
        ],
        late_ns: 1_400_000,
        clockwork: Clockwork::Own,
        threads: vec![
            ThreadCost { role: "collector".into(), ns: len_ns / 900 },
            ThreadCost { role: "model and screen".into(), ns: len_ns / 1200 },
        ],
        collectors: vec![
            collector("sched", 13_500, Some(702_000), 14 * MIB),
            collector("stacks", 90, Some(9_000), 6 * MIB),
            collector("oncpu", 150, Some(315_000), MIB),
            Collector { in_user_space: true, ..collector("tasks", threads, Some(threads * 600), 0) },
        ],
        others: Some(vec![OtherProgram { id: 12, name: "tcp_probe".into(), runs: 40, ns: 40_000 }]),
    }
}

fn watch(len_ns: u64) -> Watch {
    let lever = |what, asked| Lever { what, now: asked, asked };
    let governor = Governor {
        budget_ppm: 10_000,
        cost_ppm: 2_300,
        levers: vec![lever(LeverKind::Walks, 1000), lever(LeverKind::Rate, SAMPLE_HZ)],
        ..Governor::default()
    };
    let (ours, theirs) = (len_ns / 100_000, len_ns / 99_000);
    let check = Check { what: Counter::Switches, ours, theirs, hidden: 0, verdict: Verdict::Agrees };
    Watch { governor: Some(governor), checks: vec![check] }
}

/// Adds `count` latencies near `typical`, drawing no more than a few; none longer than `longest`, all together at most
/// as long.
fn record(hist: &mut Hist, random: &mut Random, count: u64, typical: f64, longest: u64) {
    let draws = count.min(16);
    for nth in 0..draws {
        let value = random.latency(typical).min(longest);
        let weight = count / draws + u64::from(nth < count % draws);
        hist.add(bucket_of(value), weight);
        hist.max = hist.max.max(value);
        hist.sum = hist.sum.saturating_add(value.saturating_mul(weight)).min(longest);
    }
}
