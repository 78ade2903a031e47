//! A tick for machines: one JSON object per line, `"schema": "sberf.tick/1"`, described in `assets/tick.schema.json`.
//!
//! Times are in ns in fields that end in `_ns`, sizes in `_bytes`. Absent is `null`, never 0: the percentiles of nothing,
//! memory that was not read. Fields are added, never changed.

mod cost;
mod object;
#[cfg(test)]
mod tests;
mod time;
mod watch;

pub use time::rfc3339;

use serde::Serialize;
use std::io::{self, Write};

use super::Model;
use super::names::is_harmful;

/// Writes the newest tick as one line, in many small pieces: `out` should be buffered. Fails only if `out` does.
pub fn write(out: &mut impl Write, model: &Model) -> io::Result<()> {
    let mut json = serde_json::Serializer::with_formatter(&mut *out, Harmless);
    object::tick(model).serialize(&mut json)?;
    out.write_all(b"\n")
}

/// Escapes in strings also what JSON would let through and a terminal would obey.
struct Harmless;

impl serde_json::ser::Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, mut fragment: &str) -> io::Result<()> {
        while let Some((at, harmful)) = fragment.char_indices().find(|(_, char)| is_harmful(*char)) {
            out.write_all(&fragment.as_bytes()[..at])?;
            for unit in harmful.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            fragment = &fragment[at + harmful.len_utf8()..];
        }
        out.write_all(fragment.as_bytes())
    }
}
