//! What of an ELF file matters for unwinding: where its code and its call frame information lie, in the file and in memory.

use std::ops::Range;

use super::arch::Arch;
use super::bytes::Pager;

/// Why there is no table for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTable {
    /// No ELF header, or one that is torn.
    #[error("not an ELF file, or a torn one")]
    NotElf,
    /// 32-bit, big-endian, or a machine that we have no rules for.
    #[error("an ELF file for another kind of machine")]
    OtherMachine,
    /// No segment is executable.
    #[error("no code in it")]
    NoCode,
    /// More code than the tables of all files together can cover.
    #[error("too much code in it")]
    TooLarge,
    /// No `.eh_frame`, or an unreadable one.
    #[error("no call frame information in it")]
    NoFrames,
}

/// A part of the file that is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// File offset of its first byte.
    pub offset: u64,
    /// Address of it.
    pub address: u64,
    /// How many are in the file.
    pub bytes: u64,
}

impl Segment {
    /// Its addresses.
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address + self.bytes
    }

    /// Its file offsets.
    pub fn offsets(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes
    }

    fn offset_of(&self, address: u64) -> Option<u64> {
        self.addresses().contains(&address).then(|| self.offset + (address - self.address))
    }
}

/// Call frame information: `.eh_frame`, and the sorted table of `.eh_frame_hdr` where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// File offsets of `.eh_frame`; it may end before.
    pub section: Range<u64>,
    /// Address of its first byte.
    pub address: u64,
    /// The sorted table.
    pub sorted: Option<Sorted>,
}

/// The table of `.eh_frame_hdr`: pairs of 32-bit numbers, a function's start and the place of its FDE, both relative to the
/// address of `.eh_frame_hdr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sorted {
    /// File offset of its first pair.
    pub offset: u64,
    /// How many there are.
    pub count: u32,
    /// What they are relative to.
    pub address: u64,
}

impl Sorted {
    /// Its file offsets.
    pub fn offsets(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(8 * u64::from(self.count))
    }
}

/// Where all of it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the code is for.
    pub arch: Arch,
    /// Address of the instruction that a program begins with; `None` for a library.
    pub entry: Option<u64>,
    /// Executable segments, by rising offset, disjoint there.
    pub code: Vec<Segment>,
    /// Call frame information.
    pub frames: Frames,
    /// Addresses of procedure linkage tables.
    pub linkage: Vec<Range<u64>>,
}

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;
const MOST_PROGRAM_HEADERS: u16 = 256;
const MOST_SECTION_HEADERS: u16 = 4096;

/// `DW_EH_PE_*`: signed 32-bit numbers, relative to where they stand, or to the start of `.eh_frame_hdr`.
const PC_RELATIVE: u8 = 0x1b;
const HDR_RELATIVE: u8 = 0x3b;
const UNSIGNED_32: u8 = 0x03;

impl Layout {
    /// Reads the headers.
    ///
    /// # Errors
    /// Why a table cannot be made.
    pub fn read(pager: &Pager<'_>) -> Result<Layout, NoTable> {
        let head: [u8; HEADER_BYTES] = bytes(pager, 0).ok_or(NoTable::NotElf)?;
        if !head.starts_with(b"\x7fELF") {
            return Err(NoTable::NotElf);
        }
        // 64 bits, little-endian.
        let arch = Arch::of(u16_at(&head, 18)).filter(|_| head[4] == 2 && head[5] == 1).ok_or(NoTable::OtherMachine)?;
        let kind = u16_at(&head, 16);
        if !matches!(kind, ET_EXEC | ET_DYN) || usize::from(u16_at(&head, 54)) != PROGRAM_HEADER_BYTES {
            return Err(NoTable::NotElf);
        }
        let headers = program_headers(pager, &head).ok_or(NoTable::NotElf)?;
        let loads: Vec<&Header> = headers.iter().filter(|header| header.kind == PT_LOAD).collect();
        let code = code(&loads);
        if code.is_empty() {
            return Err(NoTable::NoCode);
        }
        let sections = sections(pager, &head);
        let frames = headers
            .iter()
            .find(|header| header.kind == PT_GNU_EH_FRAME)
            .and_then(|header| by_header(pager, header, &loads))
            .or_else(|| by_section(&sections))
            .ok_or(NoTable::NoFrames)?;
        let is_program = kind == ET_EXEC || headers.iter().any(|header| header.kind == PT_INTERP);
        let entry = u64_at(&head, 24);
        let entry = (entry != 0 && (is_program || starts_a_program(pager, &code, entry))).then_some(entry);
        Ok(Layout { arch, entry, code, frames, linkage: linkage(&sections) })
    }
}

struct Header {
    kind: u32,
    flags: u32,
    segment: Segment,
}

fn program_headers(pager: &Pager<'_>, head: &[u8; HEADER_BYTES]) -> Option<Vec<Header>> {
    let (start, count) = (u64_at(head, 32), u16_at(head, 56).min(MOST_PROGRAM_HEADERS));
    let at = |index: u16| bytes(pager, start.checked_add(u64::from(index) * PROGRAM_HEADER_BYTES as u64)?);
    (0..count).map(|index| at(index).map(|raw| header(pager, &raw))).collect()
}

fn header(pager: &Pager<'_>, raw: &[u8; PROGRAM_HEADER_BYTES]) -> Header {
    let (offset, address) = (u64_at(raw, 8), u64_at(raw, 16));
    // Neither end of it may wrap, and what the file does not have is not there.
    let room = pager.bytes().saturating_sub(offset).min(u64::MAX - address);
    let segment = Segment { offset, address, bytes: u64_at(raw, 32).min(room) };
    Header { kind: u32_at(raw, 0), flags: u32_at(raw, 4), segment }
}

