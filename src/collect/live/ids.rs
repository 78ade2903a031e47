//! By which ids tasks are known here. The kernel side has those of the first pid namespace; whoever runs sberf in another one
//! has the ids of that, and so has `/proc` there. They are translated where records come in, so all that lies above knows
//! one kind only. What is elsewhere has no id here: it is marked, left out, and counted.
//!
//! In the first namespace there is nothing to translate and nothing of this is loaded.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Iter, Link, ProgramInput};
use rustc_hash::FxHashMap;

use super::maps::memory_of;
use super::rings::Ring;
use super::skel::ids::types::id_rec;
use super::skel::ids::{IdsSkel, IdsSkelBuilder};
use super::skel::sched::types::{acc, place_key, task_rec};
use super::wire;
use crate::collect::host;
use crate::collect::mappings::ns_per_clock_tick;
use crate::collect::process_facts::own_ids;
use crate::collect::watched::{ELSEWHERE, is_elsewhere};
use crate::tick::{Event, Life, ProcessKey};

/// Ticks after which what is known is compared with what is there: ids of threads that ended are let go.
const TIDY_EVERY: u32 = 60;

/// The translation; the same for all who have a copy. Without anything in it, ids are as they are.
#[derive(Clone, Default)]
pub struct Ids(Option<Arc<Home>>);

struct Home {
    table: Mutex<Table>,
    /// Records of tasks elsewhere, since they were last counted.
    left_out: AtomicU64,
}

#[derive(Default)]
struct Table {
    born: Option<Ring>,
    /// By id and start in the first namespace.
    tasks: FxHashMap<(u32, u64), Task>,
    /// By id alone: who has it, or had it last.
    latest: FxHashMap<u32, u32>,
    /// How often it was tidied.
    round: u32,
}

#[derive(Clone, Copy)]
struct Task {
    /// By which it is known: as `/proc` has it.
    shown: u32,
    /// In our own namespace, which may lie below that of `/proc`.
    own: u32,
    round: u32,
}

impl Table {
    fn learn(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(record) = wire::take::<id_rec>(&mut rest) {
            let task = Task { shown: record.shown, own: record.own, round: self.round };
            self.tasks.insert((record.tid, record.start_ns), task);
            self.latest.insert(record.tid, record.shown);
        }
    }

    /// What happened before now is in the ring by now.
    fn listen(&mut self) {
        if let Some(bytes) = self.born.as_mut().map(Ring::take).filter(|bytes| !bytes.is_empty()) {
            self.learn(&bytes);
        }
    }

    fn shown(&mut self, id: u32, start_ns: u64) -> u32 {
        let key = (id, start_ns);
        if !self.tasks.contains_key(&key) {
            self.listen();
        }
        self.tasks.get(&key).map_or(id | ELSEWHERE, |task| task.shown)
    }

    fn latest(&mut self, id: u32) -> u32 {
        if !self.latest.contains_key(&id) {
            self.listen();
        }
        self.latest.get(&id).copied().unwrap_or(id | ELSEWHERE)
    }

    /// Keeps who is `there`, and who was born since this was done last.
    fn tidy(&mut self, there: &[u8]) {
        self.listen();
        self.round = self.round.wrapping_add(1);
        let born = self.round.wrapping_sub(1);
        self.learn(there);
        let round = self.round;
        self.tasks.retain(|_, task| task.round == round || task.round == born);
        let tasks = &self.tasks;
        let known: rustc_hash::FxHashSet<u32> = tasks.keys().map(|&(id, _)| id).collect();
        self.latest.retain(|id, _| known.contains(id));
    }
}

impl Home {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ids {
    /// Ids are those of the first namespace.
    pub fn are_first(&self) -> bool {
        self.0.is_none()
    }

    /// A process by the id it has here; marked if it has none.
    pub fn process(&self, key: ProcessKey) -> ProcessKey {
        match &self.0 {
            None => key,
            Some(home) => ProcessKey { tgid: home.table().shown(key.tgid, key.start_ns), ..key },
        }
    }

    /// The same of what would be told of; `None`, and it is counted, if it is elsewhere.
    pub fn told(&self, key: ProcessKey) -> Option<ProcessKey> {
        let process = self.process(key);
        match is_elsewhere(process.tgid) {
            true => {
                self.leave_out(1);
                None
            }
            false => Some(process),
        }
    }

    /// A thread by the id it has here.
    pub fn thread(&self, tid: u32, start_ns: u64) -> u32 {
        self.0.as_ref().map_or(tid, |home| home.table().shown(tid, start_ns))
    }

    /// Who has that id now, of whom no more is known.
    pub fn latest(&self, id: u32) -> u32 {
        match &self.0 {
            Some(home) if id != 0 => home.table().latest(id),
            _ => id,
        }
    }

