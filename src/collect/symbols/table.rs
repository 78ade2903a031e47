//! The functions that a symbol table names, sorted by address. Names stay in the file until they are wanted.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::collect::object::{ENTRY_BYTES, Object, SHT_SYMTAB, Section, u16_at, u32_at, u64_at};

/// `Elf64_Sym`.
const SYM_BYTES: u64 = 24;
const CHUNK: u64 = 1 << 20;
/// Symbols beyond this are not looked at; the largest files known (browsers, unstripped) have some five million.
const MAX_SYMBOLS: u64 = 16 << 20;
/// Functions beyond this are not kept: 40 MB of table.
const MAX_FUNCTIONS: usize = 2_500_000;
/// Longest name that is read.
const MAX_NAME: u64 = 16 << 10;
/// A function that holds an address may begin before others that are over by then (labels inside of it), so many at most.
const LOOK_BACK: usize = 32;
/// Names that one function may have, and more are not compared.
const MAX_ALIASES: usize = 16;
/// A function whose symbol has no size goes on to the next symbol, but not farther than this.
const MAX_UNSIZED: u64 = 1 << 20;

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_LOCAL: u8 = 0;
const STB_GLOBAL: u8 = 1;

/// One function by one of its names. The best of several names at one address comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Function {
    start: u64,
    bytes: u32,
    /// How good the name is (the top two bits, 0 is best), and where it stands in the string table.
    name: u32,
}

const NAME_BITS: u32 = 30;

impl Function {
    fn place(self) -> u64 {
        u64::from(self.name & ((1 << NAME_BITS) - 1))
    }

    fn rank(self) -> u32 {
        self.name >> NAME_BITS
    }
}

/// All functions that one file names.
pub struct SymbolTable {
    /// By rising start, then by rank.
    functions: Vec<Function>,
    strings: Strings,
}

/// A string table in a file.
struct Strings {
    file: Arc<File>,
    offset: u64,
    bytes: u64,
}

/// A function that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As it stands in the file.
    pub name: String,
    /// Address of its first byte, before the file is moved.
    pub start: u64,
    /// Its symbol says how long it is, so it certainly holds the address that was asked for.
    pub is_certain: bool,
}

impl SymbolTable {
    /// Of the table with all symbols, else of that for the dynamic loader; `None` if there is neither, or nothing in it.
    pub fn read(object: &Object) -> Option<Self> {
        let mut tables: Vec<&Section> = object.symbol_tables().take(4).collect();
        tables.sort_by_key(|table| table.kind != SHT_SYMTAB);
        tables.into_iter().find_map(|table| Self::of(object, table))
    }

    /// Whether a file has a table with all symbols.
    pub fn is_whole(object: &Object) -> bool {
        object.symbol_tables().any(|table| table.kind == SHT_SYMTAB)
    }

    fn of(object: &Object, table: &Section) -> Option<Self> {
        let strings = object.sections.get(table.link as usize)?;
        let code: Vec<bool> = object.sections.iter().map(Section::is_code).collect();
        let mut functions = Vec::new();
        let bytes = table.bytes.min(MAX_SYMBOLS * SYM_BYTES);
        let entry = object.entry..object.entry.saturating_add(ENTRY_BYTES);
        let of = |symbol: &[u8]| function(symbol, &code, &entry);
        let step = CHUNK / SYM_BYTES * SYM_BYTES;
        for at in (0..bytes).step_by(step as usize) {
            let Some(chunk) = object.bytes_at(table.offset.checked_add(at)?, step.min(bytes - at)) else { break };
            functions.extend(chunk.chunks_exact(SYM_BYTES as usize).filter_map(of));
            if functions.len() > MAX_FUNCTIONS {
                functions.truncate(MAX_FUNCTIONS);
                break;
            }
        }
        functions.shrink_to_fit();
        functions.sort_unstable_by_key(|function| (function.start, function.rank(), function.place()));
        functions.dedup();
        let strings = Strings { file: Arc::clone(object.file()), offset: strings.offset, bytes: strings.bytes };
        (!functions.is_empty()).then_some(SymbolTable { functions, strings })
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.functions.capacity() * size_of::<Function>()
    }

