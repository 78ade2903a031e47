//! The thread that makes tables.

use std::collections::VecDeque;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Advice, AtFlags, fadvise};

use super::super::ids::Ids;
use super::super::maps::FlipPage;
use super::super::rings::Ring;
use super::super::skel::mappings::types::unwind_need;
use super::super::wire;
use super::News;
use super::aside::Aside;
use super::budget::Budget;
use super::busiest::busiest;
use super::filler::{Filler, Made};
use super::finish::{Snapshot, snapshots};
use super::spaces::{Kind, Place, Space, Spaces};
use super::tables::{Next, TableMaps};
use crate::collect::files::open_mapped;
use crate::collect::kernel::vdso;
use crate::collect::mappings::Mapping;
use crate::collect::modules::TabledFile;
use crate::collect::unwind::{FileId, FileKey, Now, Refused, Row, Rule, Rules, Store, Table, Window, shape};
use crate::tick::ProcessKey;

/// Rows of all tables together, bytes.
pub const MAX_ROW_BYTES: u64 = 64 << 20;
/// Files that are kept open to make more of their tables, at most.
const MAX_OPEN: usize = 128;
/// Bytes of stacks that may wait to be walked, 128 KiB each at most; older ones stay as they are.
const MAX_UNFINISHED: usize = 16 << 20;
/// Bytes of a file that the kernel is asked to read in advance; the call frame information of LLVM has 9 MB.
const MOST_AHEAD: u64 = 16 << 20;
/// Threads that were asleep before us whose stacks may wait, 350 bytes each; the others' user parts stay unread.
const MAX_ASLEEP: usize = 8192;
/// So often a file may not be opened before it counts as one without a table.
const DENIED: u8 = 8;
/// For a file system that may never answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// They wait until nothing was missed for so long, or for the other time: each takes milliseconds, most of it waiting.
const QUIET: Duration = Duration::from_millis(300);
const PATIENT: Duration = Duration::from_secs(10);
/// CPU time at once for what is missed.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Files without a table that are remembered as such.
const MAX_NONE: usize = 4096;

/// What the thread is given.
pub struct Wiring {
    /// Where tables go.
    pub tables: TableMaps,
    /// What the kernel side misses.
    pub needs: Ring,
    /// Stacks that it could not walk to their end.
    pub snapshots: Ring,
    /// Tells the number of the interval.
    pub flip: FlipPage,
    /// Tells what is mapped in a process.
    pub iterator: OwnedFd,
    /// Translates ids.
    pub ids: Ids,
    /// The processes that matter, by PID; empty: all.
    pub only: Vec<u32>,
    /// Rows of all tables together, bytes.
    pub most: u64,
    /// Makes what nobody has missed yet.
    pub filler: Filler,
    /// Where we tell of stacks that we walked.
    pub news: Sender<News>,
    /// Readable when there are wishes, or the end has come.
    pub wake: Arc<OwnedFd>,
    /// The end has come.
    pub stop: Arc<AtomicBool>,
}

/// A file whose table is being made.
struct Open {
    id: FileId,
    table: Table<File>,
    local: bool,
    used: Instant,
    /// The kernel was asked to read it in advance.
    ahead: bool,
}

/// Windows that are to be filled, each once, the newest first.
#[derive(Default)]
struct Wanted {
    order: Vec<(FileId, u32)>,
    there: FxHashSet<(FileId, u32)>,
}

impl Wanted {
    fn add(&mut self, window: (FileId, u32)) {
        if self.there.insert(window) {
            self.order.push(window);
        }
    }

