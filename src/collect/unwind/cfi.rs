//! From call frame information to rows: which rule holds from which file offset on, for any range of offsets of a file.
//!
//! Where descriptions overlap, that which starts later wins, as for who searches by start. What no description covers
//! has [`Rule::NONE`], but gaps below [`SMALL_GAP`] belong to what is before them. What cannot be evaluated is
//! [`Rule::UNSUPPORTED`].

use gimli::{
    BaseAddresses, CommonInformationEntry, EhFrame, EhFrameOffset, FrameDescriptionEntry, Register, RegisterRule,
};
use gimli::{UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow};
use std::ops::Range;

use super::bytes::{Pager, View};
use super::image::{Layout, Segment};
use super::index::{Entry, Index, section};
use super::plt::{self, STUB_BYTES};
use super::rule::Rule;

/// Padding between functions is shorter than this.
pub const SMALL_GAP: u64 = 64;
/// How long the code at a program's entry is, where nothing says it. Longer than any known.
const ENTRY_BYTES: u64 = 64;

/// Rows of a range of file offsets: by rising offset, neighbours differ; the first is at the start of the range.
#[derive(Debug)]
pub struct Rows {
    range: Range<u64>,
    rows: Vec<(u64, Rule)>,
}

impl Rows {
    fn new(range: Range<u64>) -> Self {
        let rows = vec![(range.start, Rule::NONE)];
        Rows { range, rows }
    }

    /// From this offset on, this rule holds. Takes back what was said of that offset and those behind it.
    fn put(&mut self, offset: u64, rule: Rule) {
        if offset >= self.range.end {
            return;
        }
        let offset = offset.max(self.range.start);
        while self.rows.last().is_some_and(|&(last, _)| last >= offset) {
            self.rows.pop();
        }
        if self.rows.last().is_none_or(|&(_, last)| last != rule) {
            self.rows.push((offset, rule));
        }
    }

    /// (file offset, rule).
    pub fn as_slice(&self) -> &[(u64, Rule)] {
        &self.rows
    }
}

/// Room for as many rules as there are registers that anybody saves. With gimli's own 192 a state that is kept costs a byte of
/// the file, and copying 7 KB of ours.
pub struct FewRules;

impl UnwindContextStorage<u64> for FewRules {
    type Rules = [(Register, RegisterRule<u64>); 32];
    type Stack = Box<[UnwindTableRow<u64, Self>; 4]>;
}

/// A row as it is evaluated here.
pub type CfiRow = UnwindTableRow<u64, FewRules>;

type Cie<'pager> = CommonInformationEntry<View<'pager>>;
type Fde<'pager> = FrameDescriptionEntry<View<'pager>>;

/// Evaluates the call frame information of one file.
pub struct Evaluator<'pager> {
    pager: &'pager Pager<'pager>,
    layout: &'pager Layout,
    index: &'pager Index,
    section: EhFrame<View<'pager>>,
    bases: BaseAddresses,
    context: UnwindContext<u64, FewRules>,
    /// The one used last; most functions share one of two.
    cie: Option<(EhFrameOffset<u64>, Cie<'pager>)>,
}

impl<'pager> Evaluator<'pager> {
    /// Reads nothing yet.
    pub fn new(pager: &'pager Pager<'pager>, layout: &'pager Layout, index: &'pager Index) -> Self {
        let (section, bases) = section(pager, &layout.frames);
        Evaluator { pager, layout, index, section, bases, context: UnwindContext::new_in(), cie: None }
    }

    /// Rows of a range of file offsets.
    pub fn rows(&mut self, range: Range<u64>) -> Rows {
        let mut rows = Rows::new(range.clone());
        for segment in &self.layout.code {
            let offsets = segment.offsets();
            if offsets.start < range.end && range.start < offsets.end {
                rows.put(offsets.start, Rule::NONE);
                self.segment(segment, &mut rows);
                rows.put(offsets.end, Rule::NONE);
            }
        }
        rows
    }