    /// The function that holds an address.
    pub fn find(&self, address: u64) -> Option<Named> {
        let behind = self.functions.partition_point(|function| function.start <= address);
        let before = self.functions.get(..behind)?;
        let sized = |function: &&Function| address - function.start < u64::from(function.bytes);
        let (function, is_certain) = match before.iter().rev().take(LOOK_BACK).find(sized) {
            Some(function) => (function, true),
            // The nearest one must not be over.
            None => (before.last().filter(|last| last.bytes == 0 && address - last.start < MAX_UNSIZED)?, false),
        };
        let start = function.start;
        let name = self.best_name(start, |alias| !is_certain || sized(&alias))?;
        Some(Named { name, start, is_certain })
    }

    /// Of the names of the best rank that begin at an address, the one with the fewest leading underscores; then the
    /// shortest.
    fn best_name(&self, start: u64, is_one: impl Fn(&Function) -> bool) -> Option<String> {
        let first = self.functions.partition_point(|function| function.start < start);
        let aliases = self.functions.get(first..)?.iter().take_while(|function| function.start == start);
        let mut aliases = aliases.take(MAX_ALIASES).filter(|alias| is_one(alias)).peekable();
        let rank = aliases.peek()?.rank();
        let names = aliases.filter(|alias| alias.rank() == rank).map(|alias| self.strings.get(*alias));
        names.flatten().min_by_key(|name| (name.bytes().take_while(|&byte| byte == b'_').count(), name.len()))
    }
}

/// A symbol, if it is one of code.
/// `code`: which sections are code; `entry`: where the file is entered.
fn function(symbol: &[u8], code: &[bool], entry: &Range<u64>) -> Option<Function> {
    let (name, info, section) = (u32_at(symbol, 0)?, *symbol.get(4)?, u16_at(symbol, 6)?);
    let (start, bytes) = (u64_at(symbol, 8)?, u64_at(symbol, 16)?);
    let (kind, binding) = (info & 15, info >> 4);
    let is_function = match kind {
        STT_FUNC | STT_GNU_IFUNC => true,
        // Assembly without `.type`. What is local and has no size is a label inside of something, but for where a C library
        // is entered: those are hidden, and so became local (`_start` and `_dl_start_user` of glibc's loader).
        STT_NOTYPE => {
            (bytes > 0 || binding != STB_LOCAL || entry.contains(&start))
                && code.get(usize::from(section)) == Some(&true)
        }
        _ => false,
    };
    if !is_function || section == 0 || start == 0 || name == 0 || name >> NAME_BITS != 0 {
        return None;
    }
    let rank = match (kind, binding) {
        (STT_NOTYPE, _) => 3,
        (_, STB_GLOBAL) => 0,
        (_, STB_LOCAL) => 2,
        _ => 1,
    };
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Some(Function { start, bytes, name: name | rank << NAME_BITS })
}

