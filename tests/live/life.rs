//! Processes that come and go.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sberf::collect::live::LiveOptions;
use sberf::tick::{Life, Loss, ThreadTick, Tick};

use crate::machine::{machine, now_ns};
use crate::recording::{Recorded, Recording, total};
use crate::sleepers::among_sleepers;
use crate::workload::Workload;

const CHILDREN: usize = 1000;
const UNSEEN_NS: u64 = 4_000_000;
const ENDS_NS: u64 = 20_000_000;

#[test]
fn a_thousand_forks_execs_and_exits() {
    let Some(_machine) = machine() else { return };
    let mut forks = Workload::prepare("forks", &[&CHILDREN.to_string(), "2000"]);
    let recording = Recording::start();
    forks.run();
    recording.wait_past(forks.number("end_ns"));
    let seen = recording.stop();

    let born = children_of(&seen, forks.pid());
    assert_eq!(born.len(), CHILDREN, "forks");
    assert_eq!(born.iter().collect::<HashSet<_>>().len(), CHILDREN, "each its own");
    let theirs = born.iter().copied().collect::<HashSet<_>>();
    let of_them = |event: &&sberf::tick::Event| theirs.contains(&event.process.tgid);
    let execs = seen.events().filter(of_them).filter(|event| event.what == Life::Exec).count();
    assert_eq!(execs, CHILDREN, "execs");
    let statuses = seen
        .events()
        .filter(of_them)
        .filter_map(|event| match event.what {
            Life::Exit { status } => Some((event.process.tgid, status)),
            _ => None,
        })
        .collect::<HashMap<_, _>>();
    assert_eq!(statuses.len(), CHILDREN, "exits");
    for (number, tgid) in born.iter().enumerate() {
        assert_eq!(statuses[tgid], (number as u32 % 100) << 8, "wait status of child {number}");
    }
    assert_eq!((seen.lost(Loss::LifeRingFull), seen.lost(Loss::DeadRingFull)), (0, 0));
    check_time_of_the_dead(&seen, &theirs, forks.number("children_ns"));
}

fn children_of(seen: &Recorded, parent: u32) -> Vec<u32> {
    let child = |event: &sberf::tick::Event| match event.what {
        Life::Fork { parent: of } if of == parent => Some(event.process.tgid),
        _ => None,
    };
    seen.events().filter_map(child).collect()
}

/// What the children used is what the parent was credited when it waited for them (`cutime + cstime`, exact in sum).
fn check_time_of_the_dead(seen: &Recorded, children: &HashSet<u32>, credited: u64) {
    let threads: Vec<&ThreadTick> =
        seen.ticks().flat_map(|tick| &tick.threads).filter(|thread| children.contains(&thread.process.tgid)).collect();
    let ours = total(threads.iter().map(|thread| &thread.ns)).on_cpu();
    let off = 100.0 * (ours as f64 / credited as f64 - 1.0);
    assert!(off.abs() <= 1.0, "{ours} ns on CPUs, the parent was credited {credited} ns: {off:+.2} %");
    let distinct = threads.iter().map(|thread| thread.key).collect::<HashSet<_>>();
    assert_eq!(distinct.len(), children.len(), "each child in the ticks, as one thread");
    for child in threads {
        assert!(child.ns.total() < 2_000_000_000, "a child lives for milliseconds: {child:?}");
    }
}

#[test]
fn threads_that_end_take_nothing_with_them() {
    let Some(_machine) = machine() else { return };
    let mut threads = Workload::prepare("threads", &["1000", "1000"]);
    let recording = Recording::start();
    threads.run();
    recording.wait_past(threads.number("end_ns"));
    let seen = recording.stop();

    let own = seen.process(threads.pid());
    let distinct = own.iter().map(|thread| thread.key).collect::<HashSet<_>>();
    assert_eq!(distinct.len(), 1001, "a thousand and the first");
    let (ours, told) = (total(own.iter().map(|thread| &thread.ns)).on_cpu(), threads.number("self_ns"));
    // Ours has the handshake before and after, too, and with a switch that was hidden from us may lack a slice of it.
    let off = 100.0 * (ours as f64 / told as f64 - 1.0);
    assert!(
        off.abs() <= 1.0 + 0.2 * seen.lost(Loss::Unseen) as f64,
        "{ours} ns on CPUs, getrusage {told} ns: {off:+.2} %"
    );
}

