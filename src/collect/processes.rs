//! Facts of processes: what a look at all threads says at each tick, joined with what procfs says now and then.

use rustc_hash::{FxHashMap, FxHashSet};

use super::facts::Facts;
use super::quotas::Quotas;
use super::stuck::StuckThreads;
use crate::tick::{Event, Life, ProcessFacts, ProcessKey, Quota, Stuck, Tick};

/// Ticks between two comparisons of the task iterator with procfs.
const RECONCILE_EVERY: u64 = 60;

/// What of a process a look at all threads knows, for those who add the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Leader {
    pub key: ProcessKey,
    pub ppid: u32,
    pub uid: u32,
    pub kernel: bool,
    pub comm: String,
    pub rss_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
}

/// All processes that are known.
pub struct Processes {
    facts: Facts,
    known: FxHashMap<ProcessKey, Entry>,
    changed: FxHashSet<ProcessKey>,
    quotas: Quotas,
    stuck: StuckThreads,
    tick: u64,
    /// Threads that procfs has and the iterator does not show: as last compared, and as told.
    hidden: (u64, u64),
    hidden_tids: Vec<u32>,
}

struct Entry {
    facts: ProcessFacts,
    /// The last tick whose iterator showed it.
    seen: u64,
}

impl Processes {
    /// None yet. `nodes`: ids of the NUMA nodes.
    pub fn new(nodes: &[u32]) -> Self {
        Processes {
            facts: Facts::new(nodes),
            known: FxHashMap::default(),
            changed: FxHashSet::default(),
            quotas: Quotas::new(),
            stuck: StuckThreads::default(),
            tick: 0,
            hidden: (0, 0),
            hidden_tids: Vec::new(),
        }
    }

    /// Processes that the first tick will show: their facts are read meanwhile, so that it has them.
    pub fn expect(&mut self, keys: impl Iterator<Item = ProcessKey>) {
        keys.for_each(|key| self.facts.born(key));
        // Nothing was asked for before: there is no news that could get lost.
        self.facts.refresh();
    }

    /// Processes on the screen.
    pub fn visible(&mut self, keys: &[ProcessKey]) {
        self.facts.want(keys);
    }

    /// The process that is looked at.
    pub fn focus(&mut self, key: Option<ProcessKey>) {
        self.facts.focus(key);
    }

    /// Takes in what the iterator showed and what happened; returns the facts that changed. `still`: processes that are there
    /// and as they were.
    pub fn update(&mut self, leaders: &[Leader], still: &[ProcessKey], events: &[Event]) -> Vec<ProcessFacts> {
        self.tick += 1;
        for event in events.iter().filter(|event| event.what == Life::Exec) {
            self.facts.exec(event.process);
        }
        for leader in leaders {
            self.meet(leader);
        }
        for key in still {
            if let Some(entry) = self.known.get_mut(key) {
                entry.seen = self.tick;
            }
        }
        self.read();
        self.forget(events, leaders.len() + still.len());
        let known = &self.known;
        self.changed.drain().filter_map(|key| known.get(&key)).map(|entry| entry.facts.clone()).collect()
    }

    fn meet(&mut self, leader: &Leader) {
        let tick = self.tick;
        let facts = &mut self.facts;
        let mut fresh = false;
        let entry = self.known.entry(leader.key).or_insert_with(|| {
            fresh = true;
            if !leader.kernel {
                facts.born(leader.key);
            }
            Entry { facts: ProcessFacts { key: leader.key, ..ProcessFacts::default() }, seen: tick }
        });
        entry.seen = tick;
        if leader.update(&mut entry.facts) || fresh {
            self.changed.insert(leader.key);
        }
    }

    /// What the CPU quotas of their cgroups did since the last call.
    pub fn quotas(&mut self) -> Vec<Quota> {
        self.quotas.since()
    }

    /// Threads of programs that no signal wakes and that have slept for long, as of the end of a tick.
    pub fn stuck(&mut self, tick: &Tick) -> Vec<Stuck> {
        let known = &self.known;
        self.stuck.find(tick, |process| known.get(&process).is_none_or(|entry| entry.facts.kernel))
    }

    /// What the reader of procfs has found meanwhile.
    fn read(&mut self) {
        let news = self.facts.refresh();
        for (key, part) in news.facts {
            let Some(entry) = self.known.get_mut(&key) else { continue };
            if let Some(cgroup) = part.cgroup.as_ref().filter(|cgroup| entry.facts.cgroup.as_ref() != Some(cgroup)) {
                self.quotas.meet(cgroup);
            }
            part.update(&mut entry.facts);
            self.changed.insert(key);
        }
        if let Some((key, bytes)) = news.placement
            && let Some(entry) = self.known.get_mut(&key)
        {
            entry.facts.node_bytes = Some(bytes);
            self.changed.insert(key);
        }
        if let Some(hidden) = news.hidden {
            self.hidden.0 = hidden.len() as u64;
            self.hidden_tids = hidden;
        }
    }

    /// Lets go of processes that ended, also of those whose end was not told of. `met`: how many were shown.
    fn forget(&mut self, events: &[Event], met: usize) {
        for event in events {
            if let Life::Exit { .. } = event.what
                && self.known.get(&event.process).is_none_or(|entry| entry.seen < self.tick)
            {
                self.known.remove(&event.process);
                self.facts.gone(event.process);
            }
        }
        if met == self.known.len() {
            return;
        }
        let (tick, facts) = (self.tick, &mut self.facts);
        self.known.retain(|key, entry| {
            let keep = entry.seen + 2 > tick;
            if !keep {
                facts.gone(*key);
            }
            keep
        });
    }

    /// Now and then has the threads that the iterator showed compared with those that procfs has.
    pub fn reconcile(&mut self, tids: impl Iterator<Item = u32>, boot_ns: u64) {
        if self.tick % RECONCILE_EVERY == 1 {
            self.facts.reconcile(tids.collect(), boot_ns);
        }
    }

    /// Threads that procfs has and the iterator did not show when they were compared last.
    pub fn hidden(&self) -> &[u32] {
        &self.hidden_tids
    }

    /// Threads that procfs has and the iterator does not show, beyond those told of before.
    pub fn take_hidden(&mut self) -> u64 {
        let (hidden, told) = self.hidden;
        self.hidden.1 = told.max(hidden);
        hidden.saturating_sub(told)
    }
}

impl Leader {
    /// Brings facts up to date with what the iterator saw; whether anything changed.
    pub fn update(&self, facts: &mut ProcessFacts) -> bool {
        let mut changed = facts.comm != self.comm;
        if changed {
            facts.comm.clone_from(&self.comm);
        }
        changed |= std::mem::replace(&mut facts.ppid, self.ppid) != self.ppid;
        changed |= std::mem::replace(&mut facts.uid, self.uid) != self.uid;
        changed |= std::mem::replace(&mut facts.kernel, self.kernel) != self.kernel;
        // A process that is ending has given its memory back; what it had last says more.
        if self.rss_bytes.is_some() {
            changed |= std::mem::replace(&mut facts.rss_bytes, self.rss_bytes) != self.rss_bytes;
            changed |= std::mem::replace(&mut facts.virtual_bytes, self.virtual_bytes) != self.virtual_bytes;
        }
        changed
    }
}
