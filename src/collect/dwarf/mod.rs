//! Debug information of one file: for an address its line, and the functions that were inlined there.
//!
//! Which unit covers which addresses is read once; a unit is read when an address in it is asked for, and can be let go
//! again. What a hostile file costs is bounded: its bytes are read within a budget, what is kept of them is counted.

mod sections;
#[cfg(test)]
mod tests;
mod unit;

use rustc_hash::FxHashMap;
use std::sync::Arc;

use self::sections::{Sections, dwarf, text};
use self::unit::{Found, Unit, reference};
use super::demangle::demangle;
use super::object::Object;
use super::unwind::View;
use crate::tick::{Detail, Inlined};

/// Bytes of each section that are read to find the units: a gigabyte of debug information has less in all that matters.
const INDEX_BUDGET: u64 = 256 << 20;
/// Bytes of each section that are read for one batch of addresses.
const BATCH_BUDGET: u64 = 128 << 20;
/// Ranges of units beyond this are left out: 24 MB.
const MAX_RANGES: usize = 1 << 20;
/// Steps from an inlined function to its name.
const MAX_STEPS: usize = 8;
/// Units that gimli holds at once, for their abbreviations and their files.
const MAX_OPEN: usize = 64;
/// Longer names are cut.
const MAX_NAME: usize = 16 << 10;
/// Functions inlined into one another beyond this are left out.
const MAX_INLINED: usize = 64;

/// Debug information of one file.
pub struct DebugInfo {
    sections: Sections,
    /// Offset of each unit, rising.
    offsets: Vec<u64>,
    /// (start, end, unit) of the code of units, by rising start.
    ranges: Vec<(u64, u64, u32)>,
    units: FxHashMap<u32, Kept>,
    /// Names by offset of what says them.
    names: FxHashMap<u64, Arc<str>>,
    bytes: usize,
    clock: u64,
}

struct Kept {
    unit: Unit,
    used: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.unit.bytes() + size_of::<(u32, Kept)>() + 8
    }
}

/// Lets go of the units that were not used for longest, until so many bytes are free; returns how many are.
fn let_go(units: &mut FxHashMap<u32, Kept>, wanted: usize) -> usize {
    let mut by_use: Vec<(u64, u32)> = units.iter().map(|(&unit, kept)| (kept.used, unit)).collect();
    by_use.sort_unstable();
    let mut freed = 0;
    for (_, unit) in by_use {
        if freed >= wanted {
            break;
        }
        freed += units.remove(&unit).map_or(0, |kept| kept.bytes());
    }
    freed
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDetails {
    /// The compiler did not write it, or it was stripped.
    #[error("no debug information")]
    None,
    /// Unpacked it would take more memory than there is for it.
    #[error("debug information too large")]
    TooLarge,
}

type Units<'readers> = FxHashMap<u32, Option<gimli::Unit<View<'readers>>>>;

impl DebugInfo {
    /// Reads which code its units cover.
    ///
    /// # Errors
    /// When there is nothing in it, or too much.
    pub fn open(object: &Object, limit: usize) -> Result<Self, NoDetails> {
        let sections = Sections::read(object, limit).map_err(|_| NoDetails::TooLarge)?;
        if sections.info_bytes() == 0 {
            return Err(NoDetails::None);
        }
        let mut info = DebugInfo {
            sections,
            offsets: Vec::new(),
            ranges: Vec::new(),
            units: FxHashMap::default(),
            names: FxHashMap::default(),
            bytes: 0,
            clock: 0,
        };
        let (mut offsets, mut ranges) = (Vec::new(), Vec::new());
        let readers = info.sections.readers(INDEX_BUDGET);
        if let Some(dwarf) = dwarf(&readers) {
            let mut headers = dwarf.units();
            while let Ok(Some(header)) = headers.next() {
                let Some(offset) = header.debug_info_offset() else { continue };
                offsets.push(offset.0);
                let number = offsets.len() as u32 - 1;
                let Ok(unit) = dwarf.unit(header) else { continue };
                // A unit that is broken tells nothing, others may.
                let _ = ranges_of(&dwarf, &unit, number, &mut ranges);
                if ranges.len() >= MAX_RANGES {
                    break;
                }
            }
        }
        drop(readers);
        ranges.sort_unstable();
        ranges.shrink_to_fit();
        offsets.shrink_to_fit();
        (info.offsets, info.ranges) = (offsets, ranges);
        if info.ranges.is_empty() {
            return Err(NoDetails::None);
        }
        Ok(info)
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        let index = self.offsets.capacity() * size_of::<u64>() + self.ranges.capacity() * size_of::<(u64, u64, u32)>();
        size_of::<Self>() + self.sections.bytes() + index + self.bytes
    }

    /// Lets go of the units that were not used for longest, and of the names, until it takes no more than `goal`, as far as
    /// that goes.
    pub fn shrink(&mut self, goal: usize) {
        let excess = self.bytes().saturating_sub(goal);
        self.bytes = self.bytes.saturating_sub(let_go(&mut self.units, excess));
        if self.bytes() > goal {
            self.names = FxHashMap::default();
            self.bytes = self.units.values().map(Kept::bytes).sum();
        }
    }

    /// What is known of addresses (before the file is moved), in their order. Units that would take more than `limit` bytes
    /// together are let go meanwhile.
    pub fn find(&mut self, addresses: &[u64], limit: usize) -> Vec<Detail> {
        let DebugInfo { sections, offsets, ranges, units, names, bytes, clock } = self;
        let readers = sections.readers(BATCH_BUDGET);
        let Some(dwarf) = dwarf(&readers) else { return vec![Detail::default(); addresses.len()] };
        let mut open = Units::default();
        let mut detail = |address: &u64| {
            *clock += 1;
            if *bytes > limit {
                let freed = let_go(units, *bytes - limit / 2);
                *bytes = bytes.saturating_sub(freed);
            }
            if open.len() > MAX_OPEN {
                open.clear();
            }
            let number = unit_of(ranges, *address)?;
            let kept = match units.entry(number) {
                std::collections::hash_map::Entry::Occupied(kept) => kept.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    let unit = gimli_unit(&dwarf, &mut open, offsets, number)?;
                    let kept = Kept { unit: Unit::read(&dwarf, unit), used: 0 };
                    *bytes += kept.bytes();
                    place.insert(kept)
                }
            };
            kept.used = *clock;
            let found = kept.unit.find(*address);
            let mut name = |origin: u64| {
                let name = names.entry(origin).or_insert_with(|| {
                    let name = name_of(&dwarf, &mut open, offsets, origin).unwrap_or_default();
                    *bytes += NAME_BYTES + name.len();
                    name.into()
                });
                Arc::clone(name)
            };
            Some(detail_of(found, &mut name))
        };
        addresses.iter().map(|address| detail(address).unwrap_or_default()).collect()
    }
}

