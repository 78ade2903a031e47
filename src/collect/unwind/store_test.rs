//! The store, watched by a reader that looks between any two of its writes.

use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::rule::{Cfa, Fp, PageEntry, Row, Rule, shape};
use super::rules::Rules;
use super::store::{FileEntry, FileKey, Maps, Now, RECENT, REST, Refused, Store};
use super::table::{Extent, Window};

/// What the kernel side would make of the maps.
#[derive(Debug, PartialEq)]
enum Answer {
    Missing,
    Outside,
    Rule(Rule),
}

#[derive(Default)]
struct Memory {
    chunks: HashMap<u32, Vec<u32>>,
    pages: Vec<u32>,
    rules: Vec<u64>,
    files: HashMap<u32, FileEntry>,
    used: HashMap<u32, u32>,
    keys: HashMap<FileKey, u32>,
    /// Files that a reader found, and until when it may hold on to them.
    held: Vec<(FileKey, u32, Duration)>,
    /// Files that a reader keeps for as long as their generation stays.
    kept: Vec<(FileKey, u32, u32)>,
    now: Duration,
    writes: u64,
    patience: u64,
    refuse_keys: bool,
}

impl Memory {
    fn answer(&self, index: u32, offset: u64) -> Answer {
        let file = self.files[&index];
        let Some(into) = offset.checked_sub(file.first) else { return Answer::Outside };
        let page = (into >> 10) as u32;
        if page >= file.pages {
            return Answer::Outside;
        }
        let at = (file.page_base + page + (page >> 6)) as usize;
        let (Some((chunk, first)), Some((same, end))) =
            (PageEntry(self.pages[at]).place(), PageEntry(self.pages[at + 1]).place())
        else {
            return Answer::Missing;
        };
        assert_eq!(chunk, same, "a window lies in one chunk");
        let rows = &self.chunks[&chunk][first as usize..end as usize];
        let behind = rows.partition_point(|&row| u64::from(row & 0xffff) <= into & 1023);
        assert!(behind > 0, "a page has a row at its start");
        Answer::Rule(Rule::unpack(self.rules[(rows[behind - 1] >> 16) as usize]))
    }

    /// Whatever a reader finds is right, or nothing.
    fn check(&mut self) {
        self.writes += 1;
        // Now and then, but never in step with the pages of a window.
        if !self.writes.is_multiple_of(self.patience) {
            return;
        }
        let found: Vec<_> = self.keys.iter().map(|(&key, &index)| (key, index)).collect();
        let now = self.now;
        self.held.retain(|&(_, _, until)| until > now);
        let files = &self.files;
        self.kept.retain(|&(_, index, generation)| files[&index].generation == generation);
        let held = self.held.iter().map(|&(key, index, _)| (key, index));
        let kept = self.kept.iter().map(|&(key, index, _)| (key, index));
        for (key, index) in found.iter().copied().chain(held).chain(kept) {
            if index <= shape::FILE_NONE {
                continue;
            }
            for offset in probes(key) {
                let answer = self.answer(index, offset);
                assert!(
                    matches!(answer, Answer::Missing | Answer::Outside) || answer == Answer::Rule(truth(key, offset)),
                    "{key:?} {offset:#x}: {answer:?}"
                );
            }
        }
    }
}

/// The made-up truth: which rule a file has where.
fn truth(key: FileKey, offset: u64) -> Rule {
    let cell = offset / 16;
    Rule { cfa: Cfa::Sp((key.inode * 10_000 + cell * 8 % 8000) as i32), fp: Fp::Same }
}

fn extent(key: FileKey) -> Extent {
    Extent { first: 4096 * (key.inode % 3), pages: 1 + (key.inode * 37 % 300) as u32 }
}

fn probes(key: FileKey) -> impl Iterator<Item = u64> {
    let extent = extent(key);
    let bytes = u64::from(extent.pages) * shape::PAGE_BYTES;
    (0..8).map(move |step| extent.first + bytes * step / 8 + 77 * step % 1024)
}

