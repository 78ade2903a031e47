//! The table of one file, made window by window: any window, in any order, each within bounds of its own.

use std::cell::Cell;
use std::ops::Range;

use super::bytes::{Pager, ReadAt};
use super::cfi::{Evaluator, Rows};
use super::image::{Frames, Layout, NoTable, Sorted};
use super::index::Index;
use super::rule::{Row, Rule, shape};
use super::rules::Rules;

/// Bytes that may be read for one window. In 3 900 files of a machine with compilers, browsers' engines and JVMs the densest
/// took 138 151 (libjvm).
const WINDOW_BUDGET: u64 = 1 << 20;
/// The same for a single question; there, none took 20 000.
const QUESTION_BUDGET: u64 = 128 << 10;
/// What a question may read without being counted: real files may be asked for ever.
const QUESTION_FREE: u64 = 32 << 10;
/// The same to open a file, beside its call frame information if that has to be scanned.
const OPEN_BUDGET: u64 = 1 << 20;
/// A file is read this many times over (and [`OPEN_BUDGET`]) before we have enough of it. Windows that are made again, after
/// they were let go, do not count again.
const READ_OVER: u64 = 8;
/// Call frame information that is scanned, where no sorted table is there.
const MOST_SCANNED: u64 = 64 << 20;

/// Pages of a file: its code, as file offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First offset, a multiple of a page.
    pub first: u64,
    /// How many pages follow.
    pub pages: u32,
}

impl Extent {
    /// How many windows that makes.
    pub fn windows(self) -> u32 {
        self.pages.div_ceil(shape::WINDOW_PAGES)
    }

    /// Page entries of all windows.
    pub fn entries(self) -> u32 {
        self.pages + self.windows()
    }

    /// Pages of one window; fewer in the last one, none behind it.
    pub fn window_pages(self, window: u32) -> u32 {
        self.pages.saturating_sub(window.saturating_mul(shape::WINDOW_PAGES)).min(shape::WINDOW_PAGES)
    }

    /// The window that holds a file offset.
    pub fn window_of(self, offset: u64) -> Option<u32> {
        let page = offset.checked_sub(self.first)? / shape::PAGE_BYTES;
        (page < u64::from(self.pages)).then_some(page as u32 / shape::WINDOW_PAGES)
    }

    /// File offsets of a window.
    pub fn offsets(self, window: u32) -> Range<u64> {
        let start = self.first + u64::from(window) * shape::WINDOW_BYTES;
        start..start + u64::from(self.window_pages(window)) * shape::PAGE_BYTES
    }
}

/// The rows of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Rows of all of its pages, one after another; each page has one at its first byte.
    pub rows: Vec<Row>,
    /// Where the rows of each page begin, and where the last ones end.
    pub pages: Vec<u32>,
}

/// A file that has a table.
#[derive(Debug)]
pub struct Table<S> {
    source: S,
    layout: Layout,
    index: Index,
    /// Bytes that may still be read of it.
    left: Cell<u64>,
    /// Windows that were made, a bit each.
    made: Vec<u64>,
    /// New rules that it brought.
    new_rules: u32,
}

impl<S: ReadAt> Table<S> {
    /// Reads the headers of a file, or of an ELF image that was read from memory.
    ///
    /// # Errors
    /// Why it has no table.
    pub fn open(source: S) -> Result<Self, NoTable> {
        let pager = Pager::new(&source, OPEN_BUDGET);
        let layout = Layout::read(&pager)?;
        let index = Index::Scanned(Vec::new());
        let mut table = Table { left: Cell::new(0), index, layout, source, made: Vec::new(), new_rules: 0 };
        let extent = table.whole().ok_or(NoTable::TooLarge)?;
        if extent.entries() > shape::PAGES {
            return Err(NoTable::TooLarge);
        }
        table.made = vec![0; extent.windows().div_ceil(64) as usize];
        table.indexed()
    }

    fn indexed(mut self) -> Result<Self, NoTable> {
        let frames = &self.layout.frames;
        let length = frames.section.end - frames.section.start;
        let scanned = if frames.sorted.is_none() { length } else { 0 };
        if scanned > MOST_SCANNED {
            return Err(NoTable::TooLarge);
        }
        self.index = Index::new(&Pager::new(&self.source, OPEN_BUDGET + 8 * scanned), frames);
        if self.index.count() == 0 {
            return Err(NoTable::NoFrames);
        }
        self.left.set(OPEN_BUDGET + READ_OVER * length.min(MOST_SCANNED));
        Ok(self)
    }

