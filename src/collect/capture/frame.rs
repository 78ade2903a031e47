//! Bytes of the header and of one frame, in both directions.

use std::io::{self, Read};

use super::CaptureError;

/// Version of the layout described in the module above. (What is *in* a tick may change without it.)
pub const FORMAT: u16 = 1;

/// The most a frame may hold, packed or unpacked. A tick of 20 000 threads takes about 6 MB unpacked.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"\x89sberf\r\n";
const TEXT_MAX: usize = 1024;
const FRAME_HEADER: usize = 16;
/// Level 1 packs ticks about 10 % worse than the default level 3, in half the time.
const LEVEL: i32 = 1;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Schema,
    Session,
    Tick,
    Names,
    End,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Schema, Kind::Session, Kind::Tick, Kind::Names, Kind::End];

    const fn tag(self) -> [u8; 4] {
        match self {
            Kind::Schema => *b"SCHM",
            Kind::Session => *b"SESS",
            Kind::Tick => *b"TICK",
            Kind::Names => *b"NAME",
            Kind::End => *b"END ",
        }
    }
}

/// The header, and the checksum with which the chain of frames begins.
pub(super) fn encode_header(writer: &str) -> (Vec<u8>, u32) {
    let text: String = writer.chars().filter(|c| !c.is_control()).take(TEXT_MAX / 4).collect();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    (bytes, crc)
}

/// What a header says.
pub(super) struct Header {
    /// Who wrote the file.
    pub writer: String,
    /// Where the chain begins.
    pub crc: u32,
    /// Bytes of the header.
    pub len: u64,
}

/// Reads the header.
pub(super) fn decode_header(input: &mut impl Read) -> Result<Header, CaptureError> {
    let mut bytes = take(input, MAGIC.len(), 0)?;
    if bytes.is_empty() {
        return Err(CaptureError::Empty);
    }
    if !MAGIC.starts_with(&bytes) {
        return Err(CaptureError::Foreign { start: printable(&bytes) });
    }
    let fixed = take(input, 4, bytes.len() as u64)?;
    bytes.extend(&fixed);
    let (Some(format), Some(text_len)) = (u16_at(&fixed, 0), u16_at(&fixed, 2)) else {
        return Err(torn_header(bytes.len()));
    };
    let text_len = usize::from(text_len);
    if text_len > TEXT_MAX {
        return Err(CaptureError::Damaged { offset: 10, what: format!("the header's text cannot be {text_len} long") });
    }
    let rest = take(input, text_len + 4, bytes.len() as u64)?;
    let (Some(text), Some(crc)) = (rest.get(..text_len), u32_at(&rest, text_len)) else {
        return Err(torn_header(bytes.len() + rest.len()));
    };
    bytes.extend(text);
    if crc32fast::hash(&bytes) != crc {
        return Err(CaptureError::Damaged { offset: 0, what: "the checksum of the header does not fit".into() });
    }
    let writer: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
    if format != FORMAT {
        return Err(CaptureError::Format { found: format, writer });
    }
    Ok(Header { writer, crc, len: bytes.len() as u64 + 4 })
}

fn torn_header(have: usize) -> CaptureError {
    CaptureError::Torn { offset: 0, what: format!("the header is cut off after {have} bytes") }
}

/// Packs frames, and keeps its buffers from one to the next.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    bytes: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Packer { zstd: zstd::bulk::Compressor::new(LEVEL)?, bytes: Vec::new() })
    }

    /// The bytes of a frame that holds `raw`, and its checksum; `before` is the checksum of the frame before it.
    pub(super) fn pack(&mut self, kind: Kind, raw: &[u8], before: u32) -> io::Result<(&[u8], u32)> {
        let packed = self.zstd.compress(raw)?;
        if raw.len().max(packed.len()) > MAX_FRAME_BYTES {
            let text = format!("one frame of {} bytes is more than the limit of {MAX_FRAME_BYTES}", raw.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        self.bytes.clear();
        self.bytes.extend(kind.tag());
        self.bytes.extend((raw.len() as u32).to_le_bytes());
        self.bytes.extend((packed.len() as u32).to_le_bytes());
        let crc = checksum(before, &self.bytes, &packed);
        self.bytes.extend(crc.to_le_bytes());
        self.bytes.extend(packed);
        Ok((&self.bytes, crc))
    }
}

/// A frame as it was read.
pub(super) struct Frame {
    pub kind: Kind,
    /// Unpacked.
    pub raw: Vec<u8>,
    /// Its checksum.
    pub crc: u32,
    /// Bytes it takes in the file.
    pub len: u64,
}

/// Reads the frame that starts at `offset`; `None` at the end of the input.
pub(super) fn decode_frame(input: &mut impl Read, offset: u64, before: u32) -> Result<Option<Frame>, CaptureError> {
    let head = take(input, FRAME_HEADER, offset)?;
    if head.is_empty() {
        return Ok(None);
    }
    let (Some(tag), Some(raw_len), Some(len), Some(crc)) =
        (head.get(..4), u32_at(&head, 4), u32_at(&head, 8), u32_at(&head, 12))
    else {
        let what = format!("the frame's header is cut off after {} of {FRAME_HEADER} bytes", head.len());
        return Err(CaptureError::Torn { offset, what });
    };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.tag() == tag) else {
        return Err(CaptureError::Damaged { offset, what: format!("no frame starts with {}", printable(tag)) });
    };
    if raw_len.max(len) as usize > MAX_FRAME_BYTES {
        return Err(CaptureError::TooLarge { offset, bytes: raw_len.max(len).into() });
    }
    let packed = take(input, len as usize, offset)?;
    if packed.len() < len as usize {
        let what = format!("the frame is cut off after {} of {len} bytes", packed.len());
        return Err(CaptureError::Torn { offset, what });
    }
    if checksum(before, &head[..12], &packed) != crc {
        return Err(CaptureError::Damaged { offset, what: "the checksum does not fit".into() });
    }
    let raw = unpack(&packed, raw_len as usize).map_err(|what| CaptureError::Damaged { offset, what })?;
    Ok(Some(Frame { kind, raw, crc, len: (FRAME_HEADER + packed.len()) as u64 }))
}

fn unpack(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, String> {
    let raw = zstd::bulk::decompress(packed, raw_len).map_err(|error| format!("cannot be unpacked ({error})"))?;
    if raw.len() != raw_len {
        return Err(format!("unpacks to {} instead of {raw_len} bytes", raw.len()));
    }
    Ok(raw)
}

fn checksum(before: u32, head: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(head);
    hasher.update(packed);
    hasher.finalize()
}

/// Reads up to `len` bytes: fewer only at the end of the input. Takes memory as the bytes come.
fn take(input: &mut impl Read, len: usize, offset: u64) -> Result<Vec<u8>, CaptureError> {
    let mut bytes = Vec::new();
    input.by_ref().take(len as u64).read_to_end(&mut bytes).map_err(|error| CaptureError::Read { offset, error })?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn printable(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}
