//! Verdicts on every signal: where it can come from, what is used, and why the rest is not. Made from what loading has shown,
//! and from what [`super::probe`] tries.

use super::privileges::{CAP_SYS_ADMIN, CAP_SYS_PTRACE, Privileges};
use super::probe::{self, Others};
use super::symbols::kernel_symbols_off;
use crate::tick::{Origin, Refusal, Signal, SignalKind, Standing};

/// What loading has shown; `None`: it works.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Walking user stacks by tables.
    pub tables: Option<Refusal>,
    /// Asking the kernel for the mappings of a process.
    pub mappings: Option<Refusal>,
    /// Walking stacks of threads that block.
    pub blocked: Option<Refusal>,
    /// Sampling at all.
    pub samples: Option<Refusal>,
    /// Sampling by hardware cycles.
    pub cycles: Option<Refusal>,
    /// Forks, execs and exits.
    pub life: Option<Refusal>,
    /// Block requests.
    pub block: Option<Refusal>,
    /// Asking the kernel for the name of an address.
    pub names: Option<Refusal>,
    /// NUMA balancing.
    pub numa: Option<Refusal>,
    /// There is but one node.
    pub one_node: bool,
}

/// Of a machine where BPF programs run.
pub fn with_bpf(found: &Found) -> Vec<Signal> {
    let privileges = Privileges::read();
    let others = probe::others();
    let only = |kind, name: &str, refusal: &Option<Refusal>| signal(kind, [source(name, true, refusal)]);
    let cycles = found.samples.clone().or_else(|| found.cycles.clone());
    vec![
        signal(
            SignalKind::StateTime,
            [source("sched_switch (BPF)", true, &None), spare("procfs: stat, schedstat", false)],
        ),
        signal(
            SignalKind::Threads,
            [lists("task iterator (BPF)", true, privileges.explain_pid_namespace()), spare("procfs: lists", false)],
        ),
        only(SignalKind::RunqLatency, "sched_wakeup, sched_switch (BPF)", &None),
        signal(
            SignalKind::Samples,
            [
                source("perf event: hardware cycles (BPF)", true, &cycles),
                source("perf event: cpu-clock (BPF)", true, &found.samples),
            ],
        ),
        user_stacks(found, &privileges, others),
        only(SignalKind::BlockedStacks, "sched_switch (BPF)", &found.blocked),
        signal(
            SignalKind::DiskLatency,
            [source("block_rq_* (BPF)", true, &found.block), source("diskstats: counts and bytes", false, &None)],
        ),
        numa_moves(&found.numa, found.one_node),
        only(SignalKind::LifeEvents, "sched_process_* (BPF)", &found.life),
        signal(
            SignalKind::Mappings,
            [source("mappings iterator (BPF)", true, &found.mappings), source("/proc/PID/maps", false, &None)],
        ),
        kernel_names(&privileges, &found.names),
        user_names(&privileges, others),
        process_facts(&privileges, others),
        statistics(&privileges),
    ]
}

/// Of a machine where none do, for that reason. `run_delay`: procfs tells how long threads wait for a CPU.
pub fn without_bpf(refusal: &Refusal, run_delay: bool, one_node: bool) -> Vec<Signal> {
    let privileges = Privileges::read();
    let others = probe::others();
    let refused = Some(refusal.clone());
    let hidden = privileges.explain_pid_namespace().filter(|_| !privileges.proc_from_above);
    let bpf = |name: &str| source(name, true, &refused);
    let only = |kind, name: &str| signal(kind, [bpf(name)]);
    let no_stacks = |kind, name: &str| signal(kind, [source(name, true, &Some(Refusal::new("no stacks to name", "")))]);
    let times = if run_delay { "procfs: stat, schedstat" } else { "procfs: stat" };
    vec![
        signal(SignalKind::StateTime, [bpf("sched_switch (BPF)"), source(times, false, &None)]),
        signal(SignalKind::Threads, [bpf("task iterator (BPF)"), lists("procfs: lists", false, hidden)]),
        only(SignalKind::RunqLatency, "sched_wakeup, sched_switch (BPF)"),
        only(SignalKind::Samples, "perf event (BPF)"),
        only(SignalKind::UserStacks, "perf event (BPF)"),
        only(SignalKind::BlockedStacks, "sched_switch (BPF)"),
        signal(SignalKind::DiskLatency, [bpf("block_rq_* (BPF)"), source("diskstats: counts and bytes", false, &None)]),
        numa_moves(&refused, one_node),
        only(SignalKind::LifeEvents, "sched_process_* (BPF)"),
        no_stacks(SignalKind::Mappings, "mappings iterator (BPF)"),
        no_stacks(SignalKind::KernelNames, "/proc/kallsyms"),
        no_stacks(SignalKind::UserNames, "mapped files"),
        process_facts(&privileges, others),
        signal(SignalKind::BpfStatistics, [source("kernel statistics", true, &Some("no BPF programs run".into()))]),
    ]
}

