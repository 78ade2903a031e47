//! More stacks than anyone has room for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sberf::collect::live::LiveOptions;
use sberf::tick::{Lens, Loss, StackEnd, StackWeight, State, Tick};

use crate::machine::{machine, now_ns, told};
use crate::recording::{Recorded, Recording};
use crate::sleepers::among_sleepers;
use crate::workload::Workload;

const STACKS: u64 = 20_000;
/// Calls of `zero` and `one` that spell the number of a stack, see `fixtures/stacks.c`.
const BITS: usize = 15;

/// How 20 000 waits on 20 000 stacks were accounted for.
#[derive(Default)]
struct Account {
    /// Waits by the number their stack spells.
    taken: HashMap<usize, u64>,
    /// Waits whose stack was not taken, which is said.
    not_taken: u64,
    /// Waits before there was a table of this program, which is said.
    early: u64,
    /// Waits that found no room in the map of stacks, or whose frames found none in the ring, which is said.
    lost: u64,
    /// Waits on a stack that spells no number.
    other: Vec<String>,
    /// Time of all of these.
    ns: u64,
}

#[test]
fn twenty_thousand_stacks_with_budget() {
    let Some((account, seen)) = account(|options| options.walks_per_s = 1_000_000) else { return };
    // All of them could be walked. Either each was told apart, or what had no room is counted as that.
    assert!(account.not_taken < STACKS / 100, "{} not taken", account.not_taken);
    assert!(account.taken.len() > 1_000, "only {} stacks told apart", account.taken.len());
    assert!(account.lost == 0 || !seen.losses().is_empty());
}

#[test]
fn twenty_thousand_stacks_without_budget() {
    let Some((account, _)) = account(|options| options.walks_per_s = 100) else { return };
    assert!(account.not_taken > STACKS / 2, "100 a second were allowed, {} not taken", account.not_taken);
}

#[test]
fn stacks_that_found_no_room_are_counted() {
    let few = |options: &mut LiveOptions| (options.walks_per_s, options.stack_entries) = (1_000_000, Some(512));
    let Some((account, seen)) = account(few) else { return };
    assert!(account.lost > STACKS / 2 && seen.lost(Loss::StackMapFull) > STACKS / 2, "{:?}", seen.losses());
}

#[test]
fn frames_that_found_no_room_are_counted() {
    let small = |options: &mut LiveOptions| (options.walks_per_s, options.ring_bytes) = (1_000_000, Some(4096));
    let Some((account, seen)) = account(small) else { return };
    assert!(account.lost > STACKS / 2 && seen.lost(Loss::FrameRingFull) > STACKS / 2, "{:?}", seen.losses());
}

/// Whoever blocks often is looked at closely only now and then: often enough that its places keep their shares.
#[test]
fn callers_that_take_turns_keep_their_shares() {
    let Some(_machine) = machine() else { return };
    let mut turns = Workload::prepare("turns", &["20000"]);
    let recording = Recording::start();
    turns.run();
    recording.wait_past(turns.number("end_ns"));
    recording.wait_names(turns.pid());
    let seen = recording.stop();

    let mut waits: HashMap<&str, u64> = HashMap::new();
    let blocked = |weight: &&StackWeight| {
        weight.process.tgid == turns.pid() && weight.lens == Lens::Blocked(State::Timer) && weight.count > 0
    };
    for weight in seen.ticks().flat_map(|tick| &tick.stacks).filter(blocked) {
        let functions = seen.functions(seen.stack(weight.stack).expect("every stack is named"));
        let caller = functions.into_iter().find(|name| ["often", "seldom"].contains(name)).unwrap_or("neither");
        *waits.entry(caller).or_default() += weight.count;
    }
    let all: u64 = waits.values().sum();
    let often = waits.get("often").copied().unwrap_or_default() as f64 / all as f64;
    assert!(all > 19_000 && (often - 2.0 / 3.0).abs() < 0.06, "{waits:?} of {all}");
}