fn window(key: FileKey, number: u32, rules: &mut Rules) -> Window {
    let offsets = extent(key).offsets(number);
    let mut window = Window::default();
    for page in offsets.clone().step_by(1024) {
        window.pages.push(window.rows.len() as u32);
        for pc in (0..1024).step_by(16) {
            window.rows.push(Row::new(pc, rules.index(truth(key, page + u64::from(pc)), &mut 0)));
        }
    }
    window.pages.push(window.rows.len() as u32);
    window
}

struct Watched(Rc<RefCell<Memory>>);

impl Maps for Watched {
    fn add_chunk(&mut self, chunk: u32) -> io::Result<()> {
        let rows = vec![u32::MAX; shape::CHUNK_ROWS as usize];
        assert!(self.0.borrow_mut().chunks.insert(chunk, rows).is_none());
        Ok(())
    }

    fn rows(&mut self, chunk: u32, row: u32, rows: &[Row]) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        // One after the other, as a reader may see them.
        for (at, chunk_row) in (row as usize..).zip(rows) {
            memory.chunks.get_mut(&chunk).unwrap()[at] = chunk_row.0;
        }
        memory.check();
        Ok(())
    }

    fn page(&mut self, entry: u32, value: PageEntry) {
        let mut memory = self.0.borrow_mut();
        if memory.pages.is_empty() {
            memory.pages = vec![0; shape::PAGES as usize];
        }
        memory.pages[entry as usize] = value.0;
        memory.check();
    }

    fn rule(&mut self, index: u16, packed: u64) {
        let mut memory = self.0.borrow_mut();
        let index = usize::from(index);
        if memory.rules.len() <= index {
            memory.rules.resize(index + 1, u64::MAX);
        }
        memory.rules[index] = packed;
    }

    fn file(&mut self, index: u32, file: FileEntry, interval: u32) {
        let mut memory = self.0.borrow_mut();
        memory.files.insert(index, file);
        memory.used.insert(index, interval);
        memory.check();
    }

    fn retire(&mut self, index: u32) {
        let mut memory = self.0.borrow_mut();
        memory.files.get_mut(&index).unwrap().generation = 0;
        memory.check();
    }

    fn used(&self, index: u32) -> u32 {
        self.0.borrow().used[&index]
    }

    fn set_key(&mut self, key: FileKey, index: u32) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        if memory.refuse_keys {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        memory.keys.insert(key, index);
        if let Some(file) = memory.files.get(&index).copied().filter(|_| index > shape::FILE_NONE) {
            memory.kept.push((key, index, file.generation));
        }
        memory.check();
        Ok(())
    }

    fn remove_key(&mut self, key: FileKey) {
        let mut memory = self.0.borrow_mut();
        if let Some(index) = memory.keys.remove(&key) {
            // A reader found it just before.
            let until = memory.now + REST;
            memory.held.push((key, index, until));
        }
        memory.check();
    }
}

fn store(bytes: u64) -> (Store<Watched>, Rc<RefCell<Memory>>) {
    let memory = Rc::new(RefCell::new(Memory { patience: 7, ..Memory::default() }));
    (Store::new(Watched(Rc::clone(&memory)), bytes), memory)
}

fn key(inode: u64) -> FileKey {
    FileKey { inode, device: 8, generation: 0 }
}

fn at(seconds: u64, interval: u32) -> Now {
    Now { at: Duration::from_secs(seconds), interval }
}

#[test]
fn a_window_is_there_when_it_was_filled() {
    let (mut store, memory) = store(64 << 20);
    let mut rules = Rules::default();
    let now = at(1, 1);
    let file = key(4);
    assert_eq!(extent(file), Extent { first: 4096, pages: 149 });
    let id = store.publish(file, extent(file), now).unwrap();
    assert_eq!((id.index, store.find(file), store.key(id)), (2, Some(id), Some(file)));
    assert_eq!(store.missing(id).collect::<Vec<_>>(), [0, 1, 2]);
    // The last one first.
    store.fill(id, 2, &window(file, 2, &mut rules), &rules, now).unwrap();
    assert_eq!(store.missing(id).collect::<Vec<_>>(), [0, 1]);
    let answer = |offset| memory.borrow().answer(id.index, offset);
    let last = 4096 + 149 * 1024;
    assert_eq!(answer(last - 1), Answer::Rule(truth(file, last - 1)));
    assert_eq!(answer(4096 + 128 * 1024), Answer::Rule(truth(file, 4096 + 128 * 1024)));
    assert_eq!(answer(4096 + 128 * 1024 - 1), Answer::Missing);
    assert_eq!((answer(last), answer(4095)), (Answer::Outside, Answer::Outside));
    let writes = memory.borrow().writes;
    store.fill(id, 2, &window(file, 2, &mut rules), &rules, now).unwrap();
    assert_eq!(memory.borrow().writes, writes, "filled is filled");
    assert!(matches!(store.fill(id, 3, &Window::default(), &rules, now), Err(Refused::Gone)));
    assert!(matches!(store.fill(id, 1, &Window::default(), &rules, now), Err(Refused::Gone)));
}

