//! Names of disks by device number.

use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

use super::host::read_bounded;

/// How often disks that come and go are looked for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// How often an unknown device number makes us look.
const BETWEEN_SURPRISES: Duration = Duration::from_secs(1);

/// Device number as the kernel keeps it: `major << 20 | minor`.
pub const fn dev_of(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// All disks and partitions that have a size.
#[derive(Default)]
pub struct Disks {
    names: FxHashMap<u32, String>,
    whole: Vec<u32>,
    looked: Option<Instant>,
}

impl Disks {
    /// The name of a device; `major:minor` if nobody knows it.
    pub fn name(&mut self, dev: u32) -> String {
        if !self.names.contains_key(&dev) {
            self.look(BETWEEN_SURPRISES);
        }
        self.names.get(&dev).cloned().unwrap_or_else(|| format!("{}:{}", dev >> 20, dev & 0xf_ffff))
    }

    /// Every disk that exists (no partition, none without a medium) as (device number, name), by rising number.
    pub fn all(&mut self) -> Vec<(u32, String)> {
        self.look(BETWEEN_LOOKS);
        self.whole.iter().filter_map(|dev| Some((*dev, self.names.get(dev)?.clone()))).collect()
    }

    fn look(&mut self, between: Duration) {
        if self.looked.is_some_and(|looked| looked.elapsed() < between) {
            return;
        }
        self.looked = Some(Instant::now());
        let listed = read_bounded("/proc/partitions", 4 << 20).map_or_else(Vec::new, |text| parse_partitions(&text));
        let is_disk = |name: &str| std::fs::exists(format!("/sys/block/{}", name.replace('/', "!"))).unwrap_or(false);
        self.whole =
            listed.iter().filter(|(.., blocks, name)| *blocks > 0 && is_disk(name)).map(|(dev, ..)| *dev).collect();
        self.whole.sort_unstable();
        // Names of devices that are gone stay: requests of theirs may still be drained.
        self.names.extend(listed.into_iter().map(|(dev, _, name)| (dev, name)));
    }
}

/// (device number, KiB, name) of each line of `/proc/partitions`.
fn parse_partitions(text: &str) -> Vec<(u32, u64, String)> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let blocks = fields.next()?.parse().ok()?;
        let name = fields.next()?;
        (major < 1 << 12 && minor < 1 << 20 && !name.contains(".."))
            .then(|| (dev_of(major, minor), blocks, name.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_and_torn_texts() {
        let text = "major minor  #blocks  name\n\n 254        0   10485760 vda\n 254        1    1 vda1\n 259  1048575  5 nvme0n1\n   7  0";
        let partitions = parse_partitions(text);
        assert_eq!(
            partitions,
            [
                (254 << 20, 10_485_760, "vda".to_owned()),
                (254 << 20 | 1, 1, "vda1".to_owned()),
                (259 << 20 | 0xf_ffff, 5, "nvme0n1".to_owned()),
            ]
        );
        assert!(parse_partitions("4096 0 1 x\n1 1048576 1 x\n-1 0 1 x\n1 1 1 ../../etc").is_empty());
    }

    #[test]
    fn this_machine() {
        let mut disks = Disks::default();
        let all = disks.all();
        for (dev, name) in &all {
            let told = std::fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap();
            let (major, minor) = told.trim().split_once(':').unwrap();
            assert_eq!(*dev, dev_of(major.parse().unwrap(), minor.parse().unwrap()));
            assert_eq!(disks.name(*dev), *name);
        }
        assert_eq!(disks.name(dev_of(4000, 5)), "4000:5");
    }
}
