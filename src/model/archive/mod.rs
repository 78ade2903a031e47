//! Past ticks as they came, so that any of them can be shown again: a keyframe of all that was known, and after it what
//! each tick brought. Threads that went on sleeping cost nothing. Stacks, CPUs and disks are in the history, not here.

mod keyframe;
mod record;

pub(super) use keyframe::{KeptProcess, KeptThread, Keyframe};
pub(super) use record::{Head, Record, Recorder, Tail, is_quiet, quiet};

use std::collections::VecDeque;
use std::sync::Arc;

/// A segment has no more ticks than this: so many are taken in to show one.
const TICKS: usize = 32;
/// A segment is closed once it has so many bytes, and as many as its keyframe.
const BYTES: usize = 64 << 10;

/// A keyframe, and the ticks after it.
#[derive(Clone)]
pub(super) struct Segment {
    /// Number of its first tick.
    pub first: u64,
    /// What was known before that tick, packed.
    keyframe: Arc<[u8]>,
    keyframe_raw: usize,
    ticks: Ticks,
}

#[derive(Clone)]
enum Ticks {
    /// Still growing.
    Open(Vec<Arc<[u8]>>),
    /// All of them in one piece, packed, and how many.
    Closed(Arc<[u8]>, usize),
}

impl Segment {
    fn bytes(&self) -> usize {
        let ticks = match &self.ticks {
            Ticks::Open(ticks) => ticks.iter().map(|tick| tick.len()).sum(),
            Ticks::Closed(packed, _) => packed.len(),
        };
        size_of::<Self>() + self.keyframe.len() + ticks
    }

    fn len(&self) -> usize {
        match &self.ticks {
            Ticks::Open(ticks) => ticks.len(),
            Ticks::Closed(_, count) => *count,
        }
    }

    /// What was known before its first tick.
    pub fn keyframe(&self) -> Option<Keyframe<'static>> {
        Keyframe::unpack(&self.keyframe)
    }

    /// Its ticks, in their order.
    pub fn records(&self) -> Vec<Record> {
        match &self.ticks {
            Ticks::Open(ticks) => ticks.iter().filter_map(|tick| Record::read(&mut &**tick)).collect(),
            Ticks::Closed(packed, count) => {
                let raw = zstd::stream::decode_all(&**packed).unwrap_or_default();
                let mut rest = raw.as_slice();
                (0..*count).map_while(|_| Record::read(&mut rest)).collect()
            }
        }
    }

    fn close(&mut self) {
        if let Ticks::Open(ticks) = &self.ticks {
            // Packing into memory does not fail; if it did, this segment would show nothing.
            let packed = zstd::bulk::compress(&ticks.concat(), 1).unwrap_or_default();
            self.ticks = Ticks::Closed(packed.into(), ticks.len());
        }
    }
}

/// All segments, the oldest first; the ticks of one follow those of the one before.
#[derive(Clone, Default)]
pub(super) struct Archive {
    segments: VecDeque<Segment>,
}

impl Archive {
    /// The next tick needs a keyframe before it.
    pub fn is_due(&self) -> bool {
        match self.segments.back() {
            Some(segment) => matches!(segment.ticks, Ticks::Closed(..)),
            None => true,
        }
    }

    /// Begins a segment with what is known before its first tick. Returns the memory it took.
    pub fn begin(&mut self, first: u64, keyframe: &Keyframe<'_>) -> usize {
        let (packed, keyframe_raw) = keyframe.pack();
        let segment = Segment { first, keyframe: packed.into(), keyframe_raw, ticks: Ticks::Open(Vec::new()) };
        let bytes = segment.bytes();
        self.segments.push_back(segment);
        bytes
    }

    /// Adds the newest tick; a segment that is full, or larger than `limit`, is closed. Returns the memory of the segment
    /// before and after.
    pub fn push(&mut self, record: Vec<u8>, limit: usize) -> (usize, usize) {
        let Some(segment) = self.segments.back_mut() else { return (0, 0) };
        let before = segment.bytes();
        if let Ticks::Open(ticks) = &mut segment.ticks {
            ticks.push(record.into());
            let raw: usize = ticks.iter().map(|tick| tick.len()).sum();
            if ticks.len() >= TICKS || raw >= segment.keyframe_raw.max(BYTES).min(limit) {
                segment.close();
            }
        }
        (before, segment.bytes())
    }

    /// The first tick of the first segment that begins at or after a tick, if it is complete or has ticks.
    pub fn boundary(&self, tick: u64) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.len() > 0)
            .map(|segment| segment.first)
            .find(|&first| first >= tick)
    }

    /// Lets go the segments that begin before a tick. Returns the memory they gave back.
    pub fn evict(&mut self, oldest: u64) -> usize {
        let mut freed = 0;
        while self.segments.front().is_some_and(|segment| segment.first < oldest) {
            freed += self.segments.pop_front().map_or(0, |segment| segment.bytes());
        }
        freed
    }

    /// Number of the oldest tick.
    pub fn oldest(&self) -> Option<u64> {
        self.segments.front().filter(|segment| segment.len() > 0).map(|segment| segment.first)
    }

    /// Segments from the one that has a tick on.
    pub fn from(&self, tick: u64) -> impl Iterator<Item = &Segment> {
        let skip = self.segments.partition_point(|segment| segment.first <= tick).saturating_sub(1);
        self.segments.iter().skip(skip)
    }
}
