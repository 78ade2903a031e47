//! Address spaces: what each sampled process has mapped, as far as its samples need it.
//!
//! A mapping is believed for a second and then asked for again: a process may unmap a library and map another in its
//! place, and a wrong name is worse than none.

use rustc_hash::FxHashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mappings::{self, Answer, Mapping};
use crate::tick::{ModuleId, ProcessKey};

/// How long a mapping is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Without PROCMAP_QUERY a whole `/proc/PID/maps` is read, up to 5 ms of it: not more often than this.
const BETWEEN_READS: Duration = Duration::from_millis(250);
/// Processes that are remembered, each with one descriptor; never more than a quarter of what we may have.
const MAX_SPACES: usize = 512;
/// Processes whose parent is remembered.
const MAX_FORKS: usize = 2048;
/// How long the mappings of a process that exited are kept: samples of it are drained after its exit.
const KEPT: Duration = Duration::from_secs(3);

/// Why no code is known at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// Nothing executable is there: no return address leads there.
    NotCode,
    /// Nobody knows.
    Unknown(Why),
}

/// Why an address space cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It exited before we looked.
    Gone,
    /// It belongs to someone else.
    Denied,
}

/// What a mapping holds, once that was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file, by its index.
    File(usize),
    /// The kernel's page; `true` if it is the 64-bit one.
    Vdso(ModuleId, bool),
    /// Code made at run time.
    Jit(ModuleId),
    /// Something else that has no names.
    Nameless(ModuleId),
}

/// One mapping that is known.
pub struct Known {
    /// Where it lies.
    pub mapping: Mapping,
    /// What it holds.
    pub place: Option<Place>,
    checked: Instant,
}

/// A mapping of a process, and what else is needed to find out what it holds.
pub struct Parts<'space> {
    /// The process's directory in procfs; `None` if it was gone or denied.
    pub dir: Option<&'space Arc<OwnedFd>>,
    /// Target of `/proc/PID/exe`.
    pub program: Option<&'space str>,
    /// The mapping.
    pub known: &'space mut Known,
}

/// The address space of one process.
pub struct Space {
    dir: Option<Arc<OwnedFd>>,
    program: Option<String>,
    /// Which program that is.
    image: Option<u64>,
    why: Why,
    /// By rising address, disjoint.
    known: Vec<Known>,
    read: Option<Instant>,
    exited: Option<Instant>,
    used: Instant,
}

impl Space {
    fn open(key: ProcessKey, parent: Option<u32>, now: Instant) -> Self {
        let opened = mappings::open_process(key).or_else(|error| match parent {
            // Its parent's is the same, if that is still there: whoever got its pid since began after this child.
            Some(parent) => mappings::open_elder(parent, key.start_ns),
            None => Err(error),
        });
        let why = match &opened {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Why::Denied,
            _ => Why::Gone,
        };
        let dir = opened.ok().map(Arc::new);
        let image = dir.as_ref().and_then(mappings::image);
        let program = dir.as_ref().and_then(|dir| program_of(dir));
        Space { dir, program, image, why, known: Vec::new(), read: None, exited: None, used: now }
    }

    /// The executable mapping at that address now; once the process is gone, what was there when we last looked. `image`: the
    /// program in which it was seen (see [`mappings::image`]), 0 if that is not known; nothing is known of an earlier one.
    pub fn at(&mut self, address: u64, image: u64, now: Instant) -> Result<usize, Nowhere> {
        let known = if self.is_of(image) { self.find(address) } else { None };
        if let Some(index) = known
            && (self.exited.is_some() || now.saturating_duration_since(self.known[index].checked) < BELIEVED)
        {
            return Ok(index);
        }
        match self.ask(address, now) {
            // What was there when it lived is the best there is.
            Err(Nowhere::Unknown(why)) => known.ok_or(Nowhere::Unknown(why)),
            answer if self.is_of(image) => answer,
            _ => Err(Nowhere::Unknown(Why::Gone)),
        }
    }

    fn is_of(&self, image: u64) -> bool {
        image == 0 || self.image.is_none_or(|own| own == image)
    }