#[test]
fn who_is_not_used_goes_and_rests() {
    // One chunk: 2^18 rows; a file of inode 8 has 297 pages of 64 rows.
    let (mut store, memory) = store(1 << 20);
    let mut rules = Rules::default();
    let mut ids = Vec::new();
    let refused = loop {
        let file = FileKey { device: ids.len() as u32, ..key(8) };
        let id = store.publish(file, extent(file), at(1, 1)).unwrap();
        let filled =
            (0..5).try_for_each(|number| store.fill(id, number, &window(file, number, &mut rules), &rules, at(1, 1)));
        match filled {
            Ok(()) => ids.push((file, id)),
            Err(refused) => break refused,
        }
    };
    assert_eq!(ids.len(), (1 << 18) / (297 * 64));
    assert!(matches!(refused, Refused::Full), "{refused}: all are fresh");

    // Later, two of them are old; the older one is room enough, with 1/32 of all.
    let old = RECENT + 5;
    memory.borrow_mut().used.values_mut().for_each(|used| *used = old);
    memory.borrow_mut().used.insert(ids[3].1.index, 3);
    memory.borrow_mut().used.insert(ids[7].1.index, 2);
    let (file, number) = (FileKey { device: 13, ..key(8) }, 3);
    let window = window(file, number, &mut rules);
    let mut now = at(20, old);
    let id = store.find(file).unwrap();
    let refused = store.fill(id, 4, &window, &rules, now).unwrap_err();
    assert!(matches!(refused, Refused::Gone), "{refused}: a window of another size");
    let refused = store.fill(id, 3, &window, &rules, now).unwrap_err();
    assert!(matches!(refused, Refused::Later(until) if until == now.at + REST), "{refused}");
    assert_eq!((store.find(ids[7].0), store.find(ids[3].0)), (None, Some(ids[3].1)));
    assert_eq!(store.fill_level().evicted, 1);

    // What was taken back is not touched for a second, and asking again takes no more.
    now.at += Duration::from_millis(999);
    assert!(matches!(store.fill(id, 3, &window, &rules, now), Err(Refused::Later(_))));
    assert_eq!(store.fill_level().evicted, 1);
    now.at += Duration::from_millis(1);
    memory.borrow_mut().now = now.at;
    store.fill(id, 3, &window, &rules, now).unwrap();
    assert!(matches!(store.fill(ids[7].1, 3, &window, &rules, now), Err(Refused::Gone)));
    // The slot serves again, under another generation.
    let again = store.publish(FileKey { device: 999, ..key(8) }, extent(file), now).unwrap();
    assert_eq!(again.index, ids[7].1.index);
    assert_ne!(again.generation, ids[7].1.generation);
}

/// Ten files fit; thirty take turns of three seconds each, again and again.
#[test]
fn who_comes_back_is_found_again() {
    let (mut store, memory) = store(1 << 20);
    let mut rules = Rules::default();
    let files: Vec<FileKey> = (0..30).map(|device| FileKey { device, ..key(8) }).collect();
    for turn in 0..90u32 {
        let file = files[turn as usize % files.len()];
        let (mut now, windows) = (at(10 + 3 * u64::from(turn), 10 + RECENT * turn), extent(file).windows());
        memory.borrow_mut().now = now.at;
        let mut fill = |now| {
            let id = store.publish(file, extent(file), now)?;
            let fill = |number| store.fill(id, number, &window(file, number, &mut rules), &rules, now);
            (0..windows).try_for_each(fill).map(|()| id)
        };
        let id = fill(now).or_else(|refused| {
            assert!(matches!(refused, Refused::Later(_)), "{refused}: others are old");
            now.at += REST;
            memory.borrow_mut().now = now.at;
            fill(now)
        });
        let id = id.unwrap();
        let first = extent(file).first;
        for offset in (first..first + u64::from(extent(file).pages) * 1024).step_by(509) {
            assert_eq!(memory.borrow().answer(id.index, offset), Answer::Rule(truth(file, offset)), "{turn}");
        }
    }
    assert!(store.fill_level().evicted >= 60, "{:?}", store.fill_level());
    assert_eq!(store.fill_level().bytes, 1 << 20);
}

