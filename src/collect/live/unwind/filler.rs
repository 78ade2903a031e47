//! Makes windows of tables that nobody has missed yet, on a thread of the lowest priority: what waits for nobody delays nobody.
//!
//! It only evaluates. What it has made goes to the [`super::worker`], which alone writes tables.

use std::collections::VecDeque;
use std::fs::File;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};

use super::budget::Budget;
use super::crowd::Crowd;
use super::tables::Reader;
use crate::collect::unwind::{FileId, Rule, Rules, Table, Window};

/// CPU time at once: the files of all that runs at the start.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Windows that wait for the worker; the thread rests when there are so many.
const WAITING: usize = 64;
/// Files that wait for their turn, each with a descriptor. What has no room is made when it is missed.
const QUEUED: usize = 128;
/// Windows of a small file: many of them are done in the time of a large one.
const SMALL: u32 = 8;

/// What the thread is asked for.
enum Wish {
    /// All windows of a file.
    File(FileId, File),
    /// That file before all others.
    Soon(FileId),
    /// Nothing more of that file.
    Drop(FileId),
}

/// One window that was made.
pub struct Made {
    /// Of which file.
    pub id: FileId,
    /// Which one.
    pub number: u32,
    /// Its rows, with rules by the file's own numbers.
    pub window: Window,
    /// Rules of the file behind those that came with the windows before.
    pub rules: Vec<Rule>,
    /// It was the last one.
    pub last: bool,
}

/// The thread's other end. Dropping it ends the thread.
pub struct Filler {
    wishes: Sender<Wish>,
    made: Receiver<Made>,
}

impl Filler {
    /// Starts it. `reader` tells what is filled already; `wake` is called when something was made.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(reader: Reader, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (wishes, wished) = unbounded();
        let (finished, made) = bounded(WAITING);
        let thread = move || {
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
            let budget = Budget::new(AT_ONCE, Instant::now());
            let crowd = Crowd::new(Instant::now());
            let queue = Queue { reader, files: VecDeque::new(), budget, crowd };
            queue.run(&wished, &finished, wake);
        };
        std::thread::Builder::new().name("sberf-tables".into()).spawn(thread)?;
        Ok(Filler { wishes, made })
    }

    /// All windows of a file, when there is time.
    pub fn add(&self, id: FileId, file: File) {
        let _ = self.wishes.send(Wish::File(id, file));
    }

    /// A file before all others.
    pub fn soon(&self, id: FileId) {
        let _ = self.wishes.send(Wish::Soon(id));
    }

    /// Nothing more of a file.
    pub fn drop(&self, id: FileId) {
        let _ = self.wishes.send(Wish::Drop(id));
    }

    /// A window that was made.
    pub fn made(&self) -> Option<Made> {
        self.made.try_recv().ok()
    }
}

/// A file whose windows are made.
struct Filling {
    id: FileId,
    file: File,
    /// Opened when its turn comes.
    table: Option<Table<File>>,
    rules: Rules,
    told: usize,
    next: u32,
}

struct Queue {
    reader: Reader,
    files: VecDeque<Filling>,
    budget: Budget,
    crowd: Crowd,
}

impl Queue {
    fn run(mut self, wished: &Receiver<Wish>, made: &Sender<Made>, wake: impl Fn()) {
        loop {
            let wish = match (self.files.is_empty(), self.pause()) {
                (true, _) => wished.recv().map_err(|_| TryRecvError::Disconnected),
                (false, None) => wished.try_recv(),
                (false, Some(pause)) => wished.recv_timeout(pause).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                }),
            };
            match wish {
                Ok(wish) => {
                    self.obey(wish);
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            self.budget.settle(Instant::now());
            if self.pause().is_none()
                && let Some(window) = self.make()
            {
                self.crowd.settle(Instant::now());
                if made.send(window).is_err() {
                    return;
                }
                wake();
            }
        }
    }

    /// How long to do nothing now, for the budget or for others who want the CPU.
    fn pause(&self) -> Option<Duration> {
        let spent = (!self.budget.allows()).then(|| self.budget.rest());
        spent.max(self.crowd.rest(Instant::now()))
    }

    fn obey(&mut self, wish: Wish) {
        match wish {
            Wish::File(id, file) => {
                if self.files.len() < QUEUED {
                    let filling = Filling { id, file, table: None, rules: Rules::default(), told: 0, next: 0 };
                    let is_small = self.reader.windows(id) <= SMALL;
                    if is_small { self.files.push_front(filling) } else { self.files.push_back(filling) }
                }
            }
            Wish::Soon(id) => {
                let at = self.files.iter().position(|filling| filling.id == id);
                if let Some(filling) = at.and_then(|at| self.files.remove(at)) {
                    self.files.push_front(filling);
                }
            }
            Wish::Drop(id) => self.files.retain(|filling| filling.id != id),
        }
    }

    /// The next window of the first file.
    fn make(&mut self) -> Option<Made> {
        let filling = self.files.front_mut()?;
        let made = filling.make(&self.reader);
        if made.as_ref().is_none_or(|made| made.last) {
            self.files.pop_front();
        }
        made
    }
}

impl Filling {
    fn make(&mut self, reader: &Reader) -> Option<Made> {
        if self.table.is_none() {
            self.table = Some(Table::open(self.file.try_clone().ok()?).ok()?);
        }
        let table = self.table.as_mut()?;
        let (id, extent) = (self.id, table.extent());
        let is_missing = |window: &u32| reader.is_missing(id, extent.offsets(*window).start);
        let number = (self.next..extent.windows()).find(is_missing)?;
        self.next = number + 1;
        let window = table.window(number, &mut self.rules);
        let known = self.rules.packed();
        let rules = known.get(self.told..).unwrap_or_default().iter().map(|&packed| Rule::unpack(packed)).collect();
        self.told = known.len();
        Some(Made { id, number, window, rules, last: self.next >= extent.windows() })
    }
}