    /// A mapping that [`Space::at`] found; the index is valid until the next call of that.
    pub fn parts(&mut self, index: usize) -> Option<Parts<'_>> {
        let known = self.known.get_mut(index)?;
        Some(Parts { dir: self.dir.as_ref(), program: self.program.as_deref(), known })
    }

    fn find(&self, address: u64) -> Option<usize> {
        let index = self.known.partition_point(|known| known.mapping.start <= address).checked_sub(1)?;
        self.known[index].mapping.contains(address).then_some(index)
    }

    fn ask(&mut self, address: u64, now: Instant) -> Result<usize, Nowhere> {
        let Some(dir) = self.dir.clone() else { return Err(Nowhere::Unknown(self.why)) };
        let maps = match mappings::open_at(&dir, "maps") {
            Ok(maps) => maps,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    self.why = Why::Denied;
                }
                return Err(Nowhere::Unknown(self.why));
            }
        };
        let mut answer = mappings::query(&maps, address);
        if self.renew(&dir) {
            // It may have been asked on either side of that.
            answer = mappings::open_at(&dir, "maps").map_or(Answer::Gone, |maps| mappings::query(&maps, address));
        }
        match answer {
            Answer::Mapping(mapping) => Ok(self.learn(mapping, now)),
            Answer::Nothing => {
                self.known.retain(|known| !known.mapping.contains(address));
                Err(Nowhere::NotCode)
            }
            Answer::Gone => Err(Nowhere::Unknown(Why::Gone)),
            Answer::Unsupported => self.read(&dir, address, now),
        }
    }

    /// Looks whether it executes another program by now: then all that is known is void.
    fn renew(&mut self, dir: &OwnedFd) -> bool {
        let image = mappings::image(dir);
        if image.is_none() || image == self.image {
            return false;
        }
        (self.image, self.program, self.read) = (image, program_of(dir), None);
        self.known.clear();
        true
    }

    /// Without PROCMAP_QUERY.
    fn read(&mut self, dir: &OwnedFd, address: u64, now: Instant) -> Result<usize, Nowhere> {
        if self.read.is_none_or(|read| now.saturating_duration_since(read) >= BETWEEN_READS) {
            match mappings::read_all(dir) {
                Ok(read) if !read.is_empty() => self.replace(read, now),
                // An empty one: the process is exiting, or a kernel thread.
                _ => return Err(Nowhere::Unknown(Why::Gone)),
            }
            self.read = Some(now);
        }
        self.find(address).ok_or(Nowhere::NotCode)
    }

    fn replace(&mut self, read: Vec<Mapping>, now: Instant) {
        let mut old = std::mem::take(&mut self.known).into_iter().peekable();
        self.known.reserve(read.len());
        for mapping in read {
            while old.next_if(|known| known.mapping.start < mapping.start).is_some() {}
            let place = old.next_if(|known| known.mapping == mapping).and_then(|known| known.place);
            self.known.push(Known { mapping, place, checked: now });
        }
    }

    fn learn(&mut self, new: Mapping, now: Instant) -> usize {
        let first = self.known.partition_point(|old| old.mapping.end <= new.start);
        if let Some(old) = self.known.get_mut(first)
            && old.mapping == new
        {
            old.checked = now;
            return first;
        }
        let behind = self.known.partition_point(|old| old.mapping.start < new.end);
        self.known.splice(first..behind.max(first), [Known { mapping: new, place: None, checked: now }]);
        first
    }
}

fn program_of(dir: &OwnedFd) -> Option<String> {
    let target = rustix::fs::readlinkat(dir, "exe", Vec::new()).ok()?;
    let target = target.to_string_lossy().into_owned();
    Some(target.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(target))
}

/// All address spaces that are remembered.
pub struct Spaces {
    spaces: FxHashMap<ProcessKey, Space>,
    most: usize,
    /// Parents (tgid) of processes that still are what their parent was when they were made.
    forks: FxHashMap<ProcessKey, Fork>,
}

struct Fork {
    parent: u32,
    exited: Option<Instant>,
}

