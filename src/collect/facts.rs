//! What procfs knows of a process and rarely changes: command line, program, cgroup, pid in its namespace; for the one in
//! focus, on which NUMA nodes its memory lies.
//!
//! Reading a command line waits for the memory lock of that process, which may be held for long. So a thread of its own
//! reads; when it hangs, another one takes over. Processes on the screen come first, all others are read once (and again
//! when they become another program) at a bounded rate. Everything goes through a descriptor of `/proc/PID` whose start
//! time was checked: a re-used pid never gets another's facts.

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reconcile::hidden_threads;
use crate::collect::process_facts::{FactsPart, NodePages, Reader};
use crate::tick::ProcessKey;

/// How old the facts of a visible process may be.
const FRESH: Duration = Duration::from_secs(10);
/// The same of one that writes over its arguments what it does: that changes all the time.
const FRESH_TITLE: Duration = Duration::from_millis(900);
/// How old the memory placement of the process in focus may be; reading it walks the page tables of the process.
const FRESH_PLACEMENT: Duration = Duration::from_secs(5);
/// Processes that nobody looks at: this many at once, and then so many a second (30–50 µs each).
const BURST: f64 = 20_000.0;
const PER_SECOND: f64 = 500.0;
/// A reader that has not come back for so long hangs.
const HANGS: Duration = Duration::from_secs(3);
/// Readers that may hang before no more is read.
const MAX_READERS: usize = 4;

/// What was read since the last call.
#[derive(Debug, Default)]
pub struct News {
    /// Facts that were read for the first time or changed.
    pub facts: Vec<(ProcessKey, FactsPart)>,
    /// Resident bytes by node of the process in focus, in the order of the nodes.
    pub placement: Option<(ProcessKey, Vec<u64>)>,
    /// Answer to [`Facts::reconcile`]: threads that procfs has and the list did not.
    pub hidden: Option<Vec<u32>>,
}

/// Reads facts in the background.
pub struct Facts {
    shared: Arc<Shared>,
    results: Receiver<Result>,
    sender: Sender<Result>,
    known: FxHashMap<ProcessKey, Known>,
    visible: Vec<ProcessKey>,
    focus: Option<ProcessKey>,
    placed: Option<Instant>,
    nodes: Arc<[u32]>,
    tokens: f64,
    refilled: Instant,
    waiting: VecDeque<ProcessKey>,
    readers: usize,
}

/// What is remembered of a process.
#[derive(Default)]
struct Known {
    read: Option<Instant>,
    asked: bool,
    /// An answer to a question from before the last exec tells of another program.
    execs: u32,
    hash: u64,
    /// Its arguments are a title: `postgres: app shop [local] idle`.
    titled: bool,
}

impl Known {
    /// How old its facts may be while it is visible.
    fn fresh(&self) -> Duration {
        if self.titled { FRESH_TITLE } else { FRESH }
    }
}

enum Job {
    Facts(ProcessKey, u32),
    Placement(ProcessKey, Arc<[u32]>),
    Reconcile(Vec<u32>, u64),
}

enum Result {
    Facts(ProcessKey, u32, Option<FactsPart>),
    Placement(ProcessKey, Option<NodePages>),
    Hidden(Vec<u32>),
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Since when the newest reader has been at one job.
    busy: Option<Instant>,
    /// Only the newest reader takes jobs.
    newest: usize,
    stop: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    /// Starts the reader; `nodes` are the ids of the NUMA nodes.
    pub fn new(nodes: &[u32]) -> Self {
        let (sender, results) = unbounded();
        let mut facts = Facts {
            shared: Arc::default(),
            results,
            sender,
            known: FxHashMap::default(),
            visible: Vec::new(),
            focus: None,
            placed: None,
            nodes: nodes.into(),
            tokens: BURST,
            refilled: Instant::now(),
            waiting: VecDeque::new(),
            readers: 0,
        };
        facts.add_reader();
        facts
    }

    /// A process that may be new to us. Not for threads of the kernel: they have no such facts.
    pub fn born(&mut self, key: ProcessKey) {
        if let Entry::Vacant(place) = self.known.entry(key) {
            place.insert(Known::default());
            self.waiting.push_back(key);
        }
    }

    /// It became another program.
    pub fn exec(&mut self, key: ProcessKey) {
        let Some(known) = self.known.get_mut(&key) else { return self.born(key) };
        known.execs = known.execs.wrapping_add(1);
        if known.asked || known.read.is_some() {
            (known.asked, known.read) = (false, None);
            self.waiting.push_back(key);
        }
    }

    /// It exited.
    pub fn gone(&mut self, key: ProcessKey) {
        self.known.remove(&key);
    }

    /// Processes on the screen: theirs are read first and kept fresh.
    pub fn want(&mut self, visible: &[ProcessKey]) {
        self.visible = visible.to_vec();
    }

