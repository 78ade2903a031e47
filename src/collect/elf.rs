//! What an ELF file says of itself: its build id, and where the outermost functions of threads lie.
//!
//! A frame-pointer walk returns plausible wrong stacks, so a stack counts as complete only if its outermost frame lies
//! in code that nothing returns from: where a process or a thread starts. Found by symbol name where there are symbols,
//! by call frame information whose return address is "undefined" (how `_start`, `clone` and `clone3` are marked), and in
//! a stripped glibc by a trait of the two functions that call `main` and a thread's function, see [`cleanup_frames`].
//!
//! Files are read with bounded `pread`s on a thread of their own: a file system that hangs delays nobody, and a file
//! that shrinks is a short read, not a SIGBUS.

use gimli::{BaseAddresses, CallFrameInstruction, EhFrame, EhFrameHdr, LittleEndian, Register, UnwindSection};
use rustix::time::ClockId;
use std::cmp::Reverse;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::host::now_ns;

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
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const NT_GNU_BUILD_ID: u32 = 3;

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
/// Program headers, section headers.
const MAX_HEADERS: u16 = 4096;
/// Where an entry point has no call frame information: longer than any `_start`.
const ENTRY_BYTES: u64 = 64;

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
pub fn read(file: &File, role: Role) -> Option<ElfFacts> {
    let elf = Elf::open(file)?;
    let build_id = elf.build_id();
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

struct Segment {
    kind: u32,
    executable: bool,
    offset: u64,
    address: u64,
    bytes: u64,
}

struct Table {
    kind: u32,
    offset: u64,
    bytes: u64,
    link: u32,
}

struct Elf<'file> {
    file: &'file File,
    machine: u16,
    entry: u64,
    segments: Vec<Segment>,
    tables: Vec<Table>,
}

impl<'file> Elf<'file> {
    fn open(file: &'file File) -> Option<Self> {
        let head = bytes_at(file, 0, 64)?;
        if head.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let machine = u16_at(&head, 18)?;
        let (segment_bytes, segments) = (u16_at(&head, 54)?, u16_at(&head, 56)?.min(MAX_HEADERS));
        let (table_bytes, tables) = (u16_at(&head, 58)?, u16_at(&head, 60)?.min(MAX_HEADERS));
        if segment_bytes != 56 {
            return None;
        }
        let programs = bytes_at(file, u64_at(&head, 32)?, u64::from(segments) * 56)?;
        let segments = programs.chunks_exact(56).filter_map(segment).collect();
        // A program without section headers runs, so their absence is no error.
        let tables = match table_bytes {
            64 => bytes_at(file, u64_at(&head, 40)?, u64::from(tables) * 64).unwrap_or_default(),
            _ => Vec::new(),
        };
        let tables = tables.chunks_exact(64).filter_map(table).collect();
        Some(Elf { file, machine, entry: u64_at(&head, 24)?, segments, tables })
    }