fn numa_moves(refusal: &Option<Refusal>, one_node: bool) -> Signal {
    let kind = SignalKind::NumaMoves;
    match one_node {
        true => Signal { kind, sources: Vec::new(), nothing: Some("one node: nothing to move between".into()) },
        false => signal(kind, [source("sched_move_numa, sched_swap_numa (BPF)", true, refusal)]),
    }
}

/// The first source that works is in use, the others after it are spare.
fn signal<const N: usize>(kind: SignalKind, sources: [Origin; N]) -> Signal {
    let mut sources = Vec::from(sources);
    let mut found = false;
    for source in &mut sources {
        let works = matches!(source.standing, Standing::InUse { .. });
        if works && found {
            source.standing = Standing::Spare;
        }
        found |= works;
    }
    Signal { kind, sources, nothing: None }
}

fn source(name: &str, whole: bool, refusal: &Option<Refusal>) -> Origin {
    let standing = match refusal {
        None => Standing::InUse { less: None },
        Some(refusal) => Standing::Refused(refusal.clone()),
    };
    Origin { name: name.into(), whole, standing }
}

/// What lists threads, though not those of other namespaces.
fn lists(name: &str, whole: bool, less: Option<Refusal>) -> Origin {
    Origin { name: name.into(), whole, standing: Standing::InUse { less } }
}

fn spare(name: &str, whole: bool) -> Origin {
    Origin { name: name.into(), whole, standing: Standing::Spare }
}

/// Tables are made of the files of a process, which must be opened for that.
fn user_stacks(found: &Found, privileges: &Privileges, others: Others) -> Signal {
    let mut tables = source("unwind tables (BPF)", true, &found.samples.clone().or_else(|| found.tables.clone()));
    if let (Standing::InUse { less }, Some(errno)) = (&mut tables.standing, no_files(others)) {
        let refusal = privileges.explain_facts(errno);
        let why = format!("tables of what only other users run cannot be made: {}", refusal.why);
        *less = Some(Refusal { why, ..refusal });
    }
    let pointers = source("frame pointers (BPF)", false, &found.samples);
    signal(SignalKind::UserStacks, [tables, pointers])
}

/// What the kernel answered, where files of others cannot be opened in any way.
fn no_files(others: Others) -> Option<i32> {
    others.mapped_files.and(Ok(())).or(others.paths).err()
}

/// Who may not see the list is not told single names either.
fn kernel_names(privileges: &Privileges, refused: &Option<Refusal>) -> Signal {
    let hidden = kernel_symbols_off().map(|why| match why.starts_with("no ") {
        true => Refusal::from(why),
        false => privileges.explain_kernel_addresses(),
    });
    let asked = hidden.clone().or_else(|| refused.clone());
    signal(
        SignalKind::KernelNames,
        [source("address by address (BPF)", true, &asked), source("/proc/kallsyms", true, &hidden)],
    )
}

fn user_names(privileges: &Privileges, others: Others) -> Signal {
    let mapped = others.mapped_files.err().map(|errno| privileges.explain_map_files(errno));
    let paths = others.paths.err().map(|errno| privileges.explain_facts(errno));
    signal(
        SignalKind::UserNames,
        [
            source("mapped files: map_files", true, &mapped),
            source("files by path: exe, root (not deleted ones)", false, &paths),
            source("files of own processes", false, &None),
        ],
    )
}