    /// Back to the id that the kernel side has of a process; its start need be right to a clock tick only.
    pub fn first(&self, process: ProcessKey) -> Option<u32> {
        let Some(home) = &self.0 else { return Some(process.tgid) };
        let ticks = |start_ns: u64| start_ns / ns_per_clock_tick();
        let mut table = home.table();
        table.listen();
        let is_it = |&(&(_, start_ns), task): &(&(u32, u64), &Task)| {
            task.shown == process.tgid && ticks(start_ns) == ticks(process.start_ns)
        };
        table.tasks.iter().find(is_it).map(|(&(id, _), _)| id)
    }

    /// The id of a process in our own namespace, for the calls that take one.
    pub fn own(&self, process: ProcessKey) -> u32 {
        let Some(home) = &self.0 else { return process.tgid };
        let is_it = |(&(_, start_ns), task): (&(u32, u64), &Task)| {
            (task.shown == process.tgid && start_ns / ns_per_clock_tick() == process.start_ns / ns_per_clock_tick())
                .then_some(task.own)
        };
        home.table().tasks.iter().find_map(is_it).unwrap_or(process.tgid)
    }

    /// Translates records of threads where they lie; see [`super::tasks::take`].
    pub fn records(&self, bytes: &mut [u8]) {
        let Some(home) = &self.0 else { return };
        let mut table = home.table();
        let mut at = 0;
        while let Some(task) = bytes.get(at..).and_then(wire::read::<task_rec>) {
            let leader = table.shown(task.tgid, task.leader_start_ns);
            let tid = if task.tid == task.tgid { leader } else { table.shown(task.tid, task.start_ns) };
            let parent = if task.ppid == 0 { 0 } else { table.latest(task.ppid) };
            let fields = [
                (offset_of!(task_rec, tid), tid),
                (offset_of!(task_rec, tgid), leader),
                // Like that of the first process: nobody.
                (offset_of!(task_rec, ppid), if is_elsewhere(parent) { 0 } else { parent }),
            ];
            for (offset, id) in fields {
                bytes[at + offset..][..4].copy_from_slice(&id.to_ne_bytes());
            }
            home.left_out.fetch_add(is_elsewhere(leader).into(), Ordering::Relaxed);
            at += size_of::<task_rec>();
            if task.has_acc != 0 {
                at += size_of::<acc>() + super::tasks::PLACES * size_of::<place_key>();
            }
        }
    }

    /// Translates what happened to processes. What did elsewhere stays, marked.
    pub fn events(&self, events: &mut [Event]) {
        for event in events.iter_mut().filter(|_| !self.are_first()) {
            event.process = self.process(event.process);
            if let Life::Fork { parent } = &mut event.what {
                let known = self.latest(*parent);
                *parent = if is_elsewhere(known) { 0 } else { known };
            }
        }
    }

