//! Memory that was freed goes back to the machine.
//!
//! The allocator of glibc raises the size from which it takes and gives back whole pages each time a large block is freed. After one
//! burst (a large symbol table, thousands of new processes) what is freed would stay with us for good. Measured with 4 100 processes:
//! 95 MB resident instead of 117, for 27.8 ms of CPU time a second instead of 26.9.

/// From this size on a block has pages of its own, and so much may be free at the end of the heap: glibc's own first values.
#[cfg(target_env = "gnu")]
const THRESHOLD_BYTES: libc::c_int = 128 << 10;

/// Keeps the allocator from learning to hold on to memory.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for setting in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
        // SAFETY: takes two numbers; other threads have not been started.
        unsafe { libc::mallopt(setting, THRESHOLD_BYTES) };
    }
}
