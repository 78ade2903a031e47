//! Where the outermost functions of threads lie in an ELF file; with its build id, what stacks need of it.
//!
//! A frame-pointer walk returns plausible wrong stacks, so a stack counts as complete only if its outermost frame lies
//! in code that nothing returns from: where a process or a thread starts. Found by symbol name where there are symbols,
//! by call frame information whose return address is "undefined" (how `_start`, `clone` and `clone3` are marked), and in
//! a stripped glibc by a trait of the two functions that call `main` and a thread's function, see [`cleanup_frames`].
//!
//! Read on a thread of its own: a file system that hangs delays nobody.

use gimli::{BaseAddresses, CallFrameInstruction, EhFrame, EhFrameHdr, LittleEndian, Register, UnwindSection};
use rustc_hash::FxHashMap;
use rustix::time::ClockId;
use std::cmp::Reverse;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::host::now_ns;
use super::object::{ENTRY_BYTES, Object, Section, u32_at, u64_at};

/// What is wanted of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfFacts {
    /// GNU build id.
    pub build_id: Option<Vec<u8>>,
    /// Outermost functions, by rising start, disjoint.
    pub roots: Vec<Root>,
}

/// A function that nothing calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// File offsets.
    pub range: Range<u64>,
    /// Its name, where that is certain.
    pub name: Option<&'static str>,
}

impl ElfFacts {
    /// The outermost function that holds that file offset.
    pub fn root(&self, offset: u64) -> Option<&Root> {
        let behind = self.roots.partition_point(|root| root.range.start <= offset);
        self.roots.get(behind.checked_sub(1)?).filter(|root| root.range.contains(&offset))
    }
}

/// How a mapped file takes part in a process, as far as outermost functions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The program itself.
    Program,
    /// A C library or its loader: functions are known by their names.
    Libc,
    /// Any other file: has none.
    Other,
}

impl Role {
    /// By the path of the file and whether it is the program of a process.
    pub fn of(path: &str, is_program: bool) -> Role {
        let base = path.rsplit('/').next().unwrap_or(path);
        let libc = ["libc.so", "libc-", "libc.musl", "libpthread", "ld-", "ld.so"];
        if libc.iter().any(|prefix| base.starts_with(prefix)) {
            Role::Libc
        } else if is_program {
            Role::Program
        } else {
            Role::Other
        }
    }
}

const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const PT_INTERP: u32 = 3;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

/// `Elf64_Sym`.
const SYM_BYTES: u64 = 24;
const CHUNK: u64 = 1 << 20;
/// Symbol and string tables beyond this are not searched; the largest known (browsers with symbols) have 100 MB.
const MAX_TABLE: u64 = 256 << 20;
const MAX_EH_FRAME: u64 = 4 << 20;
/// Of a C library; the largest has 2 MB.
const MAX_CODE: u64 = 8 << 20;
/// CPU time for the call frame information of one file; real ones take 10 ms.
const MAX_CPU_NS: u64 = 2_000_000_000;
/// Of the length of an entry of call frame information, at most.
const LENGTH_BYTES: usize = 12;

/// Outermost functions of every program.
const PROGRAM_NAMES: &[&str] = &[
    "_start",
    "_rt0_amd64_linux",
    "_rt0_arm64_linux",
    "runtime.goexit",
    "runtime.goexit.abi0",
    "runtime.mstart",
    "runtime.mstart.abi0",
    "runtime.rt0_go",
    "runtime.rt0_go.abi0",
];
/// Those of C libraries; in a program only if it is linked statically, else a function of its own may be called so.
const LIBC_NAMES: &[&str] = &[
    "_start",
    "_start_c",
    "_dl_start_user",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "generic_start_main",
    "generic_start_main.isra.0",
    "generic_start_main.constprop.0",
    "libc_start_main_stage2",
    "start_thread",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
];

/// Reads what is wanted; `None` if this is no 64-bit little-endian ELF file or it is torn.
pub fn read(file: File, role: Role) -> Option<ElfFacts> {
    let elf = Elf(Object::open(Arc::new(file))?);
    let build_id = elf.0.build_id();
    let mut roots = if role == Role::Other { Vec::new() } else { elf.roots(role) };
    // The longest first, of equal ones that with a name.
    roots.sort_unstable_by_key(|root| (root.range.start, Reverse(root.range.end), root.name.is_none()));
    roots.dedup_by(|next, last| {
        let overlaps = next.range.start < last.range.end;
        if overlaps {
            last.range.end = last.range.end.max(next.range.end);
        }
        overlaps
    });
    Some(ElfFacts { build_id, roots })
}

/// A file whose headers were read.
struct Elf(Object);

