//! What procfs counts of disks, from `/proc/diskstats`: for comparison only.

use rustc_hash::{FxHashMap, FxHashSet};

use super::reread::Reread;

/// Reads and writes of all disks whose requests pass the hooks we use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSums {
    /// That completed.
    pub requests: u64,
    /// Of those.
    pub bytes: u64,
}

/// Reads the file again and again.
pub struct DiskStats {
    file: Option<Reread>,
    last: FxHashMap<String, DiskSums>,
    /// Those whose requests the last sums hold.
    counted: FxHashSet<String>,
    /// Whether requests of a disk pass the hooks.
    hooked: FxHashMap<String, bool>,
}

/// Names that are remembered at most.
const MOST: usize = 4096;

impl DiskStats {
    /// Takes the first reading.
    pub fn new() -> Self {
        let file = Reread::open("/proc/diskstats", 4 << 20).ok();
        let mut stats =
            DiskStats { file, last: FxHashMap::default(), counted: FxHashSet::default(), hooked: FxHashMap::default() };
        stats.since();
        stats
    }

    /// Whether requests of that disk pass the hooks: only a disk with queues of its own has requests. Others (device mapper, RAID,
    /// zram) hand on to those, and partitions are parts of them.
    fn is_hooked(&mut self, name: &str) -> bool {
        if let Some(&known) = self.hooked.get(name) {
            return known;
        }
        let hooked = std::path::Path::new("/sys/block").join(name.replace('/', "!")).join("mq").exists();
        if self.hooked.len() < MOST {
            self.hooked.insert(name.to_owned(), hooked);
        }
        hooked
    }

    /// Whether the last sums hold the requests of that disk.
    pub fn has_counted(&self, name: &str) -> bool {
        self.counted.contains(name)
    }

    /// Sums since the last call; `None` if they cannot be read. A disk that is new counts from its next reading on.
    pub fn since(&mut self) -> Option<DiskSums> {
        let now = parse(self.file.as_mut()?.read()?);
        let mut sums = DiskSums::default();
        self.counted.clear();
        for (name, now) in &now {
            if let Some(last) = self.last.get(name).copied()
                && self.is_hooked(name)
            {
                sums.requests = sums.requests.saturating_add(now.requests.saturating_sub(last.requests));
                sums.bytes = sums.bytes.saturating_add(now.bytes.saturating_sub(last.bytes));
                self.counted.insert(name.clone());
            }
        }
        self.last = now.into_iter().collect();
        Some(sums)
    }
}

impl Default for DiskStats {
    fn default() -> Self {
        Self::new()
    }
}

/// major minor name, then reads: completed, merged, sectors, ms; writes: the same; see Documentation/admin-guide/iostats.rst.
fn parse(text: &str) -> Vec<(String, DiskSums)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let requests = number(3)?.saturating_add(number(7)?);
        let bytes = number(5)?.saturating_add(number(9)?).saturating_mul(512);
        Some(((*fields.get(2)?).to_owned(), DiskSums { requests, bytes }))
    };
    text.lines().filter_map(line).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let text = " 254       0 vda 100 3 2048 50 20 5 512 9 0 40 60 7 0 8 9 1 2\n   7 0 loop0 0\n\nodd\n";
        assert_eq!(parse(text), [("vda".to_owned(), DiskSums { requests: 120, bytes: 2560 * 512 })]);
    }
}
