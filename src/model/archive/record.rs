//! What one tick brought, as few bytes: all but what is kept elsewhere, and but the threads that only went on sleeping.

use serde::{Deserialize, Serialize};

use crate::model::entity::Thread;
use crate::tick::{
    Cost, Event, Host, Loss, NodeTick, ProcessFacts, ProcessIo, ProcessKey, Quota, SlowRequest, StateNs, Stuck,
    ThreadKey, ThreadTick, Tick, Watch,
};

/// One tick, without its span, stacks, CPUs and disks.
#[derive(Debug, Default, PartialEq)]
pub struct Record {
    pub head: Head,
    /// Threads that did more than sleep, or sleep elsewhere, or are new, in the order of the tick.
    pub loud: Vec<ThreadTick>,
    pub tail: Tail,
}

/// What is the same in the tick.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Head {
    pub host: Host,
    pub processes: Vec<ProcessFacts>,
    pub io: Vec<ProcessIo>,
    pub nodes: Vec<NodeTick>,
    pub slow_requests: Vec<SlowRequest>,
    pub quotas: Vec<Quota>,
    pub stuck: Vec<Stuck>,
    pub events: Vec<Event>,
    pub losses: Vec<(Loss, u64)>,
    pub cost: Cost,
    pub watch: Watch,
}

/// The same, of a tick that is still whole.
#[derive(Serialize)]
struct HeadOf<'a> {
    host: &'a Host,
    processes: &'a [ProcessFacts],
    io: &'a [ProcessIo],
    nodes: &'a [NodeTick],
    slow_requests: &'a [SlowRequest],
    quotas: &'a [Quota],
    stuck: &'a [Stuck],
    events: &'a [Event],
    losses: &'a [(Loss, u64)],
    cost: &'a Cost,
    watch: &'a Watch,
}

/// What is known once the tick was taken in.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// How many threads are loud.
    pub loud: u32,
    /// Threads of the tick before that are not in this one and did not say that they ended.
    pub gone: Vec<ThreadKey>,
    /// Processes that were first seen by their stacks alone, in that order.
    pub strangers: Vec<ProcessKey>,
}

impl Record {
    /// Takes one off the front. What cannot be read (it cannot happen: only we wrote it) reads as `None`.
    pub fn read(bytes: &mut &[u8]) -> Option<Record> {
        let head = take(bytes)?;
        let tail: Tail = take(bytes)?;
        let loud = (0..tail.loud).map(|_| take(bytes)).collect::<Option<_>>()?;
        Some(Record { head, loud, tail })
    }
}

fn take<'a, T: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

/// Writes the record of a tick while it is taken in.
#[derive(Default)]
pub struct Recorder {
    head: Vec<u8>,
    loud: Vec<u8>,
    tail: Tail,
}

impl Recorder {
    /// Of a tick that is still whole.
    pub fn begin(tick: &Tick) -> Self {
        let Tick {
            host,
            processes,
            io,
            nodes,
            slow_requests,
            quotas,
            stuck,
            events,
            losses,
            cost,
            watch,
            // The history has them.
            span: _,
            stacks: _,
            cpus: _,
            disks: _,
            // Told one by one, while they are taken in.
            threads: _,
            asleep: _,
            // Kept for as long as a stack needs them.
            names: _,
        } = tick;
        let head = HeadOf { host, processes, io, nodes, slow_requests, quotas, stuck, events, losses, cost, watch };
        Recorder { head: append(Vec::new(), &head), ..Recorder::default() }
    }

    /// A thread that is not quiet.
    pub fn loud(&mut self, thread: &ThreadTick) {
        self.loud = append(std::mem::take(&mut self.loud), thread);
        self.tail.loud += 1;
    }

    /// A thread that is not there any more.
    pub fn gone(&mut self, thread: ThreadKey) {
        self.tail.gone.push(thread);
    }

    /// Processes that were first seen by their stacks.
    pub fn strangers(&mut self, processes: Vec<ProcessKey>) {
        self.tail.strangers = processes;
    }

    /// The record.
    pub fn finish(self) -> Vec<u8> {
        let mut record = append(self.head, &self.tail);
        record.extend_from_slice(&self.loud);
        record.shrink_to_fit();
        record
    }
}

/// Writing into memory does not fail.
fn append(bytes: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, bytes).unwrap_or_default()
}

