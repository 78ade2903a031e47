//! One unit of debug information (a source file with all that it includes), in a form that is searched by address: which
//! functions are where, what is inlined into them, and which line each instruction is of.

use gimli::{AttributeValue, Dwarf, Reader, constants};

use super::sections::text;
use crate::collect::unwind::View;
use crate::tick::Line;

/// Functions, inlined ones and their ranges beyond this are left out: 40 MB.
const MAX_SCOPES: usize = 1 << 20;
/// Lines beyond this are left out: 32 MB.
const MAX_ROWS: usize = 2 << 20;
/// Files beyond this have no name.
const MAX_FILES: u64 = 1 << 16;
/// Longer paths are cut.
const MAX_PATH: usize = 1024;
/// Ranges of one function beyond this are left out.
const MAX_RANGES: usize = 4096;

/// A range of addresses of a function, or of one that is inlined.
#[derive(Clone, Copy, Debug, Default)]
struct Scope {
    start: u64,
    end: u64,
    /// Offset in `.debug_info` of what says its name.
    origin: u64,
    /// Where it is called, by the number of a file; 0: not told.
    call_file: u32,
    call_line: u32,
    /// The same for all ranges of one.
    number: u32,
    /// 0: a function; else how many it is inlined into.
    depth: u32,
    /// Which function it is, or is inlined into.
    function: u32,
}

/// From this address on it is this line.
#[derive(Clone, Copy, Debug)]
struct Row {
    address: u64,
    /// [`NO_CODE`]: the code ends here.
    file: u32,
    line: u32,
}

const NO_CODE: u32 = u32::MAX;

/// One unit.
#[derive(Default)]
pub struct Unit {
    /// Functions in their order, each followed by what is inlined into it, callers first.
    scopes: Vec<Scope>,
    /// The part of `scopes` that each function has, with functions within it.
    functions: Vec<(u32, u32)>,
    /// (start, end, function) by rising start.
    ranges: Vec<(u64, u64, u32)>,
    rows: Vec<Row>,
    files: Vec<Box<str>>,
}

/// What is at one address: functions from the outermost in, and where each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where to find the name of each, and where it was called by the one before (none for the first).
    pub functions: Vec<(u64, Option<Line>)>,
    /// Where in the innermost.
    pub line: Option<Line>,
}

type GimliUnit<'readers> = gimli::Unit<View<'readers>>;
type Entry<'readers> = gimli::DebuggingInformationEntry<View<'readers>>;

/// An entry whose children are being read.
struct Open {
    /// Its depth.
    entry: isize,
    /// Function, and depth in it, of the code that its children are inlined into.
    scope: Option<(u32, u32)>,
}

