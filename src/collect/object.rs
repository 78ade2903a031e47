//! The headers of an ELF file: its segments and sections, its build id, and where its debug information went.
//!
//! Files are read with bounded `pread`s: one that shrinks is a short read, not a SIGBUS. What a file says of itself is
//! believed only as far as the file reaches.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// All symbols.
pub const SHT_SYMTAB: u32 = 2;
/// Symbols that the dynamic loader needs.
pub const SHT_DYNSYM: u32 = 11;
const SHT_NOBITS: u32 = 8;
const SHF_EXECINSTR: u64 = 4;
const SHF_COMPRESSED: u64 = 0x800;
const NT_GNU_BUILD_ID: u32 = 3;
const ELFCOMPRESS_ZLIB: u32 = 1;
const ELFCOMPRESS_ZSTD: u32 = 2;

/// Program headers, section headers.
const MAX_HEADERS: u16 = 4096;
/// Of the table of section names; real ones have a kilobyte.
const MAX_SECTION_NAMES: u64 = 64 << 10;
/// Names of sections that matter are shorter.
const MAX_SECTION_NAME: usize = 64;
/// Longest piece that is read at once.
const MAX_READ: u64 = 64 << 20;
/// Where the entry of a file has no call frame information: longer than any `_start`.
pub const ENTRY_BYTES: u64 = 64;

/// What a program header says.
#[derive(Clone, Debug)]
pub struct Segment {
    /// `PT_*`.
    pub kind: u32,
    /// Holds code.
    pub executable: bool,
    /// In the file.
    pub offset: u64,
    /// In memory, before it is moved.
    pub address: u64,
    /// In the file.
    pub bytes: u64,
}

/// What a section header says.
#[derive(Clone, Debug)]
pub struct Section {
    /// Empty where there are no names.
    pub name: String,
    /// `SHT_*`.
    pub kind: u32,
    flags: u64,
    /// In memory; 0 for what is not loaded.
    pub address: u64,
    /// In the file.
    pub offset: u64,
    /// In the file, except for what has none there.
    pub bytes: u64,
    /// Another section that it needs, by its number.
    pub link: u32,
}

impl Section {
    /// Holds instructions.
    pub fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }
}

/// A file with its headers read.
#[derive(Clone, Debug)]
pub struct Object {
    file: Arc<File>,
    bytes: u64,
    /// `EM_*`.
    pub machine: u16,
    /// Address at which a program begins.
    pub entry: u64,
    /// In their order.
    pub segments: Vec<Segment>,
    /// In their order; empty if the file has none.
    pub sections: Vec<Section>,
}

