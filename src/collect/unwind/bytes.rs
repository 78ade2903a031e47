//! Reading a file of somebody else: by blocks, a few of which are kept, and no more in all than a budget allows.
//!
//! Whatever call frame information says, evaluating it means reading it. So who bounds the bytes that are read (the same ones
//! again count again) bounds the time. Nothing is mapped: a file that shrinks is a read that fails.

use gimli::{LittleEndian, ReaderOffsetId};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Something with bytes at offsets: a file, or what was read from memory.
pub trait ReadAt {
    /// How many bytes there are.
    fn bytes(&self) -> u64;

    /// Fills `into` with the bytes at `offset`; false if it has fewer or cannot be read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool;
}

impl ReadAt for File {
    fn bytes(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        self.read_exact_at(into, offset).is_ok()
    }
}

impl ReadAt for [u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        let from = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..into.len()));
        from.is_some_and(|from| {
            into.copy_from_slice(from);
            true
        })
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        (**self).read_at(offset, into)
    }
}

const BLOCK_BYTES: usize = 4 << 10;
const BLOCKS: usize = 8;
/// What fetching a block costs of the budget: about as much time as evaluating this many bytes.
const FETCH_COST: u64 = 64;

struct Block {
    number: u64,
    bytes: Vec<u8>,
}

struct Blocks {
    kept: Vec<Block>,
    /// The one read last.
    last: usize,
    /// The one that goes next.
    oldest: usize,
}

/// Reads a source through a few kept blocks, within a budget.
pub struct Pager<'source> {
    source: &'source dyn ReadAt,
    bytes: u64,
    blocks: RefCell<Blocks>,
    left: Cell<u64>,
}

impl<'source> Pager<'source> {
    /// `budget`: bytes that may be read before everything fails.
    pub fn new(source: &'source dyn ReadAt, budget: u64) -> Self {
        let blocks = Blocks { kept: Vec::new(), last: 0, oldest: 0 };
        Pager { source, bytes: source.bytes(), blocks: RefCell::new(blocks), left: Cell::new(budget) }
    }

    /// What is left of the budget.
    pub fn left(&self) -> u64 {
        self.left.get()
    }

    /// Bytes of the source.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn spend(&self, cost: u64) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(cost));
        left > cost
    }

    /// Fills `into` with the bytes at `offset`; false if there are fewer, or the budget is spent.
    #[inline]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        if !self.spend(into.len() as u64) {
            return false;
        }
        let (number, start) = (offset / BLOCK_BYTES as u64, offset as usize % BLOCK_BYTES);
        let blocks = self.blocks.borrow();
        if let Some(block) = blocks.kept.get(blocks.last)
            && block.number == number
            && let Some(from) = block.bytes.get(start..start + into.len())
        {
            into.copy_from_slice(from);
            return true;
        }
        drop(blocks);
        self.read_across(offset, into)
    }

    /// The same where the bytes lie in another block than those before, or in several.
    fn read_across(&self, mut offset: u64, mut into: &mut [u8]) -> bool {
        let mut blocks = self.blocks.borrow_mut();
        while !into.is_empty() {
            let (number, start) = (offset / BLOCK_BYTES as u64, offset as usize % BLOCK_BYTES);
            let Some(block) = self.block(&mut blocks, number) else { return false };
            let Some(from) = block.bytes.get(start..).filter(|from| !from.is_empty()) else { return false };
            let (now, rest) = into.split_at_mut(from.len().min(into.len()));
            now.copy_from_slice(&from[..now.len()]);
            offset += now.len() as u64;
            into = rest;
        }
        true
    }

    fn block<'blocks>(&self, blocks: &'blocks mut Blocks, number: u64) -> Option<&'blocks Block> {
        if let Some(at) = blocks.kept.iter().position(|block| block.number == number) {
            blocks.last = at;
            return blocks.kept.get(at);
        }
        let start = number.checked_mul(BLOCK_BYTES as u64)?;
        let length = self.bytes.checked_sub(start)?.min(BLOCK_BYTES as u64) as usize;
        if length == 0 || !self.spend(FETCH_COST) {
            return None;
        }
        if blocks.kept.len() < BLOCKS {
            blocks.last = blocks.kept.len();
            blocks.kept.push(Block { number: u64::MAX, bytes: Vec::new() });
        } else {
            blocks.last = blocks.oldest;
            blocks.oldest = (blocks.oldest + 1) % BLOCKS;
        }
        let block = blocks.kept.get_mut(blocks.last)?;
        // Until it is filled it must not be found.
        block.number = u64::MAX;
        block.bytes.resize(length, 0);
        if !self.source.read_at(start, &mut block.bytes) {
            return None;
        }
        block.number = number;
        Some(block)
    }

    /// The bytes of a range of the source, as gimli reads them; what lies behind its end is cut off.
    pub fn view(&self, start: u64, end: u64) -> View<'_> {
        let end = end.min(self.bytes);
        View { pager: self, start: start.min(end), end }
    }

    /// A little-endian number.
    pub fn u32_at(&self, offset: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes).then(|| u32::from_le_bytes(bytes))
    }
}