/// A thread that blocks at more places than are remembered, over many short intervals: what it forgets between the end of one and the moment
/// in which it is asked after stays where it was spent.
#[test]
fn forgotten_places_keep_their_time() {
    let Some(_machine) = machine() else { return };
    among_sleepers(3000, || {
        let mut rounds = Workload::prepare("rounds", &["4"]);
        let recording = Recording::with(|options| {
            (options.interval, options.crowd) = (Duration::from_millis(50), u64::MAX);
            options.walks_per_s = 1_000_000;
        });
        rounds.run();
        recording.wait_past(rounds.number("end_ns"));
        recording.wait_names(rounds.pid());
        check_places(&rounds, &recording.stop());
    });
}

/// As long at each place as the workload says.
fn check_places(rounds: &Workload, seen: &Recorded) {
    let mut ours: HashMap<String, u64> = HashMap::new();
    let blocked =
        |weight: &&StackWeight| weight.process.tgid == rounds.pid() && weight.lens == Lens::Blocked(State::Timer);
    for weight in seen.ticks().flat_map(|tick| &tick.stacks).filter(blocked) {
        let functions = seen.functions(seen.stack(weight.stack).expect("every stack is named"));
        let place = functions.into_iter().find(|name| name.starts_with("place")).unwrap_or("none");
        *ours.entry(place.to_owned()).or_default() += weight.weight;
    }
    for told in rounds.told("place") {
        let (place, truth) = (format!("place{}", told[0]), told[1].parse::<u64>().expect("a number"));
        let off = ours.get(&place).copied().unwrap_or_default() as f64 / truth as f64 - 1.0;
        // Its own clock has the waits for a CPU and the way there and back, too.
        assert!((-0.6..0.02).contains(&off), "{place}: {:+.1} % of {truth} ns: {ours:?}", 100.0 * off);
    }
    let none = ours.get("none").copied().unwrap_or_default();
    assert!(none < 60_000_000, "{none} ns at no place: {ours:?}");
}

/// As many distinct stacks as the machine can make, some 100 000 a second for ten seconds: each wait is on one, or counted as what
/// became of it, and together they are as many as the kernel counted.
#[test]
fn a_flood_of_stacks_is_accounted_for() {
    let Some(_machine) = machine() else { return };
    let seconds: u64 = std::env::var("SBERF_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let mut flood = Workload::prepare("flood", &[&seconds.to_string(), "2"]);
    let recording = Recording::with(|options| {
        options.interval = Duration::from_secs(1);
        options.walks_per_s = 10_000_000;
    });
    recording.wait_past(now_ns());
    flood.run();
    recording.wait_past(flood.number("end_ns"));
    let seen = recording.stop();

    let (mut on_stacks, mut said, mut distinct) = (0, HashMap::new(), HashSet::new());
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != flood.pid() || weight.lens != Lens::Blocked(State::Pipe) || weight.count == 0 {
            continue;
        }
        match seen.functions(seen.stack(weight.stack).expect("every stack is named")).as_slice() {
            [note] if note.starts_with('[') => *said.entry(note.to_string()).or_insert(0) += weight.count,
            _ => {
                on_stacks += weight.count;
                distinct.insert(weight.stack);
            }
        }
    }
    let (waits, unseen) = (flood.number("waits"), seen.lost(Loss::Unseen));
    let all = on_stacks + said.values().sum::<u64>();
    let generated = flood.number("stacks");
    let what = format!(
        "{generated} distinct stacks generated in {seconds} s; {waits} waits = {on_stacks} on {} stacks + {said:?}; losses {:?}",
        distinct.len(),
        seen.losses()
    );
    told(&what);
    // Waits of other kinds are not among them: what threads do when they start and end.
    assert!(all <= waits && all + unseen >= waits, "{all} of {what}");
    assert!(distinct.len() > 5_000, "{what}");
    // No bar: how fast a machine switches that others use is no fault of ours.
    if generated < 100_000 * seconds {
        told(format!("{} stacks a second are all that this machine makes now, not 100 000", generated / seconds));
    }
}

