//! Arrays of the kernel side as memory of ours: what is stored here, programs read at once.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The values of a BPF array that was made mappable.
pub struct Shared {
    at: *mut c_void,
    bytes: usize,
}

// SAFETY: the memory is only reached through atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the array behind a descriptor, `bytes` of its values.
    ///
    /// # Errors
    /// What mmap(2) says: the map is not mappable, or smaller.
    pub fn new(map: &impl AsFd, bytes: usize) -> std::io::Result<Self> {
        let bytes = bytes.next_multiple_of(rustix::param::page_size());
        // SAFETY: a fresh shared mapping, at an address that the kernel chooses; nothing else uses it.
        let at = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map.as_fd(), 0)
        }?;
        Ok(Shared { at, bytes })
    }

    /// 32-bit word `index` of all values; `None` behind their end.
    pub fn word(&self, index: usize) -> Option<&AtomicU32> {
        // SAFETY: within the mapping, which lives as long as `self`, and aligned, for the mapping begins with a page.
        (index < self.bytes / 4).then(|| unsafe { &*self.at.cast::<AtomicU32>().add(index) })
    }

    /// 64-bit word `index` of all values; `None` behind their end.
    pub fn long(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: as above.
        (index < self.bytes / 8).then(|| unsafe { &*self.at.cast::<AtomicU64>().add(index) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.at, self.bytes) };
    }
}
