//! What holds of the model whatever it is told: an invented machine for what is likely, random ticks for what is not.

#[path = "model/odd.rs"]
mod odd;
#[path = "model/past.rs"]
mod past;

use std::time::Duration;

use proptest::prelude::*;
use sberf::collect::invented::{Invented, Invention};
use sberf::model::folded::{self, FoldedLens};
use sberf::model::{CallTree, Latency, Limits, Merge, Model, Scope, TreeLens, TreeQuery, Window, json};
use sberf::tick::{Asleep, Batch, Lens, ProcessKey, Span, State, StateNs, ThreadTick, Tick};

use sberf::collect::Source;

fn watch(options: Invention, ticks: usize) -> Model {
    let mut source = Invented::new(options);
    let mut model = Model::new(source.session(), Limits::default());
    (0..ticks).for_each(|_| model.apply(source.tick()));
    model
}

fn lively() -> Invention {
    Invention { cpus: 4, nodes: 2, hostile: true, sleepers: 30, sleeper_threads: 2, ..Invention::default() }
}

/// The same, with less of it.
fn small() -> Invention {
    Invention { sleepers: 4, ..lively() }
}

const LENSES: [TreeLens; 3] = [TreeLens::OnCpu, TreeLens::Blocked, TreeLens::All];
const MERGES: [Merge; 3] = [Merge::Function, Merge::Module, Merge::Address];

/// Every kind of tree of a process, or of all.
fn queries(process: Option<ProcessKey>, window: Window) -> Vec<TreeQuery> {
    let mut queries = Vec::new();
    for (lens, merge) in LENSES.into_iter().flat_map(|lens| MERGES.map(|merge| (lens, merge))) {
        for (inverted, hide_idle) in [(false, false), (true, false), (false, true)] {
            queries.push(TreeQuery { process, lens, window, merge, inverted, hide_idle });
        }
    }
    queries
}

/// What always holds of a tree.
fn check_shape(tree: &CallTree) {
    let selves = tree.nodes.iter().fold(0u64, |sum, node| sum.saturating_add(node.self_weight));
    assert_eq!(tree.total(), selves, "the root is the sum of all selfs");
    assert!(tree.complete_weight <= tree.total());
    let mut ids = std::collections::HashSet::new();
    for (at, node) in tree.nodes.iter().enumerate() {
        assert!(at == 0 || (node.parent as usize) < at, "parents precede children");
        assert!(node.children.iter().all(|&child| tree.nodes[child as usize].parent as usize == at));
        let children = node.children.iter().map(|&child| tree.nodes[child as usize].total_weight);
        assert_eq!(node.total_weight, children.fold(node.self_weight, u64::saturating_add));
        assert!(ids.insert(node.id), "an id twice: {}", node.name);
        assert!(!node.name.chars().any(char::is_control), "{:?}", node.name);
    }
}

#[test]
fn a_process_is_the_sum_of_its_threads_and_the_machine_that_of_its_processes() {
    let mut source = Invented::new(lively());
    let mut model = Model::new(source.session(), Limits::default());
    for _ in 0..20 {
        let tick = source.tick();
        let mut machine = StateNs::default();
        tick.threads.iter().for_each(|thread| machine.add(&thread.ns));
        model.apply(tick.clone());
        assert_eq!(model.machine().ns, machine);
        let mut processes = StateNs::default();
        for process in model.processes() {
            let mut threads = StateNs::default();
            model.threads(process.key).iter().for_each(|thread| threads.add(&thread.tick.ns));
            assert_eq!(process.tick.ns, threads, "{:?}", process.facts.comm);
            processes.add(&process.tick.ns);
        }
        assert_eq!(processes, machine);
        let lived = |thread: &&ThreadTick| thread.now.is_some() && thread.key.start_ns <= tick.span.start_ns;
        for thread in tick.threads.iter().filter(lived) {
            let totals = model.thread_totals(thread.key, Window::Tick);
            assert_eq!(totals.ns.total(), tick.span.len_ns(), "states sum to wall time");
        }
    }
}

