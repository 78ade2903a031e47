//! What sberf gave up to stay within its budget, and what it counts that procfs counts otherwise, in words.

use super::format;
use crate::tick::{Check, Counter, Governor, Lever, LeverKind, Verdict, Watch};

/// What whoever looks at anything is told, in as many words as fit into that many cells: whole clauses, for half a number
/// is another number. `None` while there is nothing to say.
pub fn banner(watch: &Watch, cells: usize) -> Option<String> {
    let governed = watch.governor.as_ref().filter(|governor| governor.is_governing() || governor.exhausted);
    let ways = match (watch.alarms().next(), governed) {
        (Some(alarm), _) => ways_to_doubt(alarm),
        (None, Some(governor)) => ways_to_say_what_was_given_up(governor),
        (None, None) => return None,
    };
    ways.into_iter().find(|way| format::width(way) <= cells)
}

/// The longest first.
fn ways_to_doubt(alarm: &Check) -> Vec<String> {
    let lens = alarm.what.lens();
    let short = match alarm.verdict {
        Verdict::Silent => format!("{lens} is silent"),
        _ => format!("{lens} is in doubt"),
    };
    vec![said(alarm), format!("{short}, $ says more"), short]
}

/// The longest first.
fn ways_to_say_what_was_given_up(governor: &Governor) -> Vec<String> {
    let (state, what) = (state(governor), what_was_given_up(governor));
    let mut ways = vec![gave_up(governor), format!("{state}: {}", what.join(", "))];
    if let [first, rest @ ..] = what.as_slice()
        && !rest.is_empty()
    {
        ways.push(format!("{state}: {first}, {} more", rest.len()));
    }
    ways.extend([format!("{state}, $ says more"), state.into()]);
    ways
}

/// `over budget (1.2 % of 1.0 %): sampling at 33 of 99 Hz`.
pub fn gave_up(governor: &Governor) -> String {
    let [cost, budget] = [governor.cost_ppm, governor.budget_ppm].map(|ppm| format::percent(f64::from(ppm) / 1e6));
    format!("{} ({cost} of {budget} %): {}", state(governor), what_was_given_up(governor).join(", "))
}

fn state(governor: &Governor) -> &'static str {
    if governor.cost_ppm > governor.budget_ppm { "over budget" } else { "kept to the budget" }
}

fn what_was_given_up(governor: &Governor) -> Vec<String> {
    let levers = governor.levers.iter().filter(|lever| lever.now < lever.asked).map(lever_words);
    let left = governor.exhausted.then(|| "totals alone cost more".to_owned());
    levers.chain(left).collect()
}

fn lever_words(lever: &Lever) -> String {
    let Lever { what, now, asked } = *lever;
    match (what, now) {
        (LeverKind::Walks, 0) => "no blocked stacks".into(),
        (LeverKind::Walks, now) => format!("{now} of {asked} blocked stacks/s"),
        (LeverKind::Rate, 0) => "sampling off".into(),
        (LeverKind::Rate, now) => format!("sampling at {now} of {asked} Hz"),
    }
}

/// `sched: counts 120k context switches, procfs 190k`.
pub fn said(check: &Check) -> String {
    let Check { what, ours, theirs, hidden, verdict } = *check;
    let number = |number: u64| match what {
        Counter::CpuTime => format::duration(number),
        Counter::DiskBytes => format::bytes(number),
        _ => format::count(number),
    };
    let lens = what.lens();
    match (verdict, what) {
        // procfs has no count of these, only the time they are of.
        (Verdict::Silent, Counter::Samples) => format!("{lens} is silent: no samples, CPU time for {}", number(theirs)),
        (Verdict::Silent, _) => format!("{lens} is silent: no {}, procfs counts {}", what.name(), number(theirs)),
        _ => {
            let known = if hidden > 0 { format!(", {} hidden", number(hidden)) } else { String::new() };
            let who = if what == Counter::Samples { "CPU time for" } else { "procfs" };
            format!("{lens}: {} {}, {who} {}{known}", number(ours), what.name(), number(theirs))
        }
    }
}