    fn whole(&self) -> Option<Extent> {
        let first = self.layout.code.first()?.offset / shape::PAGE_BYTES * shape::PAGE_BYTES;
        let end = self.layout.code.last()?.offsets().end;
        let pages = u32::try_from((end - first).div_ceil(shape::PAGE_BYTES)).ok()?;
        Some(Extent { first, pages })
    }

    /// Which offsets it covers.
    pub fn extent(&self) -> Extent {
        self.whole().unwrap_or(Extent { first: 0, pages: 0 })
    }

    /// Where in the file lies what its windows are made of: the sorted table, and the call frame information. They may overlap.
    pub fn frames(&self) -> [Range<u64>; 2] {
        let Frames { section, sorted, .. } = &self.layout.frames;
        let sorted = sorted.as_ref().map_or(0..0, Sorted::offsets);
        [sorted, section.clone()]
    }

    /// The file, or the image.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Whether so much of the file was read that no real one would have needed it: what is asked for from now on is
    /// [`Rule::UNSUPPORTED`].
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Evaluates the functions of one window. Whatever the file says, a window comes of it.
    pub fn window(&mut self, window: u32, rules: &mut Rules) -> Window {
        let offsets = self.extent().offsets(window);
        let free = if self.is_made(window) { WINDOW_BUDGET } else { 0 };
        let rows = self.within(WINDOW_BUDGET, free, |evaluator| evaluator.rows(offsets.clone()));
        pages(&rows, &offsets, |rule| rules.index(rule, &mut self.new_rules))
    }

    /// Whether a window was made before; it is from now on.
    fn is_made(&mut self, window: u32) -> bool {
        let Some(bits) = self.made.get_mut(window as usize / 64) else { return false };
        let bit = 1 << (window % 64);
        let before = *bits & bit != 0;
        *bits |= bit;
        before
    }

    /// The rule at one file offset, without making the rest of its window.
    pub fn rule(&self, offset: u64) -> Rule {
        let rows = self.ask(|evaluator| evaluator.rows(offset..offset.saturating_add(1)));
        rows.as_slice().first().map_or(Rule::NONE, |&(_, rule)| rule)
    }

    /// Where the function that holds a file offset starts, as a file offset. For functions without a name.
    pub fn function_start(&self, offset: u64) -> Option<u64> {
        self.ask(|evaluator| evaluator.function_start(offset))
    }

    fn ask<T>(&self, work: impl FnOnce(&mut Evaluator<'_>) -> T) -> T {
        self.within(QUESTION_BUDGET, QUESTION_FREE, work)
    }

    fn within<T>(&self, budget: u64, free: u64, work: impl FnOnce(&mut Evaluator<'_>) -> T) -> T {
        let allowed = budget.min(self.left.get());
        let pager = Pager::new(&self.source, allowed);
        let result = work(&mut Evaluator::new(&pager, &self.layout, &self.index));
        let spent = allowed - pager.left();
        self.left.set(self.left.get() - spent.saturating_sub(free));
        result
    }
}

/// Cuts rows into pages, each of which says what holds at its start.
fn pages(rows: &Rows, offsets: &Range<u64>, mut index: impl FnMut(Rule) -> u16) -> Window {
    let mut window = Window::default();
    let mut rest = rows.as_slice().iter().peekable();
    let mut rule = super::rules::NONE;
    for start in offsets.clone().step_by(shape::PAGE_BYTES as usize) {
        window.pages.push(window.rows.len() as u32);
        if rest.peek().is_none_or(|(offset, _)| *offset != start) {
            window.rows.push(Row::new(0, rule));
        }
        while let Some((offset, next)) = rest.next_if(|(offset, _)| *offset < start + shape::PAGE_BYTES) {
            rule = index(*next);
            window.rows.push(Row::new((offset - start) as u16, rule));
        }
    }
    window.pages.push(window.rows.len() as u32);
    window
}

impl Window {
    /// Index of the rule at an offset from its start, as the kernel side finds it. `None` if it has fewer pages.
    pub fn lookup(&self, into: u64) -> Option<u16> {
        let page = usize::try_from(into / shape::PAGE_BYTES).ok()?;
        let pc = (into % shape::PAGE_BYTES) as u16;
        let rows = self.rows.get(*self.pages.get(page)? as usize..*self.pages.get(page + 1)? as usize)?;
        let behind = rows.partition_point(|row| row.pc() <= pc);
        rows.get(behind.checked_sub(1)?).map(|row| row.rule())
    }
}