impl Spaces {
    /// None yet.
    pub fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = MAX_SPACES.min(usize::try_from(limit / 4).unwrap_or(MAX_SPACES)).max(4);
        Spaces { spaces: FxHashMap::default(), most, forks: FxHashMap::default() }
    }

    /// The address space of a process.
    pub fn get(&mut self, key: ProcessKey, now: Instant) -> &mut Space {
        if self.spaces.len() >= self.most && !self.spaces.contains_key(&key) {
            let oldest = self.spaces.iter().min_by_key(|(_, space)| space.used).map(|(&key, _)| key);
            oldest.and_then(|key| self.spaces.remove(&key));
        }
        let parent = self.forks.get(&key).map(|fork| fork.parent);
        let space = self.spaces.entry(key).or_insert_with(|| Space::open(key, parent, now));
        space.used = now;
        space
    }

    /// The process is another program now: what is known of it is void, and it says nothing of its children any more.
    pub fn exec(&mut self, key: ProcessKey) {
        self.spaces.remove(&key);
        self.forks.remove(&key);
        self.forks.retain(|_, fork| fork.parent != key.tgid);
    }

    /// The process was made by that parent.
    pub fn fork(&mut self, child: ProcessKey, parent: u32) {
        if self.forks.len() < MAX_FORKS {
            self.forks.insert(child, Fork { parent, exited: None });
        }
    }

    /// The process exited: what is known of it will be let go soon.
    pub fn exited(&mut self, key: ProcessKey, now: Instant) {
        if let Some(space) = self.spaces.get_mut(&key) {
            space.exited.get_or_insert(now);
        }
        if let Some(fork) = self.forks.get_mut(&key) {
            fork.exited.get_or_insert(now);
        }
    }

    /// Lets go of those that exited; gives their keys.
    pub fn expire(&mut self, now: Instant) -> Vec<ProcessKey> {
        let over = |exited: Option<Instant>| exited.is_some_and(|at| now.saturating_duration_since(at) > KEPT);
        self.forks.retain(|_, fork| !over(fork.exited));
        let gone: Vec<_> = self.spaces.iter().filter(|(_, space)| over(space.exited)).map(|(&key, _)| key).collect();
        gone.iter().for_each(|key| drop(self.spaces.remove(key)));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, inode: u64) -> Mapping {
        Mapping { start, end, offset: 0, dev: (0, 1), inode, path: String::new() }
    }

    fn space() -> Space {
        let now = Instant::now();
        let (known, why) = (Vec::new(), Why::Gone);
        Space { dir: None, program: None, image: Some(7), why, known, read: None, exited: None, used: now }
    }

    fn starts(space: &Space) -> Vec<(u64, u64)> {
        space.known.iter().map(|known| (known.mapping.start, known.mapping.inode)).collect()
    }

    #[test]
    fn a_new_mapping_displaces_what_it_covers() {
        let (mut space, now) = (space(), Instant::now());
        for start in [10, 30, 20] {
            space.learn(mapping(start, start + 10, 1), now);
        }
        assert_eq!(starts(&space), [(10, 1), (20, 1), (30, 1)]);
        assert_eq!(space.learn(mapping(20, 30, 1), now), 1, "known already");
        assert_eq!(space.learn(mapping(15, 35, 2), now), 0);
        assert_eq!(starts(&space), [(15, 2)]);
        assert_eq!((space.find(15), space.find(34), space.find(35), space.find(14)), (Some(0), Some(0), None, None));
        assert_eq!(space.at(16, 0, now), Ok(0));
        assert_eq!(space.at(99, 0, now), Err(Nowhere::Unknown(Why::Gone)));
        // Nobody can be asked any more: what was known stays, of the program that it was known of.
        assert_eq!(space.at(16, 7, now + 2 * BELIEVED), Ok(0));
        assert_eq!(space.at(16, 8, now), Err(Nowhere::Unknown(Why::Gone)));
    }

    #[test]
    fn reading_all_keeps_what_is_known_of_the_same() {
        let (mut space, now) = (space(), Instant::now());
        for start in [10, 20, 30] {
            let at = space.learn(mapping(start, start + 10, 1), now);
            space.known[at].place = Some(Place::File(start as usize));
        }
        space.replace(vec![mapping(5, 10, 1), mapping(20, 30, 1), mapping(30, 40, 7)], now);
        assert_eq!(starts(&space), [(5, 1), (20, 1), (30, 7)]);
        let places: Vec<_> = space.known.iter().map(|known| known.place).collect();
        assert_eq!(places, [None, Some(Place::File(20)), None]);
    }
}