/// The word for a verdict.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::TooFew => "too few to tell",
        Verdict::Agrees => "agrees",
        Verdict::Disagrees => "disagrees",
        Verdict::Silent => "silent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lever(what: LeverKind, now: u32, asked: u32) -> Lever {
        Lever { what, now, asked }
    }

    #[test]
    fn nothing_is_said_while_all_is_well() {
        let mut watch = Watch::default();
        assert_eq!(banner(&watch, 200), None);
        let levers = vec![lever(LeverKind::Rate, 99, 99), lever(LeverKind::Walks, 1000, 1000)];
        watch.governor = Some(Governor { levers, ..Governor::default() });
        watch.checks = vec![Check { verdict: Verdict::Agrees, ..Check::default() }, Check::default()];
        assert_eq!(banner(&watch, 200), None);
    }

    #[test]
    fn what_was_given_up_is_said() {
        let levers = vec![lever(LeverKind::Walks, 250, 1000), lever(LeverKind::Rate, 0, 99)];
        let governor =
            Governor { budget_ppm: 10_000, cost_ppm: 89_000, levers, exhausted: true, ..Governor::default() };
        let watch = Watch { governor: Some(governor), checks: Vec::new() };
        let text = "over budget (8.9 of 1.0 %): 250 of 1000 blocked stacks/s, sampling off, totals alone cost more";
        assert_eq!(banner(&watch, 200).as_deref(), Some(text));
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_whole_clauses() {
        let levers = vec![lever(LeverKind::Walks, 63, 1000), lever(LeverKind::Rate, 33, 99)];
        let governor = Governor { budget_ppm: 10_000, cost_ppm: 13_000, levers, ..Governor::default() };
        let mut watch = Watch { governor: Some(governor), checks: Vec::new() };
        let said = |watch: &Watch, cells| banner(watch, cells).unwrap_or_default();
        for (cells, text) in [
            (80, "over budget (1.3 of 1.0 %): 63 of 1000 blocked stacks/s, sampling at 33 of 99 Hz"),
            (65, "over budget: 63 of 1000 blocked stacks/s, sampling at 33 of 99 Hz"),
            (64, "over budget: 63 of 1000 blocked stacks/s, 1 more"),
            (47, "over budget, $ says more"),
            (23, "over budget"),
            (10, ""),
        ] {
            assert_eq!(said(&watch, cells), text, "{cells} cells");
        }
        watch.checks = vec![Check { ours: 120_000, theirs: 190_000, verdict: Verdict::Disagrees, ..Check::default() }];
        assert_eq!(said(&watch, 42), "sched: 120k context switches, procfs 190k");
        assert_eq!(said(&watch, 40), "sched is in doubt, $ says more");
        assert_eq!(said(&watch, 20), "sched is in doubt");
    }

    #[test]
    fn an_alarm_goes_first() {
        let check = Check { ours: 120_000, theirs: 190_000, verdict: Verdict::Disagrees, ..Check::default() };
        let silent = Check { what: Counter::Forks, ours: 0, theirs: 700, verdict: Verdict::Silent, ..Check::default() };
        assert_eq!(said(&silent), "life is silent: no forks, procfs counts 700");
        let samples = Check { what: Counter::Samples, ours: 487, theirs: 495, ..Check::default() };
        assert_eq!(said(&samples), "oncpu: 487 samples, CPU time for 495");
        let none = Check { ours: 0, verdict: Verdict::Silent, ..samples };
        assert_eq!(said(&none), "oncpu is silent: no samples, CPU time for 495");
        let watch = Watch { governor: Some(Governor { exhausted: true, ..Governor::default() }), checks: vec![check] };
        assert_eq!(banner(&watch, 200).as_deref(), Some("sched: 120k context switches, procfs 190k"));
    }
}
