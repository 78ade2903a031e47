//! Names of the code of one file: by its symbols, by those of its separate debug file, or else by where a function begins.

use std::fs::File;
use std::sync::Arc;

use super::debug_file::{self, Seen};
use super::plt;
use super::table::SymbolTable;
use crate::collect::demangle::demangle;
use crate::collect::object::{ENTRY_BYTES, Object};
use crate::collect::unwind::Table;
use crate::tick::Symbol;

/// What is needed to name the code of one file.
pub struct FileNames {
    object: Object,
    table: Option<SymbolTable>,
    /// Where functions begin and end, by call frame information.
    frames: Option<Table<Arc<File>>>,
    /// Last part of its path.
    short: String,
}

impl FileNames {
    /// Reads headers and symbols; `None` for what is no ELF file.
    pub fn open(file: File, seen: &Seen<'_>) -> Option<Self> {
        let object = Object::open(Arc::new(file))?;
        let separate = if SymbolTable::is_whole(&object) { None } else { debug_file::find(&object, seen) };
        let table = separate.as_ref().filter(|separate| SymbolTable::is_whole(separate)).and_then(SymbolTable::read);
        let table = table.or_else(|| SymbolTable::read(&object));
        let frames = Table::open(Arc::clone(object.file())).ok();
        let short = seen.path.rsplit('/').next().filter(|short| !short.is_empty()).unwrap_or(seen.path);
        Some(FileNames { object, table, frames, short: short.to_owned() })
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        let headers = self.object.sections.capacity() + self.object.segments.capacity();
        size_of::<Self>() + headers * 128 + self.table.as_ref().map_or(0, SymbolTable::bytes)
    }

    /// What the code at a file offset is called; `None` where nothing is known of it.
    pub fn name(&self, offset: u64) -> Option<Symbol> {
        let address = self.object.address_of(offset)?;
        let named = self.table.as_ref().and_then(|table| table.find(address));
        if let Some(named) = &named
            && (named.is_certain || self.begins_at(offset).is_none_or(|start| start <= named.start))
        {
            return Some(Symbol { function: demangle(&named.name), offset: address - named.start, nameless: false });
        }
        if let Some((function, start)) = plt::name(&self.object, address) {
            return Some(Symbol { function, offset: address - start, nameless: false });
        }
        let start = self.begins_at(offset)?;
        let function = format!("{}:fn@{start:#x}", self.short);
        Some(Symbol { function, offset: address.checked_sub(start)?, nameless: true })
    }

    /// Address where the function begins that holds a file offset, by call frame information; also where the file is entered,
    /// for which C libraries have none.
    fn begins_at(&self, offset: u64) -> Option<u64> {
        let start = self.frames.as_ref().and_then(|frames| frames.function_start(offset));
        start.and_then(|start| self.object.address_of(start)).or_else(|| {
            let (entry, address) = (self.object.entry, self.object.address_of(offset)?);
            (entry..entry.saturating_add(ENTRY_BYTES)).contains(&address).then_some(entry)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::symbols::oracle::{self, Built};

    fn open(path: &std::path::Path) -> FileNames {
        let seen = Seen { path: path.to_str().unwrap(), process: None };
        FileNames::open(File::open(path).unwrap(), &seen).unwrap()
    }

    const SOURCE: &str = "
        __attribute__((noinline)) static int inner(int n) { return n * 3; }
        __attribute__((noinline)) int outer(int n) { return inner(n) + 1; }
        int main(int n, char **v) { return outer(n) + !v; }
    ";

    fn names(names: &FileNames, built: &Built, listed: &[(u64, u64, String)]) -> Vec<String> {
        let object = Object::open(Arc::new(File::open(&built.path).unwrap())).unwrap();
        let load = object.loads().find(|load| load.executable).unwrap().clone();
        let wanted = |name: &str| listed.iter().find(|(_, _, known)| known == name).unwrap();
        ["main", "outer", "inner"]
            .map(|name| {
                let (start, bytes, _) = wanted(name);
                let offset = start + bytes - 1 - load.address + load.offset;
                let symbol = names.name(offset).unwrap();
                assert_eq!(symbol.offset, bytes - 1, "{symbol:?}");
                assert_eq!(symbol.nameless, symbol.function.contains("fn@"));
                symbol.function
            })
            .to_vec()
    }

    #[test]
    fn stripped_functions_are_called_after_where_they_begin() {
        let Some(built) = Built::c("cc", SOURCE, &["-O1", "-g"]) else { return };
        let Some(listed) = oracle::nm(&built.path) else { return };
        assert_eq!(names(&open(&built.path), &built, &listed), ["main", "outer", "inner"]);
        let starts = ["main", "outer", "inner"].map(|name| format!("fixture:fn@{:#x}", built.address(name).unwrap()));
        if !built.tool("objcopy", &["--only-keep-debug", "fixture", "kept"])
            || !built.tool("strip", &["--strip-all", "fixture"])
        {
            return;
        }
        assert_eq!(names(&open(&built.path), &built, &listed), starts);
        // With its symbols beside it, it has its names again.
        std::fs::rename(built.dir().join("kept"), built.dir().join("fixture.debug")).unwrap();
        if built.tool("objcopy", &["--add-gnu-debuglink=fixture.debug", "fixture"]) {
            assert_eq!(names(&open(&built.path), &built, &listed), ["main", "outer", "inner"]);
        }
    }

    #[test]
    fn where_a_file_is_entered_a_function_begins() {
        let Some(built) = Built::assembly(".text; .globl _start; _start: nop; nop; .skip 100, 0x90; nop") else {
            return;
        };
        let start = built.address("_start").unwrap();
        if !built.tool("strip", &["--strip-all", "fixture"]) {
            return;
        }
        let names = open(&built.path);
        let load = names.object.loads().find(|load| load.executable).unwrap().clone();
        let named = |address: u64| names.name(address - load.address + load.offset);
        let symbol = Symbol { function: format!("fixture:fn@{start:#x}"), offset: 1, nameless: true };
        assert_eq!(named(start + 1), Some(symbol));
        assert_eq!(named(start + 80), None, "no function that short code enters is that long");
    }

    #[test]
    fn a_library_that_names_only_what_it_exports() {
        let path = std::path::Path::new("/lib/x86_64-linux-gnu/libz.so.1");
        if !path.exists() {
            eprintln!("skipped: no libz here");
            return;
        }
        let (names, listed) = (open(path), oracle::nm(path).unwrap());
        let mut nameless = 0;
        let code = names.object.section(".text").unwrap().clone();
        for offset in (code.offset..code.offset + code.bytes).step_by(61) {
            let Some(symbol) = names.name(offset) else { continue };
            let start = names.object.address_of(offset).unwrap() - symbol.offset;
            if symbol.nameless {
                assert_eq!(symbol.function, format!("libz.so.1:fn@{start:#x}"));
                assert!(!listed.iter().any(|(at, ..)| *at == start), "{symbol:?} has a name");
                nameless += 1;
            } else {
                assert!(listed.iter().any(|(at, _, name)| *at == start && *name == symbol.function), "{symbol:?}");
            }
        }
        println!("{nameless} addresses in functions without a name");
    }
}
