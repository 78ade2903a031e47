//! Which files have their tables in the kernel, and where: hands out room, publishes in an order that a reader may see at any
//! moment, and takes room back from files that no stack led to for a while.
//!
//! Readers hold no lock. So: rules and rows before the page entries that lead to them, entries of a window last to first, entries
//! before the file, the file before its key. And back: the key goes first, then nothing of the file is written for [`REST`]:
//! whoever still had found the file is done by then.

use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::rule::{PageEntry, Row, shape};
use super::rules::Rules;
use super::space::{Run, Space};
use super::table::{Extent, Window};

/// How long a program that walks stacks may hold on to what it found. They take microseconds.
pub const REST: Duration = Duration::from_secs(1);
/// A file is not let go if a stack led to it in so many intervals before this one.
pub const RECENT: u32 = 10;
/// When room is short, this part of it is made, so as not to do it for each window.
const PART: u64 = 32;

/// Which file it is, as the kernel side tells; `struct unwind_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Number of the inode.
    pub inode: u64,
    /// Of its file system, as the kernel has it.
    pub device: u32,
    /// Of the inode.
    pub generation: u32,
}

/// `struct unwind_file`, without what the kernel side writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileEntry {
    /// File offset of its first page.
    pub first: u64,
    /// Its first page entry.
    pub page_base: u32,
    /// How many pages it has.
    pub pages: u32,
    /// Of this slot.
    pub generation: u32,
}

/// A file in the kernel's tables. The slot is used again for others, with another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Its slot.
    pub index: u32,
    /// Of that slot.
    pub generation: u32,
}

/// When something is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By any clock that does not go back.
    pub at: Duration,
    /// Number of the interval, as the kernel side writes it into `struct unwind_file`.
    pub interval: u32,
}

/// Where tables are written to: the kernel's maps. Each call must be seen by the kernel side before the next one is.
pub trait Maps {
    /// Makes a chunk of rows.
    ///
    /// # Errors
    /// When the kernel does not give it.
    fn add_chunk(&mut self, chunk: u32) -> io::Result<()>;
    /// Writes rows into a chunk, from `row` on.
    ///
    /// # Errors
    /// When the chunk cannot be reached: then what is there is not what it should be.
    fn rows(&mut self, chunk: u32, row: u32, rows: &[Row]) -> io::Result<()>;
    /// Writes a page entry, at once (no reader sees a part of it).
    fn page(&mut self, entry: u32, value: PageEntry);
    /// Writes a rule.
    fn rule(&mut self, index: u16, packed: u64);
    /// Writes a file; it counts as used in that interval.
    fn file(&mut self, index: u32, file: FileEntry, interval: u32);
    /// Has a file that led somewhere lead nowhere: whoever remembers where it was sees that by its generation.
    fn retire(&mut self, index: u32);
    /// The interval in which a stack last led to a file.
    fn used(&self, index: u32) -> u32;
    /// Leads a key to a file.
    ///
    /// # Errors
    /// When there is no room.
    fn set_key(&mut self, key: FileKey, index: u32) -> io::Result<()>;
    /// Leads a key nowhere; it may lead nowhere already.
    fn remove_key(&mut self, key: FileKey);
}

/// Why something was not put into the tables.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Room was made, and is there after this time.
    #[error("room was made in the unwind tables, which rests until {0:?}")]
    Later(Duration),
    /// All that is in them is in use.
    #[error("the unwind tables are full of what is in use")]
    Full,
    /// The file is not in them (any more), or has no such window.
    #[error("the file is not in the unwind tables")]
    Gone,
    /// The kernel said no.
    #[error("writing unwind tables: {0}")]
    Kernel(#[from] io::Error),
}

/// How full the tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Files that have a table.
    pub files: u32,
    /// Rows of them.
    pub rows: u64,
    /// Bytes of chunks that were made.
    pub bytes: u64,
    /// Files that were let go.
    pub evicted: u64,
}

struct Stored {
    key: FileKey,
    extent: Extent,
    generation: u32,
    page_base: u32,
    /// Room of each window, if it is filled.
    windows: Vec<Option<Run>>,
}

/// What was taken back and must not be touched yet.
struct Resting {
    until: Duration,
    rows: Vec<Run>,
    entries: Run,
    slot: u32,
}

/// What of the three kinds of room is short.
#[derive(Clone, Copy, PartialEq)]
enum Short {
    Rows(u32),
    Entries(u32),
    Slots,
}

/// The kernel's tables, and what is where in them.
pub struct Store<M> {
    maps: M,
    rows: Space,
    entries: Space,
    chunks: u32,
    most_chunks: u32,
    /// By slot; those below the first real file stay empty.
    files: Vec<Option<Stored>>,
    /// Of each slot, so far.
    generations: Vec<u32>,
    free_slots: Vec<u32>,
    keys: FxHashMap<FileKey, u32>,
    resting: VecDeque<Resting>,
    rules_written: usize,
    filled: Fill,
}