    /// So many records are of elsewhere.
    pub fn leave_out(&self, count: u64) {
        if let Some(home) = &self.0 {
            home.left_out.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Records of tasks elsewhere since the last call.
    pub fn take_left_out(&self) -> u64 {
        self.0.as_ref().map_or(0, |home| home.left_out.swap(0, Ordering::Relaxed))
    }
}

/// The kernel side of it.
pub struct Births {
    ids: Ids,
    skel: IdsSkel<'static>,
    list: Link,
    _born: Link,
    ticks: u32,
    lost: u32,
}

impl Births {
    /// Memory of its maps, bytes.
    pub fn map_bytes(&self) -> u64 {
        self.skel.object().maps().map(|map| memory_of(&map)).sum()
    }

    /// What is loaded.
    pub fn object(&self) -> &libbpf_rs::Object {
        self.skel.object()
    }

    /// Now and then, and when births were missed: looks at who is there.
    pub fn tick(&mut self) {
        let lost = self.skel.maps.bss_data.as_ref().map_or(0, |data| data.home.lost);
        self.ticks += 1;
        if self.ticks.is_multiple_of(TIDY_EVERY) || lost != self.lost {
            self.lost = lost;
            if let (Ok(there), Some(home)) = (list(&self.list), &self.ids.0) {
                home.table().tidy(&there);
            }
        }
    }
}

/// The translation, what keeps it up to date, and which process we are to the kernel side.
pub type Loaded = (Ids, Option<Births>, u32);

/// Finds out where we live, and follows who is born there.
///
/// # Errors
/// What was tried, and what libbpf said.
pub fn load() -> Result<Loaded, libbpf_rs::Error> {
    if host::in_pid_namespace() == Some(false) {
        return Ok((Ids::default(), None, std::process::id()));
    }
    let mut skel = IdsSkelBuilder::default().open(super::objects::place())?.load()?;
    skel.progs.who.test_run(ProgramInput::default())?;
    let missing = || libbpf_rs::Error::from(std::io::Error::other("the object for ids has no data"));
    let home = &mut skel.maps.bss_data.as_deref_mut().ok_or_else(missing)?.home;
    let own = home.tgid;
    if home.level == 0 {
        return Ok((Ids::default(), None, own));
    }
    // Where /proc is that of a namespace above ours, it has one id more of us for each.
    let above = own_ids().len().saturating_sub(1) as u32;
    home.shown = home.level.saturating_sub(above);
    let born = skel.progs.on_birth.attach()?;
    let list_link = skel.progs.ids.attach()?;
    let mut table = Table { born: Some(Ring::new(&skel.maps.born)?), ..Table::default() };
    table.learn(&list(&list_link)?);
    let ids = Ids(Some(Arc::new(Home { table: Mutex::new(table), left_out: AtomicU64::new(0) })));
    let births = Births { ids: ids.clone(), skel, list: list_link, _born: born, ticks: 0, lost: 0 };
    Ok((ids, Some(births), own))
}

fn list(link: &Link) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut Iter::new(link).map_err(std::io::Error::other)?, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(records: &[id_rec]) -> Ids {
        let mut table = Table::default();
        records.iter().for_each(|record| table.learn(wire::bytes_of(record)));
        Ids(Some(Arc::new(Home { table: Mutex::new(table), left_out: AtomicU64::new(0) })))
    }

    const fn task(tid: u32, start_ns: u64, shown: u32) -> id_rec {
        id_rec { start_ns, tid, shown, own: shown + 1000, pad: 0 }
    }

    const fn key(tgid: u32, start_ns: u64) -> ProcessKey {
        ProcessKey { tgid, start_ns }
    }

    #[test]
    fn who_is_here_has_another_id_and_who_is_not_is_left_out() {
        let ids = ids(&[task(500, 7, 3), task(501, 8, 4)]);
        assert_eq!(ids.told(key(500, 7)), Some(key(3, 7)));
        assert_eq!((ids.thread(501, 8), ids.latest(501), ids.latest(0)), (4, 4, 0));
        assert_eq!(ids.told(key(500, 9)), None, "it had that id before, or after");
        assert_eq!(ids.told(key(3, 7)), None, "what is an id here is another's in the first namespace");
        assert!(is_elsewhere(ids.latest(3)));
        assert_eq!((ids.take_left_out(), ids.take_left_out()), (2, 0));
        assert_eq!((ids.first(key(3, 7)), ids.first(key(500, 7)), ids.own(key(4, 8))), (Some(500), None, 1004));
    }

    #[test]
    fn records_are_translated_where_they_lie() {
        let ids = ids(&[task(500, 7, 3), task(501, 8, 4)]);
        let long = |tid, start_ns, ppid| {
            let task =
                task_rec { tid, tgid: 500, ppid, start_ns, leader_start_ns: 7, has_acc: 1, ..task_rec::default() };
            let mut bytes = wire::bytes_of(&task).to_vec();
            bytes.resize(bytes.len() + size_of::<acc>() + 4 * size_of::<place_key>(), 0);
            bytes
        };
        let other = task_rec { tid: 9, tgid: 9, ppid: 500, ..task_rec::default() };
        let mut bytes = [long(500, 7, 1), long(501, 8, 500), wire::bytes_of(&other).to_vec(), vec![1, 2]].concat();
        ids.records(&mut bytes);
        let mut rest = bytes.as_slice();
        let told: Vec<_> = std::iter::from_fn(|| super::super::tasks::take(&mut rest))
            .map(|record| (record.task.tid, record.task.tgid, record.task.ppid))
            .collect();
        assert_eq!(told, [(3, 3, 0), (4, 3, 3), (9 | ELSEWHERE, 9 | ELSEWHERE, 3)]);
        assert_eq!(ids.take_left_out(), 1);
    }

    #[test]
    fn who_is_gone_is_forgotten_a_round_later() {
        let ids = ids(&[task(500, 7, 3), task(501, 8, 4)]);
        let there = wire::bytes_of(&task(501, 8, 4)).to_vec();
        let table = || ids.0.as_ref().unwrap().table();
        table().tidy(&there);
        assert_eq!(ids.told(key(500, 7)), Some(key(3, 7)), "its last account may still come");
        table().tidy(&there);
        assert_eq!((ids.told(key(500, 7)), ids.told(key(501, 8))), (None, Some(key(4, 8))));
    }

    #[test]
    fn in_the_first_namespace_ids_are_as_they_are() {
        let ids = Ids::default();
        assert_eq!((ids.told(key(5, 6)), ids.first(key(5, 6)), ids.latest(5)), (Some(key(5, 6)), Some(5), 5));
        assert!(ids.are_first());
    }
}
