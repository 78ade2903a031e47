//! Accounts that a thread left word of, beside what the iterator told of it.

use std::mem::offset_of;

use super::*;
use crate::collect::live::stacks::Weights;

const CLOSED: Closed = Closed { generation: 5, start_ns: 1000, end_ns: 2000 };

/// A record of a thread of process 7 that lived for 100 ns: by its id, its task, and of which interval.
fn record(tid: u32, task: u64, generation: u64) -> Record {
    let bytes = bytes_of(tid, task, generation);
    take(&mut bytes.as_slice()).expect("a record")
}

fn bytes_of(tid: u32, task: u64, generation: u64) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<task_rec>()];
    let mut set = |offset: usize, value: &[u8]| bytes[offset..][..value.len()].copy_from_slice(value);
    set(offset_of!(task_rec, tid), &tid.to_ne_bytes());
    set(offset_of!(task_rec, tgid), &7u32.to_ne_bytes());
    set(offset_of!(task_rec, task), &task.to_ne_bytes());
    set(offset_of!(task_rec, r#gen), &generation.to_ne_bytes());
    set(offset_of!(task_rec, lived_ns), &100u64.to_ne_bytes());
    bytes
}

/// Time of all threads of the process by id, in one interval.
fn harvest(dead: Vec<Record>, alive: &[u8]) -> Vec<(u32, u64)> {
    let interval = Interval { closed: CLOSED, nodes: &[], spilled: &Spilled::default(), boot_offset_ns: 0 };
    let told = Told { records: alive, all: true };
    let harvest = Tasks::default().harvest(&interval, dead, &told, &mut Weights::with_capacity(0), |_| true);
    harvest.threads.iter().map(|thread| (thread.key.tid, thread.ns.total())).collect()
}

#[test]
fn word_and_record_of_one_interval_count_once() {
    assert_eq!(harvest(vec![record(7, 1, 5)], &bytes_of(9, 1, 5)), [(7, 100)], "it executed in between");
    assert_eq!(harvest(vec![record(7, 1, 5)], &bytes_of(7, 2, 5)), [(7, 200)], "another task of that id");
}

#[test]
fn word_that_comes_late_takes_nothing_away() {
    assert_eq!(harvest(vec![record(7, 1, 4)], &bytes_of(7, 1, 5)), [(7, 200)], "both intervals");
}

// Ten nodes, the first numbered 0 and the last 16, as after some were taken out.
#[test]
fn time_goes_to_the_node_where_it_was_spent_whatever_its_number() {
    let nodes: Vec<(u32, Vec<u32>)> = [0, 1, 2, 3, 4, 5, 6, 7, 9, 16].map(|node| (node, vec![node])).into();
    let bytes = vec![0; size_of::<acc>()];
    let mut account: acc = wire::read(&bytes).expect("long enough");
    account.ns[0] = 1000;
    account.node_ns[1] = 9 << NODE_SHIFT | 300;
    account.node_ns[0] = 16 << NODE_SHIFT | 500;
    account.node_ns[2] = 2 << NODE_SHIFT | 50;
    assert_eq!(by_node(&account, 3, &nodes), [0, 0, 50, 150, 0, 0, 0, 0, 300, 500], "and what still runs to its CPU's");
    account.node_ns[0] = 500;
    assert_eq!(by_node(&account, 3, &nodes), [500, 0, 50, 150, 0, 0, 0, 0, 300, 0]);
}
