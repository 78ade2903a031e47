//! Reads a capture, frame by frame.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::frame::{self, Frame, Kind};
use super::{CaptureError, Schema, evolve};
use crate::tick::{Batch, Names, Session, Tick};

/// Reads a capture from its beginning. After the first error, or the end, there is nothing more.
pub struct Reader<R: Read> {
    input: R,
    session: Session,
    writer: String,
    /// The file's own description of its types, where it is not ours.
    schema: Option<Schema>,
    chain: u32,
    offset: u64,
    done: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads as far as the session.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|error| CaptureError::Open { doing: "open", error })?;
        Reader::new(BufReader::new(file))
    }
}

impl<R: Read> Reader<R> {
    /// Reads as far as the session.
    pub fn new(mut input: R) -> Result<Self, CaptureError> {
        let header = frame::decode_header(&mut input)?;
        let mut reader = Reader {
            input,
            session: Session::default(),
            writer: header.writer,
            schema: None,
            chain: header.crc,
            offset: header.len,
            done: false,
        };
        let (offset, raw) = reader.expect(Kind::Schema, "description of its types")?;
        let schema = Schema::from_json(&raw).map_err(|what| CaptureError::Damaged { offset, what })?;
        reader.schema = (schema != *Schema::current()).then_some(schema);
        let (offset, raw) = reader.expect(Kind::Session, "session")?;
        reader.session = reader.value(offset, "Session", &raw)?;
        Ok(reader)
    }

    /// The machine, and how it was observed.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Who wrote the file, such as `sberf 0.1.0`.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The next batch; `None` after the end mark and after an error.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, CaptureError> {
        if self.done {
            return Ok(None);
        }
        let batch = self.batch();
        self.done = !matches!(batch, Ok(Some(_)));
        batch
    }

    fn batch(&mut self) -> Result<Option<Batch>, CaptureError> {
        let offset = self.offset;
        let Some(Frame { kind, raw, .. }) = self.frame()? else {
            return Err(CaptureError::Unended { offset });
        };
        match kind {
            Kind::Tick => Ok(Some(Batch::Tick(Box::new(self.value::<Tick>(offset, "Tick", &raw)?)))),
            Kind::Names => Ok(Some(Batch::Names(Box::new(self.value::<Names>(offset, "Names", &raw)?)))),
            Kind::End => self.nothing_follows(),
            Kind::Schema | Kind::Session => {
                Err(CaptureError::Damaged { offset, what: "a second beginning within the file".into() })
            }
        }
    }

    fn nothing_follows(&mut self) -> Result<Option<Batch>, CaptureError> {
        let offset = self.offset;
        let mut more = [0];
        match self.input.read(&mut more) {
            Ok(0) => Ok(None),
            Ok(_) => Err(CaptureError::Damaged { offset, what: "there is more after the end mark".into() }),
            Err(error) => Err(CaptureError::Read { offset, error }),
        }
    }

    fn frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        let frame = frame::decode_frame(&mut self.input, self.offset, self.chain)?;
        if let Some(frame) = &frame {
            self.chain = frame.crc;
            self.offset += frame.len;
        }
        Ok(frame)
    }

    fn expect(&mut self, kind: Kind, what: &str) -> Result<(u64, Vec<u8>), CaptureError> {
        let offset = self.offset;
        match self.frame()? {
            Some(frame) if frame.kind == kind => Ok((offset, frame.raw)),
            Some(_) => Err(CaptureError::Damaged { offset, what: format!("the {what} should be here") }),
            None => Err(CaptureError::Torn { offset, what: format!("ends before the {what}") }),
        }
    }

    fn value<T: DeserializeOwned>(&self, offset: u64, name: &str, raw: &[u8]) -> Result<T, CaptureError> {
        let value = match &self.schema {
            None => decode_exactly(raw),
            Some(schema) => evolve::decode(schema, name, raw),
        };
        value.map_err(|what| CaptureError::Types { offset, writer: self.writer.clone(), what })
    }
}

fn decode_exactly<T: DeserializeOwned>(raw: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(raw) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}