impl<M: Maps> Store<M> {
    /// Tables of at most `bytes` of rows.
    pub fn new(maps: M, bytes: u64) -> Self {
        let chunk_bytes = u64::from(shape::CHUNK_ROWS) * size_of::<Row>() as u64;
        let most_chunks = u32::try_from(bytes / chunk_bytes).unwrap_or(u32::MAX).clamp(1, shape::CHUNKS);
        let mut entries = Space::new(u32::MAX);
        entries.give(Run { start: 0, length: shape::PAGES });
        Store {
            maps,
            rows: Space::new(shape::CHUNK_ROWS),
            entries,
            chunks: 0,
            most_chunks,
            files: Vec::new(),
            generations: vec![0; shape::FILES as usize],
            free_slots: (shape::FILE_NONE + 1..shape::FILES).rev().collect(),
            keys: FxHashMap::default(),
            resting: VecDeque::new(),
            rules_written: 0,
            filled: Fill::default(),
        }
    }

    /// How full they are.
    pub fn fill_level(&self) -> Fill {
        self.filled
    }

    /// The maps.
    pub fn maps(&mut self) -> &mut M {
        &mut self.maps
    }

    /// The file that a key leads to.
    pub fn find(&self, key: FileKey) -> Option<FileId> {
        let &index = self.keys.get(&key)?;
        Some(FileId { index, generation: self.stored(index)?.generation })
    }

    /// The key that leads to a file, unless it was let go.
    pub fn key(&self, id: FileId) -> Option<FileKey> {
        self.get(id).map(|stored| stored.key)
    }