/// The same tick, with every thread in few words of which that says all.
fn folded(tick: &Tick) -> Tick {
    let span_ns = tick.span.len_ns();
    let few = |thread: &ThreadTick| {
        let mut comm = [0; 16];
        comm.get_mut(..thread.comm.len())?.copy_from_slice(thread.comm.as_bytes());
        let ThreadTick { key, process, since_ns, cpu, syscall, .. } = *thread;
        let slept = Asleep { key, process, comm, state: thread.now?, since_ns, cpu, syscall };
        (slept.state.is_blocked() && slept.unfold(span_ns) == *thread).then_some(slept)
    };
    let threads = tick.threads.iter().filter(|thread| few(thread).is_none()).cloned().collect();
    Tick { asleep: tick.threads.iter().filter_map(few).collect(), threads, ..tick.clone() }
}

#[test]
fn threads_that_slept_are_the_same_in_few_words() {
    for (nodes, look_back) in [(1, true), (2, true), (1, false)] {
        let mut source = Invented::new(Invention { nodes, ..lively() });
        let limits = Limits { look_back, ..Limits::default() };
        let [mut many, mut few] = [(); 2].map(|()| Model::new(source.session(), limits));
        let mut asleep = 0;
        for _ in 0..50 {
            let tick = source.tick();
            let short = folded(&tick);
            asleep += short.asleep.len();
            let mut long = short.clone();
            long.unfold();
            assert_eq!(long.threads.len(), tick.threads.len());
            // In the same order.
            many.apply(long);
            few.apply(short);
            assert_eq!(past::account(&few, true), past::account(&many, true));
        }
        assert!(nodes > 1 || asleep > 1000, "{asleep}");
        for tick in (1..=50).step_by(7) {
            assert_eq!(few.look_at(tick), many.look_at(tick));
            assert_eq!(past::account(&few, true), past::account(&many, true), "{tick}");
        }
    }
}

#[test]
fn trees_sum_to_the_exact_totals_in_every_window() {
    let model = watch(lively(), 12);
    for window in [Window::Tick, Window::Last(Duration::from_secs(5)), Window::Ticks { first: 3, last: 6 }, Window::All]
    {
        let keys: Vec<ProcessKey> = model.processes().map(|process| process.key).collect();
        for key in keys {
            let totals = model.totals(key, window);
            for query in queries(Some(key), window) {
                let tree = model.tree(&query);
                check_shape(&tree);
                let exact = match query.lens {
                    TreeLens::OnCpu => model.samples(key, window).all,
                    TreeLens::Blocked => totals.ns.blocked(),
                    TreeLens::All => totals.ns.total(),
                };
                assert!(tree.total() == exact || query.hide_idle && tree.total() < exact, "{query:?}");
            }
        }
        for query in queries(None, window) {
            let tree = model.tree(&query);
            check_shape(&tree);
            if query.lens == TreeLens::All && !query.hide_idle {
                let exact = model.machine_totals(window).ns.total();
                assert!(tree.total().abs_diff(exact) <= exact / 1000, "{query:?}: {} of {exact}", tree.total());
            }
        }
    }
}

#[test]
fn the_order_in_a_tick_does_not_matter() {
    let mut source = Invented::new(lively());
    let mut one = Model::new(source.session(), Limits::default());
    let mut other = Model::new(source.session(), Limits::default());
    for _ in 0..5 {
        let tick = source.tick();
        let mut turned = tick.clone();
        turned.threads.reverse();
        turned.stacks.reverse();
        turned.io.reverse();
        turned.cpus.reverse();
        one.apply(tick);
        other.apply(turned);
    }
    for process in one.processes() {
        let twin = other.process(process.key).expect("both have it");
        assert_eq!(process.all.ns, twin.all.ns);
        assert_eq!(process.all.runq.quantile(0.9), twin.all.runq.quantile(0.9));
        for query in queries(Some(process.key), Window::All) {
            let shape = |model: &Model| -> Vec<(String, u64, u64)> {
                let tree = model.tree(&query);
                tree.nodes.iter().map(|node| (node.name.to_string(), node.id, node.total_weight)).collect()
            };
            assert_eq!(shape(&one), shape(&other));
        }
    }
}