impl Elf {
    fn offsets_of(&self, addresses: &Range<u64>) -> Option<Range<u64>> {
        let start = self.0.offset_of(addresses.start)?;
        let length = addresses.end.checked_sub(addresses.start)?;
        Some(start..start.checked_add(length)?)
    }

    fn is_static(&self) -> bool {
        !self.0.segments.iter().any(|segment| segment.kind == PT_INTERP)
    }

    fn roots(&self, role: Role) -> Vec<Root> {
        let mut names = PROGRAM_NAMES.to_vec();
        if role == Role::Libc || self.is_static() {
            names.extend(LIBC_NAMES);
        }
        let mut roots: Vec<(Option<&'static str>, Range<u64>)> =
            self.symbols(&names).into_iter().map(|(name, range)| (Some(name), range)).collect();
        let unwind = self.unwind_tables();
        if role == Role::Program {
            let known = unwind.as_ref().and_then(|tables| tables.function(self.0.entry));
            roots.push((Some("_start"), known.unwrap_or(self.0.entry..self.0.entry.saturating_add(ENTRY_BYTES))));
        }
        if let Some(tables) = &unwind {
            roots.extend(tables.without_return().map(|range| (None, range)));
            if role == Role::Libc && self.0.machine == EM_X86_64 {
                roots.extend(cleanup_frames(self, tables));
            }
        }
        let root = |(name, range)| Some(Root { range: self.offsets_of(&range)?, name });
        roots.into_iter().filter_map(root).filter(|root| !root.range.is_empty()).collect()
    }

    fn return_register(&self) -> Register {
        Register(if self.0.machine == EM_AARCH64 { 30 } else { 16 })
    }

    /// Address ranges of the functions with these names, in either symbol table.
    ///
    /// Names first, then the symbols that point at them: tables of 100 MB pass through one chunk of memory.
    fn symbols(&self, names: &[&'static str]) -> Vec<(&'static str, Range<u64>)> {
        // There is one of each kind; who made more of them wants us to be busy.
        self.0.symbol_tables().take(2).flat_map(|table| self.symbols_of(table, names).unwrap_or_default()).collect()
    }

    fn symbols_of(&self, table: &Section, names: &[&'static str]) -> Option<Vec<(&'static str, Range<u64>)>> {
        let strings = self.0.sections.get(table.link as usize)?;
        if table.bytes > MAX_TABLE || strings.bytes > MAX_TABLE {
            return None;
        }
        let places = self.places_of(strings, names);
        if places.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        let step = CHUNK / SYM_BYTES * SYM_BYTES;
        for at in (0..table.bytes).step_by(step as usize) {
            let Some(chunk) = self.0.bytes_at(table.offset.checked_add(at)?, step.min(table.bytes - at)) else {
                break;
            };
            found.extend(chunk.chunks_exact(SYM_BYTES as usize).filter_map(|symbol| {
                let name = u32_at(symbol, 0)?;
                let place = places.binary_search_by_key(&name, |&(place, _)| place).ok()?;
                let is_function = matches!(symbol.get(4)? & 15, 0 | 2);
                let (address, bytes) = (u64_at(symbol, 8)?, u64_at(symbol, 16)?);
                let bytes = if bytes == 0 { ENTRY_BYTES } else { bytes };
                (is_function && address != 0).then_some((places[place].1, address..address.checked_add(bytes)?))
            }));
        }
        Some(found)
    }

    /// Where these names stand in a string table, by rising place. A name may be the tail of a longer one.
    fn places_of(&self, strings: &Section, names: &[&'static str]) -> Vec<(u32, &'static str)> {
        let needles: Vec<Vec<u8>> = names.iter().map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        let overlap = needles.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let mut places = Vec::new();
        for at in (0..strings.bytes).step_by(CHUNK as usize) {
            let length = (CHUNK + overlap).min(strings.bytes - at);
            let Some(offset) = strings.offset.checked_add(at) else { break };
            let Some(chunk) = self.0.bytes_at(offset, length) else { break };
            for (needle, &name) in needles.iter().zip(names) {
                places.extend(memchr::memmem::find_iter(&chunk, needle).map(|into| ((at as u32) + into as u32, name)));
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    fn unwind_tables(&self) -> Option<UnwindTables> {
        let header = self.0.segments.iter().find(|segment| segment.kind == PT_GNU_EH_FRAME)?;
        let index = self.0.bytes_at(header.offset, header.bytes.min(MAX_EH_FRAME))?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(header.address);
        let parsed = EhFrameHdr::new(&index, LittleEndian).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
        let load = self.0.loads().find(|at| address.checked_sub(at.address).is_some_and(|into| into < at.bytes))?;
        let length = load.bytes - (address - load.address);
        if length > MAX_EH_FRAME {
            return None;
        }
        let frames = self.0.bytes_at(self.0.offset_of(address)?, length)?;
        let functions = functions_in(&frames, &bases.set_eh_frame(address), self.return_register());
        Some(UnwindTables { functions })
    }
}

/// Functions with call frame information, by rising address.
struct UnwindTables {
    /// And whether it has no return address.
    functions: Vec<(Range<u64>, bool)>,
}

impl UnwindTables {
    fn function(&self, address: u64) -> Option<Range<u64>> {
        let behind = self.functions.partition_point(|(range, _)| range.start <= address);
        let (range, _) = self.functions.get(behind.checked_sub(1)?)?;
        range.contains(&address).then(|| range.clone())
    }

    fn without_return(&self) -> impl Iterator<Item = Range<u64>> {
        self.functions.iter().filter(|(_, lost)| *lost).map(|(range, _)| range.clone())
    }
}

type Cie<'a> = gimli::CommonInformationEntry<gimli::EndianSlice<'a, LittleEndian>>;

/// The ranges of all functions, and whether each declares that register, its return address, undefined: the entry point is marked
/// in its own instructions or in those that it shares with others.
fn functions_in(frames: &[u8], bases: &BaseAddresses, register: Register) -> Vec<(Range<u64>, bool)> {
    let section = EhFrame::new(frames, LittleEndian);
    let mut entries = section.entries(bases);
    let (mut functions, mut shared) = (Vec::new(), FxHashMap::<usize, (Cie<'_>, bool)>::default());
    // Read one by one, the instructions of all functions are most of the work; few hold these two bytes.
    let undefined = memchr::memmem::Finder::new(&[gimli::DW_CFA_undefined.0, register.0 as u8]).into_owned();
    let is_lost = |instructions| declares_undefined(instructions, register);
    // Many functions may share one endless prologue.
    let begun = now_ns(ClockId::ThreadCPUTime);
    for nth in 0u32.. {
        let Ok(Some(entry)) = entries.next() else { break };
        // Asking for the time takes longer than most entries.
        if nth.is_multiple_of(16) && now_ns(ClockId::ThreadCPUTime).saturating_sub(begun) > MAX_CPU_NS {
            break;
        }
        let partial = match entry {
            gimli::CieOrFde::Cie(cie) => {
                let lost = is_lost(cie.instructions(&section, bases));
                shared.insert(cie.offset(), (cie, lost));
                continue;
            }
            gimli::CieOrFde::Fde(partial) => partial,
        };
        let cie =
            |section: &EhFrame<_>, bases: &BaseAddresses, offset: gimli::EhFrameOffset| match shared.get(&offset.0) {
                Some((cie, _)) => Ok(cie.clone()),
                None => section.cie_from_offset(bases, offset),
            };
        let Ok(fde) = partial.parse(cie) else { continue };
        let start = fde.initial_address();
        let Some(end) = start.checked_add(fde.len()) else { continue };
        let bytes = frames.get(fde.offset()..).unwrap_or_default();
        let own = &bytes[..bytes.len().min(fde.entry_len().saturating_add(LENGTH_BYTES))];
        let lost = undefined.find(own).is_some() && is_lost(fde.instructions(&section, bases))
            || shared.get(&fde.cie().offset()).is_some_and(|(_, lost)| *lost);
        functions.push((start..end, lost));
    }
    functions.sort_unstable_by_key(|(range, _)| range.start);
    functions
}

fn declares_undefined(
    mut instructions: gimli::CallFrameInstructionIter<'_, gimli::EndianSlice<'_, LittleEndian>>,
    wanted: Register,
) -> bool {
    while let Ok(Some(instruction)) = instructions.next() {
        if let CallFrameInstruction::Undefined { register } = instruction
            && register == wanted
        {
            return true;
        }
    }
    false
}

/// Functions of a stripped glibc that call `main` or a thread's function: `__libc_start_call_main`, `start_thread`.
///
/// Both, and only they, set up the place to which a cancelled thread unwinds: they call `_setjmp` and then store into
/// `pthread.cleanup_jmp_buf`, which lies at %fs:0x300 in every x86-64 glibc. More hits than a C library can have mean
/// that this file is something else.
fn cleanup_frames(elf: &Elf, tables: &UnwindTables) -> Vec<(Option<&'static str>, Range<u64>)> {
    let known = elf.symbols(&["_setjmp", "__libc_start_main"]);
    let (setjmp, start_main): (Vec<_>, Vec<_>) = known.into_iter().partition(|(name, _)| *name == "_setjmp");
    let setjmp: Vec<u64> = setjmp.into_iter().map(|(_, range)| range.start).collect();
    let mut found: Vec<(Option<&'static str>, Range<u64>)> = Vec::new();
    for segment in elf.0.loads().filter(|segment| segment.executable && segment.bytes <= MAX_CODE) {
        let Some(code) = elf.0.bytes_at(segment.offset, segment.bytes) else { continue };
        for at in memchr::memmem::find_iter(&code, b"\x25\x00\x03\x00\x00") {
            if !is_store_to_fs(&code, at) {
                continue;
            }
            let Some(function) = tables.function(segment.address + at as u64) else { continue };
            if found.iter().any(|(_, known)| *known == function)
                || !calls_any(&code, segment.address, &function, &setjmp)
            {
                continue;
            }
            let starts_main =
                start_main.iter().any(|(_, caller)| calls_any(&code, segment.address, caller, &[function.start]));
            found.push((Some(if starts_main { "__libc_start_call_main" } else { "start_thread" }), function));
        }
    }
    match found.as_slice() {
        [(one, _), (other, _)] if one == other => found.into_iter().map(|(_, range)| (None, range)).collect(),
        [] | [_] | [_, _] => found,
        _ => Vec::new(),
    }
}

/// `mov %REG,%fs:…` with the SIB byte at `sib`: 64, REX.W, 89, ModRM(reg, 100).
fn is_store_to_fs(code: &[u8], sib: usize) -> bool {
    let Some(&[segment, rex, opcode, modrm]) = sib.checked_sub(4).and_then(|start| code.get(start..sib)) else {
        return false;
    };
    segment == 0x64 && rex & 0xf8 == 0x48 && opcode == 0x89 && modrm & 0xc7 == 0x04
}

/// Whether a function holds `call rel32` to one of these addresses.
fn calls_any(code: &[u8], base: u64, function: &Range<u64>, targets: &[u64]) -> bool {
    let (Some(start), Some(end)) = (function.start.checked_sub(base), function.end.checked_sub(base)) else {
        return false;
    };
    let Some(body) = code.get(start as usize..end as usize) else { return false };
    memchr::memchr_iter(0xe8, body).any(|at| {
        let Some(&[a, b, c, d]) = body.get(at + 1..at + 5) else { return false };
        let next = function.start + at as u64 + 5;
        targets.contains(&next.wrapping_add(i64::from(i32::from_le_bytes([a, b, c, d])) as u64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::Path;

    fn own() -> Vec<u8> {
        // The first 4 MB: headers that point behind the end included.
        let mut bytes = std::fs::read("/bin/sh").unwrap();
        bytes.truncate(4 << 20);
        bytes
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_program_begins_at_its_entry() {
        let bytes = own();
        let facts = read(file_of(&bytes), Role::Program).unwrap();
        assert!(facts.build_id.is_some_and(|id| id.len() == 20), "distributions give their programs a build id");
        let start = facts.roots.iter().find(|root| root.name == Some("_start")).unwrap();
        assert!(start.range.end - start.range.start <= 64, "{start:?}");
        assert!(read(file_of(&bytes), Role::Other).unwrap().roots.is_empty());
    }

    #[test]
    fn glibc_has_few_outermost_functions() {
        let Some(path) =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"].iter().find(|path| Path::new(path).exists())
        else {
            eprintln!("skipped: no x86-64 glibc here");
            return;
        };
        let facts = read(File::open(path).unwrap(), Role::of(path, false)).unwrap();
        let named = |name| facts.roots.iter().filter(|root| root.name == Some(name)).count();
        assert_eq!((named("__libc_start_call_main"), named("start_thread")), (1, 1), "{:?}", facts.roots);
        let bytes: u64 = facts.roots.iter().map(|root| root.range.end - root.range.start).sum();
        assert!(bytes < 8192 && facts.roots.len() < 16, "{:?}", facts.roots);
    }

    #[test]
    fn roles() {
        assert_eq!(Role::of("/usr/lib/libc.so.6", false), Role::Libc);
        assert_eq!(Role::of("/lib/ld-musl-x86_64.so.1", false), Role::Libc);
        assert_eq!(Role::of("/usr/lib/libcurl.so.4", false), Role::Other);
        assert_eq!(Role::of("/usr/lib/libcrypto.so.3", true), Role::Program);
        assert_eq!(Role::of("", false), Role::Other);
    }

    #[test]
    fn torn_and_mutated_files() {
        let bytes = own();
        for cut in [0, 3, 16, 63, 64, 200, 1000, 4096, bytes.len() / 2, bytes.len() - 1] {
            read(file_of(&bytes[..cut]), Role::Libc);
        }
        // A fixed sequence of numbers that look random (xorshift).
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..300 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + next() % 8 {
                // Mostly headers, where every byte matters.
                let at = if next() % 4 > 0 { next() % 1024 } else { next() % bytes.len() as u64 };
                bytes[at as usize] = next() as u8;
            }
            read(file_of(&bytes), Role::Libc);
        }
    }
}
