//! All that was known after one tick, but for what the history has.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::model::entity::{Exit, IoTotals, Samples, Totals};
use crate::model::latency::Devices;
use crate::tick::{Loss, ProcessFacts, ProcessKey, SlowRequest, State, StateNs, ThreadKey};

/// What was known.
#[derive(Serialize, Deserialize)]
pub struct Keyframe<'a> {
    pub observed_ns: u64,
    pub next_serial: u32,
    pub machine: Cow<'a, Totals>,
    pub machine_io: Cow<'a, IoTotals>,
    pub devices: Cow<'a, Devices>,
    pub losses: Cow<'a, [(Loss, u64)]>,
    pub slow: Cow<'a, [SlowRequest]>,
    /// Time of the groups by number.
    pub groups: Vec<StateNs>,
    pub processes: Vec<KeptProcess<'a>>,
    pub threads: Vec<KeptThread<'a>>,
}

/// A process, live or recently exited.
#[derive(Serialize, Deserialize)]
pub struct KeptProcess<'a> {
    pub key: ProcessKey,
    pub facts: Cow<'a, ProcessFacts>,
    pub has_facts: bool,
    pub serial: u32,
    pub group: u32,
    pub threads: u32,
    pub all: Cow<'a, Totals>,
    pub all_io: Cow<'a, IoTotals>,
    pub samples: Samples,
    pub exited: Option<Exit>,
}

/// A thread, live or recently exited.
#[derive(Serialize, Deserialize)]
pub struct KeptThread<'a> {
    pub key: ThreadKey,
    pub process: ProcessKey,
    pub comm: Cow<'a, str>,
    pub now: Option<State>,
    pub since_ns: u64,
    pub cpu: u32,
    pub syscall: Option<u32>,
    pub all: Cow<'a, Totals>,
    pub exited_ns: Option<u64>,
}

impl Keyframe<'_> {
    /// As few bytes, and how many they were before.
    pub fn pack(&self) -> (Vec<u8>, usize) {
        // Writing into memory does not fail; a keyframe of no bytes would show nothing.
        let raw = postcard::to_stdvec(self).unwrap_or_default();
        (zstd::bulk::compress(&raw, 1).unwrap_or_default(), raw.len())
    }

    /// From those bytes.
    pub fn unpack(bytes: &[u8]) -> Option<Keyframe<'static>> {
        postcard::from_bytes(&zstd::stream::decode_all(bytes).ok()?).ok()
    }
}
