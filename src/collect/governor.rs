//! Keeps what observing costs within a budget: says what to give up, and when to take it back. Pure: numbers in, steps out.
//!
//! Three intervals over the budget in a row, and as many steps are taken at once as bring it down, each time of what costs
//! most; while something is given up already, two are enough. Totals are never given up, a lens as a whole only if that brings the cost
//! within the budget and what is left of it is worth that, and more than its first step only if all of them could: where totals alone exceed
//! it, a lens that is hardly of use any more helps nobody. A step is taken back when there has been room for it for a while; a
//! while that doubles each time this turns out to have been too early.

use crate::tick::{Change, Governor, Lever, LeverKind};

/// Intervals over the budget in a row before something is given up; and when something is already.
const OVER: u32 = 3;
const STILL_OVER: u32 = 2;
/// Intervals with room before something is taken back, at first and at most.
const PATIENCE: u32 = 10;
const MOST_PATIENCE: u32 = 640;
/// Being over the budget so soon after taking something back means that it was too early.
const TOO_EARLY: u32 = 20;
/// What may be used of the budget after taking something back.
const ROOM: f64 = 0.8;
/// What costs less than this part of the budget is not worth giving up.
const WORTH: f64 = 0.02;
/// The same of what is left of a lens: without any, one cannot even see what takes the machine.
const WORTH_A_LENS: f64 = 0.1;

/// What one interval cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// CPU time that the machine had: of all its CPUs.
    pub machine_ns: u64,
    /// CPU time of all observing that can be helped.
    pub total_ns: u64,
    /// Of that, walking the stacks of blocked threads.
    pub walks_ns: u64,
    /// How many.
    pub walks: u64,
    /// Of that, taking samples.
    pub samples_ns: u64,
}

impl Spent {
    fn share(&self, ns: f64) -> f64 {
        ns / self.machine_ns.max(1) as f64
    }
}

/// One lever with the settings it has, from what was asked for down to off.
#[derive(Clone, Debug)]
struct Ladder {
    what: LeverKind,
    settings: Vec<u32>,
    at: usize,
}

impl Ladder {
    fn now(&self) -> u32 {
        self.settings[self.at]
    }

    fn next(&self) -> Option<u32> {
        self.settings.get(self.at + 1).copied()
    }

    fn lever(&self) -> Lever {
        Lever { what: self.what, now: self.now(), asked: self.settings[0] }
    }

    /// What it would cost at a setting, of what it costs now, as shares of the machine.
    fn at_setting(&self, setting: u32, cost: f64, spent: &Spent, seconds: f64) -> f64 {
        match (self.what, self.now()) {
            (_, 0) => 0.0,
            // No more walks than there is demand for.
            (LeverKind::Walks, now) if setting < now => {
                let allowed = f64::from(setting) * seconds;
                cost * (allowed / (spent.walks as f64).max(1.0)).min(1.0)
            }
            (_, now) => cost * f64::from(setting) / f64::from(now),
        }
    }
}

/// By how much fewer samples are taken at each step; then none.
const RATE_STEPS: [u32; 3] = [1, 3, 9];
/// The same for walks.
const WALK_STEPS: [u32; 3] = [1, 4, 16];

fn ladder(what: LeverKind, asked: u32, steps: [u32; 3]) -> Option<Ladder> {
    let mut settings: Vec<u32> = steps.iter().map(|step| (asked + step / 2) / step).filter(|&now| now > 0).collect();
    settings.push(0);
    settings.dedup();
    (asked > 0).then_some(Ladder { what, settings, at: 0 })
}

/// What a sample counts for where as many are taken as was asked for, as in `src/bpf/sberf.h`.
pub const WEIGHT_ONE: u32 = 1 << 16;

/// What one of `now_hz` samples counts for, in parts of [`WEIGHT_ONE`], so that all of them count for `asked_hz`. A third of 10 is 3, and
/// each of those counts for 3 1/3: as whole samples they would be a tenth too few.
pub fn sample_weight(asked_hz: u32, now_hz: u32) -> u32 {
    let weight = (u64::from(asked_hz) * u64::from(WEIGHT_ONE) + u64::from(now_hz) / 2).checked_div(now_hz.into());
    weight.map_or(WEIGHT_ONE, |weight| weight.try_into().unwrap_or(u32::MAX).max(WEIGHT_ONE))
}

/// The policy, and where it stands.
#[derive(Clone, Debug)]
pub struct Policy {
    budget: f64,
    ladders: Vec<Ladder>,
    /// What was given up, the newest last.
    given_up: Vec<LeverKind>,
    over: u32,
    room: u32,
    patience: u32,
    since_raised: u32,
    exhausted: bool,
}

