//! Small stories of what the model remembers.

use std::time::Duration;

use super::story::{MS, SECOND, facts, model, process, thread, thread_key, tick};
use super::*;
use crate::tick::{FrameId, Hist, Host, Lens, Life, Names, Stack, StackEnd, StackId, StackWeight, State, Tick};

fn threads(nth: u64, threads: Vec<crate::tick::ThreadTick>) -> Tick {
    Tick { threads, ..tick(nth) }
}

#[test]
fn a_process_is_the_sum_of_its_threads_the_dead_too() {
    let mut model = model();
    let mut dying = thread(7, 8, &[(State::User, 250 * MS)]);
    dying.now = None;
    let lives = thread(7, 7, &[(State::User, 100 * MS), (State::Poll, 900 * MS)]);
    model.apply(threads(0, vec![lives, dying]));
    let process = model.process(process(7)).cloned().unwrap_or_default();
    assert_eq!(process.tick.ns[State::User], 350 * MS);
    assert_eq!(process.tick.ns.total(), 1250 * MS);
    assert_eq!((process.threads, process.exited), (1, None));
    assert_eq!(process.facts.comm, "t7", "named by its leader until facts come");
    assert_eq!(model.machine().ns, process.tick.ns);
    assert_eq!(model.thread(thread_key(8)).and_then(|thread| thread.exited_ns), Some(SECOND));
}

// tick     0      1      2        3 …
// 7        runs   -      (gone)
// 9        runs   runs   runs     runs
#[test]
fn who_does_not_come_again_is_gone_and_later_forgotten() {
    let mut model = Model::new(Session::default(), Limits { keep_exited: Duration::from_secs(2), ..Limits::default() });
    let runs = |tgid| thread(tgid, tgid, &[(State::User, SECOND)]);
    model.apply(threads(0, vec![runs(7), runs(9)]));
    model.apply(threads(1, vec![runs(9)]));
    let gone = model.process(process(7)).cloned().unwrap_or_default();
    assert_eq!(gone.tick, Totals::default(), "nothing came");
    assert_eq!(gone.all.ns.total(), SECOND);
    assert_eq!(gone.exited, Some(Exit { at_ns: SECOND, status: None }));
    assert_eq!(model.threads(process(7)).iter().map(|thread| thread.tick.ns.total()).sum::<u64>(), 0);
    (2..5).for_each(|nth| model.apply(threads(nth, vec![runs(9)])));
    assert!(model.process(process(7)).is_none());
    assert!(model.thread(thread_key(7)).is_none());
    assert_eq!((model.process_count(), model.threads(process(9)).len()), (1, 1));
    assert_eq!(model.machine_totals(Window::All).ns.total(), 6 * SECOND, "the machine does not forget");
}

#[test]
fn the_exit_event_brings_the_status() {
    let mut model = model();
    let mut last = thread(7, 7, &[(State::User, MS)]);
    last.now = None;
    let exit = Life::Exit { status: 3 << 8 };
    let event = Event { at_ns: 5 * MS, process: process(7), comm: "sh".into(), what: exit };
    model.apply(Tick { events: vec![event], ..threads(0, vec![last]) });
    let exited = model.process(process(7)).and_then(|process| process.exited);
    assert_eq!(exited, Some(Exit { at_ns: 5 * MS, status: Some(3 << 8) }));
    assert_eq!(model.events().len(), 1);
}

// tick     1      2..=9    10       11..=20
// 7        runs   polls    runs     polls
#[test]
fn sleep_costs_no_records_and_is_still_counted() {
    let mut model = model();
    for nth in 1..=20 {
        let times = match nth {
            1 | 10 => vec![(State::User, 300 * MS), (State::Poll, 700 * MS)],
            _ => vec![(State::Poll, SECOND)],
        };
        model.apply(threads(nth, vec![thread(7, 7, &times)]));
    }
    let poll = |window| model.totals(process(7), window).ns[State::Poll];
    let user = |window| model.thread_totals(thread_key(7), window).ns[State::User];
    let last = |seconds| Window::Last(Duration::from_secs(seconds));
    assert_eq!((poll(Window::Tick), user(Window::Tick)), (SECOND, 0));
    assert_eq!((poll(last(4)), user(last(4))), (4 * SECOND, 0));
    assert_eq!((poll(last(11)), user(last(11))), (10 * SECOND + 700 * MS, 300 * MS));
    assert_eq!((poll(last(15)), user(last(15))), (14 * SECOND + 700 * MS, 300 * MS));
    assert_eq!((poll(Window::All), user(Window::All)), (18 * SECOND + 1400 * MS, 600 * MS));
    assert_eq!(poll(Window::Ticks { first: 3, last: 4 }), 2 * SECOND);
    assert_eq!(model.machine_totals(last(15)).ns.total(), 15 * SECOND);
}