/// A part of a source, for gimli.
#[derive(Clone)]
pub struct View<'pager> {
    pager: &'pager Pager<'pager>,
    start: u64,
    end: u64,
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}..{:#x}", self.start, self.end)
    }
}

impl View<'_> {
    fn eof(&self) -> gimli::Error {
        gimli::Error::UnexpectedEof(ReaderOffsetId(self.start))
    }
}

impl gimli::Reader for View<'_> {
    type Endian = LittleEndian;
    type Offset = u64;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn empty(&mut self) {
        self.end = self.start;
    }

    fn truncate(&mut self, len: u64) -> gimli::Result<()> {
        let end = self.start.checked_add(len).filter(|&end| end <= self.end).ok_or_else(|| self.eof())?;
        self.end = end;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> u64 {
        self.start.saturating_sub(base.start)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.start)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<u64> {
        id.0.checked_sub(self.start).filter(|&into| into <= self.end - self.start)
    }

    fn find(&self, byte: u8) -> gimli::Result<u64> {
        let mut rest = self.clone();
        while rest.read_u8()? != byte {}
        Ok(rest.start - self.start - 1)
    }

    fn skip(&mut self, len: u64) -> gimli::Result<()> {
        self.split(len).map(drop)
    }

    fn split(&mut self, len: u64) -> gimli::Result<Self> {
        let mut front = self.clone();
        front.truncate(len)?;
        self.start = front.end;
        Ok(front)
    }

    // Nothing that evaluates call frame information asks for these three.
    fn to_slice(&self) -> gimli::Result<Cow<'_, [u8]>> {
        Err(self.eof())
    }

    fn to_string(&self) -> gimli::Result<Cow<'_, str>> {
        Err(self.eof())
    }

    fn to_string_lossy(&self) -> gimli::Result<Cow<'_, str>> {
        Err(self.eof())
    }

    #[inline]
    fn read_slice(&mut self, into: &mut [u8]) -> gimli::Result<()> {
        let len = into.len() as u64;
        if len > self.end - self.start || !self.pager.read(self.start, into) {
            return Err(self.eof());
        }
        self.start += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::Reader;

    fn numbered(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn any_part_reads_as_it_is() {
        let bytes = numbered(20 * BLOCK_BYTES + 17);
        let source = Arc::<[u8]>::from(bytes.as_slice());
        let pager = Pager::new(&source, u64::MAX);
        let mut seed = 1u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let start = (seed >> 33) as usize % bytes.len();
            let length = ((seed >> 20) as usize % 40_000).min(bytes.len() - start);
            let mut got = vec![0; length];
            assert!(pager.read(start as u64, &mut got));
            assert!(got == bytes[start..start + length], "{start} {length}");
        }
        assert!(!pager.read(bytes.len() as u64 - 1, &mut [0; 2]));
        assert!(!pager.read(u64::MAX, &mut [0; 2]));
    }

    #[test]
    fn a_budget_ends() {
        let bytes = numbered(3 * BLOCK_BYTES);
        let source = Arc::<[u8]>::from(bytes);
        let pager = Pager::new(&source, 1000);
        let mut reads = 0;
        while pager.read(5, &mut [0; 10]) {
            reads += 1;
        }
        assert_eq!(reads, (1000 - FETCH_COST - 1) / 10);
        assert!(!pager.read(5, &mut [0; 10]), "spent is spent");
    }

    #[test]
    fn views_end_where_they_end() {
        let source = Arc::<[u8]>::from(numbered(100));
        let pager = Pager::new(&source, u64::MAX);
        let mut view = pager.view(90, 1000);
        assert_eq!(view.len(), 10);
        assert_eq!(view.find(95).unwrap(), 5);
        assert!(view.find(7).is_err());
        let mut front = view.split(4).unwrap();
        assert_eq!(front.read_u32().unwrap(), u32::from_le_bytes([90, 91, 92, 93]));
        assert!(front.read_u8().is_err());
        assert_eq!(view.read_u8().unwrap(), 94);
        assert!(view.skip(6).is_err());
        assert_eq!(view.offset_from(&pager.view(90, 100)), 5);
    }

    #[test]
    fn a_file_that_shrinks_is_a_read_that_fails() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&numbered(5 * BLOCK_BYTES), 0).unwrap();
        let pager = Pager::new(&file, u64::MAX);
        assert!(pager.read(10, &mut [0; 10]));
        file.set_len(100).unwrap();
        assert!(!pager.read(3 * BLOCK_BYTES as u64, &mut [0; 10]));
        assert!(!pager.read(3 * BLOCK_BYTES as u64, &mut [0; 10]), "what could not be filled is not kept");
    }
}
