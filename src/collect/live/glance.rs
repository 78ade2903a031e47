//! Who is there, told before anything is measured: loading what measures takes a quarter of a second, and this a tenth of
//! that, so a first picture need not wait.

use std::io::Read;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use libbpf_rs::Iter;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::maps::monotonic_ns;
use super::skel::glance::GlanceSkelBuilder;
use super::tasks::{leader_of, take, threads_of};
use super::{LiveOptions, said, wall_ns};
use crate::collect::cpus::online;
use crate::collect::host::{self, Identity};
use crate::collect::nodes::nodes;
use crate::collect::privileges::{CAP_BPF, CAP_PERFMON, Privileges};
use crate::collect::process_facts::Reader;
use crate::tick::{Names, ProcessFacts, Session, Span, Tick};

/// So long command lines are read for, from the lowest PID on: those that fit on a screen take some 3 ms.
const READING: Duration = Duration::from_millis(8);

/// Every process and thread, in a tick of no length: what is measured over time is not known yet. `None` where that cannot
/// be had, or was not asked for: a few processes are found as soon as all are.
pub fn glance(options: &LiveOptions) -> Option<(Session, Tick)> {
    let privileges = Privileges::read();
    let may = |bit: u32| privileges.effective.is_some_and(|effective| effective >> bit & 1 == 1);
    // In another pid namespace than the first, ids would have to be translated.
    let is_first = host::in_pid_namespace() == Some(false);
    if !is_first || !options.pids.is_empty() || options.follow.is_some() || !may(CAP_BPF.bit) || !may(CAP_PERFMON.bit) {
        return None;
    }
    let bytes = look()?;
    let now_ns = monotonic_ns();
    let span = Span { start_ns: now_ns, end_ns: now_ns, wall_ns: wall_ns() };
    let names = Names { users: host::users(), ..Names::default() };
    let tick = Tick { span, threads: threads_of(&bytes), processes: processes(&bytes), names, ..Tick::default() };
    Some((session(options), tick))
}

/// What the iterator tells. An error is told by what is loaded next, in its own words.
fn look() -> Option<Vec<u8>> {
    said::keep();
    let mut place = MaybeUninit::uninit();
    let skel = GlanceSkelBuilder::default().open(&mut place).ok()?.load().ok()?;
    let link = skel.progs.glance.attach().ok()?;
    let mut bytes = Vec::new();
    Iter::new(&link).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn processes(mut bytes: &[u8]) -> Vec<ProcessFacts> {
    let leaders = std::iter::from_fn(|| take(&mut bytes)).filter_map(|record| leader_of(&record));
    let mut processes: Vec<ProcessFacts> = leaders
        .map(|leader| {
            let mut facts = ProcessFacts { key: leader.key, ..ProcessFacts::default() };
            leader.update(&mut facts);
            facts
        })
        .collect();
    let (mut reader, until) = (Reader::new(), Instant::now() + READING);
    for facts in processes.iter_mut().filter(|facts| !facts.kernel) {
        if Instant::now() >= until {
            break;
        }
        if let Some(part) = reader.facts(facts.key) {
            part.update(facts);
        }
    }
    processes
}

/// As far as it is known before anything was tried.
fn session(options: &LiveOptions) -> Session {
    let identity = Identity::read();
    Session {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: options.command.clone(),
        hostname: identity.hostname,
        kernel: identity.kernel,
        arch: identity.arch,
        cpus: online(),
        nodes: nodes(),
        interval_ns: options.interval.as_nanos() as u64,
        started_wall_ns: wall_ns(),
        boot_offset_ns: host::boot_offset_ns(),
        page_bytes: rustix::param::page_size() as u64,
        ..Session::default()
    }
}
