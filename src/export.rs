//! What goes to files and pipes: folded stacks, and ticks as JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sberf::collect::capture::Pace;
use sberf::model::folded::{self, FoldedLens};
use sberf::model::{Limits, Model, TreeLens, TreeQuery, Window, json};
use sberf::tick::{Batch, Frame, FrameId, Grade, ProcessKey, Session, SignalKind, signal};

use crate::cli::{Export, Format, Lens, Observe, Top, Unwind, WALKS_PER_S};
use crate::command::{self, Running};
use crate::feed::{Feed, Open};
use crate::record::{Cut, NAMES_LATE, Sink, drive};
use crate::{Failure, look, source};

/// Closed pipes are a good end of it.
type Output = BufWriter<Box<dyn Write>>;

/// `sberf export`.
pub fn run(mut args: Export) -> Result<(), Failure> {
    if args.file.is_none() {
        args.pid = args.pid.map(source::resolve).transpose()?;
    }
    let open = open(&args)?;
    // Made before anything is collected: a directory that is not there is said at once.
    let mut output = output(args.output.as_deref())?;
    let feed = Feed::start(open, None)?;
    let cut = Cut::new(args.duration);
    match args.format {
        Format::Folded => {
            let linger = if args.file.is_none() { NAMES_LATE } else { Duration::ZERO };
            let mut stacks = Stacks { model: model(Session::default()), cut, linger, asked: Vec::new() };
            // What was read before the damage is written, and the damage is said.
            let result = drive(feed, &mut stacks, None);
            let lines = stacks.write(args.lens, args.pid, &mut output)?;
            output.flush()?;
            result?;
            if lines == 0 {
                crate::say(&stacks.why_nothing(args.lens, args.pid));
            }
            Ok(())
        }
        Format::Json => drive(feed, &mut Lines { model: None, output, left: u64::MAX, cut }, None).map(drop),
    }
}

/// A file whose name is in what goes wrong with it.
struct Named {
    name: String,
    file: File,
}

impl Named {
    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.name))
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.named(error))
    }
}

/// `sberf top --json`.
pub fn ticks(args: Top) -> Result<(), Failure> {
    let mut command = command::start(&args.command, command::Output::File)?;
    let open = look::open(&args, command.as_ref().map(Running::pid))?;
    let feed = Feed::start(open, args.write)?;
    let left = args.count.unwrap_or(u64::MAX);
    let mut lines = Lines { model: None, output: output(None)?, left, cut: Cut::new(None) };
    let ended = drive(feed, &mut lines, command.as_mut());
    if look::is_watched()
        && let Some(command) = &command
        && let Some(written) = command.written()
    {
        crate::say(&format!("{} {written}", command.name()));
    }
    let ended = ended?;
    ended.map_or(Ok(()), |status| Err(Failure::Status(command::code(status))))
}

fn open(args: &Export) -> Result<Open, Failure> {
    let pids: Vec<u32> = args.pid.into_iter().collect();
    match &args.file {
        Some(path) => {
            let source = source::capture(path, Pace::Fast, &pids).map_err(|error| Failure::Line(error.0))?;
            Ok(Box::new(move || Ok(source)))
        }
        None => {
            let interval = Duration::from_secs(1).min(args.duration.unwrap_or(Duration::MAX));
            let observe = Observe {
                pids,
                rate_hz: args.rate_hz,
                walks: WALKS_PER_S,
                unwind: Unwind::Table,
                max_overhead: 100.0,
                interval,
            };
            match args.format {
                Format::Folded => source::live_by_bpf(&observe),
                Format::Json => source::live(&observe, None, false, false),
            }
        }
    }
}

fn output(path: Option<&Path>) -> Result<Output, Failure> {
    let output: Box<dyn Write> = match path {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::create(path).map_err(|error| Failure::line(format!("cannot create {name}: {error}")))?;
            Box::new(Named { name, file })
        }
    };
    Ok(BufWriter::new(output))
}

/// Nobody looks back.
fn limits() -> Limits {
    Limits { look_back: false, ..Limits::default() }
}

/// A model that remembers whoever exited until the export is written.
fn model(session: Session) -> Model {
    Model::new(session, Limits { keep_exited: Duration::MAX, stacks_bytes: 1 << 30, ..limits() })
}

/// Yields true for a tick.
fn learn(model: &mut Model, batch: Batch) -> bool {
    match batch {
        Batch::Tick(tick) => {
            model.apply(*tick);
            true
        }
        Batch::Names(names) => {
            model.learn(*names);
            false
        }
    }
}

/// Gathers everything, to be written at the end.
struct Stacks {
    model: Model,
    cut: Cut,
    linger: Duration,
    /// Frames whose details were asked for.
    asked: Vec<FrameId>,
}

