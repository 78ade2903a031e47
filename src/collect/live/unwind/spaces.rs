//! Which files the code of a process comes from, by the names that the kernel side has for them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::super::ids::Ids;
use super::super::maps::iterate_process;
use super::super::skel::mappings::types::unwind_mapping;
use super::super::wire;
use crate::collect::mappings::{self, Mapping};
use crate::collect::unwind::FileKey;
use crate::tick::ProcessKey;

/// Processes that are remembered: those whose stacks wait to be finished, mostly.
const MOST: usize = 64;
/// A process is not asked again within this time.
const BETWEEN: Duration = Duration::from_millis(20);

/// File systems on disks and in memory, by the numbers that statfs(2) has for them: ext, xfs, btrfs, tmpfs, ramfs, squashfs,
/// erofs, f2fs, overlayfs, zfs, bcachefs, vfat, iso9660.
const LOCAL: [u32; 13] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0x7371_7368,
    0xe0f5_e1e2,
    0xf2f5_2010,
    0x794c_7630,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x4d44,
    0x9660,
];

/// What is mapped at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File(FileKey),
    /// The kernel's page.
    Vdso,
    /// Nothing but memory.
    Anonymous,
}

/// One executable mapping.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Of `start` in the file.
    pub offset: u64,
    /// What it is of.
    pub kind: Kind,
    /// Its file system answers by itself, not through a server or a program that may be gone.
    pub local: bool,
}

/// What is mapped in one process.
pub struct Space {
    /// Its directory in procfs; `None` if it is gone.
    pub dir: Option<Arc<OwnedFd>>,
    /// By rising address.
    pub places: Vec<Place>,
    /// Which program it executes, see [`mappings::image`].
    image: Option<u64>,
    asked: Instant,
}

impl Space {
    /// The mapping at an address.
    pub fn at(&self, address: u64) -> Option<Place> {
        let behind = self.places.partition_point(|place| place.start <= address);
        self.places.get(behind.checked_sub(1)?).copied().filter(|place| address < place.end)
    }

    /// Whether this is what was mapped in that program of the process; 0: in any.
    pub fn is_of(&self, image: u64) -> bool {
        image == 0 || self.image.is_none_or(|own| own == image)
    }

    /// Its memory, if we may read it.
    pub fn memory(&self) -> Option<File> {
        mappings::open_at(self.dir.as_ref()?, "mem").ok()
    }

    /// Names of the mapped files, as the process sees them.
    pub fn paths(&self) -> Vec<Mapping> {
        self.dir.as_ref().and_then(|dir| mappings::read_all(dir).ok()).unwrap_or_default()
    }

    /// What the process executes, as it sees it.
    pub fn program(&self) -> Option<String> {
        let target = rustix::fs::readlinkat(self.dir.as_ref()?, "exe", Vec::new()).ok()?.into_string().ok()?;
        Some(target.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(target))
    }
}

/// Processes that were asked about lately.
pub struct Spaces {
    iterator: OwnedFd,
    ids: Ids,
    known: FxHashMap<ProcessKey, Arc<Space>>,
}

impl Spaces {
    /// `iterator`: the program that tells mappings.
    pub fn new(iterator: OwnedFd, ids: Ids) -> Self {
        Spaces { iterator, ids, known: FxHashMap::default() }
    }

    /// What is mapped in a process now, or was when it was asked last, a moment ago or before it ended.
    pub fn look(&mut self, process: ProcessKey, now: Instant) -> Arc<Space> {
        let known = self.known.get(&process);
        if let Some(space) = known
            && now.saturating_duration_since(space.asked) < BETWEEN
        {
            return Arc::clone(space);
        }
        let read = self.read(process, now);
        if let Some(space) = known
            && read.places.is_empty()
        {
            // What was there when it lived is the best there is.
            return Arc::clone(space);
        }
        self.make_room();
        let read = Arc::new(read);
        self.known.insert(process, Arc::clone(&read));
        read
    }

    /// The same of one program of that process: what is known of an earlier one, however short ago, is void.
    pub fn look_in(&mut self, process: ProcessKey, image: u64, now: Instant) -> Arc<Space> {
        let space = self.look(process, now);
        if space.is_of(image) {
            return space;
        }
        self.known.remove(&process);
        self.look(process, now)
    }

    /// The same, asked anew where `seen` may lack what was mapped since; `None` if nothing changed.
    ///
    /// A program maps its libraries within milliseconds, and its first stacks come from then: they are looked up in what was
    /// mapped when the first of them came.
    pub fn renewed(&mut self, process: ProcessKey, seen: &Space, now: Instant) -> Option<Arc<Space>> {
        let read = self.read(process, now);
        if read.places.is_empty() {
            return None;
        }
        let space = Arc::new(read);
        self.known.insert(process, Arc::clone(&space));
        let same = |(new, old): (&Place, &Place)| (new.start, new.end, new.kind) == (old.start, old.end, old.kind);
        let unchanged = space.places.len() == seen.places.len() && space.places.iter().zip(&seen.places).all(same);
        (!unchanged && space.is_of(seen.image.unwrap_or(0))).then_some(space)
    }

    fn make_room(&mut self) {
        if self.known.len() >= MOST
            && let Some(oldest) = self.known.iter().min_by_key(|(_, space)| space.asked).map(|(&key, _)| key)
        {
            self.known.remove(&oldest);
        }
    }

    fn read(&self, process: ProcessKey, now: Instant) -> Space {
        let dir = mappings::open_process(process).ok();
        let told = match &dir {
            Some(_) => iterate_process(self.iterator.as_fd(), self.ids.own(process)).unwrap_or_default(),
            None => Vec::new(),
        };
        let image = dir.as_ref().and_then(mappings::image);
        Space { dir: dir.map(Arc::new), places: places(&told), image, asked: now }
    }
}

fn places(mut bytes: &[u8]) -> Vec<Place> {
    let mut places: Vec<Place> = std::iter::from_fn(|| wire::take::<unwind_mapping>(&mut bytes)).map(place).collect();
    places.sort_unstable_by_key(|place| place.start);
    places.dedup_by_key(|place| place.start);
    places
}

fn place(told: unwind_mapping) -> Place {
    let kind = match told.kind {
        0 => Kind::File(FileKey { inode: told.key.ino, device: told.key.dev, generation: told.key.generation }),
        1 => Kind::Vdso,
        _ => Kind::Anonymous,
    };
    Place { start: told.start, end: told.end, offset: told.offset, kind, local: LOCAL.contains(&told.magic) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_found_by_address() {
        let told = |start, kind| unwind_mapping { start, end: start + 0x1000, kind, ..unwind_mapping::default() };
        let mut bytes: Vec<u8> = [told(0x5000, 0), told(0x1000, 2), told(0x2000, 1), told(0x5000, 0)]
            .iter()
            .flat_map(wire::bytes_of)
            .copied()
            .collect();
        bytes.push(7); // torn
        let space = Space { dir: None, places: places(&bytes), image: None, asked: Instant::now() };
        let kind = |address| space.at(address).map(|place| place.kind);
        assert_eq!(space.places.len(), 3);
        assert_eq!(kind(0x5fff), Some(Kind::File(FileKey::default())));
        assert_eq!((kind(0x1000), kind(0x2fff)), (Some(Kind::Anonymous), Some(Kind::Vdso)));
        assert_eq!((kind(0x6000), kind(0x3000), kind(0xfff)), (None, None, None));
    }
}