fn account(set: impl FnOnce(&mut LiveOptions)) -> Option<(Account, Recorded)> {
    let _machine = machine()?;
    let mut stacks = Workload::prepare("stacks", &[&STACKS.to_string()]);
    let recording = Recording::with(|options| {
        options.interval = Duration::from_secs(4);
        set(options);
    });
    recording.wait_past(0);
    stacks.run();
    recording.wait_past(stacks.number("end_ns"));
    recording.request(sberf::collect::Request::Interval(Duration::from_millis(500)));
    recording.wait_past(now_ns());
    recording.wait_names(stacks.pid());
    let seen = recording.stop();

    let tid = stacks.threads()[0].0;
    let waits = stacks.number("waits");
    // Now and then a sleep is over before it began, when the sleeper was preempted on the way.
    assert!(waits * 100 >= STACKS * 99 && waits <= STACKS, "{waits} waits");
    let off_cpu = seen.thread_hist(tid, |thread| &thread.off_cpu);
    let (count, unseen) = (off_cpu.count(), seen.lost(Loss::Unseen));
    assert!(
        (waits.saturating_sub(unseen)..=waits).contains(&count),
        "{count} of {waits} waits counted, {unseen} unseen"
    );
    let account = read_account(&seen, stacks.pid(), tid);
    assert!(account.other.is_empty(), "stacks that are none of the workload's: {:?}", account.other);
    let (taken, not_taken, lost) = (account.taken.values().sum::<u64>(), account.not_taken, account.lost);
    let early = account.early;
    let told =
        format!("{taken} taken + {not_taken} not taken + {early} early + {lost} lost of {waits}, {:?}", seen.losses());
    assert_eq!(taken + not_taken + early + lost, waits, "{told}");
    assert!(lost <= seen.lost(Loss::StackMapFull) + seen.lost(Loss::FrameRingFull), "lost but not counted: {told}");
    for (number, &times) in &account.taken {
        assert_eq!(times, 1, "stack {number} was slept on once: other waits were put on it");
    }
    check_total(&seen, &stacks, tid, &account);
    Some((account, seen))
}

fn read_account(seen: &Recorded, tgid: u32, tid: u32) -> Account {
    let mut account = Account::default();
    let blocked = |weight: &&StackWeight| weight.process.tgid == tgid && weight.lens == Lens::Blocked(State::Timer);
    // In a tick in which it only sleeps on, no stack says so: what no stack has is for the model to add.
    let busy = |tick: &&Tick| tick.threads.iter().any(|thread| thread.key.tid == tid && !thread.off_cpu.is_empty());
    for weight in seen.ticks().filter(busy).flat_map(|tick| &tick.stacks).filter(blocked) {
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let functions = seen.functions(stack);
        account.ns += weight.weight;
        if stack.end == StackEnd::NoTable {
            account.early += weight.count;
            continue;
        }
        match (functions.as_slice(), spelled(&functions)) {
            (["[stack not taken]"], _) => account.not_taken += weight.count,
            (["[unrecorded]" | "[frames lost]"], _) => account.lost += weight.count,
            (_, Some(number)) => *account.taken.entry(number).or_default() += weight.count,
            _ if weight.count == 0 => {} // the last sleep, which does not end
            _ => account.other.push(functions.join(";")),
        }
    }
    account
}

/// The number that a stack spells, lowest bit outermost.
fn spelled(functions: &[&str]) -> Option<usize> {
    let bits = functions.iter().filter_map(|name| match *name {
        "zero" => Some(0),
        "one" => Some(1),
        _ => None,
    });
    let bits = bits.collect::<Vec<usize>>();
    (bits.len() == BITS).then(|| bits.iter().rev().fold(0, |number, bit| number << 1 | bit))
}

/// The thread's time is whole, whatever became of the stacks, and they carry all that it slept.
fn check_total(seen: &Recorded, stacks: &Workload, tid: u32, account: &Account) {
    let ns = seen.thread_ns(tid);
    let lived = seen.ticks().next_back().expect("a tick").span.end_ns - stacks.number("begin_ns");
    let share = ns.total() as f64 / lived as f64;
    assert!((0.99..=1.001).contains(&share), "{share:.4} of the sleeper's life is accounted for: {ns:?}");
    let busy = seen.thread(tid).into_iter().filter(|(_, thread)| !thread.off_cpu.is_empty());
    let asleep: u64 = busy.map(|(_, thread)| thread.ns[State::Timer]).sum();
    let carried = account.ns as f64 / asleep as f64;
    assert!((carried - 1.0).abs() < 0.01, "stacks carry {carried:.4} of {asleep} ns asleep: {ns:?}");
}