#[test]
fn the_machine_has_all_weights_that_were_told() {
    let mut source = Invented::new(lively());
    let mut model = Model::new(source.session(), Limits::default());
    let mut samples = 0;
    for _ in 0..15 {
        let tick = source.tick();
        samples += tick.stacks.iter().filter(|stack| stack.lens == Lens::OnCpu).map(|stack| stack.weight).sum::<u64>();
        model.apply(tick);
    }
    let tree = |window| model.tree(&TreeQuery { window, ..TreeQuery::default() });
    assert_eq!(tree(Window::All).total(), samples, "those of compilers long gone, too");
    assert_eq!(tree(Window::Last(Duration::MAX)).total(), samples);
    assert!(tree(Window::All).nodes.iter().any(|node| &*node.name == "cc1"));
}

#[test]
fn latencies_agree_with_the_counters() {
    let model = watch(lively(), 10);
    for process in model.processes() {
        let runq = model.latency(Latency::RunQueue, Scope::Process(process.key), Window::All);
        assert_eq!(runq.len(), process.all.runq.count());
        let disk = model.latency(Latency::Disk, Scope::Process(process.key), Window::All);
        assert_eq!(disk.len(), process.all_io.all_requests());
    }
    let windows = [Window::Tick, Window::Last(Duration::from_secs(3)), Window::All];
    for window in windows {
        let cpus: u64 = (0..4).map(|cpu| model.latency(Latency::RunQueue, Scope::Cpu(cpu), window).len()).sum();
        assert_eq!(cpus, model.latency(Latency::RunQueue, Scope::Machine, window).len());
        let devices = model.disks().iter().map(|disk| disk.dev);
        let requests: u64 =
            devices.map(|dev| model.latency(Latency::DiskDevice(dev, None), Scope::Machine, window).len()).sum();
        assert_eq!(requests, model.latency(Latency::Disk, Scope::Machine, window).len());
    }
}

#[test]
fn inferno_accepts_every_lens_of_a_hostile_machine() {
    let model = watch(lively(), 6);
    for lens in [FoldedLens::OnCpu, FoldedLens::Blocked, FoldedLens::Runnable, FoldedLens::Wall] {
        let mut out = Vec::new();
        let counts = folded::write(&mut out, &model, lens, None, Window::All).expect("memory takes it");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().count() as u64, counts.lines);
        let mut svg = Vec::new();
        inferno::flamegraph::from_lines(&mut Default::default(), text.lines(), &mut svg).expect("inferno takes it");
        let svg = String::from_utf8(svg).expect("text");
        assert!(svg.contains(&format!("total_samples=\"{}\"", counts.weight)), "{lens:?}");
    }
}

#[test]
fn json_of_an_invented_machine_is_as_the_schema_says() {
    let schema = serde_json::from_str(include_str!("../assets/tick.schema.json")).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let mut source = Invented::new(lively());
    let mut model = Model::new(source.session(), Limits::default());
    for _ in 0..4 {
        model.apply(source.tick());
        let mut out = Vec::new();
        json::write(&mut out, &model).expect("memory takes it");
        let object = serde_json::from_slice(&out).expect("JSON");
        let errors: Vec<String> = validator.iter_errors(&object).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0]);
        let user: u64 =
            object["processes"].as_array().expect("an array").iter().filter_map(|p| p["on_cpu_user_ns"].as_u64()).sum();
        assert_eq!(user, model.machine().ns[State::User]);
    }
}