/// Rings that hold one or two records: what found no room is counted, and what has room elsewhere is whole.
#[test]
fn the_dead_that_found_no_room_are_counted() {
    let Some(_machine) = machine() else { return };
    let mut forks = Workload::prepare("forks", &["500", "0"]);
    let recording = Recording::with(|options| options.ring_bytes = Some(4096));
    forks.run();
    recording.wait_past(forks.number("end_ns"));
    let seen = recording.stop();

    let children = children_of(&seen, forks.pid()).into_iter().collect::<HashSet<_>>();
    let exits = seen.events().filter(|event| children.contains(&event.process.tgid));
    let exits = exits.filter(|event| matches!(event.what, Life::Exit { .. })).count();
    assert_eq!((children.len(), exits), (500, 500), "process events have a ring of their own");
    let accounts = seen.ticks().flat_map(|tick| &tick.threads).filter(|thread| children.contains(&thread.process.tgid));
    let told = accounts.map(|thread| thread.key).collect::<HashSet<_>>().len();
    let lost = seen.lost(Loss::DeadRingFull) as usize;
    assert!(lost > 0, "the ring was too small");
    assert!(told + lost >= 500, "{told} told of and {lost} lost of 500");
}

/// The thread that executes another program becomes the process's first: its task lives on under another id.
#[test]
fn exec_in_a_thread_keeps_the_account() {
    let Some(_machine) = machine() else { return };
    let exec = Workload::prepare("thread_exec", &["300", "1", "0"]);
    check_execs(exec, 1, 2.0, |options| options.interval = Duration::from_millis(500));
}

/// Also between the moment in which the process's first thread is asked after and the one in which the other would be: here they are
/// far apart.
#[test]
fn execs_in_threads_keep_the_account_of_every_interval() {
    let Some(_machine) = machine() else { return };
    let exec = Workload::prepare("thread_exec", &["10", "300", "0"]);
    among_sleepers(3000, || {
        check_execs(exec, 300, 0.3, |options| {
            (options.interval, options.crowd) = (Duration::from_millis(20), u64::MAX)
        });
    });
}

fn own_of(tick: &Tick, tgid: u32) -> impl Iterator<Item = &ThreadTick> {
    tick.threads.iter().filter(move |thread| thread.process.tgid == tgid)
}

/// In a crowd who sleeps is accounted for without being asked after; what it did not tell then must not come with its next life.
#[test]
fn execs_in_threads_that_slept_in_a_crowd_are_accounted_for_once() {
    let Some(_machine) = machine() else { return };
    let exec = Workload::prepare("thread_exec", &["5", "10", "700"]);
    check_execs(exec, 10, 2.0, |options| (options.interval, options.crowd) = (Duration::from_millis(200), 0));
}

/// The process says what CPU time it had, and executed so many times; ours must be within `slack` % of it. No thread is twice in a tick,
/// or longer than the tick is.
fn check_execs(mut exec: Workload, times: usize, slack: f64, set: impl FnOnce(&mut LiveOptions)) {
    let pid = exec.pid();
    let recording = Recording::with(set);
    exec.run();
    exec.finish();
    recording.wait_past(now_ns());
    let seen = recording.stop();

    let own = seen.process(pid);
    let (ours, told) = (total(own.iter().map(|thread| &thread.ns)).on_cpu(), exec.number("self_ns"));
    let off = 100.0 * (ours as f64 / told as f64 - 1.0);
    // For a slice that began unseen we know its length to a tick of the kernel's.
    let slack = slack + 100.0 * (UNSEEN_NS * seen.lost(Loss::Unseen)) as f64 / told as f64;
    assert!(off.abs() <= slack, "{ours} ns on CPUs, the process says {told} ns: {off:+.2} % {:?}", seen.losses());
    let processes = own.iter().map(|thread| thread.process).collect::<HashSet<_>>();
    assert_eq!(processes.len(), 1, "one process: {processes:?}");
    let what = seen.events().filter(|event| event.process.tgid == pid).map(|event| event.what).collect::<Vec<_>>();
    for tick in seen.ticks() {
        let mut keys = HashSet::new();
        assert!(own_of(tick, pid).all(|thread| keys.insert(thread.key)), "one of them is twice in a tick: {keys:?}");
        // The first thread ends when the other executes, and may wait for a CPU to do so.
        let (all, len) = (total(own_of(tick, pid).map(|thread| &thread.ns)).total(), tick.span.len_ns());
        assert!(all <= 2 * len + ENDS_NS, "two threads, {all} ns of {len}: {keys:?}");
    }
    let (last, execs) = what.split_last().expect("its end");
    assert_eq!(*last, Life::Exit { status: 0 });
    assert!(execs.len() == times && execs.iter().all(|what| *what == Life::Exec), "{execs:?}");
}