impl Unit {
    /// Reads a unit, as far as it can be read.
    pub fn read<'r>(dwarf: &Dwarf<View<'r>>, unit: &GimliUnit<'r>) -> Self {
        let mut read = Unit::default();
        // What was read before it breaks is true.
        let _ = read.read_scopes(dwarf, unit);
        let _ = read.read_lines(dwarf, unit);
        read.ranges.sort_unstable();
        // The end of one piece of code may be the start of another.
        read.rows.sort_by_key(|row| (row.address, row.file != NO_CODE));
        read.scopes.shrink_to_fit();
        read.functions.shrink_to_fit();
        read.ranges.shrink_to_fit();
        read.rows.shrink_to_fit();
        read
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        let files: usize = self.files.iter().map(|file| size_of::<Box<str>>() + file.len()).sum();
        size_of::<Self>()
            + self.scopes.capacity() * size_of::<Scope>()
            + self.functions.capacity() * size_of::<(u32, u32)>()
            + self.ranges.capacity() * size_of::<(u64, u64, u32)>()
            + self.rows.capacity() * size_of::<Row>()
            + files
    }

    /// What is at an address.
    pub fn find(&self, address: u64) -> Found {
        Found { functions: self.functions_at(address), line: self.line_at(address) }
    }

    fn functions_at(&self, address: u64) -> Vec<(u64, Option<Line>)> {
        let behind = self.ranges.partition_point(|(start, ..)| *start <= address);
        // Functions do not overlap but where a file is broken.
        let holds = |(_, end, _): &&(u64, u64, u32)| address < *end;
        let function = self.ranges.get(..behind).and_then(|before| before.iter().rev().take(4).find(holds));
        let Some(&(.., function)) = function else { return Vec::new() };
        let (first, last) = self.functions.get(function as usize).copied().unwrap_or_default();
        let scopes = self.scopes.get(first as usize..last as usize).unwrap_or_default();
        let mut found: Vec<(u64, Option<Line>)> = Vec::new();
        let mut innermost = 0;
        for scope in scopes.iter().filter(|scope| scope.function == function) {
            let depth = found.len() as u32;
            if depth > 0 && scope.depth < depth && scope.number != innermost {
                // A sibling of what was found: nothing more is inlined there.
                break;
            }
            if scope.depth == depth && (scope.start..scope.end).contains(&address) {
                found.push((scope.origin, self.line(scope.call_file, scope.call_line)));
                innermost = scope.number;
            }
        }
        found
    }

    fn line_at(&self, address: u64) -> Option<Line> {
        let behind = self.rows.partition_point(|row| row.address <= address);
        let row = self.rows.get(behind.checked_sub(1)?)?;
        if row.file == NO_CODE { None } else { self.line(row.file, row.line) }
    }

    fn line(&self, file: u32, number: u32) -> Option<Line> {
        let file = self.files.get(file as usize).filter(|file| !file.is_empty() && number > 0)?;
        Some(Line { file: file.to_string(), number })
    }

    fn read_scopes<'r>(&mut self, dwarf: &Dwarf<View<'r>>, unit: &GimliUnit<'r>) -> gimli::Result<()> {
        let mut open = Vec::new();
        let result = self.read_entries(dwarf, unit, &mut open);
        while let Some(last) = open.pop() {
            self.close(last);
        }
        result
    }

    fn read_entries<'r>(
        &mut self,
        dwarf: &Dwarf<View<'r>>,
        unit: &GimliUnit<'r>,
        open: &mut Vec<Open>,
    ) -> gimli::Result<()> {
        let mut entries = unit.entries_raw(None)?;
        let mut entry = Entry::null();
        let mut number = 0;
        while !entries.is_empty() && self.scopes.len() < MAX_SCOPES {
            if !entries.read_entry(&mut entry)? {
                continue;
            }
            while open.last().is_some_and(|last| last.entry >= entry.depth())
                && let Some(last) = open.pop()
            {
                self.close(last);
            }
            let around = open.last().and_then(|last| last.scope);
            let scope = match (entry.tag(), around) {
                (constants::DW_TAG_subprogram, _) => Some((self.functions.len() as u32, 0)),
                (constants::DW_TAG_inlined_subroutine, Some((function, depth))) => Some((function, depth + 1)),
                _ => None,
            };
            number += 1;
            let first = self.scopes.len();
            if let Some((function, depth)) = scope {
                self.read_scope(dwarf, unit, &entry, Scope { number, depth, function, ..Scope::default() })?;
            }
            // A function that has no code here holds nothing that has.
            let known = scope.filter(|_| self.scopes.len() > first);
            if let Some((function, 0)) = known {
                let ranges = self.scopes.iter().skip(first).map(|scope| (scope.start, scope.end, function));
                self.ranges.extend(ranges);
                self.functions.push((first as u32, self.scopes.len() as u32));
            }
            if entry.has_children() {
                open.push(Open { entry: entry.depth(), scope: known.or(around) });
            }
        }
        Ok(())
    }

    /// All that is inlined into a function has been read.
    fn close(&mut self, last: Open) {
        if let Some((function, 0)) = last.scope
            && let Some((_, end)) = self.functions.get_mut(function as usize)
        {
            *end = self.scopes.len() as u32;
        }
    }

    /// Adds the ranges of a function; none if it has no code here.
    fn read_scope<'r>(
        &mut self,
        dwarf: &Dwarf<View<'r>>,
        unit: &GimliUnit<'r>,
        entry: &Entry<'r>,
        scope: Scope,
    ) -> gimli::Result<()> {
        let own = entry.offset().to_debug_info_offset(&unit.header).map_or(0, |offset| offset.0);
        let origin = entry.attr_value(constants::DW_AT_abstract_origin).and_then(|value| reference(unit, value));
        let small = |name| match entry.attr_value(name)? {
            AttributeValue::FileIndex(file) => u32::try_from(file).ok(),
            value => u32::try_from(value.udata_value()?).ok(),
        };
        let call_file = small(constants::DW_AT_call_file).unwrap_or(0);
        let call_line = small(constants::DW_AT_call_line).unwrap_or(0);
        let scope = Scope { origin: origin.unwrap_or(own), call_file, call_line, ..scope };
        let mut ranges = dwarf.die_ranges(unit, entry)?;
        let mut left = MAX_RANGES;
        while let Some(gimli::Range { begin, end }) = ranges.next()? {
            // Code that the linker left out begins at 0, or nowhere.
            if begin > 0 && begin < end && left > 0 {
                self.scopes.push(Scope { start: begin, end, ..scope });
                left -= 1;
            }
        }
        Ok(())
    }

    fn read_lines<'r>(&mut self, dwarf: &Dwarf<View<'r>>, unit: &GimliUnit<'r>) -> gimli::Result<()> {
        let Some(program) = unit.line_program.clone() else { return Ok(()) };
        self.read_files(dwarf, unit, program.header());
        let mut rows = program.rows();
        // Code that begins at 0 was left out by the linker.
        let mut begun: Option<bool> = None;
        while let Some((_, row)) = rows.next_row()? {
            let is_real = *begun.get_or_insert(row.address() > 0);
            let end = row.end_sequence();
            if is_real && self.rows.len() < MAX_ROWS {
                let file = if end { NO_CODE } else { u32::try_from(row.file_index()).unwrap_or(0) };
                let line = row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or(0);
                self.push(Row { address: row.address(), file, line });
            }
            if end {
                begun = None;
            }
        }
        Ok(())
    }

    /// Of several lines at one address the last counts, and the same again says nothing.
    fn push(&mut self, row: Row) {
        if let Some(last) = self.rows.last_mut()
            && last.file != NO_CODE
        {
            if last.address == row.address && row.file != NO_CODE {
                *last = row;
                return;
            }
            if (last.file, last.line) == (row.file, row.line) && last.address < row.address {
                return;
            }
        }
        self.rows.push(row);
    }

    fn read_files<'r>(
        &mut self,
        dwarf: &Dwarf<View<'r>>,
        unit: &GimliUnit<'r>,
        header: &gimli::LineProgramHeader<View<'r>>,
    ) {
        let string = |value| dwarf.attr_string(unit, value).map(|view| text(view, MAX_PATH)).unwrap_or_default();
        let base = unit.comp_dir.clone().map(|view| text(view, MAX_PATH)).unwrap_or_default();
        let count = header.file_names().len() as u64 + u64::from(header.version() < 5);
        for index in 0..count.min(MAX_FILES) {
            let Some(file) = header.file(index) else {
                self.files.push("".into());
                continue;
            };
            let mut path = base.clone();
            if file.directory_index() != 0
                && let Some(directory) = file.directory(header)
            {
                join(&mut path, &string(directory));
            }
            join(&mut path, &string(file.path_name()));
            self.files.push(path.into());
        }
    }
}

/// Goes on from a directory; an absolute path begins anew.
fn join(path: &mut String, next: &str) {
    if next.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(next);
}

/// Offset in `.debug_info` that an attribute leads to.
pub fn reference<R: Reader<Offset = u64>>(unit: &gimli::Unit<R>, value: AttributeValue<R>) -> Option<u64> {
    match value {
        AttributeValue::UnitRef(offset) => Some(offset.to_debug_info_offset(&unit.header)?.0),
        AttributeValue::DebugInfoRef(offset) => Some(offset.0),
        _ => None,
    }
}