impl Object {
    /// Reads the headers; `None` if this is no 64-bit little-endian ELF file or they are torn.
    pub fn open(file: Arc<File>) -> Option<Self> {
        let bytes = file.metadata().ok()?.len();
        let head = bytes_at(&file, 0, 64)?;
        if head.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let (segment_bytes, segments) = (u16_at(&head, 54)?, u16_at(&head, 56)?.min(MAX_HEADERS));
        let (section_bytes, sections) = (u16_at(&head, 58)?, u16_at(&head, 60)?.min(MAX_HEADERS));
        if segments > 0 && segment_bytes != 56 {
            return None;
        }
        let programs = bytes_at(&file, u64_at(&head, 32)?, u64::from(segments) * 56)?;
        let segments = programs.chunks_exact(56).filter_map(segment).collect();
        // A program without section headers runs, so their absence is no error.
        let headers = match section_bytes {
            64 => bytes_at(&file, u64_at(&head, 40)?, u64::from(sections) * 64).unwrap_or_default(),
            _ => Vec::new(),
        };
        let names = headers
            .chunks_exact(64)
            .nth(u16_at(&head, 62)?.into())
            .and_then(|header| section(header, &[]))
            .and_then(|names| bytes_at(&file, names.offset, names.bytes.min(MAX_SECTION_NAMES)))
            .unwrap_or_default();
        let sections = headers.chunks_exact(64).filter_map(|header| section(header, &names)).collect();
        Some(Object { file, bytes, machine: u16_at(&head, 18)?, entry: u64_at(&head, 24)?, segments, sections })
    }

    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// What is mapped of it.
    pub fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD)
    }

    /// Address of a file offset, before the file is moved. Where several segments map it, that of the executable one.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let holds = |at: &&Segment| offset.checked_sub(at.offset).is_some_and(|into| into < at.bytes);
        let segment = self.loads().filter(|at| at.executable).find(holds).or_else(|| self.loads().find(holds))?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// File offset of an address, as the program headers have it.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let segment = self.loads().find(|at| address.checked_sub(at.address).is_some_and(|into| into < at.bytes))?;
        segment.offset.checked_add(address - segment.address)
    }

    /// Symbol tables: the one with all, and that for the dynamic loader.
    pub fn symbol_tables(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM))
    }

    /// A section that has contents, by name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name && section.kind != SHT_NOBITS && section.bytes > 0)
    }

    /// GNU build id.
    pub fn build_id(&self) -> Option<Vec<u8>> {
        let notes = self.segments.iter().filter(|segment| segment.kind == PT_NOTE).map(|at| (at.offset, at.bytes));
        // Separate debug files keep the section and may have segments that lead nowhere.
        let section = self.section(".note.gnu.build-id").map(|at| (at.offset, at.bytes));
        notes
            .chain(section)
            .find_map(|(offset, bytes)| build_id_in(&bytes_at(&self.file, offset, bytes.min(64 << 10))?))
    }

    /// Name and CRC-32 of the file that the debug information went to.
    pub fn debug_link(&self) -> Option<(String, u32)> {
        let section = self.section(".gnu_debuglink")?;
        let bytes = self.bytes_of(section, 4096)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let name = String::from_utf8(bytes.get(..end)?.to_vec()).ok()?;
        let crc = u32_at(&bytes, (end + 4) & !3)?;
        (!name.is_empty() && !name.contains('/') && name != "..").then_some((name, crc))
    }

    /// Exactly these bytes; `None` if it has fewer, or more are wanted than should be read at once.
    pub fn bytes_at(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        bytes_at(&self.file, offset, length)
    }

    fn bytes_of(&self, section: &Section, limit: u64) -> Option<Vec<u8>> {
        if section.bytes > limit { None } else { self.bytes_at(section.offset, section.bytes) }
    }

    /// Where the contents of a section stand in the file, or, if it is compressed, what they are.
    ///
    /// # Errors
    /// When it is broken or unpacked larger than `limit` bytes.
    pub fn contents(&self, section: &Section, limit: u64) -> Result<Contents, TooLarge> {
        let end = section.offset.checked_add(section.bytes).filter(|&end| end <= self.bytes);
        let Some(end) = end else { return Ok(Contents::InFile(0..0)) };
        if section.flags & SHF_COMPRESSED == 0 {
            return Ok(Contents::InFile(section.offset..end));
        }
        let header = self.bytes_at(section.offset, 24);
        let header = header.as_deref().and_then(|header| Some((u32_at(header, 0)?, u64_at(header, 8)?)));
        let Some((kind, unpacked)) = header else { return Ok(Contents::InFile(0..0)) };
        if unpacked > limit {
            return Err(TooLarge { bytes: unpacked });
        }
        let packed = Part { file: Arc::clone(&self.file), at: section.offset + 24, end };
        let mut bytes = Vec::with_capacity(unpacked as usize);
        let read = match kind {
            ELFCOMPRESS_ZLIB => flate2::read::ZlibDecoder::new(packed).take(unpacked).read_to_end(&mut bytes).is_ok(),
            ELFCOMPRESS_ZSTD => {
                zstd::Decoder::new(packed).is_ok_and(|decoder| decoder.take(unpacked).read_to_end(&mut bytes).is_ok())
            }
            _ => false,
        };
        // What was unpacked before it broke is as good as nothing: offsets lead anywhere.
        Ok(Contents::Unpacked(if read { bytes.into() } else { Arc::from([]) }))
    }
}

/// The contents of a section.
#[derive(Clone, Debug)]
pub enum Contents {
    /// At these offsets of the file.
    InFile(Range<u64>),
    /// They were compressed.
    Unpacked(Arc<[u8]>),
}

/// A section is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a section of {bytes} bytes is too large")]
pub struct TooLarge {
    /// What it would be.
    pub bytes: u64,
}

/// A range of a file, to be read from front to end.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length = into.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(into.get_mut(..length).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
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

fn section(bytes: &[u8], names: &[u8]) -> Option<Section> {
    let name = names.get(u32_at(bytes, 0)? as usize..).unwrap_or_default();
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = name.get(..name.len().min(MAX_SECTION_NAME)).unwrap_or_default();
    Some(Section {
        name: String::from_utf8_lossy(name).into_owned(),
        kind: u32_at(bytes, 4)?,
        flags: u64_at(bytes, 8)?,
        address: u64_at(bytes, 16)?,
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
    if length > MAX_READ || offset.checked_add(length)? > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// A little-endian number.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// A little-endian number.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A little-endian number.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn offsets_and_addresses() {
        let own = Object::open(Arc::new(File::open("/proc/self/exe").unwrap())).unwrap();
        let code = own.section(".text").unwrap();
        assert!(code.is_code());
        assert_eq!(own.address_of(code.offset + 5), Some(code.address + 5));
        assert_eq!(own.address_of(u64::MAX), None);
        assert!(own.symbol_tables().count() > 0);
    }

    #[test]
    fn a_section_that_would_be_too_large_is_refused_before_it_is_unpacked() {
        let own = Object::open(Arc::new(File::open("/proc/self/exe").unwrap())).unwrap();
        let mut lies = own.section(".text").unwrap().clone();
        lies.flags |= SHF_COMPRESSED;
        // The code read as a header of compression says anything; a limit of 0 leaves no room for it.
        assert!(own.contents(&lies, 0).is_err() || matches!(own.contents(&lies, 0), Ok(Contents::Unpacked(_))));
        lies.bytes = u64::MAX;
        assert!(matches!(own.contents(&lies, 9), Ok(Contents::InFile(range)) if range.is_empty()));
    }
}
