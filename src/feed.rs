//! A source on a thread of its own, and what comes from it.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use sberf::collect::capture::{CaptureError, Tee, Writer};
use sberf::collect::{Request, Source, SourceError};
use sberf::tick::{Batch, Session};

/// Batches that may wait to be taken in; behind that many the source waits.
const WAITING: usize = 32;
/// Requests that may wait for the source.
const REQUESTS: usize = 256;

/// What a source tells.
pub enum News {
    /// It runs; this is the machine.
    Loaded(Box<Session>),
    /// The next batch.
    Batch(Batch),
    /// Recording failed; the source goes on.
    Said(String),
    /// What may be worth knowing: nothing is wrong.
    Noted(String),
    /// There is no more; an error says why.
    Ended(Result<(), String>),
}

/// A source that runs.
pub struct Feed {
    /// What it tells.
    pub news: Receiver<News>,
    /// What is asked of it.
    requests: Sender<Request>,
    thread: JoinHandle<()>,
    records: bool,
}

/// Makes a source; runs on the source's thread, for loading takes long.
pub type Open = Box<dyn FnOnce() -> Result<Box<dyn Source>, SourceError> + Send>;

impl Feed {
    /// Starts the thread. What the source yields is also written to the file, if one is named.
    pub fn start(open: Open, write: Option<PathBuf>) -> std::io::Result<Self> {
        let (tell, news) = bounded(WAITING);
        let (requests, requested) = bounded(REQUESTS);
        let records = write.is_some();
        let thread = std::thread::Builder::new().name("source".into()).spawn(move || {
            let ended = run(open, write, &tell, &requested);
            // Nobody listens any more: then nobody needs to know.
            drop(tell.send(News::Ended(ended)));
        })?;
        Ok(Feed { news, requests, thread, records })
    }

    /// Asks something of the source. Requests are hints: one that finds no room is dropped.
    pub fn request(&self, request: Request) {
        drop(self.requests.try_send(request));
    }

    /// What it yields is also written to a file.
    pub fn records(&self) -> bool {
        self.records
    }

    /// Lets the source end and waits until it has, so that a capture gets its end mark. Yields what was still under way.
    pub fn finish(self) -> Vec<News> {
        drop(self.requests);
        let rest = self.news.iter().collect();
        // A panic there has ended the program.
        drop(self.thread.join());
        rest
    }
}

fn run(open: Open, write: Option<PathBuf>, tell: &Sender<News>, requests: &Receiver<Request>) -> Result<(), String> {
    let mut source = open().map_err(|error| error.to_string())?;
    let session = source.session();
    if let Some(path) = write {
        source = tee(source, path, &session, tell.clone())?;
    }
    if tell.send(News::Loaded(Box::new(session))).is_err() {
        return Ok(());
    }
    while let Some(batch) = source.next(requests).map_err(|error| error.to_string())? {
        crate::test_panic("source");
        for note in source.said() {
            if tell.send(News::Noted(note)).is_err() {
                return Ok(());
            }
        }
        if tell.send(News::Batch(batch)).is_err() {
            break;
        }
    }
    Ok(())
}

fn tee(
    source: Box<dyn Source>,
    path: PathBuf,
    session: &Session,
    tell: Sender<News>,
) -> Result<Box<dyn Source>, String> {
    let label = path.display().to_string();
    let writer = Writer::create(&path, session).map_err(|error| format!("{label}: {error}"))?;
    let stopped = move |error: CaptureError| drop(tell.send(News::Said(format!("{label}: {error}"))));
    Ok(Box::new(Tee::new(source, writer, stopped)))
}
