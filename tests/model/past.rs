//! Everything that a model says, as text: to be held against what it says of that tick later.

use std::fmt::Write;
use std::time::Duration;

use sberf::model::{Latency, Model, Scope, TreeLens, TreeQuery, Window, json};
use sberf::tick::ProcessKey;

const WINDOWS: [Window; 3] = [Window::Tick, Window::Last(Duration::from_secs(10)), Window::All];

/// What it says of the tick it stands at. Without `trees` nothing that names or sums of stacks decide: names
/// that came since are known by now, and what overflowed cannot be taken off again.
pub fn account(model: &Model, trees: bool) -> String {
    let mut text = String::new();
    let mut line = |what: &dyn std::fmt::Debug| writeln!(text, "{what:?}").expect("memory");
    let mut processes: Vec<_> = model.processes().collect();
    processes.sort_by_key(|process| process.key);
    line(&(model.ticks(), model.span(), model.observed_ns(), model.host(), model.cost()));
    line(&(model.cpus(), model.nodes(), model.disks(), model.machine(), model.slow_requests()));
    let losses: Vec<_> = model.losses().iter().filter(|(loss, _)| *loss != sberf::tick::Loss::Evicted).collect();
    line(&(losses, model.tick_events().collect::<Vec<_>>()));
    for process in &processes {
        let mut process = (*process).clone();
        if !trees {
            (process.samples_complete, process.all_samples_complete) = (0, 0);
        }
        line(&process);
        model.threads(process.key).into_iter().for_each(|thread| line(thread));
    }
    // Of ticks that overlap, the last ten seconds are anybody's guess.
    for window in WINDOWS.into_iter().filter(|window| trees || !matches!(window, Window::Last(_))) {
        let scopes = processes.iter().map(|process| Scope::Process(process.key)).chain([Scope::Machine, Scope::Cpu(0)]);
        for scope in scopes {
            for what in [Latency::RunQueue, Latency::OffCpu, Latency::Slice, Latency::Disk] {
                line(&model.latency_hist(what, scope, window));
            }
        }
        for disk in model.disks() {
            line(&model.latency_hist(Latency::DiskDevice(disk.dev, None), Scope::Machine, window));
        }
        for thread in model.all_threads().map(|thread| thread.key).collect::<std::collections::BTreeSet<_>>() {
            line(&model.thread_totals(thread, window));
        }
        if !trees {
            continue;
        }
        let keys: Vec<Option<ProcessKey>> =
            processes.iter().step_by(4).map(|process| Some(process.key)).chain([None]).collect();
        for process in keys {
            for lens in [TreeLens::OnCpu, TreeLens::Blocked, TreeLens::All] {
                let tree = model.tree(&TreeQuery { process, lens, window, ..TreeQuery::default() });
                line(&(process, lens, window, tree.span_ns, tree.complete_weight));
                tree.nodes.iter().for_each(|node| line(&(&node.name, node.total_weight, node.count, node.depth)));
            }
        }
    }
    if !trees {
        return text;
    }
    let mut bytes = Vec::new();
    json::write(&mut bytes, model).expect("memory");
    // Of losses since the start, it has those that the model made itself.
    text + String::from_utf8_lossy(&bytes).split("\"losses\"").next().unwrap_or_default()
}

/// Where two accounts differ first.
pub fn difference(then: &str, now: &str) -> Option<String> {
    let mut lines = then.lines().zip(now.lines()).enumerate();
    let differ = lines.find(|(_, (then, now))| then != now);
    let count = then.lines().count() != now.lines().count();
    differ
        .map(|(at, (then, now))| format!("line {at}:\n{then}\nis now\n{now}"))
        .or(count.then(|| "other length".into()))
}
