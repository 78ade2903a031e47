//! Writes a capture, frame by frame.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crossbeam_channel::Receiver;
use serde::Serialize;

use super::frame::{self, Kind, Packer};
use super::{CaptureError, Schema};
use crate::collect::{Request, Source, SourceError};
use crate::tick::{Batch, Session};

/// Where a capture goes: a file, or memory in tests.
pub trait Sink: Write {
    /// Makes it `len` bytes long again, after a write that went wrong half-way.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Sink for File {
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(SeekFrom::Start(len)).map(|_| ())
    }
}

impl Sink for Vec<u8> {
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.truncate(len as usize);
        Ok(())
    }
}

/// Writes a capture. Dropping it without [`Writer::finish`] leaves a file without an end mark, as a kill would.
pub struct Writer<W: Sink> {
    sink: W,
    packer: Packer,
    raw: Vec<u8>,
    /// Checksum of the last frame.
    chain: u32,
    /// Bytes of whole frames.
    bytes: u64,
    ticks: u64,
}

impl Writer<File> {
    /// Makes the file, readable by its owner only, for it holds everybody's command lines. An older capture of that
    /// name is overwritten; any other file is not.
    pub fn create(path: &Path, session: &Session) -> Result<Self, CaptureError> {
        refuse_foreign(path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.map_err(|error| CaptureError::Open { doing: "create", error })?;
        Writer::new(file, session)
    }
}

/// Fails if `path` is a regular file that is neither empty nor a capture.
fn refuse_foreign(path: &Path) -> Result<(), CaptureError> {
    let Ok(meta) = path.metadata() else { return Ok(()) };
    if !meta.is_file() || meta.len() == 0 {
        return Ok(());
    }
    let file = File::open(path).map_err(|error| CaptureError::Open { doing: "create", error })?;
    match frame::decode_header(&mut file.take(4096)) {
        Ok(_) | Err(CaptureError::Format { .. }) => Ok(()),
        Err(_) => Err(CaptureError::NotOurs),
    }
}

impl<W: Sink> Writer<W> {
    /// Writes the header, the schema and the session.
    pub fn new(sink: W, session: &Session) -> Result<Self, CaptureError> {
        let packer = Packer::new().map_err(|error| CaptureError::Open { doing: "create", error })?;
        let (header, chain) = frame::encode_header(concat!("sberf ", env!("CARGO_PKG_VERSION")));
        let mut writer = Writer { sink, packer, raw: Vec::new(), chain, bytes: 0, ticks: 0 };
        if let Err(error) = writer.sink.write_all(&header) {
            return Err(writer.stopped(error));
        }
        writer.bytes = header.len() as u64;
        writer.frame(Kind::Schema, &Schema::current().to_json())?;
        writer.value(Kind::Session, session)?;
        Ok(writer)
    }

    /// Appends one batch. After an error the file is whole, and nothing more can be written.
    pub fn write(&mut self, batch: &Batch) -> Result<(), CaptureError> {
        match batch {
            Batch::Tick(tick) => {
                self.value(Kind::Tick, tick)?;
                self.ticks += 1;
                Ok(())
            }
            Batch::Names(names) => self.value(Kind::Names, names),
        }
    }

    /// Appends the end mark and gives back where it all went.
    pub fn finish(mut self) -> Result<W, CaptureError> {
        self.frame(Kind::End, &[])?;
        Ok(self.sink)
    }

    /// Ticks written.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn value(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), CaptureError> {
        let mut buffer = std::mem::take(&mut self.raw);
        buffer.clear();
        match postcard::to_extend(value, buffer) {
            Ok(raw) => {
                let result = self.frame(kind, &raw);
                self.raw = raw;
                result
            }
            Err(error) => Err(self.stopped(io::Error::other(error))),
        }
    }

    /// One frame, one write.
    fn frame(&mut self, kind: Kind, raw: &[u8]) -> Result<(), CaptureError> {
        let written = self.packer.pack(kind, raw, self.chain).and_then(|(bytes, crc)| {
            self.sink.write_all(bytes)?;
            self.sink.flush()?;
            Ok((bytes.len() as u64, crc))
        });
        match written {
            Ok((len, crc)) => {
                self.bytes += len;
                self.chain = crc;
                Ok(())
            }
            Err(error) => Err(self.stopped(error)),
        }
    }

    /// Cuts half a frame off the end and marks the end, if there is room for the mark.
    fn stopped(&mut self, error: io::Error) -> CaptureError {
        let cut = self.sink.cut(self.bytes);
        if cut.is_ok() {
            self.mark_end();
        }
        CaptureError::Write { error, ticks: self.ticks, bytes: self.bytes }
    }

    fn mark_end(&mut self) {
        let Ok((bytes, _)) = self.packer.pack(Kind::End, &[], self.chain) else { return };
        match self.sink.write_all(bytes).and_then(|()| self.sink.flush()) {
            Ok(()) => self.bytes += bytes.len() as u64,
            // No room: the reader will say that the mark is missing, which is true.
            Err(_) => drop(self.sink.cut(self.bytes)),
        }
    }
}

/// Told once why a recording stopped before its source did.
type OnStop = Box<dyn FnMut(CaptureError) + Send>;

/// A source that also writes what it yields. When writing fails, recording ends and the source goes on.
pub struct Tee<S: Source, W: Sink + Send> {
    source: S,
    writer: Option<Writer<W>>,
    on_stop: OnStop,
}

impl<S: Source, W: Sink + Send> Tee<S, W> {
    /// Everything that comes out of `source` from now on goes into `writer` as well.
    pub fn new(source: S, writer: Writer<W>, on_stop: impl FnMut(CaptureError) + Send + 'static) -> Self {
        Tee { source, writer: Some(writer), on_stop: Box::new(on_stop) }
    }

    /// Ticks and bytes written so far; `None` once writing has failed.
    pub fn written(&self) -> Option<(u64, u64)> {
        self.writer.as_ref().map(|writer| (writer.ticks(), writer.bytes()))
    }

    /// Marks the end of the capture. Happens by itself when the source ends.
    pub fn finish(&mut self) {
        if let Some(Err(error)) = self.writer.take().map(Writer::finish) {
            (self.on_stop)(error);
        }
    }
}

impl<S: Source, W: Sink + Send> Source for Tee<S, W> {
    fn session(&self) -> Session {
        self.source.session()
    }

    fn said(&mut self) -> Vec<String> {
        self.source.said()
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        let batch = self.source.next(requests);
        match (&batch, &mut self.writer) {
            (Ok(Some(batch)), Some(writer)) => {
                if let Err(error) = writer.write(batch) {
                    self.writer = None;
                    (self.on_stop)(error);
                }
            }
            _ => self.finish(),
        }
        batch
    }
}

impl<S: Source, W: Sink + Send> Drop for Tee<S, W> {
    fn drop(&mut self) {
        self.finish();
    }
}