#[test]
fn the_end_of_a_window_is_in_its_chunk() {
    let (mut store, memory) = store(1 << 20);
    memory.borrow_mut().patience = 1;
    let mut rules = Rules::default();
    // 64 windows of 4 096 rows would be a chunk to the last row.
    let mut filled = 0;
    for device in 0..16 {
        let file = FileKey { device, ..key(8) };
        let id = store.publish(file, extent(file), at(1, 1)).unwrap();
        for number in 0..4 {
            filled += usize::from(store.fill(id, number, &window(file, number, &mut rules), &rules, at(1, 1)).is_ok());
        }
    }
    assert_eq!(filled, 63);
}

#[test]
fn a_key_without_room_leaves_nothing_behind() {
    let (mut store, memory) = store(1 << 20);
    memory.borrow_mut().refuse_keys = true;
    for _ in 0..3 {
        assert!(matches!(store.publish(key(1), extent(key(1)), at(1, 1)), Err(Refused::Kernel(_))));
    }
    memory.borrow_mut().refuse_keys = false;
    let id = store.publish(key(1), extent(key(1)), at(1, 1)).unwrap();
    assert_eq!((id.index, id.generation, store.fill_level().files), (2, 4, 1));
    assert_eq!(memory.borrow().files[&2].page_base, 0);
}

#[test]
fn a_file_without_a_table_has_a_key() {
    let (mut store, memory) = store(1 << 20);
    store.publish_none(key(1)).unwrap();
    assert_eq!((memory.borrow().keys[&key(1)], store.find(key(1))), (shape::FILE_NONE, None));
    store.forget(key(1), at(1, 1));
    assert!(memory.borrow().keys.is_empty());
}

#[test]
fn slots_are_not_endless() {
    let (mut store, memory) = store(1 << 20);
    let one = |store: &mut Store<Watched>, number: u64, now| {
        // Probes are asked of each key after each write: few keys only.
        memory.borrow_mut().keys.clear();
        store.publish(key(number * 300), Extent { first: 0, pages: 1 }, now)
    };
    for number in 0..u64::from(shape::FILES) - 2 {
        one(&mut store, number, at(1, 1)).unwrap();
    }
    assert!(matches!(one(&mut store, 1 << 40, at(1, 1)), Err(Refused::Full)));
    assert!(matches!(one(&mut store, 1 << 40, at(1, 2 + RECENT)), Err(Refused::Later(_))));
    memory.borrow_mut().now = Duration::from_secs(3);
    one(&mut store, 1 << 40, at(3, 2 + RECENT)).unwrap();
    assert_eq!(u64::from(store.fill_level().files), u64::from(shape::FILES) - 2 - store.fill_level().evicted + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any files in any order through a small store: between any two writes, no reader finds anything wrong.
    #[test]
    fn no_reader_is_ever_misled(steps in prop::collection::vec((1u64..60, 0u32..8, 0u64..400, any::<bool>()), 1..200)) {
        let (mut store, memory) = store(1 << 20);
        let mut rules = Rules::default();
        let mut at = Duration::ZERO;
        for (number, (inode, which, ms, forget)) in steps.into_iter().enumerate() {
            at += Duration::from_millis(ms);
            memory.borrow_mut().now = at;
            // Intervals fly, so that something is always old.
            let now = Now { at, interval: number as u32 * 4 };
            let file = key(inode);
            if forget && which == 0 {
                store.forget(file, now);
                continue;
            }
            let Ok(id) = store.publish(file, extent(file), now) else { continue };
            for number in 0..extent(file).windows().min(which) {
                let _ = store.fill(id, number, &window(file, number, &mut rules), &rules, now);
            }
        }
    }
}
