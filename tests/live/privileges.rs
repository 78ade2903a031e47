//! What doctor says, row by row, against what then happens: sberf is started with each of its capabilities taken away, with
//! none, with those that a file grants, under a filter of system calls, and without BTF. A program of another user runs all the
//! while; what of it shows in ticks and stacks must be what doctor promised.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::compile::workload;
use crate::confined::{Confinement, Lodging};
use crate::machine::{machine, skipped};

const DAC_READ_SEARCH: u32 = 2;
const SYS_PTRACE: u32 = 19;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const CHECKPOINT_RESTORE: u32 = 40;
/// All that full function takes.
const ALL: u64 =
    1 << BPF | 1 << PERFMON | 1 << SYS_PTRACE | 1 << DAC_READ_SEARCH | 1 << SYSLOG | 1 << CHECKPOINT_RESTORE;

/// Signals that nothing but BPF has, and those of which procfs has a part.
const BY_BPF: [&str; 5] = ["runq_latency", "samples", "user_stacks", "blocked_stacks", "life_events"];
const BY_PROCFS_TOO: [&str; 3] = ["state_time", "threads", "disk_latency"];

/// Signals that must be less than full, with their grades, and words of the reason and of what mends it.
type Expected<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

/// A row of the table: how it is called, how sberf is started, and what is expected.
fn check(name: &str, lodging: &Lodging, confinement: &Confinement, (lacking, why, mend): Expected<'_>) {
    // Side by side: each loads for itself, and most of the time is spent in that.
    let (report, first) = std::thread::scope(|scope| {
        let report = scope.spawn(|| doctor(lodging, confinement));
        let first = Seen::of(lodging, confinement, "4");
        (report.join().expect("doctor's report"), first)
    });
    let grades = grades(&report);
    let procfs_only = lacking.iter().any(|(signal, _)| *signal == "basis");
    for (signal, grade) in &grades {
        let expected = lacking.iter().find(|(lacks, _)| lacks == signal).map_or("full", |(_, grade)| grade);
        let fits = match signal.as_str() {
            "bpf_statistics" => true,
            "numa_moves" if grade == "nothing" => true,
            signal if procfs_only && BY_BPF.contains(&signal) => grade == "missing",
            signal if procfs_only && BY_PROCFS_TOO.contains(&signal) => grade == "reduced",
            _ if procfs_only => true,
            _ => grade == expected,
        };
        assert!(fits, "{name}: {signal} is {grade}, not {expected}: {report}");
    }
    let top = if procfs_only {
        "procfs_only"
    } else if lacking.is_empty() {
        "fully"
    } else {
        "partly"
    };
    assert_eq!(report["top"], top, "{name}");
    for (signal, _) in lacking.iter().filter(|(signal, _)| *signal != "basis") {
        assert_reason(name, &report, signal, why, mend);
    }
    if procfs_only {
        assert_reason(name, &report, "state_time", why, mend);
    }
    assert_happens(name, lodging, confinement, &grades, first);
}

/// The same where not every machine lets one do that to a process.
fn check_if_possible(name: &str, lodging: &Lodging, confinement: &Confinement, expected: Expected<'_>) {
    match lodging.run(confinement, &["--version"]) {
        Ok(_) => check(name, lodging, confinement, expected),
        Err(error) => skipped(format!("{name}: {error}")),
    }
}

/// Some source of the signal was refused, or gives less, for that reason.
fn assert_reason(name: &str, report: &Value, signal: &str, why: &str, mend: &str) {
    let signals = report["signals"].as_array().unwrap();
    let signal = signals.iter().find(|object| object["name"] == signal).unwrap();
    let says = |source: &Value| {
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        text("why").contains(why) && text("remedy").contains(mend)
    };
    assert!(signal["sources"].as_array().unwrap().iter().any(says), "{name}: no {why:?}, {mend:?} in {signal}");
}

fn doctor(lodging: &Lodging, confinement: &Confinement) -> Value {
    let output = lodging.run(confinement, &["doctor", "--json"]).expect("sberf starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let code = match report["top"].as_str() {
        Some("fully") => 0,
        Some("partly") => 3,
        _ => 4,
    };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    report
}

fn grades(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    report["signals"].as_array().unwrap().iter().map(|signal| (text(&signal["name"]), text(&signal["grade"]))).collect()
}

/// `top` says the same of itself, and what it shows bears it out.
fn assert_happens(
    name: &str,
    lodging: &Lodging,
    confinement: &Confinement,
    grades: &BTreeMap<String, String>,
    first: Seen,
) {
    // Names come from workers, for which a busy machine may have no time: then there is more of it.
    let more = ["12", "60"].into_iter().map(|ticks| Seen::of(lodging, confinement, ticks));
    let mut differs = None;
    for seen in std::iter::once(first).chain(more) {
        assert_eq!(&seen.signals, grades, "{name}: doctor and top do not agree");
        differs = seen.differs(grades);
        if differs.is_none() {
            return;
        }
    }
    panic!("{name}: {differs:?}: {grades:?}");
}