impl Policy {
    /// `budget`: share of the machine. `walks_per_s`, `rate_hz`: as asked for; what is 0 is no lever.
    pub fn new(budget: f64, walks_per_s: u32, rate_hz: u32) -> Self {
        let walks = ladder(LeverKind::Walks, walks_per_s, WALK_STEPS);
        let rate = ladder(LeverKind::Rate, rate_hz, RATE_STEPS);
        Policy {
            budget,
            ladders: walks.into_iter().chain(rate).collect(),
            given_up: Vec::new(),
            over: 0,
            room: 0,
            patience: PATIENCE,
            since_raised: u32::MAX,
            exhausted: false,
        }
    }

    /// How a lever stands; 0 where there is none.
    #[cfg(test)]
    fn now(&self, what: LeverKind) -> u32 {
        self.ladders.iter().find(|ladder| ladder.what == what).map_or(0, Ladder::now)
    }

    /// Takes in an interval of that many CPU seconds; the changes in what it yields are to be made now.
    pub fn judge(&mut self, spent: &Spent) -> Governor {
        let levers = self.ladders.iter().map(Ladder::lever).collect();
        let cost = spent.share(spent.total_ns as f64);
        let is_over = cost > self.budget;
        self.over = if is_over { self.over + 1 } else { 0 };
        self.exhausted &= is_over;
        self.since_raised = self.since_raised.saturating_add(1);
        let enough = if self.given_up.is_empty() { OVER } else { STILL_OVER };
        let changes = match is_over {
            true if self.over >= enough => self.give_up(cost, spent),
            true => Vec::new(),
            false => self.take_back(cost, spent),
        };
        if is_over {
            self.room = 0;
        }
        Governor { budget_ppm: ppm(self.budget), cost_ppm: ppm(cost), levers, changes, exhausted: self.exhausted }
    }

    fn give_up(&mut self, cost: f64, spent: &Spent) -> Vec<Change> {
        if self.since_raised < TOO_EARLY {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            self.since_raised = u32::MAX;
        }
        let before: Vec<u32> = self.ladders.iter().map(Ladder::now).collect();
        let mut costs: Vec<f64> = self.ladders.iter().map(|ladder| self.cost_of(ladder.what, spent)).collect();
        let mut predicted = cost;
        while predicted > self.budget
            && let Some((at, saved)) = self.costliest(&costs, predicted, spent)
        {
            predicted -= saved;
            costs[at] -= saved;
            self.ladders[at].at += 1;
            self.given_up.push(self.ladders[at].what);
        }
        self.exhausted = predicted > self.budget;
        self.over = 0;
        let changed = self.ladders.iter().zip(before).filter(|(ladder, before)| ladder.now() != *before);
        changed.map(|(ladder, from)| Change { what: ladder.what, from, to: ladder.now() }).collect()
    }

    /// The lever that costs most, of those that can still go down, and what that saves.
    fn costliest(&self, costs: &[f64], predicted: f64, spent: &Spent) -> Option<(usize, f64)> {
        let attainable = predicted - costs.iter().sum::<f64>() <= self.budget;
        let step = |at: usize| {
            let (ladder, cost) = (&self.ladders[at], costs[at]);
            let next = ladder.next()?;
            let saved = cost - ladder.at_setting(next, cost, spent, self.seconds(spent));
            let allowed = match next {
                0 => predicted - saved <= self.budget && cost >= WORTH_A_LENS * self.budget,
                _ => ladder.at == 0 || attainable,
            };
            (cost >= WORTH * self.budget && allowed).then_some((at, cost, saved))
        };
        let steps = (0..self.ladders.len()).filter_map(step);
        steps.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _, saved)| (at, saved))
    }

    fn take_back(&mut self, cost: f64, spent: &Spent) -> Vec<Change> {
        let Some(at) = self.given_up.last().and_then(|what| self.ladders.iter().position(|of| of.what == *what)) else {
            // Nothing is given up: what went wrong before is forgotten bit by bit.
            if self.since_raised > MOST_PATIENCE {
                self.patience = PATIENCE;
            }
            return Vec::new();
        };
        let ladder = &self.ladders[at];
        let setting = ladder.settings[ladder.at.saturating_sub(1)];
        let now = self.cost_of(ladder.what, spent);
        let more = ladder.at_setting(setting, now, spent, self.seconds(spent)) - now;
        self.room = if cost + more.max(0.0) <= ROOM * self.budget { self.room + 1 } else { 0 };
        if self.room < self.patience {
            return Vec::new();
        }
        self.room = 0;
        self.since_raised = 0;
        self.given_up.pop();
        let ladder = &mut self.ladders[at];
        let from = ladder.now();
        ladder.at = ladder.at.saturating_sub(1);
        vec![Change { what: ladder.what, from, to: ladder.now() }]
    }

    fn cost_of(&self, what: LeverKind, spent: &Spent) -> f64 {
        spent.share(match what {
            LeverKind::Walks => spent.walks_ns as f64,
            LeverKind::Rate => spent.samples_ns as f64,
        })
    }

    /// CPU seconds of the interval.
    fn seconds(&self, spent: &Spent) -> f64 {
        spent.machine_ns as f64 / 1e9
    }
}

