//! What of an ELF file the oracle needs, found by section headers. The code under test goes by program headers.

use std::ops::Range;

/// An x86-64 program or library with call frame information.
pub struct Elf<'bytes> {
    /// Content and address.
    pub eh_frame: (&'bytes [u8], u64),
    pub eh_frame_hdr: Option<(&'bytes [u8], u64)>,
    /// The linkage tables, which LLVM's linker does not describe: with a stub that all others jump to, and without.
    pub plt: Option<(&'bytes [u8], u64)>,
    pub iplt: Option<(&'bytes [u8], u64)>,
    /// Executable segments: (addresses, offset of the first).
    pub code: Vec<(Range<u64>, u64)>,
    pub entry: u64,
}

const SHT_NOBITS: u64 = 8;
const PT_LOAD: u64 = 1;

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..length].copy_from_slice(bytes.get(at..at + length)?);
    Some(u64::from_le_bytes(number))
}

impl<'bytes> Elf<'bytes> {
    /// `None` for any other file.
    pub fn parse(bytes: &'bytes [u8]) -> Option<Self> {
        if !is_elf(bytes) {
            return None;
        }
        let (sections, names) = (number(bytes, 40, 8)? as usize, number(bytes, 62, 2)? as usize);
        let section = |index: usize| bytes.get(sections + 64 * index..sections + 64 * (index + 1));
        let names = number(section(names)?, 24, 8)? as usize;
        let count = number(bytes, 60, 2)? as usize;
        let named = |wanted: &[u8]| -> Option<(&'bytes [u8], u64)> {
            let header = (0..count).filter_map(section).find(|header| {
                let name = number(header, 0, 4).map(|name| names + name as usize);
                name.and_then(|at| bytes.get(at..at + wanted.len())) == Some(wanted)
                    && number(header, 4, 4) != Some(SHT_NOBITS)
            })?;
            let (address, offset, length) = (number(header, 16, 8)?, number(header, 24, 8)?, number(header, 32, 8)?);
            Some((bytes.get(offset as usize..(offset + length) as usize)?, address))
        };
        Some(Elf {
            eh_frame: named(b".eh_frame\0").filter(|(bytes, _)| !bytes.is_empty())?,
            eh_frame_hdr: named(b".eh_frame_hdr\0"),
            plt: named(b".plt\0"),
            iplt: named(b".iplt\0"),
            code: code(bytes)?,
            entry: number(bytes, 24, 8)?,
        })
    }

    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let (addresses, offset) = self.code.iter().find(|(addresses, _)| addresses.contains(&address))?;
        Some(offset + (address - addresses.start))
    }
}

/// Of the right kind, by the first 20 bytes.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01")
        && matches!(number(bytes, 16, 2), Some(2 | 3))
        && number(bytes, 18, 2) == Some(62)
}

fn code(bytes: &[u8]) -> Option<Vec<(Range<u64>, u64)>> {
    let (start, count) = (number(bytes, 32, 8)? as usize, number(bytes, 56, 2)? as usize);
    let mut code = Vec::new();
    for header in bytes.get(start..start + 56 * count)?.chunks_exact(56) {
        let (kind, flags) = (number(header, 0, 4)?, number(header, 4, 4)?);
        if kind == PT_LOAD && flags & 1 != 0 {
            let (offset, address, length) = (number(header, 8, 8)?, number(header, 16, 8)?, number(header, 32, 8)?);
            code.push((address..address + length, offset));
        }
    }
    (!code.is_empty()).then_some(code)
}