/// What a run of `top --json` has shown.
struct Seen {
    signals: BTreeMap<String, String>,
    ticks: Vec<Value>,
    /// On-CPU stacks, folded.
    stacks: String,
}

impl Seen {
    fn of(lodging: &Lodging, confinement: &Confinement, ticks: &str) -> Seen {
        let capture = lodging.out().join("x.sberf");
        let capture = capture.to_str().unwrap();
        let args = ["top", "--json", "--count", ticks, "-d", "0.3", "--write", capture];
        let output = lodging.run(confinement, &args).expect("sberf starts");
        assert!(output.status.success(), "{output:?}");
        let ticks: Vec<Value> = lines(&output).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = ticks.last().expect("a tick");
        let signals = last["signals"].as_object().unwrap().iter();
        let signals = signals.map(|(name, grade)| (name.clone(), grade.as_str().unwrap().to_owned())).collect();
        let stacks = lodging.run(&Confinement::default(), &["export", capture]).expect("sberf starts");
        std::fs::remove_file(capture).expect("a capture");
        Seen { signals, ticks, stacks: String::from_utf8_lossy(&stacks.stdout).into_owned() }
    }

    /// The first signal that is not what its grade says.
    fn differs(&self, grades: &BTreeMap<String, String>) -> Option<String> {
        let is = |name: &str, grade: &str| grades[name] == grade;
        let by_bpf = self.ticks.iter().all(|tick| tick["basis"] == "bpf");
        let sum = |of: fn(&Value) -> u64| self.ticks.iter().map(of).sum::<u64>();
        let of_cpus = |field: &'static str| {
            self.ticks
                .iter()
                .flat_map(|tick| tick["cpus"].as_array().unwrap())
                .filter_map(|cpu| cpu[field].as_u64())
                .sum::<u64>()
        };
        let waits = self.ticks.iter().flat_map(|tick| tick["cpus"].as_array().unwrap());
        let waits: u64 = waits.filter_map(|cpu| cpu["runq_latency"]["count"].as_u64()).sum();
        let on_cpu = sum(|tick| {
            let all = tick["processes"].as_array().unwrap().iter();
            all.filter(|process| process["comm"] == "split")
                .filter_map(|process| process["on_cpu_user_ns"].as_u64())
                .sum()
        });
        let reasons = self.ticks.iter().flat_map(|tick| tick["processes"].as_array().unwrap());
        let reasons: u64 = reasons.filter_map(|process| process["blocked_ns"]["timer"].as_u64()).sum();
        let events: usize = self.ticks.iter().filter_map(|tick| tick["events"].as_array()).map(Vec::len).sum();
        let timed = self.ticks.iter().flat_map(|tick| tick["disks"].as_array().unwrap());
        let timed = timed.filter(|disk| disk["read"]["device"].is_object()).count();
        let disks = self.ticks[0]["disks"].as_array().is_some_and(|disks| !disks.is_empty());
        let named = self.stacks.lines().any(|line| line.contains(";seventy ") || line.contains(";seventy;"));
        let kernel =
            self.stacks.contains("_[k]") && self.stacks.lines().any(|line| line.split(';').any(is_kernel_name));
        let rows: [(&str, bool, bool); 9] = [
            ("the basis", is("state_time", "full"), by_bpf),
            ("time on a CPU", true, on_cpu > 0),
            ("reasons of waits", is("state_time", "full"), reasons > 0),
            ("waits for a CPU", is("runq_latency", "full"), waits > 0),
            ("samples", is("samples", "full"), of_cpus("samples") > 0),
            ("process events", is("life_events", "full"), events > 0),
            ("times of requests", is("disk_latency", "full") && disks, timed > 0),
            ("names of the kernel", is("samples", "full") && is("kernel_names", "full"), kernel),
            // Without the right to look into processes of others only files that are known otherwise have names.
            ("names of another user's program", is("samples", "full") && is("process_facts", "full"), named),
        ];
        rows.iter()
            .find(|(_, promised, seen)| promised != seen)
            .map(|(what, promised, seen)| format!("{what}: promised {promised}, seen {seen}"))
    }
}

/// A frame of the kernel that has a name, not an address.
fn is_kernel_name(frame: &str) -> bool {
    frame.contains("_[k]") && !frame.contains("[kernel]+0x")
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Two functions that share a CPU, and a shell that forks, sleeps and enters the kernel, of this user: root.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Busy {
        let mut split = Command::new(workload("split"));
        split.arg("600");
        let mut shell = Command::new("sh");
        shell.args(["-c", "while :; do head -c 4000000 /dev/zero | cat > /dev/null; sleep 0.01; done"]);
        let start = |command: &mut Command| {
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a workload")
        };
        let mut children = vec![start(&mut split), start(&mut shell)];
        // Whatever it waits for on its input, it is told.
        if let Some(stdin) = &mut children[0].stdin {
            drop(std::io::Write::write_all(stdin, b"\n"));
        }
        Busy(children)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn as_nobody(capabilities: u64) -> Confinement {
    Confinement { capabilities: Some(capabilities), ..Confinement::default() }
}

fn without(bit: u32) -> Confinement {
    as_nobody(ALL & !(1 << bit))
}

fn lodging() -> Option<Lodging> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    if u64::from_str_radix(own.trim(), 16).unwrap_or(0) & ALL != ALL {
        skipped("root lacks capabilities here: there is nothing to be given away");
        return None;
    }
    match Lodging::new() {
        Ok(lodging) => Some(lodging),
        Err(why) => {
            skipped(why);
            None
        }
    }
}

/// Whether anybody who may profile the kernel sees its addresses, too.
fn kernel_addresses_are_open() -> bool {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().parse::<i64>().unwrap_or(2)
    };
    setting("kptr_restrict") == 0 && setting("perf_event_paranoid") <= 1
}