    /// File offset of an address, as the program headers have it.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let segment = self.loads().find(|at| address.checked_sub(at.address).is_some_and(|into| into < at.bytes))?;
        segment.offset.checked_add(address - segment.address)
    }

    fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD)
    }

    fn offsets_of(&self, addresses: &Range<u64>) -> Option<Range<u64>> {
        let start = self.offset_of(addresses.start)?;
        let length = addresses.end.checked_sub(addresses.start)?;
        Some(start..start.checked_add(length)?)
    }

    fn build_id(&self) -> Option<Vec<u8>> {
        self.segments
            .iter()
            .filter(|segment| segment.kind == PT_NOTE)
            .find_map(|segment| build_id_in(&bytes_at(self.file, segment.offset, segment.bytes.min(64 << 10))?))
    }

    fn is_static(&self) -> bool {
        !self.segments.iter().any(|segment| segment.kind == PT_INTERP)
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
            let known = unwind.as_ref().and_then(|tables| tables.function(self.entry));
            roots.push((Some("_start"), known.unwrap_or(self.entry..self.entry.saturating_add(ENTRY_BYTES))));
        }
        if let Some(tables) = &unwind {
            roots.extend(tables.without_return(self.return_register()).map(|range| (None, range)));
            if role == Role::Libc && self.machine == EM_X86_64 {
                roots.extend(cleanup_frames(self, tables));
            }
        }
        let root = |(name, range)| Some(Root { range: self.offsets_of(&range)?, name });
        roots.into_iter().filter_map(root).filter(|root| !root.range.is_empty()).collect()
    }

    fn return_register(&self) -> Register {
        Register(if self.machine == EM_AARCH64 { 30 } else { 16 })
    }

    /// Address ranges of the functions with these names, in either symbol table.
    ///
    /// Names first, then the symbols that point at them: tables of 100 MB pass through one chunk of memory.
    fn symbols(&self, names: &[&'static str]) -> Vec<(&'static str, Range<u64>)> {
        // There is one of each kind; who made more of them wants us to be busy.
        self.symbol_tables().take(2).flat_map(|table| self.symbols_of(table, names).unwrap_or_default()).collect()
    }

    fn symbol_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| matches!(table.kind, SHT_SYMTAB | SHT_DYNSYM))
    }

    fn symbols_of(&self, table: &Table, names: &[&'static str]) -> Option<Vec<(&'static str, Range<u64>)>> {
        let strings = self.tables.get(table.link as usize)?;
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
            let Some(chunk) = bytes_at(self.file, table.offset.checked_add(at)?, step.min(table.bytes - at)) else {
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
    fn places_of(&self, strings: &Table, names: &[&'static str]) -> Vec<(u32, &'static str)> {
        let needles: Vec<Vec<u8>> = names.iter().map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        let overlap = needles.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let mut places = Vec::new();
        for at in (0..strings.bytes).step_by(CHUNK as usize) {
            let length = (CHUNK + overlap).min(strings.bytes - at);
            let Some(offset) = strings.offset.checked_add(at) else { break };
            let Some(chunk) = bytes_at(self.file, offset, length) else { break };
            for (needle, &name) in needles.iter().zip(names) {
                places.extend(memchr::memmem::find_iter(&chunk, needle).map(|into| ((at as u32) + into as u32, name)));
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    fn unwind_tables(&self) -> Option<UnwindTables> {
        let header = self.segments.iter().find(|segment| segment.kind == PT_GNU_EH_FRAME)?;
        let index = bytes_at(self.file, header.offset, header.bytes.min(MAX_EH_FRAME))?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(header.address);
        let parsed = EhFrameHdr::new(&index, LittleEndian).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
        let load = self.loads().find(|at| address.checked_sub(at.address).is_some_and(|into| into < at.bytes))?;
        let length = load.bytes - (address - load.address);
        if length > MAX_EH_FRAME {
            return None;
        }
        let frames = bytes_at(self.file, self.offset_of(address)?, length)?;
        let functions = functions_in(&frames, &bases.set_eh_frame(address));
        Some(UnwindTables { functions })
    }
}

/// Functions with call frame information, by rising address.
struct UnwindTables {
    functions: Vec<(Range<u64>, Option<Register>)>,
}

impl UnwindTables {
    fn function(&self, address: u64) -> Option<Range<u64>> {
        let behind = self.functions.partition_point(|(range, _)| range.start <= address);
        let (range, _) = self.functions.get(behind.checked_sub(1)?)?;
        range.contains(&address).then(|| range.clone())
    }

    fn without_return(&self, register: Register) -> impl Iterator<Item = Range<u64>> {
        self.functions.iter().filter(move |(_, lost)| *lost == Some(register)).map(|(range, _)| range.clone())
    }
}

/// The ranges of all functions, and the register that each declares undefined, if it does.
fn functions_in(frames: &[u8], bases: &BaseAddresses) -> Vec<(Range<u64>, Option<Register>)> {
    let section = EhFrame::new(frames, LittleEndian);
    let mut entries = section.entries(bases);
    let mut functions = Vec::new();
    // Many functions may share one endless prologue.
    let begun = now_ns(ClockId::ThreadCPUTime);
    while let Ok(Some(entry)) = entries.next() {
        if now_ns(ClockId::ThreadCPUTime).saturating_sub(begun) > MAX_CPU_NS {
            break;
        }
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let start = fde.initial_address();
        let Some(end) = start.checked_add(fde.len()) else { continue };
        // Programs mark the entry point in the CIE's or in the FDE's own instructions.
        let lost = undefined_in(fde.instructions(&section, bases))
            .or_else(|| undefined_in(fde.cie().instructions(&section, bases)));
        functions.push((start..end, lost));
    }
    functions.sort_unstable_by_key(|(range, _)| range.start);
    functions
}

fn undefined_in(
    mut instructions: gimli::CallFrameInstructionIter<'_, gimli::EndianSlice<'_, LittleEndian>>,
) -> Option<Register> {
    while let Ok(Some(instruction)) = instructions.next() {
        if let CallFrameInstruction::Undefined { register } = instruction {
            return Some(register);
        }
    }
    None
}

/// Functions of a stripped glibc that call `main` or a thread's function: `__libc_start_call_main`, `start_thread`.
///
/// Both, and only they, set up the place to which a cancelled thread unwinds: they call `_setjmp` and then store into
/// `pthread.cleanup_jmp_buf`, which lies at %fs:0x300 in every x86-64 glibc. More hits than a C library can have mean
/// that this file is something else.
fn cleanup_frames(elf: &Elf<'_>, tables: &UnwindTables) -> Vec<(Option<&'static str>, Range<u64>)> {
    let known = elf.symbols(&["_setjmp", "__libc_start_main"]);
    let (setjmp, start_main): (Vec<_>, Vec<_>) = known.into_iter().partition(|(name, _)| *name == "_setjmp");
    let setjmp: Vec<u64> = setjmp.into_iter().map(|(_, range)| range.start).collect();
    let mut found: Vec<(Option<&'static str>, Range<u64>)> = Vec::new();
    for segment in elf.loads().filter(|segment| segment.executable && segment.bytes <= MAX_CODE) {
        let Some(code) = bytes_at(elf.file, segment.offset, segment.bytes) else { continue };
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

fn segment(bytes: &[u8]) -> Option<Segment> {
    Some(Segment {
        kind: u32_at(bytes, 0)?,
        executable: u32_at(bytes, 4)? & 1 != 0,
        offset: u64_at(bytes, 8)?,
        address: u64_at(bytes, 16)?,
        bytes: u64_at(bytes, 32)?,
    })
}

fn table(bytes: &[u8]) -> Option<Table> {
    Some(Table {
        kind: u32_at(bytes, 4)?,
        offset: u64_at(bytes, 24)?,
        bytes: u64_at(bytes, 32)?,
        link: u32_at(bytes, 40)?,
    })
}

fn build_id_in(mut notes: &[u8]) -> Option<Vec<u8>> {
    while notes.len() >= 12 {
        let (name, data, kind) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize, u32_at(notes, 8)?);
        let data_at = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let next = data_at.checked_add(data.checked_next_multiple_of(4)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + 4) == Some(b"GNU\0") && name == 4 {
            return notes.get(data_at..data_at.checked_add(data)?).filter(|id| id.len() <= 64).map(<[u8]>::to_vec);
        }
        notes = notes.get(next..)?;
    }
    None
}

/// Exactly these bytes of a file; `None` if it has fewer.
fn bytes_at(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    // A header that lies about its length must not make us allocate it.
    if length > (64 << 20) || offset.checked_add(length)? > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
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
        let facts = read(&file_of(&bytes), Role::Program).unwrap();
        assert!(facts.build_id.is_some_and(|id| id.len() == 20), "distributions give their programs a build id");
        let start = facts.roots.iter().find(|root| root.name == Some("_start")).unwrap();
        assert!(start.range.end - start.range.start <= 64, "{start:?}");
        assert!(read(&file_of(&bytes), Role::Other).unwrap().roots.is_empty());
    }

    #[test]
    fn glibc_has_few_outermost_functions() {
        let Some(path) =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"].iter().find(|path| Path::new(path).exists())
        else {
            eprintln!("skipped: no x86-64 glibc here");
            return;
        };
        let facts = read(&File::open(path).unwrap(), Role::of(path, false)).unwrap();
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
            read(&file_of(&bytes[..cut]), Role::Libc);
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
            read(&file_of(&bytes), Role::Libc);
        }
    }

    #[test]
    fn build_ids_of_any_notes() {
        let note = b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xab\xcd\0\0";
        assert_eq!(build_id_in(note), Some(vec![0xab, 0xcd]));
        let other = b"\x05\0\0\0\x01\0\0\0\x03\0\0\0abcd\0\0\0\0\x01\0\0\0";
        assert_eq!(build_id_in(&[other.as_slice(), note].concat()), Some(vec![0xab, 0xcd]));
        assert_eq!(build_id_in(b"\xff\xff\xff\xff\xff\xff\xff\xff\x03\0\0\0GNU\0"), None);
        assert_eq!(build_id_in(b""), None);
        for cut in 0..note.len() {
            build_id_in(&note[..cut]);
        }
    }
}
