//! The arrays of rows. They are the kernel's memory, but what we have mapped of it counts as ours as well: so only those
//! that were used last are mapped.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use libbpf_rs::{MapHandle, MapType};

use super::super::shared::Shared;
use crate::collect::unwind::{Row, shape};

/// Bytes of a value of an array; 16 words, one cache line.
const VALUE_BYTES: u32 = 64;
/// Bytes of a chunk.
const CHUNK_BYTES: u32 = 4 * shape::CHUNK_ROWS;
/// Chunks that are mapped at the same time, 1 MB each. A mapping takes some 20 µs to make.
const MAPPED: usize = 8;

/// All chunks, by index.
#[derive(Default)]
pub struct Chunks {
    maps: Vec<MapHandle>,
    /// Those that are mapped; the one that was used last comes last.
    mapped: RefCell<Vec<(u32, Shared)>>,
}

impl Chunks {
    /// How many there are.
    pub fn len(&self) -> u32 {
        self.maps.len() as u32
    }

    /// Adds some behind those that are there.
    pub fn extend(&mut self, maps: Vec<MapHandle>) {
        self.maps.extend(maps);
    }

    /// One row of a chunk; `None` behind their end, or if it cannot be mapped.
    pub fn row(&self, chunk: u32, row: u32) -> Option<Row> {
        self.with(chunk, |rows| rows.word(row as usize).map(|word| Row(word.load(Ordering::Relaxed)))).ok()?
    }

    /// Writes rows from `row` on.
    ///
    /// # Errors
    /// When the chunk is not there or cannot be mapped.
    pub fn write(&self, chunk: u32, row: u32, rows: &[Row]) -> io::Result<()> {
        self.with(chunk, |chunk| {
            for (at, value) in (row as usize..).zip(rows) {
                if let Some(word) = chunk.word(at) {
                    word.store(value.0, Ordering::Relaxed);
                }
            }
        })
    }

    fn with<T>(&self, chunk: u32, then: impl FnOnce(&Shared) -> T) -> io::Result<T> {
        let mut mapped = self.mapped.borrow_mut();
        let this = match mapped.iter().rposition(|(index, _)| *index == chunk) {
            Some(at) => mapped.remove(at),
            None => {
                let map = self.maps.get(chunk as usize).ok_or(io::ErrorKind::NotFound)?;
                if mapped.len() >= MAPPED {
                    mapped.remove(0);
                }
                (chunk, Shared::new(&map.as_fd(), CHUNK_BYTES as usize)?)
            }
        };
        let done = then(&this.1);
        mapped.push(this);
        Ok(done)
    }
}

/// Makes an empty chunk.
///
/// # Errors
/// When the kernel does not give it.
pub fn make() -> Result<MapHandle, libbpf_rs::Error> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_MMAPABLE,
        ..Default::default()
    };
    MapHandle::create(MapType::Array, Some("unwind_chunk"), 4, VALUE_BYTES, CHUNK_BYTES / VALUE_BYTES, &options)
}