#[test]
fn each_capability_that_is_taken_away_is_missed_as_doctor_says() {
    let Some(_machine) = machine() else { return };
    let Some(lodging) = lodging() else { return };
    let _busy = Busy::start();
    let gone: &[(&str, &str)] = &[("basis", "procfs")];
    let names: &[(&str, &str)] = &[("user_names", "reduced")];
    let others: &[(&str, &str)] =
        &[("user_names", "reduced"), ("user_stacks", "reduced"), ("process_facts", "reduced")];
    let kernel: &[(&str, &str)] = if kernel_addresses_are_open() { &[] } else { &[("kernel_names", "missing")] };
    let rows: [(&str, Confinement, Expected<'_>); 8] = [
        ("all six", as_nobody(ALL), (&[], "", "")),
        ("no CAP_BPF", without(BPF), (gone, "CAP_BPF missing", "setcap cap_bpf+ep")),
        ("no CAP_PERFMON", without(PERFMON), (gone, "CAP_PERFMON missing", "setcap cap_perfmon+ep")),
        ("no CAP_SYS_PTRACE", without(SYS_PTRACE), (others, "CAP_SYS_PTRACE missing", "cap_sys_ptrace")),
        (
            "no CAP_DAC_READ_SEARCH",
            without(DAC_READ_SEARCH),
            (names, "CAP_DAC_READ_SEARCH missing", "cap_dac_read_search"),
        ),
        ("no CAP_SYSLOG", without(SYSLOG), (kernel, "CAP_SYSLOG missing", "cap_syslog")),
        (
            "no CAP_CHECKPOINT_RESTORE",
            without(CHECKPOINT_RESTORE),
            (names, "CAP_CHECKPOINT_RESTORE missing", "cap_checkpoint"),
        ),
        ("none", as_nobody(0), (gone, "CAP_BPF, CAP_PERFMON missing", "setcap cap_bpf,cap_perfmon+ep")),
    ];
    for (name, confinement, expected) in &rows {
        check(name, &lodging, confinement, *expected);
    }
}

#[test]
fn capabilities_of_the_file_are_enough_for_everything() {
    let Some(_machine) = machine() else { return };
    let Some(lodging) = lodging() else { return };
    if let Err(error) = lodging.grant(ALL) {
        return skipped(format!("no capabilities on files here: {error}"));
    }
    let _busy = Busy::start();
    check("file capabilities", &lodging, &as_nobody(0), (&[], "", ""));
    // What was granted and does not come is told apart from what was never granted.
    let held = Confinement { refused: Some(libc::SYS_kexec_load), ..as_nobody(0) };
    let expected: Expected<'_> = (&[("basis", "procfs")], "no_new_privs is set", "NoNewPrivileges=no");
    check("no_new_privs", &lodging, &held, expected);
    let nosuid = Confinement { nosuid: true, ..as_nobody(0) };
    let expected: Expected<'_> = (&[("basis", "procfs")], "mounted nosuid", "without nosuid");
    check_if_possible("nosuid", &lodging, &nosuid, expected);
}

#[test]
fn filters_and_a_lack_of_btf_are_named() {
    let Some(_machine) = machine() else { return };
    let Some(lodging) = lodging() else { return };
    let _busy = Busy::start();
    let gone: &[(&str, &str)] = &[("basis", "procfs")];
    let refused = |call| Confinement { refused: Some(call), ..Confinement::default() };
    check("no bpf()", &lodging, &refused(libc::SYS_bpf), (gone, "seccomp filter", "allows bpf"));
    let unsampled: &[(&str, &str)] = &[("samples", "missing"), ("user_stacks", "missing")];
    let expected = (unsampled, "seccomp filter", "allows perf_event_open");
    check("no perf_event_open()", &lodging, &refused(libc::SYS_perf_event_open), expected);
    let without_btf = Confinement { without_btf: true, ..Confinement::default() };
    let expected = (gone, "/sys/kernel/btf/vmlinux is missing", "-v /sys:/sys:ro");
    check_if_possible("no BTF", &lodging, &without_btf, expected);
    let namespace = Confinement { user_namespace: true, ..Confinement::default() };
    let expected = (gone, "user namespace", "outside of the container");
    check_if_possible("user namespace", &lodging, &namespace, expected);
}
