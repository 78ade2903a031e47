//! Address spaces: what each sampled process has mapped, as far as its samples need it.
//!
//! A mapping is believed for a second and then asked for again: a process may unmap a library and map another in its
//! place, and a wrong name is worse than none.

use rustc_hash::FxHashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::Files;
use super::intern::Interner;
use super::mappings::{self, Answer, Mapping};
use crate::tick::{Names, ProcessKey};

/// How long a mapping is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Without PROCMAP_QUERY a whole `/proc/PID/maps` is read, up to 5 ms of it: not more often than this.
const BETWEEN_READS: Duration = Duration::from_millis(250);
/// Processes that are remembered, each with one descriptor; never more than a quarter of what we may have.
const MAX_SPACES: usize = 512;
/// How long the mappings of a process that exited are kept: samples of it are drained after its exit.
const KEPT: Duration = Duration::from_secs(3);

/// What is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    /// Code of this mapping.
    Code(Mapping),
    /// Nothing executable: no return address leads there.
    NotCode,
    /// Nobody knows: the process is gone, or we may not look.
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

/// The address space of one process.
pub struct Space {
    /// Its directory in procfs; `None` if it was gone or denied.
    pub dir: Option<Arc<OwnedFd>>,
    /// Target of `/proc/PID/exe`.
    pub program: Option<String>,
    why: Why,
    /// By rising address, disjoint.
    known: Vec<(Mapping, Instant)>,
    files: Vec<(Mapping, usize)>,
    read: Option<Instant>,
    exited: Option<Instant>,
    used: Instant,
}

impl Space {
    fn open(key: ProcessKey, now: Instant) -> Self {
        let opened = mappings::open_process(key);
        let why = match &opened {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Why::Denied,
            _ => Why::Gone,
        };
        let dir = opened.ok().map(Arc::new);
        let program = dir.as_ref().and_then(|dir| program_of(dir));
        Space { dir, program, why, known: Vec::new(), files: Vec::new(), read: None, exited: None, used: now }
    }

    /// What is at that address now; once the process is gone, what was there when we last looked.
    pub fn at(&mut self, address: u64, now: Instant) -> There {
        self.used = now;
        let known = self.find(address);
        if let Some((mapping, checked)) = known
            && (now.saturating_duration_since(*checked) < BELIEVED || self.exited.is_some())
        {
            return There::Code(mapping.clone());
        }
        let fresh = self.ask(address, now);
        match fresh {
            // What was there when it lived is the best there is.
            There::Unknown(_) => self.find(address).map_or(fresh, |(mapping, _)| There::Code(mapping.clone())),
            fresh => fresh,
        }
    }

    /// The file behind one of its mappings, an index into `files`. Remembered as long as the mapping is.
    pub fn file(&mut self, mapping: &Mapping, files: &mut Files, interner: &mut Interner, names: &mut Names) -> usize {
        if let Some(&(_, index)) = self.files.iter().find(|(known, _)| known == mapping)
            && files.get(index).is_some_and(|file| file.path.is_some())
        {
            return index;
        }
        let is_program = self.program.as_deref() == Some(mapping.path.as_str());
        let index = files.find(self.dir.as_deref(), mapping, is_program, interner, names);
        self.files.retain(|(known, _)| known.end <= mapping.start || mapping.end <= known.start);
        self.files.push((mapping.clone(), index));
        index
    }

    fn find(&self, address: u64) -> Option<&(Mapping, Instant)> {
        let behind = self.known.partition_point(|(mapping, _)| mapping.start <= address);
        self.known.get(behind.checked_sub(1)?).filter(|(mapping, _)| mapping.contains(address))
    }

    fn ask(&mut self, address: u64, now: Instant) -> There {
        let Some(dir) = self.dir.clone() else { return There::Unknown(self.why) };
        let maps = match mappings::open_at(&dir, "maps") {
            Ok(maps) => maps,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    self.why = Why::Denied;
                }
                return There::Unknown(self.why);
            }
        };
        match mappings::query(&maps, address) {
            Answer::Mapping(mapping) => {
                self.learn(mapping.clone(), now);
                There::Code(mapping)
            }
            Answer::Nothing => {
                self.known.retain(|(mapping, _)| !mapping.contains(address));
                There::NotCode
            }
            Answer::Gone => There::Unknown(Why::Gone),
            Answer::Unsupported => self.read(&dir, address, now),
        }
    }

    fn read(&mut self, dir: &OwnedFd, address: u64, now: Instant) -> There {
        if self.read.is_none_or(|read| now.saturating_duration_since(read) >= BETWEEN_READS) {
            match mappings::read_all(dir) {
                // An empty one: the process is exiting, or a kernel thread.
                Ok(read) if read.is_empty() => return There::Unknown(Why::Gone),
                Ok(read) => self.known = read.into_iter().map(|mapping| (mapping, now)).collect(),
                Err(_) => return There::Unknown(Why::Gone),
            }
            self.read = Some(now);
        }
        self.find(address).map_or(There::NotCode, |(mapping, _)| There::Code(mapping.clone()))
    }

    fn learn(&mut self, new: Mapping, now: Instant) {
        self.known.retain(|(old, _)| old.end <= new.start || new.end <= old.start);
        let at = self.known.partition_point(|(old, _)| old.start < new.start);
        self.known.insert(at, (new, now));
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
}

impl Spaces {
    /// None yet.
    pub fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = MAX_SPACES.min(usize::try_from(limit / 4).unwrap_or(MAX_SPACES)).max(4);
        Spaces { spaces: FxHashMap::default(), most }
    }

    /// The address space of a process.
    pub fn get(&mut self, key: ProcessKey, now: Instant) -> &mut Space {
        if self.spaces.len() >= self.most && !self.spaces.contains_key(&key) {
            let oldest = self.spaces.iter().min_by_key(|(_, space)| space.used).map(|(&key, _)| key);
            oldest.and_then(|key| self.spaces.remove(&key));
        }
        self.spaces.entry(key).or_insert_with(|| Space::open(key, now))
    }

    /// The process is another program now.
    pub fn void(&mut self, key: ProcessKey) {
        self.spaces.remove(&key);
    }

    /// The process exited: what is known of it will be let go soon.
    pub fn exited(&mut self, key: ProcessKey, now: Instant) {
        if let Some(space) = self.spaces.get_mut(&key) {
            space.exited.get_or_insert(now);
        }
    }

    /// Lets go of those that exited; gives their keys.
    pub fn expire(&mut self, now: Instant) -> Vec<ProcessKey> {
        let over = |space: &Space| space.exited.is_some_and(|at| now.saturating_duration_since(at) > KEPT);
        let gone: Vec<_> = self.spaces.iter().filter(|(_, space)| over(space)).map(|(&key, _)| key).collect();
        gone.iter().for_each(|key| drop(self.spaces.remove(key)));
        gone
    }
}
