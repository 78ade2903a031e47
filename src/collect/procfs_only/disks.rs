//! Disks by `/proc/diskstats`: how many requests and bytes, not how long each took.

use rustc_hash::FxHashMap;

use crate::collect::disks::{Disks, dev_of};
use crate::collect::reread::Reread;
use crate::tick::{DiskOp, DiskTick};

/// Sectors in which it counts.
const SECTOR_BYTES: u64 = 512;

/// Requests and bytes by operation, in the order of [`DiskOp`], and requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    requests: [u64; 4],
    bytes: [u64; 4],
    in_flight: u64,
}

/// Reads `/proc/diskstats`.
pub struct DiskStats {
    file: Option<Reread>,
    disks: Disks,
    last: FxHashMap<u32, Counters>,
}

impl DiskStats {
    /// Takes the first reading.
    pub fn new() -> Self {
        let file = Reread::open("/proc/diskstats", 4 << 20).ok();
        let mut stats = DiskStats { file, disks: Disks::default(), last: FxHashMap::default() };
        stats.read();
        stats
    }

    /// What every disk did since the last reading, by rising device number. Of a disk that came since, nothing.
    pub fn read(&mut self) -> Vec<DiskTick> {
        let now: FxHashMap<u32, Counters> =
            self.file.as_mut().and_then(Reread::read).unwrap_or_default().lines().filter_map(parse).collect();
        let tick = |(dev, name): (u32, String)| {
            let (now, before) = (now.get(&dev)?, self.last.get(&dev).or(now.get(&dev))?);
            Some(difference(now, before, dev, name))
        };
        let ticks = self.disks.all().into_iter().filter_map(tick).collect();
        self.last = now;
        ticks
    }
}

fn difference(now: &Counters, before: &Counters, dev: u32, name: String) -> DiskTick {
    let mut tick = DiskTick { dev, name, in_flight: now.in_flight, ..DiskTick::default() };
    for op in DiskOp::ALL {
        let at = op as usize;
        tick.ops[at].requests = now.requests[at].saturating_sub(before.requests[at]);
        tick.ops[at].bytes = now.bytes[at].saturating_sub(before.bytes[at]);
    }
    tick
}

/// One line: reads, writes, then discards (from 4.18) and flushes (from 5.5), see the kernel's `iostats.rst`.
fn parse(line: &str) -> Option<(u32, Counters)> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next()?;
    let numbers: Vec<u64> = fields.take(17).map(|field| field.parse().unwrap_or(0)).collect();
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    if numbers.len() < 11 || major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    let bytes = |at: usize| number(at).saturating_mul(SECTOR_BYTES);
    let counters = Counters {
        requests: [number(0), number(4), number(15), number(11)],
        bytes: [bytes(2), bytes(6), 0, bytes(13)],
        in_flight: number(8),
    };
    Some((dev_of(major, minor), counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_old_and_new_kernels() {
        let new = " 254       0 vda 100 5 2000 30 40 6 800 70 3 90 100 11 0 12 1 13 9";
        let (dev, counters) = parse(new).unwrap();
        assert_eq!(dev, 254 << 20);
        assert_eq!(counters.requests, [100, 40, 13, 11]);
        assert_eq!(counters.bytes, [2000 * 512, 800 * 512, 0, 12 * 512]);
        assert_eq!(counters.in_flight, 3);
        let (_, old) = parse("8 0 sda 1 0 8 0 2 0 16 0 0 0 0").unwrap();
        assert_eq!((old.requests, old.bytes), ([1, 2, 0, 0], [4096, 8192, 0, 0]));
        assert!(
            parse("8 1 sda1 1 2 3 4").is_none()
                && parse("").is_none()
                && parse("9999 0 x 1 1 1 1 1 1 1 1 1 1 1").is_none()
        );
    }

    #[test]
    fn between_two_readings() {
        let before = Counters { requests: [5, 5, 0, 0], bytes: [4096, 0, 0, 0], in_flight: 9 };
        let now = Counters { requests: [7, 4, 0, 0], bytes: [8192, 0, 0, 0], in_flight: 1 };
        let tick = difference(&now, &before, 1, "x".into());
        assert_eq!((tick.ops[0].requests, tick.ops[0].bytes, tick.ops[1].requests, tick.in_flight), (2, 4096, 0, 1));
    }

    #[test]
    fn this_machine() {
        let mut stats = DiskStats::new();
        let names: Vec<String> = Disks::default().all().into_iter().map(|(_, name)| name).collect();
        assert_eq!(stats.read().into_iter().map(|disk| disk.name).collect::<Vec<_>>(), names);
    }
}
