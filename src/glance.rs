//! A first picture: who is there, seen while the source is still being loaded. It is no part of what the source yields.

use crossbeam_channel::{Receiver, bounded, never};

use sberf::tick::{Session, Tick};

/// What was seen.
pub type Seen = Box<(Session, Tick)>;

/// How to look.
pub type Look = Box<dyn FnOnce() -> Option<(Session, Tick)> + Send>;

/// Looks, on a thread of its own: it may have to wait for a process that holds its own memory locked.
pub fn start(look: Look) -> Receiver<Seen> {
    let (tell, seen) = bounded(1);
    let look = move || drop(look().map(|what| tell.send(Box::new(what))));
    // Without a thread there is no such picture, and the next one comes soon.
    std::thread::Builder::new().name("sberf-glance".into()).spawn(look).map_or_else(|_| never(), |_| seen)
}