#[test]
fn the_past_stays_within_its_bound_and_says_what_went() {
    let limits = Limits { history_bytes: 64 << 10, ..Limits::default() };
    let mut model = Model::new(Session::default(), limits);
    for nth in 0..500 {
        let mut runs = thread(7, 7, &[(State::User, SECOND)]);
        runs.runq = Hist::of((0..nth % 40).map(|wait| 1000 << (wait % 20)));
        model.apply(threads(nth, vec![runs]));
        assert!(model.history_bytes() <= limits.history_bytes);
    }
    let held = model.history().len() as u64;
    assert_eq!(model.evicted() + held, 500);
    assert_eq!(model.losses(), [(Loss::Evicted, model.evicted())]);
    assert_eq!(model.totals(process(7), Window::Last(Duration::MAX)).ns.total(), held * SECOND);
    assert_eq!(model.totals(process(7), Window::All).ns.total(), 500 * SECOND);
}

#[test]
fn a_thread_told_twice_counts_twice_in_both_places() {
    let mut model = model();
    let half = thread(7, 7, &[(State::User, 500 * MS)]);
    model.apply(threads(0, vec![half.clone(), half]));
    assert_eq!(model.totals(process(7), Window::Tick).ns.total(), SECOND);
    assert_eq!(model.thread_totals(thread_key(7), Window::All).ns.total(), SECOND);
}

#[test]
fn an_exec_moves_a_process_to_another_group_and_facts_name_it() {
    let mut model = model();
    let runs = || vec![thread(7, 7, &[(State::User, SECOND)])];
    model.apply(Tick { processes: vec![facts(7, "sh")], ..threads(0, runs()) });
    model.apply(Tick { processes: vec![facts(7, "cc1")], ..threads(1, runs()) });
    let tree = model.tree(&TreeQuery { lens: TreeLens::All, window: Window::All, ..TreeQuery::default() });
    let named = |name: &str| tree.nodes.iter().find(|node| &*node.name == name).map(|node| node.total_weight);
    assert_eq!((named("sh"), named("cc1")), (Some(SECOND), Some(SECOND)));
    assert_eq!(tree.total(), 2 * SECOND);
}

// tick     1                     2          names
// stack 1  3 samples, unfinished 2 samples  is complete after all
#[test]
fn a_stack_that_proves_complete_counts_as_that() {
    let mut model = model();
    let broken = Stack { frames: vec![FrameId(0)], ..Stack::default() };
    for (nth, samples) in [(0, 3), (1, 2)] {
        let weight =
            StackWeight { process: process(7), lens: Lens::OnCpu, stack: StackId(1), weight: samples, count: 1 };
        let names = Names { stacks: vec![(StackId(1), broken.clone())], ..Names::default() };
        model.apply(Tick { stacks: vec![weight], names, ..threads(nth, vec![thread(7, 7, &[(State::User, SECOND)])]) });
    }
    let complete = |model: &Model| model.process(process(7)).map(|of| (of.all_samples_complete, of.all_samples));
    assert_eq!(complete(&model), Some((0, 5)));
    let whole = Stack { end: StackEnd::Complete, ..broken };
    for _ in 0..2 {
        model.learn(Names { stacks: vec![(StackId(1), whole.clone())], ..Names::default() });
        assert_eq!(complete(&model), Some((5, 5)));
    }
}

#[test]
fn a_machine_that_was_suspended_makes_what_runs_older() {
    let mut model = model();
    assert_eq!(model.boot_offset_ns(), model.session().boot_offset_ns, "as long as no tick tells");
    let told = Tick { host: Host { boot_offset_ns: 3 * SECOND, ..Host::default() }, ..tick(0) };
    model.apply(told);
    assert_eq!(model.boot_offset_ns(), 3 * SECOND);
    model.apply(tick(1));
    assert_eq!(model.boot_offset_ns(), model.session().boot_offset_ns, "as in captures that do not know of it");
}