    fn segment(&mut self, segment: &Segment, rows: &mut Rows) {
        let mut part = Part { segment, rows, layout: self.layout, pager: self.pager };
        let wanted = part.wanted();
        let Some(up_to) = self.index.up_to(self.pager, wanted.start) else { return part.give_up(wanted.start) };
        let mut number = up_to.saturating_sub(1);
        let Some(mut next) = self.index.get(self.pager, number) else { return };
        part.gap(segment.address..next.start);
        while next.start < wanted.end {
            let entry = next;
            number += 1;
            let end = match self.index.get(self.pager, number) {
                Some(after) => {
                    next = after;
                    after.start
                }
                None if number < self.index.count() => return part.give_up(entry.start),
                None => u64::MAX,
            };
            // One of several that start at the same place; or a table that is not sorted.
            let end = if end < entry.start { entry.start } else { end };
            self.function(entry, end, &mut part);
            if number >= self.index.count() {
                break;
            }
        }
    }

    /// What is said from the start of one function up to the start of the next one.
    fn function(&mut self, entry: Entry, next: u64, part: &mut Part<'_>) {
        let Some(fde) = self.parse(entry.fde) else { return part.put(entry.start, next, Rule::UNSUPPORTED) };
        let (start, length) = (fde.initial_address(), fde.len());
        let end = start.saturating_add(length).min(next);
        if start != entry.start {
            return part.put(entry.start, next, Rule::UNSUPPORTED);
        }
        if length == 0 {
            // The linker folded it, or lost its length: nothing is known, not even what is before it.
            return part.put(start, next, Rule::NONE);
        }
        if part.layout.entry.is_some_and(|program| (start..end).contains(&program)) {
            part.put(start, end, Rule::END);
        } else {
            self.evaluate(&fde, start..end, part);
        }
        part.gap(end..next);
    }

    fn parse(&mut self, place: u64) -> Option<Fde<'pager>> {
        let kept = &mut self.cie;
        let cie = |section: &EhFrame<View<'pager>>, bases: &BaseAddresses, place| match kept {
            Some((known, cie)) if *known == place => Ok(cie.clone()),
            _ => {
                let cie = section.cie_from_offset(bases, place)?;
                *kept = Some((place, cie.clone()));
                Ok(cie)
            }
        };
        self.section.fde_from_offset(&self.bases, EhFrameOffset(place), cie).ok()
    }

    fn evaluate(&mut self, fde: &Fde<'pager>, range: Range<u64>, part: &mut Part<'_>) {
        let (register, signal) = (fde.cie().return_address_register(), fde.is_signal_trampoline());
        // Until a row says better: there may be none, if the length wraps.
        part.put(range.start, range.end, Rule::UNSUPPORTED);
        let Ok(mut table) = fde.rows(&self.section, &self.bases, &mut self.context) else { return };
        let mut reached = range.start;
        // Behind what is asked for, nothing needs to be known.
        let enough = range.end.min(part.wanted().end);
        while reached < enough {
            match table.next_row() {
                Ok(Some(row)) => {
                    // Of two rows for one place the later one holds; a row that begins before the last one is none.
                    if row.start_address() < row.end_address() && row.start_address() >= reached {
                        let rule = self.layout.arch.rule(row, &self.section, register, signal);
                        part.put(row.start_address(), range.end, rule);
                        reached = row.end_address();
                    }
                }
                Ok(None) => return,
                Err(_) => return part.put(reached, range.end, Rule::UNSUPPORTED),
            }
        }
    }

    /// Where the function that holds this file offset starts, as a file offset; its FDE says so.
    pub fn function_start(&mut self, offset: u64) -> Option<u64> {
        let segment = self.layout.code.iter().find(|segment| segment.offsets().contains(&offset))?;
        let address = segment.address + (offset - segment.offset);
        let number = self.index.up_to(self.pager, address)?.checked_sub(1)?;
        let entry = self.index.get(self.pager, number)?;
        let fde = self.parse(entry.fde)?;
        let holds = fde.initial_address() == entry.start && address - entry.start < fde.len();
        let into = entry.start.checked_sub(segment.address)?;
        holds.then_some(segment.offset + into)
    }
}