impl Strings {
    fn get(&self, function: Function) -> Option<String> {
        use std::os::unix::fs::FileExt;
        let place = function.place();
        let mut room = self.bytes.checked_sub(place)?.min(128);
        loop {
            let mut bytes = vec![0; room as usize];
            let read = self.file.read_at(&mut bytes, self.offset.checked_add(place)?).ok()?;
            bytes.truncate(read);
            let most = self.bytes.saturating_sub(place).min(MAX_NAME);
            match bytes.iter().position(|&byte| byte == 0) {
                Some(0) => return None,
                Some(end) => {
                    let name = bytes.get(..end)?;
                    // `read@@GLIBC_2.2.5`: which version it is of says nothing here.
                    let version = name.iter().skip(1).position(|&byte| byte == b'@').map_or(end, |at| at + 1);
                    return Some(String::from_utf8_lossy(name.get(..version)?).into_owned());
                }
                // Longer names are none of a program's.
                None if room >= most => return None,
                None => room = (room * 16).min(most),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::symbols::oracle::{self, Built};

    fn read(path: &std::path::Path) -> SymbolTable {
        SymbolTable::read(&Object::open(Arc::new(File::open(path).unwrap())).unwrap()).unwrap()
    }

    #[test]
    fn every_function_that_nm_lists_is_found_at_each_of_its_ends() {
        for path in ["/proc/self/exe", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/node"] {
            let Some(listed) = oracle::nm(path.as_ref()) else { continue };
            let table = read(path.as_ref());
            let (mut checked, mut objects) = (0, 0);
            for (start, bytes, _) in listed.iter().filter(|(_, bytes, _)| *bytes > 0) {
                for address in [*start, start + bytes - 1] {
                    // Tables of numbers in the code of cryptography are objects, and nm says `t`.
                    let Some(found) = table.find(address) else {
                        objects += 1;
                        continue;
                    };
                    // Functions may hold others (labels with a size): any that nm lists there will do.
                    let holds = |(at, length, name): &&(u64, u64, String)| {
                        *name == found.name && (*at..at + length).contains(&address)
                    };
                    let near = listed.partition_point(|(at, ..)| *at <= address);
                    let known = listed[near.saturating_sub(200)..near].iter().any(|entry| holds(&entry));
                    assert!(known, "{path}: {address:#x} is called {found:?}");
                    checked += 1;
                }
            }
            assert!(checked > 1000 && objects * 1000 < checked, "{path}: {checked} found, {objects} not");
            println!("{path}: {checked} of {} addresses", checked + objects);
        }
    }

    #[test]
    fn holes_have_no_name_and_labels_go_on_to_the_next() {
        let source = "
            .text
            .globl sized; .type sized,@function
            sized: nop; nop
            .size sized, 2
            .skip 30, 0xcc
            .globl unsized_one
            unsized_one: nop
            .Llocal: nop; nop
            .globl _alias; .globl __alias; .globl alias; .weak ali
            .type alias,@function; .type _alias,@function; .type __alias,@function; .type ali,@function
            ali: alias: _alias: __alias: ret
            .size alias, 1; .size _alias, 1; .size __alias, 1; .size ali, 1
            .globl _start
            _start: ret
        ";
        let Some(built) = Built::assembly(source) else { return };
        let at = |name: &str| built.address(name).unwrap();
        let table = read(&built.path);
        let found = |address| table.find(address).map(|found| (found.name, found.is_certain));
        assert_eq!(found(at("sized") + 1), Some(("sized".into(), true)));
        assert_eq!(found(at("sized") + 2), None, "behind its end");
        assert_eq!(found(at("unsized_one") + 2), Some(("unsized_one".into(), false)));
        assert_eq!(found(at("alias")), Some(("alias".into(), true)));
        assert_eq!(found(0), None);
        assert_eq!(found(u64::MAX), None);
    }

    #[test]
    fn where_a_file_is_entered_hidden_labels_are_functions() {
        let source = "
            .text
            early: nop
            .skip 100, 0x90
            .globl _start
            .hidden _start
            _start: nop; nop
            user: nop; nop
            .skip 100, 0x90
            late: nop
        ";
        let Some(built) = Built::assembly(source) else { return };
        let at = |name: &str| built.address(name).unwrap();
        let table = read(&built.path);
        let found = |address| table.find(address).map(|found| found.name);
        assert_eq!(found(at("_start") + 1), Some("_start".into()));
        assert_eq!(found(at("user") + 1), Some("user".into()));
        assert_eq!(found(at("early") + 1), None, "a label");
    }

    #[test]
    fn mutated_tables_are_read_in_bounds() {
        let Some(built) = Built::assembly(".text; .globl _start; _start: ret; .type _start,@function; .size _start,1")
        else {
            return;
        };
        let bytes = std::fs::read(&built.path).unwrap();
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..2000 {
            let mut bytes = bytes.clone();
            (0..1 + next() % 8).for_each(|_| {
                let at = (next() % bytes.len() as u64) as usize;
                bytes[at] = next() as u8;
            });
            let file = oracle::file_of(&bytes);
            let Some(object) = Object::open(Arc::new(file)) else { continue };
            object.build_id();
            object.debug_link();
            if let Some(table) = SymbolTable::read(&object) {
                (0..64).for_each(|_| drop(table.find(next() % 0x0050_0000)));
            }
        }
    }
}
