//! Functions by address: where each starts and where its description (FDE) lies. The linker's sorted table is read where it
//! stands, a few bytes per question; a file without one is scanned once.

use gimli::{BaseAddresses, CieOrFde, EhFrame, UnwindSection};

use super::bytes::{Pager, View};
use super::image::{Frames, Sorted};

/// Functions of a file that has no sorted table; the largest with one that we know has 160 804.
const MOST_SCANNED: usize = 1 << 20;

/// Functions by rising address.
#[derive(Debug)]
pub enum Index {
    /// The linker's table, and the address of `.eh_frame`.
    Sorted(Sorted, u64),
    /// (start, place of the FDE in `.eh_frame`), made by reading all of it.
    Scanned(Vec<(u64, u32)>),
}

/// Where a function starts, and the place of its FDE in `.eh_frame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address.
    pub start: u64,
    /// Bytes from the start of the section.
    pub fde: u64,
}

impl Index {
    /// Takes the linker's table, or reads all of `.eh_frame`.
    pub fn new(pager: &Pager<'_>, frames: &Frames) -> Index {
        match &frames.sorted {
            Some(sorted) => Index::Sorted(sorted.clone(), frames.address),
            None => Index::Scanned(scan(pager, frames)),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        match self {
            Index::Sorted(sorted, _) => sorted.count,
            Index::Scanned(entries) => entries.len() as u32,
        }
    }

    /// The one with this number; `None` if there are fewer, or the file cannot be read there.
    pub fn get(&self, pager: &Pager<'_>, number: u32) -> Option<Entry> {
        match self {
            Index::Sorted(sorted, frames) => {
                if number >= sorted.count {
                    return None;
                }
                let mut pair = [0; 8];
                let offset = sorted.offset.checked_add(u64::from(number) * 8)?;
                if !pager.read(offset, &mut pair) {
                    return None;
                }
                let [a, b, c, d, e, f, g, h] = pair;
                let start = i32::from_le_bytes([a, b, c, d]);
                let fde = i32::from_le_bytes([e, f, g, h]);
                Some(Entry {
                    start: sorted.address.wrapping_add_signed(i64::from(start)),
                    fde: sorted.address.wrapping_add_signed(i64::from(fde)).wrapping_sub(*frames),
                })
            }
            Index::Scanned(entries) => {
                entries.get(number as usize).map(|&(start, fde)| Entry { start, fde: fde.into() })
            }
        }
    }

    /// How many start at or before an address. A table that is not sorted yields some number.
    pub fn up_to(&self, pager: &Pager<'_>, address: u64) -> Option<u32> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(pager, middle)?.start <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

/// `.eh_frame` as gimli reads it, and the addresses that its pointers are relative to.
pub fn section<'pager>(pager: &'pager Pager<'pager>, frames: &Frames) -> (EhFrame<View<'pager>>, BaseAddresses) {
    let view = pager.view(frames.section.start, frames.section.end);
    (EhFrame::from(view), BaseAddresses::default().set_eh_frame(frames.address))
}

fn scan(pager: &Pager<'_>, frames: &Frames) -> Vec<(u64, u32)> {
    let (section, bases) = section(pager, frames);
    let mut entries = section.entries(&bases);
    let mut found = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let Ok(place) = u32::try_from(fde.offset()) else { break };
        if fde.len() > 0 && found.len() < MOST_SCANNED {
            found.push((fde.initial_address(), place));
        }
    }
    found.sort_unstable();
    found
}
