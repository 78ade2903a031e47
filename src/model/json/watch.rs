//! How sberf watched itself, in the object.

use serde::Serialize;

use crate::tick::{Change, Check, Counter, Governor, Lever, Verdict};

#[derive(Serialize)]
pub struct GovernorObject {
    budget_ppm: u32,
    cost_ppm: u32,
    levers: Vec<LeverObject>,
    changes: Vec<ChangeObject>,
    exhausted: bool,
}

#[derive(Serialize)]
struct LeverObject {
    name: &'static str,
    now: u32,
    asked: u32,
}

#[derive(Serialize)]
struct ChangeObject {
    name: &'static str,
    from: u32,
    to: u32,
}

#[derive(Serialize)]
pub struct CheckObject {
    counter: &'static str,
    lens: &'static str,
    ours: u64,
    theirs: u64,
    hidden: u64,
    verdict: &'static str,
}

pub fn governor(governor: &Governor) -> GovernorObject {
    let Governor { budget_ppm, cost_ppm, levers, changes, exhausted } = governor;
    let lever = |&Lever { what, now, asked }: &Lever| LeverObject { name: what.name(), now, asked };
    let change = |&Change { what, from, to }: &Change| ChangeObject { name: what.name(), from, to };
    GovernorObject {
        budget_ppm: *budget_ppm,
        cost_ppm: *cost_ppm,
        levers: levers.iter().map(lever).collect(),
        changes: changes.iter().map(change).collect(),
        exhausted: *exhausted,
    }
}

pub fn check(check: &Check) -> CheckObject {
    let &Check { what, ours, theirs, hidden, verdict } = check;
    let counter = match what {
        Counter::Switches => "switches",
        Counter::CpuTime => "cpu_time_ns",
        Counter::DiskRequests => "disk_requests",
        Counter::DiskBytes => "disk_bytes",
        Counter::Forks => "forks",
        Counter::Samples => "samples",
    };
    let verdict = match verdict {
        Verdict::TooFew => "too_few",
        Verdict::Agrees => "agrees",
        Verdict::Disagrees => "disagrees",
        Verdict::Silent => "silent",
    };
    CheckObject { counter, lens: what.lens(), ours, theirs, hidden, verdict }
}
