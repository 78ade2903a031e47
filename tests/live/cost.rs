//! What sberf says that it costs, against what is measured from outside.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::query::ProgInfoIter;
use sberf::collect::Request;
use sberf::tick::{Clockwork, Tick};

use crate::machine::{machine, now_ns, sleep_ms};
use crate::recording::Recording;
use crate::workload::Workload;

/// The kernel counts what BPF programs cost while this lives.
fn statistics() -> OwnedFd {
    // SAFETY: takes a number, gives a descriptor or a negative error.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    assert!(fd >= 0, "statistics: {}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A program that does nothing at each switch: what the kernel's statistics say of it is what they cost themselves.
struct Nothing {
    program: OwnedFd,
    _attached: OwnedFd,
}

impl Nothing {
    fn attach() -> Nothing {
        let instruction = |code: u8| libbpf_sys::bpf_insn { code, ..Default::default() };
        let returns_zero = [instruction(0xb7), instruction(0x95)];
        let kind = libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT;
        // SAFETY: names that end, and as many instructions as are said to be; no options.
        let program = unsafe {
            let (name, licence) = (c"nothing_at_all".as_ptr(), c"GPL".as_ptr());
            let fd = libbpf_sys::bpf_prog_load(kind, name, licence, returns_zero.as_ptr(), 2, std::ptr::null_mut());
            assert!(fd >= 0, "an empty program: {}", std::io::Error::from_raw_os_error(-fd));
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: a name that ends, and a descriptor that is open; what comes back is ours.
        let attached = unsafe {
            let fd = libbpf_sys::bpf_raw_tracepoint_open(c"sched_switch".as_ptr(), program.as_raw_fd());
            assert!(fd >= 0, "attaching it: {}", std::io::Error::from_raw_os_error(-fd));
            OwnedFd::from_raw_fd(fd)
        };
        Nothing { program, _attached: attached }
    }

    /// ns that the kernel's statistics say it took each time.
    fn ns_per_run(&self) -> f64 {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd())).expect("fdinfo");
        let number = |key: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(key)).expect("statistics");
            line.trim().parse().expect("a number")
        };
        number("run_time_ns:") / number("run_cnt:").max(1.0)
    }
}

/// Ids of the BPF programs to which this process has a descriptor.
fn held() -> Vec<u32> {
    let id = |entry: std::io::Result<std::fs::DirEntry>| {
        let info = std::fs::read_to_string(entry.ok()?.path()).ok()?;
        info.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
    };
    std::fs::read_dir("/proc/self/fdinfo").expect("descriptors").filter_map(id).collect()
}

/// What this process used so far, seen from outside: CPU time, and ns in its BPF programs but for those that it runs itself.
#[derive(Debug)]
struct Outside {
    cpu_ns: u64,
    bpf_ns: u64,
}

impl Outside {
    fn read() -> Outside {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks: u64 = [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("a number")).iter().sum();
        let held = held();
        let ours = ProgInfoIter::default().filter(|info| held.contains(&info.id));
        let elsewhere = ours.filter(|info| {
            !["tasks", "some_tasks", "nothing", "nothing_at_all", "mappings", "name_code"]
                .contains(&&*info.name.to_string_lossy())
        });
        Outside { cpu_ns: ticks * 10_000_000, bpf_ns: elsewhere.map(|info| info.run_time_ns).sum() }
    }
}

/// A load that only switches, watched by sberf and from outside over the same ticks.
fn watched(own_clock: bool) -> (Vec<Tick>, Outside) {
    let recording = Recording::with(|options| options.own_clock = own_clock);
    let _statistics = statistics();
    let mut pairs = Workload::prepare("pairs", &["4"]);
    pairs.go();
    sleep_ms(500);
    let next_tick = || {
        let asked = now_ns();
        recording.request(Request::EndTick);
        recording.wait_past(asked);
        (asked, Outside::read())
    };
    let (from, before) = next_tick();
    sleep_ms(2500);
    let (to, after) = next_tick();
    pairs.wait_done();
    let held = held();
    let seen = recording.stop();
    let of_others = seen.ticks().filter_map(|tick| tick.cost.others.as_ref()).flatten();
    let mistaken: Vec<_> = of_others.filter(|other| held.contains(&other.id)).collect();
    assert!(mistaken.is_empty(), "ours, and taken for somebody else's: {mistaken:?}");
    // The first reading came after the tick that ended at `from` or a moment later, the second likewise.
    let within = |tick: &&Tick| tick.span.start_ns >= from && tick.span.start_ns < to;
    let ticks: Vec<Tick> = seen.ticks().filter(within).cloned().collect();
    (ticks, Outside { cpu_ns: after.cpu_ns - before.cpu_ns, bpf_ns: after.bpf_ns - before.bpf_ns })
}

/// What sberf said of these ticks.
fn said(ticks: &[Tick]) -> Outside {
    Outside {
        cpu_ns: ticks.iter().map(|tick| tick.cost.user_space_ns).sum(),
        bpf_ns: ticks.iter().map(|tick| tick.cost.bpf_ns().expect("known")).sum(),
    }
}

#[test]
fn what_it_says_of_itself_is_what_is_seen_from_outside() {
    let Some(_machine) = machine() else { return };
    let (ticks, outside) = watched(false);
    let said = said(&ticks);
    if let Some(tick) = ticks.iter().find(|tick| tick.cost.clockwork != Clockwork::Kernel) {
        let switches: Vec<u64> = tick.cpus.iter().map(|cpu| cpu.switches).collect();
        panic!("the kernel counted all the time: {:?}, switches {switches:?}, {:?}", tick.span, tick.cost);
    }
    let off = said.bpf_ns as f64 / outside.bpf_ns as f64 - 1.0;
    assert!(off.abs() <= 0.10, "BPF programs: {said:?}, from outside {outside:?}");
    // Clock ticks of 10 ms on one side.
    let apart = said.cpu_ns.abs_diff(outside.cpu_ns);
    assert!(apart <= outside.cpu_ns / 10 + 20_000_000, "CPU time: {said:?}, from outside {outside:?}");
    for tick in &ticks {
        let threads: u64 = tick.cost.threads.iter().map(|thread| thread.ns).sum();
        let whole = tick.cost.user_space_ns;
        assert!(threads <= whole + whole / 10 + 2_000_000, "threads are parts of the whole: {:?}", tick.cost);
        assert!(tick.cost.others.is_some() || tick == &ticks[0], "those of others are counted, too");
        let sched = tick.cost.collectors.iter().find(|collector| collector.name == "sched").expect("it is on");
        assert!(sched.ns.is_some_and(|ns| ns > 0) && sched.map_bytes > 0);
    }
}

/// The kernel's statistics cost 30 to 60 ns a run, by machine, and count them in; the programs' own clock must not miss more than that
/// and the way into a program.
#[test]
fn its_own_clock_agrees_with_the_kernels() {
    let Some(_machine) = machine() else { return };
    let nothing = Nothing::attach();
    let (ticks, outside) = watched(true);
    let said = said(&ticks);
    assert!(ticks.iter().all(|tick| tick.cost.clockwork == Clockwork::Own));
    let runs: u64 = ticks.iter().flat_map(|tick| &tick.cost.programs).map(|program| program.runs).sum();
    let each = (outside.bpf_ns as f64 - said.bpf_ns as f64) / runs as f64 - nothing.ns_per_run();
    assert!(runs > 100_000, "{runs}");
    assert!((-40.0..25.0).contains(&each), "{each:.1} ns a run that it does not know of: {said:?}, {outside:?}");
}
