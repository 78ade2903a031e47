//! Sums and stack weights as few bytes: LEB128 numbers, differences where things are sorted, zeroes left out. Only this
//! process reads them again, within one run; what cannot be read (it cannot happen) reads as zero.

use super::entity::{IoTotals, Samples, Totals};
use crate::tick::{Hist, State, StateNs};

/// Everything that is summed over windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub totals: Totals,
    pub io: IoTotals,
    pub samples: Samples,
}

const COUNTERS: u64 = 1;
const RUNQ: u64 = 2;
const OFF_CPU: u64 = 4;
const SLICE: u64 = 8;
const NODES: u64 = 16;
const IO: u64 = 32;
const SAMPLES: u64 = 64;

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front.
pub(super) fn take(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else { return number };
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

/// Appends the sums of one record.
pub(super) fn put_sums(out: &mut Vec<u8>, totals: &Totals, io: &IoTotals, samples: Samples) {
    let flags = [
        (COUNTERS, totals.counters() != [0; 6]),
        (RUNQ, !totals.runq.is_empty()),
        (OFF_CPU, !totals.off_cpu.is_empty()),
        (SLICE, !totals.slice.is_empty()),
        (NODES, !totals.node_ns.is_empty()),
        (IO, io.is_active()),
        (SAMPLES, samples != Samples::default()),
    ];
    let flags = flags.into_iter().filter(|(_, set)| *set).fold(0, |flags, (flag, _)| flags | flag);
    put(out, flags);
    put_states(out, &totals.ns);
    if flags & COUNTERS != 0 {
        totals.counters().into_iter().for_each(|counter| put(out, counter));
    }
    for (flag, hist) in [(RUNQ, &totals.runq), (OFF_CPU, &totals.off_cpu), (SLICE, &totals.slice)] {
        if flags & flag != 0 {
            put_hist(out, hist);
        }
    }
    if flags & NODES != 0 {
        put(out, totals.node_ns.len() as u64);
        totals.node_ns.iter().for_each(|&ns| put(out, ns));
    }
    if flags & IO != 0 {
        io.requests.into_iter().chain(io.bytes).for_each(|number| put(out, number));
        put_hist(out, &io.latency);
    }
    if flags & SAMPLES != 0 {
        put(out, samples.all);
        put(out, samples.complete);
    }
}

/// Takes the sums of one record off the front.
pub(super) fn take_sums(bytes: &mut &[u8]) -> Sums {
    let mut sums = Sums::default();
    let flags = take(bytes);
    let totals = &mut sums.totals;
    totals.ns = take_states(bytes);
    if flags & COUNTERS != 0 {
        totals.counters_mut().into_iter().for_each(|counter| *counter = take(bytes));
    }
    for (flag, hist) in [(RUNQ, &mut totals.runq), (OFF_CPU, &mut totals.off_cpu), (SLICE, &mut totals.slice)] {
        if flags & flag != 0 {
            *hist = take_hist(bytes);
        }
    }
    if flags & NODES != 0 {
        let nodes = take(bytes).min(bytes.len() as u64);
        totals.node_ns = (0..nodes).map(|_| take(bytes)).collect();
    }
    if flags & IO != 0 {
        let io = &mut sums.io;
        io.requests.iter_mut().chain(&mut io.bytes).for_each(|number| *number = take(bytes));
        io.latency = take_hist(bytes);
    }
    if flags & SAMPLES != 0 {
        sums.samples = Samples { all: take(bytes), complete: take(bytes) };
    }
    sums
}

fn put_states(out: &mut Vec<u8>, ns: &StateNs) {
    let used = State::ALL.into_iter().filter(|&state| ns[state] != 0);
    put(out, used.clone().fold(0, |mask, state| mask | 1 << state as u64));
    used.for_each(|state| put(out, ns[state]));
}

fn take_states(bytes: &mut &[u8]) -> StateNs {
    let mask = take(bytes);
    let mut ns = StateNs::default();
    for state in State::ALL.into_iter().filter(|&state| mask & 1 << state as u64 != 0) {
        ns[state] = take(bytes);
    }
    ns
}

fn put_hist(out: &mut Vec<u8>, hist: &Hist) {
    // What the model adds up rises.
    put(out, hist.counts.len() as u64);
    let mut before = 0;
    for &(bucket, count) in &hist.counts {
        put(out, (bucket - before).into());
        put(out, count);
        before = bucket;
    }
    put(out, hist.max);
    put(out, hist.sum);
}

fn take_hist(bytes: &mut &[u8]) -> Hist {
    let len = take(bytes).min(bytes.len() as u64);
    let mut bucket = 0u16;
    let mut next = |bytes: &mut &[u8]| {
        bucket = bucket.saturating_add(take(bytes) as u16);
        (bucket, take(bytes))
    };
    let counts = (0..len).map(|_| next(bytes)).collect();
    Hist { counts, max: take(bytes), sum: take(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, number);
            let mut rest = out.as_slice();
            assert_eq!(take(&mut rest), number);
            assert!(rest.is_empty());
        }
        assert_eq!(take(&mut [0x80, 0x80].as_slice()), 0, "cut short");
    }

    #[test]
    fn sums_come_back_whole_and_small() {
        let mut sums = Sums::default();
        let mut out = Vec::new();
        put_sums(&mut out, &sums.totals, &sums.io, sums.samples);
        assert_eq!(out.len(), 2, "nothing costs next to nothing");
        sums.totals.ns[State::User] = 7;
        sums.totals.ns[State::Other] = u64::MAX;
        sums.totals.involuntary = 3;
        sums.totals.runq = Hist { counts: vec![(3, 9), (490, 2)], max: 1 << 50, sum: 12 };
        sums.totals.node_ns = vec![1, 2];
        sums.io.bytes[2] = 4096;
        sums.samples = Samples { all: 5, complete: 4 };
        out.clear();
        put_sums(&mut out, &sums.totals, &sums.io, sums.samples);
        let mut rest = out.as_slice();
        assert_eq!(take_sums(&mut rest), sums);
        assert!(rest.is_empty());
    }
}
