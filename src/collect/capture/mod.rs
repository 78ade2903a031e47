//! Capture files (`.sberf`): a session and its ticks, on disk.
//!
//! ```text
//! file   := header frame*                       all numbers little-endian
//! header := "\x89sberf\r\n"  format:u16  text_len:u16  text (who wrote it)  crc32
//! frame  := tag:[u8;4]  raw_len:u32  len:u32  crc32  payload[len]
//! ```
//!
//! The payload is zstd, `raw_len` bytes when unpacked. The frames are, in this order: `SCHM` (the record types as JSON,
//! see [`Schema`]), `SESS` (a [`Session`](crate::tick::Session)), any number of `TICK` and `NAME`, and `END `, which
//! says that the recorder stopped of its own will. A checksum covers its frame and the checksum before it, so a frame
//! cannot be lost, doubled or moved unnoticed. Ticks are postcard, which does not describe itself: that is what `SCHM`
//! is for. A file whose types differ from ours is read by its own description, fields by name.
//!
//! Frames are only appended, each with one write. A recorder that is killed therefore loses the tick it was collecting
//! and nothing before. A full disk ends the recording: the file is cut back to its last whole frame.

mod evolve;
mod frame;
mod reader;
mod replay;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use frame::{FORMAT, MAX_FRAME_BYTES};
pub use reader::Reader;
pub use replay::{CaptureSource, Pace};
pub use schema::Schema;
pub use writer::{Sink, Tee, Writer};

use std::io;

/// Why a capture cannot be written, or not be read any further.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file could not be opened or made.
    #[error("cannot {doing}: {error}")]
    Open {
        /// `open` or `create`.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Not a byte in it.
    #[error("the file is empty; a capture is made by `sberf record -o FILE`")]
    Empty,
    /// Something else than a capture.
    #[error("not a sberf capture (it starts with {start}); one is made by `sberf record -o FILE`")]
    Foreign {
        /// The first bytes, printable.
        start: String,
    },
    /// The file that was to be overwritten is not ours.
    #[error("exists and is not a sberf capture; not overwritten")]
    NotOurs,
    /// Another layout of the file.
    #[error("capture format {found}, written by {writer}; this sberf reads format {FORMAT}: use that version")]
    Format {
        /// The format in the header.
        found: u16,
        /// Who wrote it.
        writer: String,
    },
    /// The types changed so far that even their description does not help.
    #[error("frame at byte {offset} was written by {writer} and does not fit this version's records ({what})")]
    Types {
        /// Where the frame starts.
        offset: u64,
        /// Who wrote it.
        writer: String,
        /// What does not fit.
        what: String,
    },
    /// The file ends within a frame or the header.
    #[error("torn at byte {offset}: {what}")]
    Torn {
        /// Where the part that is cut off starts.
        offset: u64,
        /// What is missing.
        what: String,
    },
    /// The file ends after a whole frame, but its recorder never said so.
    #[error("ends at byte {offset} without an end mark: its recorder was killed, or still runs")]
    Unended {
        /// Length of the file.
        offset: u64,
    },
    /// The bytes are not what was written.
    #[error("damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the damaged part starts.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// More than a frame may hold.
    #[error("frame at byte {offset} would hold {bytes} bytes, more than the limit of {MAX_FRAME_BYTES}")]
    TooLarge {
        /// Where the frame starts.
        offset: u64,
        /// How much it says it holds.
        bytes: u64,
    },
    /// Reading failed.
    #[error("cannot read at byte {offset}: {error}")]
    Read {
        /// Where.
        offset: u64,
        /// What the system said.
        error: io::Error,
    },
    /// Writing failed. The file holds what was written before.
    #[error("recording stopped: {error}; the file stays readable: {ticks} ticks, {bytes} bytes")]
    Write {
        /// What the system said.
        error: io::Error,
        /// Ticks in the file.
        ticks: u64,
        /// Bytes of the file.
        bytes: u64,
    },
}