    /// The process that is looked at: its memory placement is read.
    pub fn focus(&mut self, focus: Option<ProcessKey>) {
        if self.focus != focus {
            (self.focus, self.placed) = (focus, None);
        }
    }

    /// Looks for the threads that procfs has and `tids` (all that the task iterator showed at `at_ns`, CLOCK_BOOTTIME) lacks.
    /// The answer comes with a later [`News`]. Lists every thread of the machine: for once a minute.
    pub fn reconcile(&mut self, tids: Vec<u32>, at_ns: u64) {
        self.shared.queue().jobs.push_back(Job::Reconcile(tids, at_ns));
        self.shared.wake.notify_one();
    }

    /// Asks for what is due and takes what was read. Never waits. To be called every tick.
    pub fn refresh(&mut self) -> News {
        let now = Instant::now();
        let mut news = News::default();
        while let Ok(result) = self.results.try_recv() {
            self.take(result, now, &mut news);
        }
        self.ask(now);
        self.watch(now);
        news
    }

    fn take(&mut self, result: Result, now: Instant, news: &mut News) {
        match result {
            Result::Facts(key, execs, part) => {
                // Not known any more: it exited meanwhile.
                let Some(known) = self.known.get_mut(&key).filter(|known| known.execs == execs) else { return };
                (known.asked, known.read) = (false, Some(now));
                let Some(part) = part else { return };
                known.titled = part.cmdline.as_ref().is_some_and(|words| words.len() == 1 && words[0].contains(": "));
                let hash = BuildHasherDefault::<rustc_hash::FxHasher>::default().hash_one(&part);
                if hash != known.hash {
                    known.hash = hash;
                    news.facts.push((key, part));
                }
            }
            Result::Placement(key, pages) => {
                news.placement = pages.map(|pages| (key, pages)).or(news.placement.take());
            }
            Result::Hidden(tids) => news.hidden = Some(tids),
        }
    }

    fn ask(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.refilled).as_secs_f64();
        (self.tokens, self.refilled) = ((self.tokens + since * PER_SECOND).min(BURST), now);
        let mut first = Vec::new();
        for &key in &self.visible {
            let Some(known) = self.known.get_mut(&key) else { continue };
            if !known.asked && known.read.is_none_or(|read| now.saturating_duration_since(read) >= known.fresh()) {
                known.asked = true;
                first.push(Job::Facts(key, known.execs));
            }
        }
        if let Some(key) = self.focus
            && self.placed.is_none_or(|placed| now.saturating_duration_since(placed) >= FRESH_PLACEMENT)
        {
            self.placed = Some(now);
            first.push(Job::Placement(key, Arc::clone(&self.nodes)));
        }
        let mut rest = Vec::new();
        while self.tokens >= 1.0
            && let Some(key) = self.waiting.pop_front()
        {
            let Some(known) = self.known.get_mut(&key).filter(|known| !known.asked && known.read.is_none()) else {
                continue;
            };
            known.asked = true;
            self.tokens -= 1.0;
            rest.push(Job::Facts(key, known.execs));
        }
        if first.is_empty() && rest.is_empty() {
            return;
        }
        let mut queue = self.shared.queue();
        first.into_iter().rev().for_each(|job| queue.jobs.push_front(job));
        queue.jobs.extend(rest);
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Replaces a reader that hangs.
    fn watch(&mut self, now: Instant) {
        let hangs = self.shared.queue().busy.is_some_and(|since| now.saturating_duration_since(since) > HANGS);
        if hangs && self.readers < MAX_READERS {
            self.add_reader();
        }
    }

    fn add_reader(&mut self) {
        self.readers += 1;
        let number = self.readers;
        let (shared, results) = (Arc::clone(&self.shared), self.sender.clone());
        let mut queue = self.shared.queue();
        (queue.newest, queue.busy) = (number, None);
        drop(queue);
        // Without a thread there are no facts, and the screen shows none.
        let _ = std::thread::Builder::new().name("sberf-facts".into()).spawn(move || read(number, &shared, &results));
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        self.shared.queue().stop = true;
        self.shared.wake.notify_all();
    }
}

fn read(number: usize, shared: &Shared, results: &Sender<Result>) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
    let mut reader = Reader::new();
    while let Some(job) = next_job(number, shared) {
        let result = match job {
            Job::Facts(key, execs) => Result::Facts(key, execs, reader.facts(key)),
            Job::Placement(key, nodes) => Result::Placement(key, reader.placement(key, &nodes)),
            Job::Reconcile(tids, at_ns) => Result::Hidden(hidden_threads(tids, at_ns)),
        };
        if results.send(result).is_err() {
            return;
        }
    }
}