    /// Windows of a file that are not filled.
    pub fn missing(&self, id: FileId) -> impl Iterator<Item = u32> + '_ {
        let windows = self.get(id).map_or(&[][..], |stored| &stored.windows);
        windows.iter().zip(0..).filter(|(window, _)| window.is_none()).map(|(_, number)| number)
    }

    /// Makes a file known, with all of its windows missing.
    ///
    /// # Errors
    /// [`Refused::Later`], [`Refused::Full`] or [`Refused::Kernel`].
    pub fn publish(&mut self, key: FileKey, extent: Extent, now: Now) -> Result<FileId, Refused> {
        if let Some(known) = self.find(key) {
            return Ok(known);
        }
        self.settle(now);
        let Some(entries) = self.entries.take(extent.entries()) else {
            return Err(self.make_room(Short::Entries(extent.entries()), None, now));
        };
        let Some(index) = self.free_slots.pop() else {
            self.entries.give(entries);
            return Err(self.make_room(Short::Slots, None, now));
        };
        for entry in entries.start..entries.start + entries.length {
            self.maps.page(entry, PageEntry::MISSING);
        }
        let generation = self.generations.get_mut(index as usize).map_or(0, |generation| {
            *generation += 1;
            *generation
        });
        let file = FileEntry { first: extent.first, page_base: entries.start, pages: extent.pages, generation };
        self.maps.file(index, file, now.interval);
        if let Err(error) = self.maps.set_key(key, index) {
            // Nobody saw it.
            self.entries.give(entries);
            self.free_slots.push(index);
            return Err(error.into());
        }
        let windows = vec![None; extent.windows() as usize];
        let stored = Stored { key, extent, generation, page_base: entries.start, windows };
        if self.files.len() <= index as usize {
            self.files.resize_with(index as usize + 1, || None);
        }
        if let Some(slot) = self.files.get_mut(index as usize) {
            *slot = Some(stored);
        }
        self.keys.insert(key, index);
        self.filled.files += 1;
        Ok(FileId { index, generation })
    }

    /// Says that a file has no table.
    ///
    /// # Errors
    /// When the kernel has no room for its key.
    pub fn publish_none(&mut self, key: FileKey) -> io::Result<()> {
        self.maps.set_key(key, shape::FILE_NONE)
    }

    /// Fills a window of a file; does nothing if it is filled.
    ///
    /// # Errors
    /// Any of [`Refused`].
    pub fn fill(&mut self, id: FileId, number: u32, window: &Window, rules: &Rules, now: Now) -> Result<(), Refused> {
        self.settle(now);
        let stored = self.get(id).ok_or(Refused::Gone)?;
        match stored.windows.get(number as usize) {
            None => return Err(Refused::Gone),
            Some(Some(_)) => return Ok(()),
            Some(None) => {}
        }
        let (base, pages) = (stored.page_base, stored.extent.window_pages(number));
        let length = window.rows.len() as u32;
        if window.pages.len() != pages as usize + 1 || length == 0 {
            return Err(Refused::Gone);
        }
        let run = match self.take_rows(length)? {
            Some(run) => run,
            None => return Err(self.make_room(Short::Rows(length), Some(id.index), now)),
        };
        for (index, &packed) in rules.packed().iter().enumerate().skip(self.rules_written) {
            self.maps.rule(index as u16, packed);
        }
        self.rules_written = rules.packed().len();
        let (chunk, row) = (run.start / shape::CHUNK_ROWS, run.start % shape::CHUNK_ROWS);
        if let Err(error) = self.maps.rows(chunk, row, &window.rows) {
            self.rows.give(run);
            return Err(error.into());
        }
        let first = base + number * shape::WINDOW_ENTRIES;
        for (entry, &start) in (first..).zip(&window.pages).collect::<Vec<_>>().into_iter().rev() {
            self.maps.page(entry, PageEntry::new(chunk, row + start));
        }
        if let Some(place) = self.get_mut(id).and_then(|stored| stored.windows.get_mut(number as usize)) {
            *place = Some(run);
        }
        self.filled.rows += u64::from(length);
        Ok(())
    }

    /// Lets a file go: it was overwritten, or is of no use.
    pub fn forget(&mut self, key: FileKey, now: Now) {
        match self.keys.get(&key) {
            Some(&index) => self.evict(index, now),
            None => self.maps.remove_key(key),
        }
    }

    fn stored(&self, index: u32) -> Option<&Stored> {
        self.files.get(index as usize)?.as_ref()
    }

    fn get(&self, id: FileId) -> Option<&Stored> {
        self.stored(id.index).filter(|stored| stored.generation == id.generation)
    }

    fn get_mut(&mut self, id: FileId) -> Option<&mut Stored> {
        let stored = self.files.get_mut(id.index as usize)?.as_mut();
        stored.filter(|stored| stored.generation == id.generation)
    }

    fn take_rows(&mut self, length: u32) -> io::Result<Option<Run>> {
        if let Some(run) = self.rows.take(length) {
            return Ok(Some(run));
        }
        if self.chunks >= self.most_chunks {
            return Ok(None);
        }
        self.maps.add_chunk(self.chunks)?;
        // But for the last row: so the end of a window is a place in the same chunk, too.
        self.rows.give(Run { start: self.chunks * shape::CHUNK_ROWS, length: shape::CHUNK_ROWS - 1 });
        self.chunks += 1;
        self.filled.bytes += u64::from(shape::CHUNK_ROWS) * size_of::<Row>() as u64;
        Ok(self.rows.take(length))
    }

    /// Lets files go that were not used for the longest time, until what rests suffices.
    fn make_room(&mut self, short: Short, not: Option<u32>, now: Now) -> Refused {
        let goal = match short {
            Short::Rows(length) => u64::from(length) + u64::from(self.chunks * shape::CHUNK_ROWS) / PART,
            Short::Entries(length) => u64::from(length) + u64::from(shape::PAGES) / PART,
            Short::Slots => u64::from(shape::FILES) / PART,
        };
        // What is at rest already was taken back for the same want.
        let mut made: u64 = self.resting.iter().map(|resting| resting.amount(short)).sum();
        for index in self.idle(not, now) {
            if made >= goal {
                break;
            }
            self.evict(index, now);
            made += self.resting.back().map_or(0, |resting| resting.amount(short));
        }
        match self.resting.front() {
            Some(first) if made > 0 => Refused::Later(first.until),
            _ => Refused::Full,
        }
    }

    /// Files that no stack led to lately, those first that were not used for the longest time.
    fn idle(&self, not: Option<u32>, now: Now) -> Vec<u32> {
        let mut idle: Vec<(i32, u32)> = (0..)
            .zip(&self.files)
            .filter(|(index, stored)| stored.is_some() && Some(*index) != not)
            .map(|(index, _)| (now.interval.wrapping_sub(self.maps.used(index)) as i32, index))
            // Below 0: used in the interval that has just begun.
            .filter(|&(age, _)| age > RECENT as i32)
            .collect();
        idle.sort_unstable_by(|a, b| b.cmp(a));
        idle.into_iter().map(|(_, index)| index).collect()
    }

    fn evict(&mut self, index: u32, now: Now) {
        let Some(stored) = self.files.get_mut(index as usize).and_then(Option::take) else { return };
        self.maps.remove_key(stored.key);
        self.maps.retire(index);
        self.keys.remove(&stored.key);
        let rows: Vec<Run> = stored.windows.into_iter().flatten().collect();
        self.filled.files -= 1;
        self.filled.rows -= rows.iter().map(|run| u64::from(run.length)).sum::<u64>();
        self.filled.evicted += 1;
        let entries = Run { start: stored.page_base, length: stored.extent.entries() };
        self.resting.push_back(Resting { until: now.at + REST, rows, entries, slot: index });
    }

    /// Takes back what has rested.
    fn settle(&mut self, now: Now) {
        while self.resting.front().is_some_and(|resting| resting.until <= now.at) {
            let Some(resting) = self.resting.pop_front() else { break };
            resting.rows.into_iter().for_each(|run| self.rows.give(run));
            self.entries.give(resting.entries);
            self.free_slots.push(resting.slot);
        }
    }
}

impl Resting {
    fn amount(&self, short: Short) -> u64 {
        match short {
            Short::Rows(_) => self.rows.iter().map(|run| u64::from(run.length)).sum(),
            Short::Entries(_) => u64::from(self.entries.length),
            Short::Slots => 1,
        }
    }
}
