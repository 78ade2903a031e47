//! A capture as a source of ticks.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::{CaptureError, Reader};
use crate::collect::{Request, Source, SourceError};
use crate::tick::{Batch, Session};

/// How fast a capture is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it can be read: for exports.
    Fast,
    /// As it happened: the first tick at once, every other as long after it as it was then.
    RealTime,
}

/// The longest that replay waits for a tick: a recorder can have stood still for hours.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Yields the batches of a capture. A damaged file is an error after everything before the damage was yielded.
pub struct CaptureSource<R: Read = BufReader<File>> {
    reader: Reader<R>,
    label: String,
    pace: Pace,
    held: bool,
    /// When the last tick was yielded, and the end of its span.
    last: Option<(Instant, u64)>,
}

impl CaptureSource {
    /// Opens a file.
    pub fn open(path: &Path, pace: Pace) -> Result<Self, SourceError> {
        let label = path.display().to_string();
        match Reader::open(path) {
            Ok(reader) => Ok(Self::new(reader, label, pace)),
            Err(error) => Err(SourceError(format!("{label}: {error}"))),
        }
    }
}

impl<R: Read> CaptureSource<R> {
    /// Yields what `reader` reads; `label` is what errors call it.
    pub fn new(reader: Reader<R>, label: String, pace: Pace) -> Self {
        CaptureSource { reader, label, pace, held: false, last: None }
    }

    fn read(&mut self) -> Result<Option<Batch>, SourceError> {
        self.reader.next_batch().map_err(|error: CaptureError| SourceError(format!("{}: {error}", self.label)))
    }

    /// When a tick that ends at `end_ns` is due; `None`: at once.
    fn due(&self, end_ns: u64) -> Option<Instant> {
        let (at, last_ns) = self.last.filter(|_| self.pace == Pace::RealTime)?;
        Some(at + Duration::from_nanos(end_ns.saturating_sub(last_ns)).min(LONGEST_WAIT))
    }

    /// Waits until `due`, and for as long as replay is held. False when nobody listens any more.
    fn wait(&mut self, due: Option<Instant>, requests: &Receiver<Request>) -> bool {
        let mut due = due;
        loop {
            let now = Instant::now();
            let request = match due {
                _ if self.held => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) if due > now => requests.recv_deadline(due),
                _ => requests.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            match request {
                Ok(Request::Hold(held)) => {
                    // Time that was held does not count.
                    due = due.filter(|_| held == self.held);
                    self.held = held;
                }
                Ok(Request::Step) if self.held => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

impl<R: Read + Send> Source for CaptureSource<R> {
    fn session(&self) -> Session {
        self.reader.session().clone()
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        let Some(batch) = self.read()? else { return Ok(None) };
        let Batch::Tick(tick) = &batch else { return Ok(Some(batch)) };
        let end_ns = tick.span.end_ns;
        let due = self.due(end_ns);
        if !self.wait(due, requests) {
            return Ok(None);
        }
        // From the due time, not from now: delays do not add up.
        let at = due.filter(|due| due.elapsed() < Duration::from_millis(200)).unwrap_or_else(Instant::now);
        self.last = Some((at, end_ns));
        Ok(Some(batch))
    }
}