/// Of a table beside the name itself.
const NAME_BYTES: usize = size_of::<(u64, Arc<str>)>() + 24;

fn detail_of(found: Found, name: &mut impl FnMut(u64) -> Arc<str>) -> Detail {
    let mut functions = found.functions.into_iter();
    let function = functions.next().map(|(origin, _)| name(origin)).filter(|name| !name.is_empty());
    let inlined =
        functions.take(MAX_INLINED).map(|(origin, call)| Inlined { function: name(origin).to_string(), call });
    Detail { function: function.map(|name| name.to_string()), inlined: inlined.collect(), line: found.line }
}

fn ranges_of(
    dwarf: &gimli::Dwarf<View<'_>>,
    unit: &gimli::Unit<View<'_>>,
    number: u32,
    found: &mut Vec<(u64, u64, u32)>,
) -> gimli::Result<()> {
    let mut ranges = dwarf.unit_ranges(unit)?;
    while let Some(gimli::Range { begin, end }) = ranges.next()? {
        // Code that the linker left out begins at 0, or nowhere.
        if begin > 0 && begin < end && found.len() < MAX_RANGES {
            found.push((begin, end, number));
        }
    }
    Ok(())
}

fn unit_of(ranges: &[(u64, u64, u32)], address: u64) -> Option<u32> {
    let behind = ranges.partition_point(|(start, ..)| *start <= address);
    // Units overlap only where a file is odd.
    ranges.get(..behind)?.iter().rev().take(8).find(|(_, end, _)| address < *end).map(|(.., unit)| *unit)
}

fn gimli_unit<'units, 'readers>(
    dwarf: &gimli::Dwarf<View<'readers>>,
    open: &'units mut Units<'readers>,
    offsets: &[u64],
    number: u32,
) -> Option<&'units gimli::Unit<View<'readers>>> {
    let unit = open.entry(number).or_insert_with(|| {
        let header = dwarf.unit_header(gimli::DebugInfoOffset(*offsets.get(number as usize)?)).ok()?;
        dwarf.unit(header).ok()
    });
    unit.as_ref()
}

/// Name of the function at an offset of `.debug_info`, demangled: its linkage name, or what it is called in the source.
fn name_of<'readers>(
    dwarf: &gimli::Dwarf<View<'readers>>,
    open: &mut Units<'readers>,
    offsets: &[u64],
    origin: u64,
) -> Option<String> {
    let mut plain = None;
    let mut next = Some(origin);
    for _ in 0..MAX_STEPS {
        let Some(offset) = next else { break };
        let number = offsets.partition_point(|start| *start <= offset).checked_sub(1)?;
        let unit = gimli_unit(dwarf, open, offsets, number as u32)?;
        let at = gimli::DebugInfoOffset(offset).to_unit_offset(&unit.header)?;
        let entry = unit.entry(at).ok()?;
        let string = |name| Some(text(dwarf.attr_string(unit, entry.attr_value(name)?).ok()?, MAX_NAME));
        let linkage = string(gimli::DW_AT_linkage_name).or_else(|| string(gimli::DW_AT_MIPS_linkage_name));
        if let Some(linkage) = linkage.filter(|name| !name.is_empty()) {
            return Some(demangle(&linkage));
        }
        plain = plain.or_else(|| string(gimli::DW_AT_name));
        let lead = |name| entry.attr_value(name).and_then(|value| reference(unit, value));
        next = lead(gimli::DW_AT_abstract_origin).or_else(|| lead(gimli::DW_AT_specification));
    }
    plain.map(|name| demangle(&name))
}
