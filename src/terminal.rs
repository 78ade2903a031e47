//! The terminal as we need it, and as it was.
//!
//! Whatever happens (return, panic, signal, lost terminal), [`restore`] runs once and gives back what [`enter`] took.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{QueueSelector, tcflush};

/// Alternate screen, cursor hidden, mouse clicks, drags and wheel in SGR form. (Not every motion: that would wake us
/// for nothing.) What is pasted comes in brackets, or each of its characters would be a key.
const ENTER: &str = "\x1b[?1049h\x1b[2J\x1b[?25l\x1b[?1000h\x1b[?1002h\x1b[?1006h\x1b[?2004h";
/// The same undone, from the inside out; first, an update that was cut short is ended and colours are reset.
const LEAVE: &str = "\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?1006l\x1b[?1002l\x1b[?1000l\x1b[?25h\x1b[?1049l";

static ENTERED: AtomicBool = AtomicBool::new(false);
static ENDING: AtomicBool = AtomicBool::new(false);
/// Held while anything is written, so that nothing comes after the terminal was given back.
static WRITING: Mutex<()> = Mutex::new(());
/// How long the end waits for a frame under way; a terminal that was stopped would let it wait for ever.
const LAST_FRAME: Duration = Duration::from_millis(500);

/// Fails with one line if standard input and output are not a terminal.
pub fn check() -> Result<(), String> {
    let (input, output) = (io::stdin().is_terminal(), io::stdout().is_terminal());
    let what = match (input, output) {
        (true, true) => return Ok(()),
        (false, true) => "standard input is",
        (true, false) => "standard output is",
        (false, false) => "standard input and output are",
    };
    Err(format!("{what} not a terminal, and a screen needs one; `sberf top --json` prints ticks instead"))
}

/// Gives the terminal back when dropped.
pub struct Guard(());

/// Takes the terminal over. Panics restore it too, from here on.
pub fn enter() -> io::Result<Guard> {
    take()?;
    Ok(Guard(()))
}

impl Drop for Guard {
    fn drop(&mut self) {
        restore();
    }
}

/// As [`enter`], again after [`restore`].
pub fn take() -> io::Result<()> {
    let writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    if ENDING.load(Ordering::SeqCst) {
        drop(writing);
        // Another thread panics and ends the program: too late to take anything.
        loop {
            std::thread::park();
        }
    }
    crossterm::terminal::enable_raw_mode()?;
    ENTERED.store(true, Ordering::SeqCst);
    write_within(ENTER.as_bytes(), 1_000)
}

/// The terminal is ours: what is printed now would be drawn over the picture.
pub fn is_ours() -> bool {
    ENTERED.load(Ordering::SeqCst)
}

/// Gives the terminal back, if we have it. Never blocks for longer than a second.
pub fn restore() {
    let _writing = last_frame();
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    // Each step is tried whatever became of the one before: there is nobody left to tell.
    drop(write_within(LEAVE.as_bytes(), 1_000));
    // Mouse reports under way would otherwise be typed into the shell.
    let _ = tcflush(io::stdin(), QueueSelector::IFlush);
    drop(crossterm::terminal::disable_raw_mode());
}

/// Gives the terminal back for good: the program is about to end.
pub fn restore_for_good() {
    ENDING.store(true, Ordering::SeqCst);
    restore();
}

/// Writes a frame, if the terminal is ours.
pub fn write_frame(output: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_ours() {
        return Ok(());
    }
    output.write_all(frame)?;
    output.flush()
}

/// Waits for the frame under way. (One that hangs, or that panicked, is not waited for.)
fn last_frame() -> Option<MutexGuard<'static, ()>> {
    let start = Instant::now();
    loop {
        match WRITING.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if start.elapsed() > LAST_FRAME => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Writes to standard output, as long as it takes bytes within that time.
fn write_within(mut bytes: &[u8], timeout_ms: i64) -> io::Result<()> {
    let output = io::stdout();
    let timeout = Timespec { tv_sec: timeout_ms / 1_000, tv_nsec: timeout_ms % 1_000 * 1_000_000 };
    while !bytes.is_empty() {
        let mut ready = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::OUT)];
        if poll(&mut ready, Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let written = rustix::io::write(&output, bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Waits until the terminal of standard input is gone.
pub fn wait_for_hangup() {
    let input = io::stdin();
    loop {
        // No events asked for: only the end of it is reported.
        let mut gone = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::empty())];
        match poll(&mut gone, None) {
            Ok(_) | Err(rustix::io::Errno::BADF) => return,
            Err(_) => {}
        }
    }
}
