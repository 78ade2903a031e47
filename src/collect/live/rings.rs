//! Ring buffers, emptied into plain bytes a few times per tick.
//!
//! libbpf maps the data of a ring twice in a row, so that no record seems to wrap, and every page of both counts as our
//! memory: 40 MB of it. Here it is mapped once, and a record that wraps is copied in two parts.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::MapCore;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Flags in the length of a record's header (`BPF_RINGBUF_*_BIT`).
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Length and page offset, before each record.
const HEADER: usize = 8;

/// One ring and what was taken out of it since the last look.
pub struct Ring {
    /// The page that we write: how far we have read.
    consumer: Mapped,
    /// The page that the kernel writes (how far it has written), and the data after it.
    producer: Mapped,
    page: usize,
    map: OwnedFd,
    bytes: Vec<u8>,
    clogged: bool,
}

/// A mapping of a part of a map.
struct Mapped {
    start: *mut c_void,
    len: usize,
}

// SAFETY: what is shared with the kernel is only reached through atomics, or lies in records that nobody writes any more.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(map: &OwnedFd, offset: usize, len: usize, access: ProtFlags) -> std::io::Result<Self> {
        // SAFETY: a fresh shared mapping of a ring; nothing else uses the address.
        let start = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, map, offset as u64) }?;
        Ok(Mapped { start, len })
    }

    /// The 64-bit position at the start.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: the mapping is at least a page long, page-aligned, and lives as long as `self`.
        unsafe { &*self.start.cast::<AtomicU64>() }
    }

    /// `len` bytes at `offset`, if they lie within the mapping.
    fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return &[];
        }
        // SAFETY: within the mapping, checked above. The kernel does not write there before we say that we have read it.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>().add(offset), len) }
    }

    fn word(&self, offset: usize) -> Option<u32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4).is_none_or(|end| end > self.len) {
            return None;
        }
        // SAFETY: aligned and within the mapping, checked above.
        Some(unsafe { &*self.start.cast::<u8>().add(offset).cast::<AtomicU32>() }.load(Ordering::Acquire))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

impl Ring {
    /// A reader of the ring buffer `map`, its only one.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn new(map: &impl MapCore) -> std::io::Result<Self> {
        let size = map.max_entries() as usize;
        let map = map.as_fd().try_clone_to_owned()?;
        let page = rustix::param::page_size();
        let consumer = Mapped::new(&map, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Mapped::new(&map, page, page + size, ProtFlags::READ)?;
        Ok(Ring { consumer, producer, page, map, bytes: Vec::new(), clogged: false })
    }

    /// From now on it is never emptied. For tests of what becomes of that.
    pub fn clog(&mut self) {
        self.clogged = true;
    }

    /// Readable while there is something in it; who waits for that is woken if the program that wrote it asked for it.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Moves what the programs have written into our own memory, so that the ring has room again.
    pub fn pump(&mut self) {
        if self.clogged {
            return;
        }
        let size = self.producer.len - self.page;
        let mut read = self.consumer.position().load(Ordering::Relaxed);
        let written = self.producer.position().load(Ordering::Acquire);
        while read < written {
            let at = read as usize & (size - 1);
            let Some(header) = self.producer.word(self.page + at).filter(|header| header & BUSY == 0) else { break };
            let len = (header & !DISCARDED) as usize;
            if header & DISCARDED == 0 {
                let start = (at + HEADER) & (size - 1);
                let first = len.min(size - start);
                self.bytes.extend_from_slice(self.producer.bytes(self.page + start, first));
                self.bytes.extend_from_slice(self.producer.bytes(self.page, len - first));
            }
            read += (len + HEADER).next_multiple_of(8) as u64;
            self.consumer.position().store(read, Ordering::Release);
        }
    }

    /// Everything since the last call, records one after the other.
    pub fn take(&mut self) -> Vec<u8> {
        self.pump();
        std::mem::take(&mut self.bytes)
    }
}
