//! A file that is mapped can shrink: its owner truncates it, or an upgrade writes over it. Touching what was cut off
//! raises SIGBUS, which ends a process. While the symbol worker reads files of others, such a page reads as zeroes
//! instead, and the parser finds a broken file.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::MaybeUninit;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// Whether faults of this thread are mended. Constant at first and without a destructor, so that reading it in a
    /// signal handler is a plain load.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static MENDED: AtomicUsize = AtomicUsize::new(0);
static INSTALL: Once = Once::new();

/// What handled SIGBUS before us (the Rust runtime, to tell of stack overflows).
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, inside `INSTALL` and before the handler can run; only read after that.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::zeroed()));

/// Mends faults of the calling thread from now on.
///
/// # Errors
/// When the handler cannot be installed.
pub fn guard_this_thread() -> io::Result<()> {
    let mut result = Ok(());
    INSTALL.call_once(|| result = install());
    GUARDED.set(true);
    result
}

/// How many pages were missing so far.
#[cfg(test)]
fn mended() -> usize {
    MENDED.load(Ordering::Relaxed)
}

fn install() -> io::Result<()> {
    PAGE_BYTES.store(rustix::param::page_size(), Ordering::SeqCst);
    // SAFETY: the zeroed structure is a valid one, the handler has the signature that SA_SIGINFO asks for and calls
    // only what may be called in a signal handler, and nobody else touches `BEFORE`.
    let done = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, (*BEFORE.0.get()).as_mut_ptr())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure, and for SIGBUS it holds an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code == libc::BUS_ADRERR && GUARDED.get() && put_zeroes(address) {
        MENDED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // Not ours: the instruction runs again, and this time whoever was there before us gets the signal.
    // SAFETY: `BEFORE` was filled when this handler was installed.
    unsafe { libc::sigaction(libc::SIGBUS, (*BEFORE.0.get()).as_ptr(), std::ptr::null_mut()) };
}

fn put_zeroes(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::SeqCst);
    let page = address & !(page_bytes - 1);
    // SAFETY: the page is one of a file mapping that has lost its file: nothing can be read from it, so replacing it
    // takes nothing from anyone. mmap is a plain system call.
    let mapped = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        libc::mmap(page as *mut libc::c_void, page_bytes, libc::PROT_READ, flags, -1, 0)
    };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_was_cut_off_reads_as_zeroes() {
        let bytes = 4 * rustix::param::page_size();
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; bytes], 0).unwrap();
        let byte = std::thread::spawn(move || {
            guard_this_thread().unwrap();
            // SAFETY: a fresh mapping of a file of that length, read below within its length.
            let mapped = unsafe {
                libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
            };
            assert_ne!(mapped, libc::MAP_FAILED);
            file.set_len(10).unwrap();
            let before = mended();
            // SAFETY: within the mapping; what the file lost is what is tested.
            let byte = unsafe { mapped.cast::<u8>().add(bytes - 1).read_volatile() };
            assert_eq!(mended(), before + 1);
            byte
        });
        assert_eq!(byte.join().unwrap(), 0);
    }
}
