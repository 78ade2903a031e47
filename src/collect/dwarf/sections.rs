//! The sections that debug information consists of, as gimli reads them: through a few kept blocks of the file, within a
//! budget of bytes, which bounds what hostile ones cost.

use gimli::{Dwarf, SectionId};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::collect::object::{Contents, Object, TooLarge};
use crate::collect::unwind::{Pager, ReadAt, View};

/// Those that say where functions and lines are.
const WANTED: [SectionId; 9] = [
    SectionId::DebugInfo,
    SectionId::DebugAbbrev,
    SectionId::DebugStr,
    SectionId::DebugLineStr,
    SectionId::DebugLine,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugAddr,
    SectionId::DebugStrOffsets,
];

/// The sections of one file.
pub struct Sections {
    sources: Vec<Source>,
    /// Bytes of those that were compressed.
    unpacked: usize,
}

enum Source {
    InFile(Arc<File>, Range<u64>),
    Unpacked(Arc<[u8]>),
}

impl ReadAt for Source {
    fn bytes(&self) -> u64 {
        match self {
            Source::InFile(_, range) => range.end - range.start,
            Source::Unpacked(bytes) => bytes.len() as u64,
        }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        match self {
            Source::InFile(file, range) => {
                let fits = offset.checked_add(into.len() as u64).is_some_and(|end| end <= range.end - range.start);
                fits && file.read_exact_at(into, range.start + offset).is_ok()
            }
            Source::Unpacked(bytes) => bytes.read_at(offset, into),
        }
    }
}

impl Sections {
    /// Of a file; those that it lacks are empty.
    ///
    /// # Errors
    /// When those that are compressed would take more than `limit` bytes in all.
    pub fn read(object: &Object, limit: usize) -> Result<Self, TooLarge> {
        let mut sections = Sections { sources: Vec::new(), unpacked: 0 };
        for id in WANTED {
            let contents = match object.section(id.name()) {
                Some(section) => object.contents(section, (limit - sections.unpacked) as u64)?,
                None => Contents::InFile(0..0),
            };
            sections.sources.push(match contents {
                Contents::InFile(range) => Source::InFile(Arc::clone(object.file()), range),
                Contents::Unpacked(bytes) => {
                    sections.unpacked += bytes.len();
                    Source::Unpacked(bytes)
                }
            });
        }
        Ok(sections)
    }

    /// Memory they take.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.unpacked + self.sources.capacity() * size_of::<Source>()
    }

    /// Bytes of `.debug_info`.
    pub fn info_bytes(&self) -> u64 {
        self.sources.first().map_or(0, ReadAt::bytes)
    }

    /// Readers of them all, each of which reads so many bytes at most.
    pub fn readers(&self, budget: u64) -> Vec<Pager<'_>> {
        self.sources.iter().map(|source| Pager::new(source, budget)).collect()
    }
}

/// What gimli needs; `readers` as [`Sections::readers`] gave them.
pub fn dwarf<'readers>(readers: &'readers [Pager<'readers>]) -> Option<Dwarf<View<'readers>>> {
    let nothing = readers.first()?.view(0, 0);
    let view = |id: SectionId| -> Result<View<'readers>, std::convert::Infallible> {
        let reader = WANTED.iter().position(|known| *known == id).and_then(|at| readers.get(at));
        Ok(reader.map_or_else(|| nothing.clone(), |reader| reader.view(0, reader.bytes())))
    };
    Dwarf::load(view).ok()
}

/// A text of at most `limit` bytes; what is longer is cut.
pub fn text(mut view: View<'_>, limit: usize) -> String {
    use gimli::Reader;
    let mut bytes = vec![0; limit.min(usize::try_from(view.len()).unwrap_or(usize::MAX))];
    if view.read_slice(&mut bytes).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