/// Millionths.
fn ppm(share: f64) -> u32 {
    (share * 1e6).round() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MACHINE_NS: u64 = 2_000_000_000;

    /// A machine on which things cost so much, as shares, while nothing is given up.
    #[derive(Clone, Copy, Debug)]
    struct Plant {
        rest: f64,
        walk_ns: f64,
        /// Walks per second and CPU that would be done.
        demand: f64,
        sample_ns: f64,
    }

    impl Plant {
        fn interval(&self, policy: &Policy) -> Spent {
            let walks = self.demand.min(f64::from(policy.now(LeverKind::Walks))) * 2.0;
            let samples = f64::from(policy.now(LeverKind::Rate)) * 2.0;
            let (walks_ns, samples_ns) = (walks * self.walk_ns, samples * self.sample_ns);
            Spent {
                machine_ns: MACHINE_NS,
                total_ns: (self.rest * MACHINE_NS as f64 + walks_ns + samples_ns) as u64,
                walks_ns: walks_ns as u64,
                walks: walks as u64,
                samples_ns: samples_ns as u64,
            }
        }
    }

    fn run(policy: &mut Policy, plant: Plant, intervals: usize) -> Vec<Governor> {
        (0..intervals).map(|_| policy.judge(&plant.interval(policy))).collect()
    }

    const QUIET: Plant = Plant { rest: 0.001, walk_ns: 5000.0, demand: 50.0, sample_ns: 10_000.0 };

    #[test]
    fn within_the_budget_nothing_changes() {
        let mut policy = Policy::new(0.01, 1000, 99);
        let told = run(&mut policy, QUIET, 50);
        assert!(told.iter().all(|told| told.changes.is_empty() && !told.is_governing() && !told.exhausted));
        assert_eq!((told[0].budget_ppm, told[0].levers.len()), (10_000, 2));
    }

    // over over over → the costliest goes down, as far as needed, at once
    #[test]
    fn the_third_interval_over_is_one_too_many() {
        let mut policy = Policy::new(0.01, 1000, 99);
        let plant = Plant { rest: 0.006, walk_ns: 6000.0, demand: 5000.0, sample_ns: 10_000.0 };
        let told = run(&mut policy, plant, 6);
        assert!(told[..2].iter().all(|told| told.changes.is_empty()));
        assert_eq!(told[2].changes, [Change { what: LeverKind::Walks, from: 1000, to: 250 }]);
        assert!(told[3..].iter().all(|told| told.cost_ppm <= 10_000 && told.changes.is_empty() && !told.exhausted));
        assert_eq!(told[3].lever(LeverKind::Walks).map(|lever| (lever.now, lever.asked)), Some((250, 1000)));
    }

    #[test]
    fn what_cannot_be_helped_is_said() {
        let mut policy = Policy::new(0.01, 1000, 99);
        let plant = Plant { rest: 0.09, demand: 0.0, ..QUIET };
        let told = run(&mut policy, plant, 20);
        let changes: Vec<&Change> = told.iter().flat_map(|told| &told.changes).collect();
        assert_eq!(changes, [&Change { what: LeverKind::Rate, from: 99, to: 33 }], "more would not help");
        assert!(told[2].exhausted && told[19].exhausted && !told[1].exhausted);
    }

    #[test]
    fn a_lens_goes_when_that_is_enough() {
        let mut policy = Policy::new(0.01, 0, 99);
        let plant = Plant { rest: 0.0098, demand: 0.0, sample_ns: 100_000.0, ..QUIET };
        let told = run(&mut policy, plant, 8);
        assert_eq!(policy.now(LeverKind::Rate), 0);
        assert!(!told[7].exhausted && told[7].cost_ppm <= 10_000);
        assert_eq!(told[7].levers.len(), 1, "what was not asked for is no lever");
    }

    #[test]
    fn the_last_samples_stay_where_they_cost_next_to_nothing() {
        let mut policy = Policy::new(0.01, 0, 99);
        // At 11 Hz they are 0.02 of the budget, which is exceeded by 0.01 then.
        let told = run(&mut policy, Plant { rest: 0.0099, demand: 0.0, sample_ns: 20_000.0, ..QUIET }, 20);
        assert_eq!(policy.now(LeverKind::Rate), 11);
        assert!(told[19].exhausted, "and it is said that the budget is not kept");
    }

    #[test]
    fn it_comes_back_when_there_is_room() {
        let mut policy = Policy::new(0.01, 1000, 99);
        run(&mut policy, Plant { rest: 0.09, demand: 5000.0, ..QUIET }, 10);
        assert!(policy.now(LeverKind::Walks) < 1000 && policy.now(LeverKind::Rate) < 99);
        let told = run(&mut policy, QUIET, 60);
        assert_eq!((policy.now(LeverKind::Walks), policy.now(LeverKind::Rate)), (1000, 99));
        let steps = told.iter().filter(|told| !told.changes.is_empty()).count();
        assert_eq!(steps, 2, "one at a time");
        assert!(told[..9].iter().all(|told| told.changes.is_empty()), "not at once");
    }

    #[test]
    fn a_single_expensive_interval_is_forgiven() {
        let mut policy = Policy::new(0.01, 1000, 99);
        for _ in 0..20 {
            let mut told = run(&mut policy, Plant { rest: 0.5, ..QUIET }, 2);
            told.extend(run(&mut policy, QUIET, 1));
            assert!(told.iter().all(|told| told.changes.is_empty()));
        }
    }

    // The kernel side carries what is less than one sample over to the next.
    #[test]
    fn samples_at_a_lower_rate_count_for_the_same_time() {
        for asked in 1..=4999 {
            let rates = ladder(LeverKind::Rate, asked, RATE_STEPS).expect("asked for").settings;
            for now in rates.into_iter().filter(|&now| now > 0) {
                // 100 s on a CPU.
                let taken = 100 * u64::from(now);
                let weight = taken * u64::from(sample_weight(asked, now)) / u64::from(WEIGHT_ONE);
                let off = weight as f64 / (100.0 * f64::from(asked)) - 1.0;
                assert!(off.abs() < 0.002, "{asked} Hz by {now}: {off:+.4}");
            }
        }
        assert_eq!((sample_weight(99, 99), sample_weight(99, 33)), (WEIGHT_ONE, 3 * WEIGHT_ONE));
        assert_eq!(sample_weight(99, 0), WEIGHT_ONE);
    }

    fn plant() -> impl Strategy<Value = Plant> {
        (0.0..0.05f64, 500.0..20_000f64, 0.0..5000f64, 2000.0..50_000f64)
            .prop_map(|(rest, walk_ns, demand, sample_ns)| Plant { rest, walk_ns, demand, sample_ns })
    }

    proptest! {
        #[test]
        fn it_settles(plant in plant(), budget in 0.001..0.05f64, walks in 0u32..5000, rate in 0u32..5000) {
            let mut policy = Policy::new(budget, walks, rate);
            let told = run(&mut policy, plant, 2000);
            let changed = |told: &[Governor]| told.iter().filter(|told| !told.changes.is_empty()).count();
            prop_assert!(changed(&told) <= 30, "{} changes", changed(&told));
            let last = &told[told.len() - 1];
            prop_assert!(changed(&told[told.len() - 600..]) <= 2, "it goes on");
            // In the end it is within the budget, or says that it cannot be, or is trying something.
            let tail = &told[told.len() - 100..];
            let over = tail.iter().filter(|told| told.cost_ppm > told.budget_ppm + 1 && !told.exhausted).count();
            prop_assert!(over <= 4, "{over} of 100 intervals over the budget: {last:?}");
            for told in &told {
                for change in &told.changes {
                    prop_assert!(change.to < change.from || told.cost_ppm <= told.budget_ppm);
                }
            }
        }

        #[test]
        fn whatever_happened_it_comes_back(plants in prop::collection::vec(plant(), 1..20), walks in 1u32..5000, rate in 1u32..200) {
            let mut policy = Policy::new(0.01, walks, rate);
            for plant in plants {
                run(&mut policy, plant, 7);
            }
            let quiet = Plant { rest: 0.0, walk_ns: 0.0, demand: 0.0, sample_ns: 0.0 };
            run(&mut policy, quiet, 6 * MOST_PATIENCE as usize);
            prop_assert_eq!((policy.now(LeverKind::Walks), policy.now(LeverKind::Rate)), (walks, rate));
        }
    }
}