    fn take(&mut self) -> Option<(FileId, u32)> {
        let window = self.order.pop()?;
        self.there.remove(&window);
        Some(window)
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// How the rules of a file that the filler makes are numbered here.
struct Numbers {
    id: FileId,
    ours: Vec<u16>,
    new: u32,
}

/// Makes tables, what is missed first.
pub struct Worker {
    store: Store<TableMaps>,
    rules: Rules,
    pub(super) ids: Ids,
    needs: Ring,
    snapshots: Ring,
    flip: FlipPage,
    /// Processes whose files are made known before anything misses them.
    wished: VecDeque<ProcessKey>,
    news: Sender<News>,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    spaces: Spaces,
    open: FxHashMap<u32, Open>,
    none: FxHashSet<FileKey>,
    /// How often we were not allowed to open a file.
    denied: FxHashMap<FileKey, u8>,
    pub(super) aside: Aside,
    /// What stacks have missed. Each is asked for once, so there are not more than windows and files.
    needed: Vec<unwind_need>,
    /// Windows that stacks led through which we walked.
    wanted: Wanted,
    /// Stacks that wait to be walked.
    unfinished: VecDeque<Snapshot>,
    /// Threads that were asleep before us. Nothing else waits for them.
    asleep: VecDeque<Snapshot>,
    /// When something was missed last.
    missed: Instant,
    filler: Filler,
    /// By slot.
    numbers: FxHashMap<u32, Numbers>,
    budget: Budget,
    began: Instant,
}

impl Worker {
    /// One that has made nothing yet; its CPU time counts from here, on this thread.
    pub fn new(wiring: Wiring) -> Self {
        let now = Instant::now();
        Worker {
            store: Store::new(wiring.tables, wiring.most),
            rules: Rules::default(),
            needs: wiring.needs,
            snapshots: wiring.snapshots,
            news: wiring.news,
            flip: wiring.flip,
            wished: busiest(&wiring.only).into(),
            wake: wiring.wake,
            stop: wiring.stop,
            spaces: Spaces::new(wiring.iterator, wiring.ids.clone()),
            ids: wiring.ids,
            open: FxHashMap::default(),
            none: FxHashSet::default(),
            denied: FxHashMap::default(),
            aside: Aside::default(),
            needed: Vec::new(),
            wanted: Wanted::default(),
            unfinished: VecDeque::new(),
            asleep: VecDeque::new(),
            missed: now,
            filler: wiring.filler,
            numbers: FxHashMap::default(),
            budget: Budget::new(AT_ONCE, now),
            began: now,
        }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        self.vdso();
        while !self.stop.load(Ordering::Relaxed) {
            self.wait();
            self.budget.settle(Instant::now());
            self.hear();
            if self.budget.allows() {
                self.work();
            }
            while let Some(made) = self.filler.made() {
                self.take_in(made);
            }
        }
    }

    /// Waits for something to do.
    fn wait(&self) {
        let idle = [self.needed.is_empty(), self.wanted.is_empty(), self.unfinished.is_empty(), self.wished.is_empty()];
        let idle = idle == [true; 4];
        let timeout = match (idle, self.budget.allows()) {
            (true, _) => None,
            (false, true) => Some(Duration::ZERO),
            (false, false) => Some(self.budget.rest()),
        };
        let timeout = match (timeout, self.asleep.is_empty(), self.is_quiet()) {
            (None, false, true) => Some(Duration::ZERO),
            (None, false, false) => Some(QUIET),
            _ => timeout,
        };
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        let rings = [self.needs.wakes(), self.snapshots.wakes()];
        let mut sources = [rings[0], rings[1], self.wake.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An interrupted wait is a short one.
        let _ = poll(&mut sources, timeout.as_ref());
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }

    /// There is time for those that nothing waits for.
    fn is_quiet(&self) -> bool {
        self.budget.is_ample() && (self.missed.elapsed() > QUIET || self.began.elapsed() > PATIENT)
    }

    /// Takes in what is missed.
    fn hear(&mut self) {
        let bytes = self.needs.take();
        let mut rest = bytes.as_slice();
        self.needed.extend(std::iter::from_fn(|| wire::take::<unwind_need>(&mut rest)));
        if !self.needed.is_empty() {
            self.missed = Instant::now();
        }
        self.keep_stacks();
    }

    /// Takes in the stacks that could not be walked: the ring has room for 31 of the longest.
    fn keep_stacks(&mut self) {
        let (asleep, walking): (Vec<_>, Vec<_>) =
            snapshots(&self.snapshots.take(), &self.ids).into_iter().partition(Snapshot::is_asleep);
        if !walking.is_empty() {
            self.missed = Instant::now();
        }
        self.unfinished.extend(walking);
        self.let_go();
        let room = MAX_ASLEEP.saturating_sub(self.asleep.len());
        self.asleep.extend(asleep.into_iter().take(room));
    }

    /// Stacks for which there is no room stay as they are, the oldest first.
    fn let_go(&mut self) {
        let mut bytes: usize = self.unfinished.iter().map(Snapshot::bytes).sum();
        while bytes > MAX_UNFINISHED
            && let Some(snapshot) = self.unfinished.pop_front()
        {
            bytes -= snapshot.bytes();
        }
    }

    /// All that is missed, then one stack, so that what is missed meanwhile need not wait for many.
    fn work(&mut self) {
        for need in std::mem::take(&mut self.needed) {
            self.need(&need);
            // It may have taken long: the file is on a disk.
            self.keep_stacks();
        }
        if let Some(snapshot) = self.unfinished.pop_front() {
            self.finish(&snapshot);
        } else if let Some((id, window)) = self.wanted.take() {
            // That it is gone, or that there is no room, shows when it is missed again.
            let _ = if self.is_missing(id, window) { self.fill(id, window) } else { Ok(()) };
        } else if let Some(process) = self.wished.pop_front() {
            self.meet(process);
        } else if self.is_quiet()
            && let Some(snapshot) = self.asleep.pop_front()
        {
            self.finish(&snapshot);
        }
    }

    fn now(&self) -> Now {
        Now { at: self.began.elapsed(), interval: self.flip.generation() as u32 }
    }

    /// A stack could not be walked on.
    fn need(&mut self, need: &unwind_need) {
        let process = self.ids.process(ProcessKey { tgid: need.tgid, start_ns: need.start_ns });
        let key = FileKey { inode: need.key.ino, device: need.key.dev, generation: need.key.generation };
        let id = FileId { index: need.file, generation: need.generation };
        if need.file == shape::FILE_ASKED {
            self.meet(process);
            match self.store.find(key) {
                Some(id) => {
                    self.filler.soon(id);
                    let _ = self.fill_at(id, need.offset);
                }
                // It is gone before we could look: whoever maps the file next asks again.
                None if !self.none.contains(&key) => self.store.forget(key, self.now()),
                None => {}
            }
        } else {
            let space = self.space(process);
            if !self.reopen(id, &space, need.vm_start) || self.fill_at(id, need.offset).is_err() {
                self.store.maps().ask_again(id.index, need.offset);
            }
        }
    }

    /// Has the kernel read in one go what is going to be read a few bytes here and there.
    ///
    /// A program that is read from the disk has its stacks lead through dozens of windows in its first moments, and each block of their
    /// call frame information would wait behind what the program itself has read.
    fn read_ahead(&mut self, id: FileId) {
        let open = self.open.get_mut(&id.index).filter(|open| open.id == id && open.local && !open.ahead);
        let Some(open) = open else { return };
        open.ahead = true;
        for part in open.table.frames() {
            let length = NonZeroU64::new(part.end.saturating_sub(part.start).min(MOST_AHEAD));
            if length.is_some() {
                // Advice; without it the same is read later.
                let _ = fadvise(open.table.source(), part.start, length, Advice::WillNeed);
            }
        }
    }

    pub(super) fn tell(&self, news: News) {
        // Whoever does not listen any more does not mind.
        let _ = self.news.send(news);
    }

    pub(super) fn space(&mut self, process: ProcessKey) -> Arc<Space> {
        self.spaces.look(process, Instant::now())
    }

    /// What is mapped in one program of a process, if it still executes that; see [`Space::is_of`].
    pub(super) fn space_in(&mut self, process: ProcessKey, image: u64) -> Arc<Space> {
        self.spaces.look_in(process, image, Instant::now())
    }

    /// What is mapped there by now; `None` if that is what was `seen`.
    pub(super) fn space_renewed(&mut self, process: ProcessKey, seen: &Space) -> Option<Arc<Space>> {
        self.spaces.renewed(process, seen, Instant::now())
    }

    /// A file that is known.
    pub(super) fn file(&self, key: FileKey) -> Option<FileId> {
        self.store.find(key)
    }

    /// Whether a file has no table and never will.
    pub(super) fn is_none(&self, key: FileKey) -> bool {
        self.none.contains(&key)
    }

    /// What the table of a file says, if that window is filled.
    pub(super) fn filled(&mut self, id: FileId, offset: u64) -> Option<Rule> {
        self.store.maps().rule(id.index, offset)
    }

    /// Makes known all files of a process that are not.
    pub(super) fn meet(&mut self, process: ProcessKey) {
        let space = self.space(process);
        let unknown = |key: &FileKey| self.store.find(*key).is_none() && !self.none.contains(key);
        let files = space.places.iter().filter_map(|place| match place.kind {
            Kind::File(key) if unknown(&key) => Some((key, *place)),
            _ => None,
        });
        let files: Vec<(FileKey, Place)> = files.collect();
        if files.is_empty() {
            return;
        }
        let (paths, program) = (space.paths(), space.program());
        let Some(dir) = space.dir.clone() else { return };
        for (key, place) in files {
            if let Some(mapping) = paths.iter().find(|mapping| mapping.start == place.start) {
                let is_program = program.as_deref() == Some(mapping.path.as_str());
                self.add(key, &dir, mapping, place.local, is_program);
            }
        }
    }

    /// Publishes a file, without any window.
    fn add(&mut self, key: FileKey, dir: &Arc<OwnedFd>, mapping: &Mapping, local: bool, is_program: bool) {
        if self.store.find(key).is_some() {
            return;
        }
        let Some(opened) = open_mapped(dir, mapping) else {
            self.denied(key, dir);
            return;
        };
        let Some(table) = self.table(&opened.1, local) else {
            self.has_none(key);
            return;
        };
        let (extent, now) = (table.extent(), self.now());
        let file = TabledFile { opened, mapping: mapping.clone(), is_program, process: Arc::clone(dir) };
        self.store.maps().announce(Some(Next::File(Box::new(file))));
        let published = self.store.publish(key, extent, now);
        self.store.maps().announce(None);
        if let Ok(id) = published {
            // What may never answer would keep all others waiting.
            if let Some(file) = table.source().try_clone().ok().filter(|_| local) {
                self.filler.add(id, file);
            }
            self.keep(id, table, local);
        }
    }

    /// Reads the headers of a file. A file system that may never answer gets a little time.
    fn table(&mut self, path: &OwnedFd, local: bool) -> Option<Table<File>> {
        if local {
            return open_table(path);
        }
        let path = path.try_clone().ok()?;
        self.aside.run(PATIENCE, move || open_table(&path)).flatten()
    }

    /// A file that we may not open, though its process lives: if that goes on, its frames are found by frame pointers.
    fn denied(&mut self, key: FileKey, dir: &OwnedFd) {
        if rustix::fs::statat(dir, "maps", AtFlags::empty()).is_err() {
            return;
        }
        if self.denied.len() >= MAX_NONE {
            self.denied.clear();
        }
        let times = self.denied.entry(key).or_default();
        *times += 1;
        if *times >= DENIED {
            self.denied.remove(&key);
            self.has_none(key);
        }
    }

    fn has_none(&mut self, key: FileKey) {
        if self.none.len() >= MAX_NONE {
            self.none.clear();
        }
        // No room for its key: it will be asked for again.
        if self.store.publish_none(key).is_ok() {
            self.none.insert(key);
        }
    }

    fn keep(&mut self, id: FileId, table: Table<File>, local: bool) {
        if self.open.len() >= MAX_OPEN
            && let Some(oldest) = self.open.values().min_by_key(|open| open.used).map(|open| open.id.index)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(id.index, Open { id, table, local, used: Instant::now(), ahead: false });
    }

    /// Opens a file again that was closed, if it is still the one; true if it is open.
    pub(super) fn reopen(&mut self, id: FileId, space: &Space, start: u64) -> bool {
        if self.open.get(&id.index).is_some_and(|open| open.id == id) {
            return true;
        }
        let Some(key) = self.store.key(id) else { return false };
        let place = space.places.iter().find(|place| place.start == start && place.kind == Kind::File(key));
        let mapping = space.paths().into_iter().find(|mapping| mapping.start == start);
        let (Some(place), Some(mapping), Some(dir)) = (place, mapping, &space.dir) else { return false };
        let Some((_, path)) = open_mapped(dir, &mapping) else { return false };
        match self.table(&path, place.local) {
            Some(table) => self.keep(id, table, place.local),
            None => return false,
        }
        true
    }

    /// What the file itself says of an offset; its window is wanted from now on.
    pub(super) fn ask(&mut self, id: FileId, offset: u64) -> Option<Rule> {
        self.read_ahead(id);
        let open = self.open.get_mut(&id.index).filter(|open| open.id == id)?;
        if !open.local {
            self.fill_at(id, offset).ok()?;
            return self.filled(id, offset);
        }
        open.used = Instant::now();
        let window = open.table.extent().window_of(offset);
        if let Some(window) = window {
            self.wanted.add((id, window));
        }
        Some(open.table.rule(offset))
    }

    /// Fills the window around an offset.
    pub(super) fn fill_at(&mut self, id: FileId, offset: u64) -> Result<(), Refused> {
        if !self.budget.allows() {
            return Err(Refused::Full);
        }
        self.read_ahead(id);
        let window = self.open.get(&id.index).and_then(|open| open.table.extent().window_of(offset));
        window.map_or(Ok(()), |window| self.fill(id, window))
    }

    fn fill(&mut self, id: FileId, number: u32) -> Result<(), Refused> {
        let open = self.open.remove(&id.index).filter(|open| open.id == id).ok_or(Refused::Gone)?;
        let window = match open.local {
            true => self.make(open, number),
            false => self.make_aside(open, number).ok_or(Refused::Gone)?,
        };
        let now = self.now();
        self.store.fill(id, number, &window, &self.rules, now)
    }

    fn is_missing(&mut self, id: FileId, window: u32) -> bool {
        let offset = self.open.get(&id.index).map(|open| open.table.extent().offsets(window).start);
        offset.is_some_and(|offset| self.store.maps().reader().is_missing(id, offset))
    }

    fn make(&mut self, mut open: Open, number: u32) -> Window {
        let window = open.table.window(number, &mut self.rules);
        self.open.insert(open.id.index, Open { used: Instant::now(), ..open });
        window
    }

    fn make_aside(&mut self, open: Open, number: u32) -> Option<Window> {
        let Open { id, mut table, .. } = open;
        let made = self.aside.run(PATIENCE, move || {
            let mut rules = Rules::default();
            let window = table.window(number, &mut rules);
            (table, window, rules)
        });
        let (table, mut window, rules) = made?;
        self.keep(id, table, false);
        let mut new = 0;
        let ours = rules.packed().iter().map(|&packed| self.rules.index(Rule::unpack(packed), &mut new));
        renumber(&mut window, &ours.collect::<Vec<_>>());
        Some(window)
    }

    /// A window that the filler has made.
    fn take_in(&mut self, made: Made) {
        let Made { id, number, mut window, rules, last } = made;
        let numbers = self.numbers.entry(id.index).or_insert(Numbers { id, ours: Vec::new(), new: 0 });
        if numbers.id != id {
            *numbers = Numbers { id, ours: Vec::new(), new: 0 };
        }
        for rule in rules {
            numbers.ours.push(self.rules.index(rule, &mut numbers.new));
        }
        renumber(&mut window, &numbers.ours);
        let now = self.now();
        let refused = self.store.fill(id, number, &window, &self.rules, now).is_err();
        if refused {
            // There is no room for what may never be needed.
            self.filler.drop(id);
        }
        if refused || last {
            self.numbers.remove(&id.index);
            self.close_if_whole(id);
        }
    }

    fn close_if_whole(&mut self, id: FileId) {
        if self.store.missing(id).next().is_none() {
            self.open.remove(&id.index);
        }
    }

    fn vdso(&mut self) {
        let Some(table) = vdso().and_then(|image| Table::open(File::from(image)).ok()) else { return };
        let (extent, now) = (table.extent(), self.now());
        self.store.maps().announce(Some(Next::Vdso));
        let Ok(id) = self.store.publish(FileKey::default(), extent, now) else { return };
        self.keep(id, table, true);
        (0..extent.windows()).for_each(|window| drop(self.fill(id, window)));
        self.close_if_whole(id);
    }
}

/// Gives the rules of rows our numbers.
fn renumber(window: &mut Window, ours: &[u16]) {
    for row in &mut window.rows {
        // Every row's rule came with it or before.
        *row = Row::new(row.pc(), ours.get(usize::from(row.rule())).copied().unwrap_or_default());
    }
}

/// Opens what is behind an O_PATH descriptor.
fn open_table(path: &OwnedFd) -> Option<Table<File>> {
    let file = File::open(format!("/proc/self/fd/{}", path.as_fd().as_raw_fd())).ok()?;
    Table::open(file).ok()
}