/// The next job; `None` when it is over, or when another reader has taken over.
fn next_job(number: usize, shared: &Shared) -> Option<Job> {
    let mut queue = shared.queue();
    loop {
        if queue.stop || queue.newest != number {
            return None;
        }
        if let Some(job) = queue.jobs.pop_front() {
            queue.busy = Some(Instant::now());
            return Some(job);
        }
        queue.busy = None;
        queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mappings::{ns_per_clock_tick, start_ticks};
    use std::process::{Child, Command};

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn sleeper() -> (Killed, ProcessKey) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        // Until it has become `sleep` it is still us.
        let cmdline = format!("/proc/{}/cmdline", child.id());
        while std::fs::read_to_string(&cmdline).is_ok_and(|words| words != "sleep\x0060\0") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let stat = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        let key = ProcessKey { tgid: child.id(), start_ns: start_ticks(&stat).unwrap() * ns_per_clock_tick() };
        (Killed(child), key)
    }

    fn news_until(facts: &mut Facts, done: impl Fn(&News) -> bool) -> News {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let news = facts.refresh();
            if done(&news) || Instant::now() > until {
                return news;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn facts_are_sent_once_and_again_when_they_change() {
        let (_child, key) = sleeper();
        let mut facts = Facts::new(&[0]);
        facts.born(key);
        let news = news_until(&mut facts, |news| !news.facts.is_empty());
        let [(of, part)] = &news.facts[..] else { panic!("{news:?}") };
        assert_eq!((*of, part.cmdline.as_deref()), (key, Some(&["sleep".to_owned(), "60".to_owned()][..])));
        assert!(part.exe.as_ref().is_some_and(|exe| exe.contains('/')));
        // Asked for again, unchanged: no news.
        facts.exec(key);
        facts.want(&[key]);
        std::thread::sleep(Duration::from_millis(50));
        facts.refresh();
        std::thread::sleep(Duration::from_millis(50));
        assert!(facts.refresh().facts.is_empty());
    }

    #[test]
    fn a_title_is_read_again_each_second_and_arguments_are_not() {
        let title = |words: &[&str]| FactsPart {
            cmdline: Some(words.iter().map(|&word| word.to_owned()).collect()),
            ..FactsPart::default()
        };
        let of = |part: FactsPart| {
            let mut facts = Facts::new(&[0]);
            let key = ProcessKey { tgid: u32::MAX, start_ns: 1 };
            facts.known.insert(key, Known::default());
            facts.take(Result::Facts(key, 0, Some(part)), Instant::now(), &mut News::default());
            facts.known[&key].fresh()
        };
        assert_eq!(of(title(&["postgres: app shop [local] UPDATE waiting"])), FRESH_TITLE);
        assert_eq!(of(title(&["echo", "postgres: app"])), FRESH);
        assert_eq!(of(title(&["/usr/sbin/sshd"])), FRESH);
        assert_eq!(of(FactsPart::default()), FRESH);
    }

    #[test]
    fn a_reused_pid_gets_no_facts() {
        let (_child, mut key) = sleeper();
        let right = key;
        key.start_ns -= 5 * ns_per_clock_tick();
        let mut facts = Facts::new(&[0]);
        facts.born(key);
        facts.born(right);
        let news = news_until(&mut facts, |news| !news.facts.is_empty());
        assert_eq!(news.facts.iter().map(|(of, _)| *of).collect::<Vec<_>>(), [right]);
    }

    #[test]
    fn placement_of_the_focus_only() {
        let (_child, key) = sleeper();
        let mut facts = Facts::new(&[0]);
        facts.focus(Some(key));
        let news = news_until(&mut facts, |news| news.placement.is_some());
        let (of, bytes) = news.placement.unwrap();
        assert_eq!((of, bytes.len()), (key, 1));
        assert!(bytes[0] > 100 << 10, "{bytes:?}");
        facts.focus(None);
        assert!(facts.refresh().placement.is_none());
    }

    #[test]
    fn a_reader_that_hangs_is_replaced() {
        let mut facts = Facts::new(&[0]);
        facts.shared.queue().busy = Instant::now().checked_sub(2 * HANGS);
        facts.watch(Instant::now());
        assert_eq!(facts.readers, 2);
        let (_child, key) = sleeper();
        facts.born(key);
        assert!(!news_until(&mut facts, |news| !news.facts.is_empty()).facts.is_empty());
    }

    #[test]
    fn hidden_threads_are_counted() {
        let mut facts = Facts::new(&[0]);
        let (_child, key) = sleeper();
        let tids = crate::collect::reconcile::all_threads();
        let now = crate::collect::host::now_ns(rustix::time::ClockId::Boottime) + 60_000_000_000;
        facts.reconcile(tids.iter().copied().filter(|&tid| tid != key.tgid).collect(), now);
        let news = news_until(&mut facts, |news| news.hidden.is_some());
        // Threads of other tests may have been born between the two lists, within what is forgiven.
        assert!(news.hidden.as_ref().is_some_and(|hidden| !hidden.is_empty()), "{news:?}");
    }
}