/// Did nothing in the tick but go on sleeping as it did at the end of the tick before. `nodes`: how many node times a
/// tick has.
pub fn is_quiet(before: &Thread, tick: &ThreadTick, span_ns: u64, nodes: usize) -> bool {
    let ThreadTick {
        key: _,
        process,
        comm,
        ns,
        now,
        since_ns,
        cpu,
        syscall,
        voluntary,
        involuntary,
        wakeups,
        migrations,
        minor_faults,
        major_faults,
        runq,
        off_cpu,
        slice,
        node_ns,
    } = tick;
    let Some(state) = now.filter(|state| state.is_blocked() && before.now == Some(*state)) else { return false };
    ns[state] == span_ns
        && *ns == only(state, span_ns)
        && (*process, *since_ns, *cpu, *syscall) == (before.process, before.since_ns, before.cpu, before.syscall)
        && [voluntary, involuntary, wakeups, migrations].into_iter().all(|count| *count == 0)
        && (*minor_faults, *major_faults) == (0, 0)
        && runq.is_empty()
        && off_cpu.is_empty()
        && slice.is_empty()
        && node_ns.len() == nodes
        && node_ns.iter().all(|ns| *ns == 0)
        && *comm == before.comm
}

/// The tick of a thread that did nothing but go on sleeping.
pub fn quiet(thread: &Thread, span_ns: u64, nodes: usize) -> ThreadTick {
    ThreadTick {
        key: thread.key,
        process: thread.process,
        comm: thread.comm.clone(),
        ns: thread.now.map_or_else(StateNs::default, |state| only(state, span_ns)),
        now: thread.now,
        since_ns: thread.since_ns,
        cpu: thread.cpu,
        syscall: thread.syscall,
        node_ns: vec![0; nodes],
        ..ThreadTick::default()
    }
}

fn only(state: crate::tick::State, ns: u64) -> StateNs {
    let mut only = StateNs::default();
    only[state] = ns;
    only
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::{SECOND, facts, process, thread, thread_key, tick};
    use crate::tick::State;

    #[test]
    fn a_record_comes_back_and_the_next_one_after_it() {
        let mut tick = tick(3);
        tick.processes = vec![facts(7, "app")];
        tick.losses = vec![(Loss::Torn, 2)];
        let loud = [thread(7, 7, &[(State::User, 5)]), thread(7, 8, &[(State::Disk, 9)])];
        let mut recorder = Recorder::begin(&tick);
        loud.iter().for_each(|thread| recorder.loud(thread));
        recorder.gone(thread_key(9));
        recorder.strangers(vec![process(4)]);
        let mut bytes = recorder.finish();
        bytes.extend(Recorder::begin(&tick).finish());
        let mut rest = bytes.as_slice();
        let record = Record::read(&mut rest).expect("a record");
        assert_eq!((&record.loud[..], &record.head.processes), (&loud[..], &tick.processes));
        assert_eq!((&record.tail.gone[..], &record.tail.strangers[..]), (&[thread_key(9)][..], &[process(4)][..]));
        assert_eq!(Record::read(&mut rest).map(|record| record.loud.len()), Some(0));
        assert_eq!(Record::read(&mut rest), None);
    }

    #[test]
    fn only_who_went_on_sleeping_is_quiet() {
        let tick = ThreadTick { cpu: 3, since_ns: 4, ..thread(7, 7, &[(State::Poll, SECOND)]) };
        let before = Thread {
            key: tick.key,
            process: tick.process,
            comm: tick.comm.clone(),
            now: tick.now,
            since_ns: 4,
            cpu: 3,
            ..Thread::default()
        };
        assert!(is_quiet(&before, &tick, SECOND, 0));
        assert_eq!(quiet(&before, SECOND, 0), tick);
        type Change = fn(&mut ThreadTick);
        let changes: [Change; 9] = [
            |tick| tick.since_ns = 5,
            |tick| tick.cpu = 1,
            |tick| tick.syscall = Some(1),
            |tick| tick.comm.push('x'),
            |tick| tick.wakeups = 1,
            |tick| tick.now = Some(State::Timer),
            |tick| tick.ns[State::User] = 1,
            |tick| tick.ns[State::Poll] -= 1,
            |tick| tick.node_ns = vec![0],
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            let mut other = tick.clone();
            change(&mut other);
            assert!(!is_quiet(&before, &other, SECOND, 0), "{nth}");
        }
        let runs = ThreadTick { now: Some(State::User), ..thread(7, 7, &[(State::User, SECOND)]) };
        assert!(!is_quiet(&Thread { now: Some(State::User), ..before }, &runs, SECOND, 0));
    }
}