fn process_facts(privileges: &Privileges, others: Others) -> Signal {
    let refusal = match others.paths {
        _ if privileges.hidepid && !privileges.has(CAP_SYS_PTRACE) => {
            Some(Refusal::new("/proc is mounted with hidepid: processes of others cannot be seen", "CAP_SYS_PTRACE"))
        }
        Ok(()) => None,
        Err(errno) => Some(privileges.explain_facts(errno)),
    };
    signal(
        SignalKind::ProcessFacts,
        [
            source("procfs, of all users", true, &refusal),
            source("procfs, no program nor memory placement of others", false, &None),
        ],
    )
}

/// Programs time themselves; the kernel tells more exactly, of others' programs as well, and makes each run cost more.
fn statistics(privileges: &Privileges) -> Signal {
    // Not tried: having them switched on stops every CPU for a moment.
    let refusal = match (probe::times_bpf(), privileges.has(CAP_SYS_ADMIN)) {
        (true, _) => None,
        (false, true) => Some(Refusal::new("switched on only while the screen of costs ($) is open", "")),
        (false, false) => Some(privileges.explain_statistics(libc::EPERM)),
    };
    signal(
        SignalKind::BpfStatistics,
        [source("kernel statistics", true, &refusal), source("programs' own clocks, not of others", false, &None)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::Grade;

    fn grade(signals: &[Signal], kind: SignalKind) -> Grade {
        signals.iter().find(|signal| signal.kind == kind).unwrap().grade()
    }

    #[test]
    fn every_signal_has_a_verdict_either_way() {
        let kinds = |signals: &[Signal]| signals.iter().map(|signal| signal.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&with_bpf(&Found::default())), SignalKind::ALL);
        let without = without_bpf(&Refusal::new("CAP_BPF missing", "sudo"), true, true);
        assert_eq!(kinds(&without), SignalKind::ALL);
        assert_eq!(grade(&without, SignalKind::StateTime), Grade::Reduced);
        assert_eq!(grade(&without, SignalKind::Samples), Grade::Missing);
    }

    #[test]
    fn what_cannot_be_loaded_takes_with_it_what_needs_it() {
        let no = || Some(Refusal::new("no", ""));
        let signals = with_bpf(&Found { samples: no(), one_node: true, ..Found::default() });
        assert_eq!(grade(&signals, SignalKind::Samples), Grade::Missing);
        assert_eq!(grade(&signals, SignalKind::UserStacks), Grade::Missing);
        assert_eq!(grade(&signals, SignalKind::NumaMoves), Grade::Nothing);
        let signals = with_bpf(&Found { cycles: no(), tables: no(), ..Found::default() });
        assert_eq!(grade(&signals, SignalKind::Samples), Grade::Full, "cpu-clock tells as much");
        assert_eq!(grade(&signals, SignalKind::UserStacks), Grade::Reduced);
    }

    #[test]
    fn a_pid_namespace_makes_the_list_of_threads_less() {
        let inside = Privileges { pid_namespace: true, ..Privileges::default() };
        let less = inside.explain_pid_namespace();
        assert!(less.as_ref().is_some_and(|less| less.remedy.contains("--pid=host")));
        let threads = |less| signal(SignalKind::Threads, [lists("task iterator (BPF)", true, less)]);
        assert_eq!(threads(less).grade(), Grade::Reduced);
        assert_eq!(threads(Privileges::default().explain_pid_namespace()).grade(), Grade::Full);
    }

    #[test]
    fn files_that_cannot_be_opened_make_stacks_and_names_less() {
        let privileges = Privileges::default();
        let others = Others { mapped_files: Err(libc::EACCES), paths: Err(libc::EACCES) };
        assert_eq!(user_stacks(&Found::default(), &privileges, others).grade(), Grade::Reduced);
        assert_eq!(user_names(&privileges, others).in_use().unwrap().name, "files of own processes");
        let others = Others { mapped_files: Err(libc::EPERM), paths: Ok(()) };
        assert_eq!(user_stacks(&Found::default(), &privileges, others).grade(), Grade::Full);
        assert_eq!(user_names(&privileges, others).grade(), Grade::Reduced);
        assert_eq!(process_facts(&privileges, others).grade(), Grade::Full);
    }
}