fn look_at_everything(model: &Model) {
    let keys: Vec<Option<ProcessKey>> = model.processes().map(|process| Some(process.key)).chain([None]).collect();
    let windows =
        [Window::Tick, Window::Last(Duration::from_secs(2)), Window::Ticks { first: 0, last: u64::MAX }, Window::All];
    for (key, window) in keys.iter().flat_map(|key| windows.map(|window| (*key, window))) {
        for query in queries(key, window) {
            check_shape(&model.tree(&query));
        }
        let scope = key.map_or(Scope::Machine, Scope::Process);
        for what in [Latency::RunQueue, Latency::OffCpu, Latency::Slice, Latency::Disk, Latency::DiskDevice(1, None)] {
            let _ = model.latency(what, scope, window);
        }
        for lens in [FoldedLens::OnCpu, FoldedLens::Blocked, FoldedLens::Runnable, FoldedLens::Wall] {
            folded::write(&mut std::io::sink(), model, lens, key, window).expect("a sink takes it");
        }
    }
    json::write(&mut std::io::sink(), model).expect("a sink takes it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn odd_ticks_are_survived(ticks in prop::collection::vec(odd::tick(), 1..6), bytes in 0usize..20_000) {
        let limits = Limits { history_bytes: bytes, stacks_bytes: bytes, keep_exited: Duration::from_secs(1), look_back: true };
        let mut model = Model::new(Default::default(), limits);
        for tick in ticks {
            let told: Tick = tick;
            let mut machine = StateNs::default();
            told.threads.iter().for_each(|thread| machine.add(&thread.ns));
            model.apply(told);
            prop_assert_eq!(model.machine().ns, machine);
        }
        look_at_everything(&model);
    }

    #[test]
    fn odd_ticks_are_shown_again_as_they_were(ticks in prop::collection::vec(odd::tick(), 1..12), bytes in 2_000usize..60_000) {
        let limits = Limits { history_bytes: bytes, keep_exited: Duration::from_secs(1), ..Limits::default() };
        let mut model = Model::new(Default::default(), limits);
        let mut accounts = vec![String::new()];
        for tick in ticks {
            model.apply(tick);
            accounts.push(past::account(&model, false));
        }
        let kept = model.kept().expect("there is a tick");
        for at in kept.clone().rev() {
            prop_assert!(model.look_at(at));
            let wrong = past::difference(&accounts[at as usize], &past::account(&model, false));
            prop_assert!(wrong.is_none(), "tick {at} of {kept:?}: {}", wrong.unwrap_or_default());
        }
        prop_assert!(!model.look_at(kept.start() - 1), "what is not kept is not shown");
        prop_assert_eq!(model.ticks(), *kept.end(), "but the newest is");
    }
}

#[test]
fn every_past_tick_is_shown_as_it_was() {
    for (options, bytes) in [(small(), 32 << 20), (Invention { seed: 5, ..small() }, 1300 << 10)] {
        let mut source = Invented::new(options);
        let limits = Limits { history_bytes: bytes, keep_exited: Duration::from_secs(4), ..Limits::default() };
        let mut model = Model::new(source.session(), limits);
        let mut accounts = vec![String::new()];
        for _ in 0..75 {
            model.apply(source.tick());
            accounts.push(past::account(&model, true));
        }
        let kept = model.kept().expect("there is a tick");
        assert!(kept.clone().count() > 30, "{kept:?}");
        assert_eq!(kept.contains(&1), bytes > 2 << 20, "{kept:?}");
        // Back, forward, and to and fro.
        let (first, last) = (*kept.start(), *kept.end());
        // The window of ten seconds reaches back into what is not kept.
        let first = if first == 1 { 1 } else { first + 10 };
        let jumps = [first, last - 1, (first + 33).min(last), last - 7, first + 1, first, last];
        let steps = (first..=last).rev().step_by(3).chain((first..=last).step_by(7)).chain(jumps);
        for at in steps {
            assert!(model.look_at(at), "{at} of {kept:?}");
            assert_eq!((model.is_past(), model.ticks()), (at != last, at));
            if let Some(wrong) = past::difference(&accounts[at as usize], &past::account(&model, true)) {
                panic!("tick {at} of {kept:?}: {wrong}");
            }
        }
        model.look_at(first + 5);
        model.apply(source.tick());
        assert!(!model.is_past(), "a new tick is the newest");
        assert_eq!(model.ticks(), last + 1);
    }
}

