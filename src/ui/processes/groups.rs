//! Processes put together by command, user, cgroup or parent: a row is their sum. What a thousand processes of a millisecond
//! do adds up there, while each of their own rows says next to nothing.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::label;
use crate::model::{Model, Process};
use crate::ui::format;

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Name of the program.
    Command,
    User,
    Cgroup,
    /// Who started them.
    Parent,
}

impl By {
    /// In the order of the menu.
    pub const ALL: [By; 4] = [By::Command, By::User, By::Cgroup, By::Parent];

    /// The word on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            By::Command => "command",
            By::User => "user",
            By::Cgroup => "cgroup",
            By::Parent => "parent",
        }
    }
}

/// Tells to which group a process belongs.
pub struct Sorter<'a> {
    by: By,
    model: &'a Model,
    /// Who lives, by PID; only where parents are asked for.
    names: FxHashMap<u32, &'a str>,
}

impl<'a> Sorter<'a> {
    /// Of the processes of a model.
    pub fn new(by: By, model: &'a Model) -> Self {
        let live = model.processes().filter(|process| by == By::Parent && process.exited.is_none());
        let names = live.map(|process| (process.key.tgid, process.facts.comm.as_str())).collect();
        Sorter { by, model, names }
    }

    /// The name of its group; may hold control characters. Threads of the kernel are never with others: what idles there does
    /// not here.
    pub fn label(&self, process: &Process) -> String {
        let facts = &process.facts;
        match self.by {
            By::Command if facts.kernel => facts.comm.split('/').next().unwrap_or_default().into(),
            By::Command => facts.comm.clone(),
            _ if facts.kernel => "kernel threads".into(),
            By::User => label::user(self.model, facts.uid),
            By::Cgroup => facts.cgroup.clone().unwrap_or_else(|| "cgroup not known".into()),
            By::Parent => match (facts.ppid, self.names.get(&facts.ppid)) {
                (0, _) => "no parent".into(),
                (ppid, Some(name)) => format!("of {ppid} {name}"),
                (ppid, None) => format!("of {ppid}"),
            },
        }
    }
}

/// Some processes together.
pub struct Group {
    /// Identity, made of its name.
    pub id: u64,
    /// Their sum; its name is the group's.
    pub process: Process,
    /// How many lived in the newest tick.
    pub count: u64,
    /// Those of them that have ended.
    pub exited: u64,
    /// Whose all of them are.
    pub uid: Option<u32>,
}

/// Groups of processes, in no order; those that ended in an earlier tick are in none.
pub fn groups(by: By, model: &Model, processes: &[&Process]) -> Vec<Group> {
    let sorter = Sorter::new(by, model);
    let mut at: FxHashMap<(bool, String), usize> = FxHashMap::default();
    let mut groups: Vec<Group> = Vec::new();
    for process in processes.iter().filter(|process| process.exited.is_none() || process.is_active()) {
        let key = (process.facts.kernel, sorter.label(process));
        let at = *at.entry(key).or_insert_with_key(|key| {
            groups.push(Group::new(key, process.facts.uid));
            groups.len() - 1
        });
        groups[at].add(process);
    }
    groups
}

impl Group {
    fn new(key: &(bool, String), uid: u32) -> Self {
        let mut process = Process::default();
        (process.facts.kernel, process.facts.comm) = key.clone();
        Group { id: FxBuildHasher.hash_one(key), process, count: 0, exited: 0, uid: Some(uid) }
    }

    fn add(&mut self, process: &Process) {
        self.count += 1;
        self.exited += u64::from(process.exited.is_some());
        self.uid = self.uid.filter(|&uid| uid == process.facts.uid);
        let sum = &mut self.process;
        sum.threads = sum.threads.saturating_add(process.threads);
        sum.tick.add(&process.tick);
        sum.tick_io.add(&process.tick_io);
        sum.samples = sum.samples.saturating_add(process.samples);
        sum.samples_complete = sum.samples_complete.saturating_add(process.samples_complete);
        // What has ended has no memory any more.
        if let Some(bytes) = process.facts.rss_bytes.filter(|_| process.exited.is_none()) {
            sum.facts.rss_bytes = Some(sum.facts.rss_bytes.unwrap_or(0).saturating_add(bytes));
        }
    }

    /// What stands behind its name in so many cells: ` (12 exited)`, ` †12`; the longest that leaves the name whole. Empty while
    /// all live.
    pub fn end(&self, cells: usize) -> String {
        if self.exited == 0 {
            return String::new();
        }
        let exited = format::grouped(self.exited);
        let name = format::width(&label::command(&self.process, true, cells));
        let mut ways = [format!(" ({exited} exited)"), format!(" †{exited}")].into_iter();
        ways.find(|way| name + format::width(way) <= cells).unwrap_or_default()
    }
}