impl Stacks {
    /// Yields how many lines there are.
    fn write(&self, lens: Lens, pid: Option<u32>, output: &mut impl Write) -> io::Result<u64> {
        let lens = match lens {
            Lens::OnCpu => FoldedLens::OnCpu,
            Lens::Blocked => FoldedLens::Blocked,
            Lens::Runnable => FoldedLens::Runnable,
            Lens::Wall => FoldedLens::Wall,
            Lens::Io => FoldedLens::Io,
        };
        let mut write = |key| folded::write(output, &self.model, lens, key, Window::All).map(|counts| counts.lines);
        // Nobody else's stacks are in the model, and the id may have been used more than once.
        let keys: Vec<ProcessKey> = match pid {
            None => return write(None),
            Some(_) => self.model.processes().map(|process| process.key).collect(),
        };
        keys.into_iter().try_fold(0, |lines, key| Ok(lines + write(Some(key))?))
    }

    /// An empty file could mean anything.
    fn why_nothing(&self, lens: Lens, pid: Option<u32>) -> String {
        let what = match lens {
            Lens::OnCpu => "on-CPU samples",
            Lens::Blocked => "blocked time",
            Lens::Runnable => "time waiting for a CPU",
            Lens::Wall => "time",
            Lens::Io => "time blocked for a disk",
        };
        let said = match pid {
            Some(pid) if self.model.processes().next().is_none() => format!("nothing to write: no process {pid}"),
            Some(pid) => format!("nothing to write: process {pid} has no {what}"),
            None => format!("nothing to write: no {what}"),
        };
        let signals = &self.model.session().signals;
        match signal(signals, SignalKind::Samples).filter(|samples| samples.grade() == Grade::Missing) {
            Some(missing) if lens == Lens::OnCpu => match missing.lack() {
                Some(lack) => format!("{said}: {lack}"),
                None => said,
            },
            _ => said,
        }
    }
}

impl Sink for Stacks {
    fn session(&mut self, session: Session) -> Result<(), Failure> {
        self.model = model(session);
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<bool, Failure> {
        let takes = self.cut.takes(&batch);
        let more = takes && !self.cut.is_last(&batch);
        if takes {
            learn(&mut self.model, batch);
        }
        Ok(more)
    }

    fn linger(&self) -> Duration {
        self.linger
    }

    /// Inlined functions are frames of the file. What was recorded can be asked no more.
    fn asks(&mut self) -> Vec<(FrameId, Frame)> {
        let frames = if self.linger.is_zero() { Vec::new() } else { self.model.all_plain_frames() };
        self.asked = frames.iter().map(|(id, _)| *id).collect();
        frames
    }

    fn is_answered(&self) -> bool {
        !self.asked.iter().any(|frame| self.model.is_plain(*frame))
    }
}

/// Writes a line per tick.
struct Lines {
    model: Option<Model>,
    output: Output,
    left: u64,
    cut: Cut,
}

impl Sink for Lines {
    fn session(&mut self, session: Session) -> Result<(), Failure> {
        self.model = Some(Model::new(session, limits()));
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<bool, Failure> {
        let Some(model) = self.model.as_mut().filter(|_| self.cut.takes(&batch)) else { return Ok(false) };
        let last = self.cut.is_last(&batch);
        if learn(model, batch) {
            json::write(&mut self.output, model)?;
            self.output.flush()?;
            self.left = self.left.saturating_sub(1);
        }
        Ok(self.left > 0 && !last)
    }
}

/// Writes the stacks of a query to a new file in the current directory, which only its owner can read; yields what to tell
/// the person.
pub fn folded_file(model: &Model, query: &TreeQuery, name: &str) -> String {
    let (path, file) = match new_file(name) {
        Ok(found) => found,
        Err(error) => return format!("cannot write {name}: {error}"),
    };
    let mut output = BufWriter::new(file);
    let written = folded::write_tree(&mut output, &model.tree(query), 0);
    match written.and_then(|counts| output.flush().map(|()| counts)) {
        Ok(counts) => {
            let without = if query.hide_idle && query.lens != TreeLens::OnCpu { ", without idle waits" } else { "" };
            format!("wrote {} stacks to {path}{without}", counts.lines)
        }
        Err(error) => format!("{path} is incomplete: {error}"),
    }
}

/// A file of that name, or of that name with a number; never one that exists. Its owner's alone: it tells of all processes.
pub fn new_file(name: &str) -> io::Result<(String, File)> {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, "folded"));
    let mut last = None;
    for number in 0..1000 {
        let path = if number == 0 { format!("{stem}.{ending}") } else { format!("{stem}-{number}.{ending}") };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
}