// A machine with so little to tell that many ticks share a chunk of its track.
#[test]
fn a_quiet_past_can_be_walked_through_one_tick_at_a_time() {
    let mut model = Model::new(Default::default(), Limits::default());
    let mut accounts = vec![String::new()];
    for nth in 0..60 {
        model.apply(Tick { span: span(nth), threads: vec![hog(nth)], ..Tick::default() });
        accounts.push(past::account(&model, true));
    }
    for at in (1..60).rev().step_by(5).chain(1..=60) {
        assert!(model.look_at(at), "{at}");
        let wrong = past::difference(&accounts[at as usize], &past::account(&model, true));
        assert!(wrong.is_none(), "tick {at}: {}", wrong.unwrap_or_default());
    }
}

fn span(nth: u64) -> Span {
    Span { start_ns: nth * 1_000_000_000, end_ns: (nth + 1) * 1_000_000_000, ..Span::default() }
}

/// It ran for as many ms as the number of the tick, and slept.
fn hog(nth: u64) -> ThreadTick {
    let mut hog = ThreadTick { now: Some(State::Timer), ..ThreadTick::default() };
    (hog.key.tid, hog.process.tgid) = (7, 7);
    (hog.ns[State::User], hog.ns[State::Timer]) = (nth * 1_000_000, 1_000_000_000 - nth * 1_000_000);
    hog
}

#[test]
fn what_is_saved_says_the_same_when_it_is_read() {
    let mut source = Invented::new(small());
    let mut model = Model::new(source.session(), Limits::default());
    let mut accounts = vec![String::new()];
    for _ in 0..45 {
        model.apply(source.tick());
        accounts.push(past::account(&model, true));
    }
    model.look_at(20);
    let saved = model.saved().expect("ticks");
    assert_eq!(saved.ticks(), 45, "all that is kept, whichever is looked at");
    let mut read = Model::new(saved.session().clone(), Limits::default());
    for batch in saved {
        match batch {
            Batch::Names(names) => read.learn(*names),
            Batch::Tick(tick) => {
                read.apply(*tick);
                let wrong = past::difference(&accounts[read.ticks() as usize], &past::account(&read, true));
                assert!(wrong.is_none(), "tick {}: {}", read.ticks(), wrong.unwrap_or_default());
            }
        }
    }
    assert_eq!(read.ticks(), 45);
}

#[test]
fn what_is_saved_begins_with_all_that_is_known_by_then() {
    let mut source = Invented::new(lively());
    let limits = Limits { history_bytes: 1 << 20, ..Limits::default() };
    let mut model = Model::new(source.session(), limits);
    let mut told = Vec::new();
    for _ in 0..90 {
        let tick = source.tick();
        model.apply(tick.clone());
        told.push(tick);
    }
    let first = *model.kept().expect("ticks").start();
    assert!(first > 10, "{first}");
    let ticks = model.saved().expect("ticks").filter_map(|batch| match batch {
        Batch::Tick(tick) => Some(*tick),
        Batch::Names(_) => None,
    });
    let ticks: Vec<Tick> = ticks.collect();
    assert_eq!(ticks.len() as u64, 91 - first);
    for (saved, told) in ticks.iter().zip(&told[first as usize - 1..]) {
        let sorted = |tick: &Tick| {
            let mut tick = tick.clone();
            tick.names = Default::default();
            tick.processes.clear();
            tick.threads.sort_by_key(|thread| thread.key);
            tick.stacks.sort_by_cached_key(|stack| format!("{stack:?}"));
            tick
        };
        assert_eq!(sorted(saved), sorted(told));
    }
    let known: std::collections::HashSet<_> = ticks[0].processes.iter().map(|facts| facts.key).collect();
    assert!(ticks[0].threads.iter().all(|thread| known.contains(&thread.process)), "nobody is without a name");
}
