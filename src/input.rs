//! What the person and the machine have to say to the screen: keys, clicks, sizes and signals, each from a thread.

use std::io;

use crossbeam_channel::{Receiver, bounded};
use crossterm::event::Event;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::terminal;

/// Keys, clicks and sizes, from a thread; the channel closes when the terminal is gone.
pub fn events() -> io::Result<Receiver<Event>> {
    let (send, events) = bounded(256);
    std::thread::Builder::new().name("input".into()).spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if send.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}

/// Signals, from a thread; a hangup of the terminal, from another, counts as one.
pub fn signals() -> io::Result<Receiver<i32>> {
    let (send, signals) = bounded(16);
    let hangup = send.clone();
    std::thread::Builder::new().name("hangup".into()).spawn(move || {
        terminal::wait_for_hangup();
        let _ = hangup.send(SIGHUP);
    })?;
    let mut wanted = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in wanted.forever() {
            if send.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(signals)
}