/// A segment, and what is found out about it: turns addresses into offsets.
struct Part<'rows> {
    segment: &'rows Segment,
    rows: &'rows mut Rows,
    layout: &'rows Layout,
    pager: &'rows Pager<'rows>,
}

impl Part<'_> {
    /// Addresses that are asked for.
    fn wanted(&self) -> Range<u64> {
        let (segment, range) = (self.segment, &self.rows.range);
        let start = range.start.saturating_sub(segment.offset);
        let end = range.end.saturating_sub(segment.offset).min(segment.bytes);
        segment.address + start..segment.address + end
    }

    /// From `address` on, but not if it is not below `end`.
    fn put(&mut self, address: u64, end: u64, rule: Rule) {
        let segment = self.segment.addresses();
        let address = address.max(segment.start);
        if address < end.min(segment.end) {
            self.rows.put(self.segment.offset + (address - segment.start), rule);
        }
    }

    fn give_up(&mut self, address: u64) {
        self.put(address, u64::MAX, Rule::UNSUPPORTED);
    }

    /// What no description covers.
    fn gap(&mut self, gap: Range<u64>) {
        let segment = self.segment.addresses();
        let gap = gap.start.max(segment.start)..gap.end.min(segment.end);
        let bytes = gap.end.saturating_sub(gap.start);
        let entry = self.layout.entry.filter(|entry| gap.contains(entry));
        if let Some(entry) = entry {
            self.put(gap.start, entry, Rule::NONE);
            self.put(entry, gap.end, Rule::END);
            self.put(entry.saturating_add(ENTRY_BYTES), gap.end, Rule::NONE);
        } else if bytes >= SMALL_GAP || gap.start == segment.start {
            self.put(gap.start, gap.end, Rule::NONE);
        }
        for linkage in &self.layout.linkage {
            self.stubs(linkage.start.max(gap.start)..linkage.end.min(gap.end), gap.end);
        }
    }

    /// A linkage table that no description covers, as far as it is asked for; it ends where another one may begin.
    fn stubs(&mut self, table: Range<u64>, end: u64) {
        let wanted = self.wanted();
        let first = table.start.max(wanted.start / STUB_BYTES * STUB_BYTES).checked_next_multiple_of(STUB_BYTES);
        let first = first.unwrap_or(u64::MAX);
        // GNU's linker gives a static program a table of 8-byte stubs, which may begin, and end, half way.
        let odd =
            Some(table.start).filter(|start| *start < first && first - start < STUB_BYTES && *start >= wanted.start);
        if odd.is_some_and(|start| self.code(start).is_some_and(|code| plt::only_jumps(&code))) {
            self.put(table.start, end, plt::JUMPS);
            self.put(first, end, Rule::NONE);
        }
        for address in (first..table.end.min(wanted.end)).step_by(STUB_BYTES as usize) {
            let Some(code) = self.code(address) else { return };
            for (into, rule) in plt::stub(&code).into_iter().flatten() {
                self.put(address.saturating_add(into), end, rule);
            }
            self.put(address.saturating_add(STUB_BYTES).min(table.end), end, Rule::NONE);
        }
    }

    /// As much code as a stub of a linkage table has.
    fn code(&mut self, address: u64) -> Option<[u8; STUB_BYTES as usize]> {
        let mut code = [0; STUB_BYTES as usize];
        let at = self.segment.offset.checked_add(address.checked_sub(self.segment.address)?)?;
        self.pager.read(at, &mut code).then_some(code)
    }
}
