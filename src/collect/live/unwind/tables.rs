//! The arrays that hold tables, as the kernel side reads them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::super::maps::memory_of;
use super::super::shared::Shared;
use super::super::skel::sched::SchedMaps;
use super::News;
use super::chunks::{self, Chunks};
use crate::collect::modules::TabledFile;
use crate::collect::taken::Tag;
use crate::collect::unwind::{FileEntry, FileId, FileKey, Maps, PageEntry, Row, Rule, shape};

/// Chunks that are added at once.
const CHUNKS_AT_ONCE: u32 = 4;
/// For how long, and how often, one looks whether they are there.
const BETWEEN_LOOKS: Duration = Duration::from_micros(100);
const MOST_LOOKS: u32 = 20_000;

/// Words of 32 bits of a `struct unwind_file`: first (2), page_base, pages, generation, used.
const FILE_WORDS: usize = 6;
const USED_WORD: usize = 5;
const GENERATION_WORD: usize = 4;
/// Of a slot that holds no file.
const NO_GENERATION: u32 = 0;

/// Arrays of the kernel side, mapped.
pub struct TableMaps {
    keys: MapHandle,
    reader: Reader,
    rules: Shared,
    rows: MapHandle,
    chunks: Chunks,
    /// Memory of them.
    bytes: Arc<AtomicU64>,
    news: Sender<News>,
    /// The file that is published next.
    next: Option<Next>,
}

/// What is published next.
pub enum Next {
    /// A file.
    File(Box<TabledFile>),
    /// The kernel's page.
    Vdso,
}

impl TableMaps {
    /// Maps them.
    ///
    /// # Errors
    /// What the kernel says: no memory.
    pub fn new(maps: &SchedMaps<'_>, news: Sender<News>) -> Result<Self, libbpf_rs::Error> {
        Ok(TableMaps {
            keys: MapHandle::try_from(&maps.unwind_keys)?,
            reader: Reader {
                files: Arc::new(Shared::new(&maps.unwind_files.as_fd(), 4 * FILE_WORDS * shape::FILES as usize)?),
                pages: Arc::new(Shared::new(&maps.unwind_pages.as_fd(), 4 * shape::PAGES as usize)?),
            },
            rules: Shared::new(&maps.unwind_rules.as_fd(), 8 * shape::RULES as usize)?,
            rows: MapHandle::try_from(&maps.unwind_rows)?,
            chunks: Chunks::default(),
            bytes: Arc::default(),
            news,
            next: None,
        })
    }

    /// Of which file the next that is published is; frames in it may come from then on.
    pub fn announce(&mut self, next: Option<Next>) {
        self.next = next;
    }

    /// Memory of the chunks of rows, as the kernel states it; changes as they are added.
    pub fn bytes(&self) -> &Arc<AtomicU64> {
        &self.bytes
    }

    /// For others to see what is filled.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The rule at an offset of a file, as the kernel side finds it. `None`: its window is not filled.
    pub fn rule(&self, index: u32, offset: u64) -> Option<Rule> {
        let Some((entry, next)) = self.reader.entries(index, offset) else { return Some(Rule::NONE) };
        let ((chunk, start), (_, end)) = (entry.place()?, next.place()?);
        let row = |at: u32| self.chunks.row(chunk, at);
        let pc = (offset % shape::PAGE_BYTES) as u16;
        let (mut low, mut high) = (start, end);
        while high.saturating_sub(low) > 1 {
            let middle = low + (high - low) / 2;
            if row(middle)?.pc() <= pc { low = middle } else { high = middle }
        }
        let packed = self.rules.long(row(low)?.rule().into())?.load(Ordering::Relaxed);
        Some(Rule::unpack(packed))
    }