/// Executable segments; an offset that several of them map counts for the first one only.
fn code(loads: &[&Header]) -> Vec<Segment> {
    let mut code: Vec<Segment> = loads
        .iter()
        .filter(|load| load.flags & PF_X != 0 && load.segment.bytes > 0)
        .map(|load| load.segment.clone())
        .collect();
    code.sort_by_key(|segment| segment.offset);
    let mut end = 0;
    code.retain_mut(|segment| {
        let cut = u64::max(end, segment.offset) - segment.offset;
        if cut >= segment.bytes {
            return false;
        }
        *segment = Segment { offset: segment.offset + cut, address: segment.address + cut, bytes: segment.bytes - cut };
        end = segment.offsets().end;
        true
    });
    code
}

/// By `.eh_frame_hdr`, as the unwinder of the language does it.
fn by_header(pager: &Pager<'_>, header: &Header, loads: &[&Header]) -> Option<Frames> {
    let Segment { offset, address, bytes: length } = header.segment;
    let [version, pointer, count, table] = bytes(pager, offset)?;
    let relative_to = match pointer {
        PC_RELATIVE => address.wrapping_add(4),
        HDR_RELATIVE => address,
        _ => return None,
    };
    if version != 1 {
        return None;
    }
    let frames = relative_to.wrapping_add_signed(i64::from(pager.u32_at(offset.checked_add(4)?)? as i32));
    // Its length is not told; it ends with a zero, or with the segment.
    let load = loads.iter().find(|load| load.segment.addresses().contains(&frames))?;
    let section = load.segment.offset_of(frames)?..load.segment.offsets().end;
    let sorted = (count == UNSIGNED_32 && table == HDR_RELATIVE).then(|| {
        let room = u32::try_from(length.saturating_sub(12) / 8).unwrap_or(u32::MAX);
        let count = pager.u32_at(offset.checked_add(8)?)?;
        Some(Sorted { offset: offset.checked_add(12)?, count: count.min(room), address })
    });
    let sorted = sorted.flatten().filter(|sorted| sorted.count > 0);
    Some(Frames { section, address: frames, sorted })
}

/// A section that is in memory at run time.
struct Section {
    /// The start of its name, and what follows it.
    name: [u8; 10],
    address: u64,
    offset: u64,
    bytes: u64,
}

impl Section {
    fn is(&self, names: &[&[u8]]) -> bool {
        names.iter().any(|name| self.name.starts_with(name))
    }
}

/// All sections; none if there are no headers of them, which no program needs to run.
fn sections(pager: &Pager<'_>, head: &[u8; HEADER_BYTES]) -> Vec<Section> {
    let (start, count) = (u64_at(head, 40), u16_at(head, 60).min(MOST_SECTION_HEADERS));
    if start == 0 || usize::from(u16_at(head, 58)) != SECTION_HEADER_BYTES {
        return Vec::new();
    }
    let at = |index: u16| -> Option<[u8; SECTION_HEADER_BYTES]> {
        bytes(pager, start.checked_add(u64::from(index) * SECTION_HEADER_BYTES as u64)?)
    };
    let Some(names) = at(u16_at(head, 62)).map(|names| u64_at(&names, 24)) else { return Vec::new() };
    let section = |index| {
        let header = at(index)?;
        let (address, offset, length) = (u64_at(&header, 16), u64_at(&header, 24), u64_at(&header, 32));
        let there = address != 0 && length > 0 && offset < pager.bytes();
        let length = length.min(pager.bytes().saturating_sub(offset)).min(u64::MAX - address);
        let name = bytes(pager, names.checked_add(u64::from(u32_at(&header, 0)))?)?;
        there.then_some(Section { name, address, offset, bytes: length })
    };
    (0..count).filter_map(section).collect()
}

/// By its name: old static programs have no `.eh_frame_hdr`.
fn by_section(sections: &[Section]) -> Option<Frames> {
    let found = sections.iter().find(|section| section.is(&[b".eh_frame\0"]))?;
    Some(Frames { section: found.offset..found.offset + found.bytes, address: found.address, sorted: None })
}

fn linkage(sections: &[Section]) -> Vec<Range<u64>> {
    let tables = sections.iter().filter(|section| section.is(&[b".plt\0", b".plt.", b".iplt\0"]));
    // Programs have up to three.
    tables.take(8).map(|section| section.address..section.address + section.bytes).collect()
}

/// Whether a file that does not say so is a program all the same: a dynamic loader, a static program that can be anywhere. The
/// first instructions tell; libraries have all kinds of numbers where programs have their entry.
fn starts_a_program(pager: &Pager<'_>, code: &[Segment], entry: u64) -> bool {
    let Some(start) = code.iter().find_map(|segment| segment.offset_of(entry)) else { return false };
    let Some(first) = bytes::<8>(pager, start) else { return false };
    let first = first.strip_prefix(b"\xf3\x0f\x1e\xfa").unwrap_or(&first); // endbr64
    // xor %ebp,%ebp; xor %rbp,%rbp; mov %rsp,%rdi and a call.
    [b"\x31\xed".as_slice(), b"\x48\x31\xed", b"\x48\x89\xe7\xe8"].iter().any(|start| first.starts_with(start))
}

fn bytes<const N: usize>(pager: &Pager<'_>, offset: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    pager.read(offset, &mut bytes).then_some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
