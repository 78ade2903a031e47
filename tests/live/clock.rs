//! Times that are put together from the scheduler's clock, against a program that reads the clock at every event.

use libbpf_rs::{Link, MapCore as _, MapFlags, Object, ObjectBuilder};
use sberf::tick::Loss;

use crate::compile::compile_bpf;
use crate::machine::{last_cpu, machine, now_ns, skipped, told};
use crate::recording::{Recording, merged, total};
use crate::workload::Workload;

/// What `tests/fixtures/every_event.bpf.c` keeps, of all threads of the process.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    on_cpu: u64,
    runnable: u64,
    blocked: u64,
    /// For a CPU.
    waits: u64,
    longest: u64,
}

/// Attached as long as this lives.
struct EveryEvent {
    _links: Vec<Link>,
    object: Object,
}

impl EveryEvent {
    fn start(process: u32) -> Result<Self, String> {
        let file = compile_bpf("every_event")?;
        let mut open = ObjectBuilder::default().open_file(file).map_err(|error| error.to_string())?;
        let mut maps = open.maps_mut();
        let mut settings = maps.find(|map| map.name().to_string_lossy().ends_with(".rodata")).expect("its setting");
        settings.set_initial_value(&process.to_ne_bytes()).map_err(|error| error.to_string())?;
        drop(maps);
        let object = open.load().map_err(|error| error.to_string())?;
        let links = object.progs_mut().map(|program| program.attach()).collect::<Result<_, _>>();
        Ok(EveryEvent { _links: links.map_err(|error| error.to_string())?, object })
    }

    fn read(&self) -> Truth {
        let map = self.object.maps().find(|map| map.name() == "threads").expect("its map");
        let mut truth = Truth::default();
        for id in map.keys() {
            let value = map.lookup(&id, MapFlags::ANY).expect("a lookup").expect("nothing is deleted");
            let words: Vec<u64> =
                value.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
            truth.on_cpu += words[2];
            truth.runnable += words[3];
            truth.blocked += words[4];
            truth.waits += words[5];
            truth.longest = truth.longest.max(words[6]);
        }
        truth
    }
}

/// Two threads on one CPU that wake each other as fast as they can, and nothing else: hundreds of thousands of switches a second,
/// each state some microsecond long. Whatever a time is off by shows here, and there is no wait that could hide it.
#[test]
fn times_between_readings_of_the_clock_are_true() {
    of_pairs(&["2"], 100_000);
}

/// The same where the way from a wakeup to the switch is not always one.
#[test]
fn times_between_readings_of_the_clock_are_true_of_packets() {
    of_pairs(&["2", "tcp"], 50_000);
}

/// `least`: waits a second from which on the scheduler's clock is used.
fn of_pairs(arguments: &[&str], least: u64) {
    let Some(_machine) = machine() else { return };
    let mut pairs = Workload::prepare_pinned("pairs", last_cpu(), arguments);
    let every = match EveryEvent::start(pairs.pid()) {
        Ok(every) => every,
        Err(why) => return skipped(why),
    };
    let recording = Recording::start();
    pairs.run();
    let tgid = pairs.pid();
    let trips = pairs.number("trips");
    pairs.finish();
    recording.wait_past(now_ns());
    let truth = every.read();
    let seen = recording.stop();

    let ns = total(seen.process(tgid).iter().map(|thread| &thread.ns));
    let runq = merged(seen.process(tgid).into_iter().map(|thread| &thread.runq));
    let unseen = seen.lost(Loss::Unseen);
    told(format!(
        "{trips} trips, {unseen} unseen; by every event {truth:?}; ours {ns:?}, {} waits, at most {}",
        runq.count(),
        runq.max
    ));
    assert!(truth.waits > 2 * least, "not busy enough for the scheduler's clock to be used: {truth:?}");
    assert_eq!(seen.lost(Loss::Underflow), 0);
    // A switch that is hidden from both costs both the time around it, not the same.
    let apart = |ours: u64, theirs: u64| ours.abs_diff(theirs) as f64 / truth.waits as f64;
    assert!(
        (runq.count() as f64 / truth.waits as f64 - 1.0).abs() < 0.001,
        "{} waits of {}",
        runq.count(),
        truth.waits
    );
    for (state, ours, theirs) in [
        ("on CPU", ns.on_cpu(), truth.on_cpu),
        ("runnable", ns.runnable(), truth.runnable),
        ("blocked", ns.blocked(), truth.blocked),
    ] {
        // Two programs on one hook run one after the other: what the first takes lies between. Up to 34 was seen, and 171 where
        // preempted threads had the difference of those that block, and no reading was compared with the one before it.
        assert!(apart(ours, theirs) < 80.0, "{state}: {ours} ns of {theirs}, {:.0} ns each time", apart(ours, theirs));
    }
    // Of a wait whose end was hidden the other program knows nothing, and we when it ended, about.
    let apart = runq.max.abs_diff(truth.longest);
    assert!(unseen > 0 || apart < 100_000, "the longest wait: {} ns of {}", runq.max, truth.longest);
}