    /// Takes back that a window was asked for: whoever misses it next asks again.
    pub fn ask_again(&self, index: u32, offset: u64) {
        if let Some(entry) = self.reader.entry_of(index, offset).and_then(|at| self.reader.pages.word(at as usize)) {
            let asked = PageEntry::MISSING.0 | PageEntry::ASKED;
            let _ = entry.compare_exchange(asked, PageEntry::MISSING.0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Adds chunks behind those that are there.
    fn grow(&mut self, count: u32) -> Result<(), libbpf_rs::Error> {
        let first = self.chunks.len();
        let indices: Vec<u32> = (first..shape::CHUNKS.min(first + count)).collect();
        let chunks = indices.iter().map(|_| chunks::make()).collect::<Result<Vec<_>, _>>()?;
        let numbered = indices.iter().zip(&chunks);
        let pairs = numbered.map(|(&index, chunk)| Ok((index, chunk.as_fd().try_clone_to_owned()?)));
        let pairs = pairs.collect::<io::Result<Vec<_>>>()?;
        let rows = MapHandle::try_from(&self.rows)?;
        // An update is in force at once, but the kernel then waits for a grace period: more than a second on a machine that has
        // more to run than CPUs. So another thread waits.
        std::thread::Builder::new().name("sberf-chunks".into()).spawn(move || put(&rows, &pairs))?;
        self.wait_for(&indices)?;
        self.bytes.fetch_add(chunks.iter().map(memory_of).sum(), Ordering::Relaxed);
        self.chunks.extend(chunks);
        Ok(())
    }

    fn wait_for(&self, indices: &[u32]) -> Result<(), libbpf_rs::Error> {
        let there = |index: &u32| matches!(self.rows.lookup(&index.to_ne_bytes(), MapFlags::ANY), Ok(Some(_)));
        for _ in 0..MOST_LOOKS {
            if indices.iter().all(there) {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }
}

/// Puts chunks into the map of them, by index.
fn put(rows: &MapHandle, pairs: &[(u32, OwnedFd)]) {
    let keys: Vec<u8> = pairs.iter().flat_map(|(index, _)| index.to_ne_bytes()).collect();
    let chunks: Vec<u8> = pairs.iter().flat_map(|(_, chunk)| chunk.as_raw_fd().to_ne_bytes()).collect();
    if rows.update_batch(&keys, &chunks, pairs.len() as u32, MapFlags::ANY, MapFlags::ANY).is_err() {
        // Kernels before 5.14 take them one at a time. Whoever waits for them sees which are there.
        for (key, chunk) in keys.chunks_exact(4).zip(chunks.chunks_exact(4)) {
            let _ = rows.update(key, chunk, MapFlags::ANY);
        }
    }
}

/// Sees which files are there, and which of their windows are filled.
#[derive(Clone)]
pub struct Reader {
    files: Arc<Shared>,
    pages: Arc<Shared>,
}

impl Reader {
    fn file_word(&self, index: u32, word: usize) -> Option<&AtomicU32> {
        self.files.word(index as usize * FILE_WORDS + word)
    }

    fn read(&self, index: u32, word: usize) -> u32 {
        self.file_word(index, word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// The page entry for an offset of a file; `None` outside of what the file has.
    fn entry_of(&self, index: u32, offset: u64) -> Option<u32> {
        let first = u64::from(self.read(index, 0)) | u64::from(self.read(index, 1)) << 32;
        let page = u32::try_from(offset.checked_sub(first)? / shape::PAGE_BYTES).ok()?;
        let (base, pages) = (self.read(index, 2), self.read(index, 3));
        (page < pages).then(|| base.saturating_add(page).saturating_add(page / shape::WINDOW_PAGES))
    }

    /// That entry and the next one.
    fn entries(&self, index: u32, offset: u64) -> Option<(PageEntry, PageEntry)> {
        let at = self.entry_of(index, offset)?;
        let entry = |at: u32| self.pages.word(at as usize).map(|entry| PageEntry(entry.load(Ordering::Acquire)));
        Some((entry(at)?, entry(at.checked_add(1)?)?))
    }

    fn is_there(&self, id: FileId) -> bool {
        self.read(id.index, GENERATION_WORD) == id.generation
    }

    /// Windows of a file.
    pub fn windows(&self, id: FileId) -> u32 {
        if self.is_there(id) { self.read(id.index, 3).div_ceil(shape::WINDOW_PAGES) } else { 0 }
    }

    /// Whether the window at an offset of a file is still to be filled; false if the file is there no more.
    pub fn is_missing(&self, id: FileId, offset: u64) -> bool {
        let missing = |(entry, _): (PageEntry, PageEntry)| entry.place().is_none();
        self.is_there(id) && self.entries(id.index, offset).is_some_and(missing)
    }
}

impl Maps for TableMaps {
    fn add_chunk(&mut self, chunk: u32) -> io::Result<()> {
        match self.chunks.len() {
            have if chunk < have => Ok(()),
            have => self.grow(CHUNKS_AT_ONCE.max(chunk + 1 - have)).map_err(io::Error::other),
        }
    }

    fn rows(&mut self, chunk: u32, row: u32, rows: &[Row]) -> io::Result<()> {
        self.chunks.write(chunk, row, rows)
    }

    fn page(&mut self, entry: u32, value: PageEntry) {
        if let Some(word) = self.reader.pages.word(entry as usize) {
            word.store(value.0, Ordering::Release);
        }
    }

    fn rule(&mut self, index: u16, packed: u64) {
        if let Some(rule) = self.rules.long(index.into()) {
            rule.store(packed, Ordering::Release);
        }
    }

    fn file(&mut self, index: u32, file: FileEntry, interval: u32) {
        let tag = Tag::new(index, file.generation);
        // Whoever does not listen any more does not mind.
        let _ = match self.next.take() {
            Some(Next::File(next)) => self.news.send(News::File(tag, next)),
            Some(Next::Vdso) => self.news.send(News::Vdso(tag)),
            None => Ok(()),
        };
        let first = [file.first as u32, (file.first >> 32) as u32];
        let words = [first[0], first[1], file.page_base, file.pages, file.generation, interval];
        for (at, value) in words.into_iter().enumerate() {
            if let Some(word) = self.reader.file_word(index, at) {
                word.store(value, Ordering::Release);
            }
        }
    }

    fn retire(&mut self, index: u32) {
        if let Some(word) = self.reader.file_word(index, GENERATION_WORD) {
            word.store(NO_GENERATION, Ordering::Release);
        }
    }

    fn used(&self, index: u32) -> u32 {
        self.reader.file_word(index, USED_WORD).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set_key(&mut self, key: FileKey, index: u32) -> io::Result<()> {
        self.keys.update(&bytes_of(key), &index.to_ne_bytes(), MapFlags::ANY).map_err(io::Error::other)
    }

    fn remove_key(&mut self, key: FileKey) {
        // That it is not there is fine.
        let _ = self.keys.delete(&bytes_of(key));
    }
}

/// `struct unwind_key`.
fn bytes_of(key: FileKey) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.inode.to_ne_bytes());
    bytes[8..12].copy_from_slice(&key.device.to_ne_bytes());
    bytes[12..].copy_from_slice(&key.generation.to_ne_bytes());
    bytes
}
