//! What goes to files and pipes: folded stacks, and ticks as JSON.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use sberf::collect::capture::Pace;
use sberf::model::{Limits, Model, TreeLens, TreeQuery, Window};
use sberf::tick::{Batch, ProcessKey, Session, State};

use crate::cli::{Export, Format, Lens, Observe};
use crate::feed::{Feed, Open};
use crate::record::{Cut, NAMES_LATE, Sink, drive};
use crate::{Failure, source};

/// A name without what would end a frame, a stack or a line of a folded file.
fn folded_name(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || c == ';' { '_' } else { c }).collect()
}

/// Where an export goes, which closed pipes are a good end of.
type Output = BufWriter<Box<dyn Write>>;

/// `sberf export`.
pub fn run(args: Export) -> Result<(), Failure> {
    let interval = Duration::from_secs(1).min(args.duration.unwrap_or(Duration::MAX));
    let live = Observe { pids: args.pid.into_iter().collect(), rate_hz: args.rate_hz, interval };
    let open: Open = match &args.file {
        Some(path) => {
            let source = source::capture(path, Pace::Fast, &live.pids).map_err(|error| Failure::Line(error.0))?;
            Box::new(move || Ok(source))
        }
        None => source::live(&live)?,
    };
    // Made before anything is collected: a directory that is not there is said at once.
    let mut output = output(args.output.as_deref())?;
    let feed = Feed::start(open, None)?;
    let cut = Cut::new(args.duration);
    match args.format {
        Format::Folded => {
            let linger = if args.file.is_none() { NAMES_LATE } else { Duration::ZERO };
            let mut stacks = Stacks { model: model(Session::default()), cut, linger };
            // What was read before the damage is written, and the damage is said.
            let result = drive(feed, &mut stacks);
            stacks.write(args.lens, args.pid, &mut output)?;
            output.flush()?;
            result
        }
    }
}

fn output(path: Option<&Path>) -> Result<Output, Failure> {
    let output: Box<dyn Write> = match path {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let file = File::create(path);
            Box::new(file.map_err(|error| Failure::line(format!("cannot create {}: {error}", path.display())))?)
        }
    };
    Ok(BufWriter::new(output))
}

/// A model that remembers whoever exited until the export is written.
fn model(session: Session) -> Model {
    Model::new(session, Limits { keep_exited: Duration::MAX, ..Limits::default() })
}

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
}

impl Stacks {
    fn write(&self, lens: Lens, pid: Option<u32>, output: &mut impl Write) -> io::Result<()> {
        let lens = match lens {
            Lens::Runnable => return self.write_runnable(pid, output),
            Lens::OnCpu => TreeLens::OnCpu,
            Lens::Blocked => TreeLens::Blocked,
            Lens::Wall => TreeLens::All,
        };
        let keys = self.model.processes().map(|process| process.key).filter(|key| Some(key.tgid) == pid);
        // The id may have been used before: the last to have it.
        let process: Option<ProcessKey> = keys.max_by_key(|key| key.start_ns);
        let query = TreeQuery { process, lens, window: Window::All, ..TreeQuery::default() };
        folded::write(&self.model, &query, output)
    }

    /// Waiting for a CPU has no stack: a line per command and kind of wait.
    fn write_runnable(&self, pid: Option<u32>, output: &mut impl Write) -> io::Result<()> {
        let mut waits = BTreeMap::new();
        for process in self.model.processes().filter(|process| pid.is_none_or(|pid| pid == process.key.tgid)) {
            for state in State::ALL.into_iter().filter(|state| state.is_runnable()) {
                *waits.entry((folded_name(&process.facts.comm), state.name())).or_insert(0) += process.all.ns[state];
            }
        }
        for ((comm, wait), ns) in waits.into_iter().filter(|(_, ns)| *ns > 0) {
            writeln!(output, "{comm};[{wait}] {ns}")?;
        }
        Ok(())
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
}

/// Writes the stacks of a query to a new file in the current directory; yields what to tell the person.
pub fn folded_file(model: &Model, query: &TreeQuery, name: &str) -> String {
    let (path, file) = match new_file(name) {
        Ok(found) => found,
        Err(error) => return format!("cannot write {name}: {error}"),
    };
    let mut output = BufWriter::new(file);
    match folded::write(model, query, &mut output).and_then(|()| output.flush()) {
        Ok(()) => format!("wrote {path}"),
        Err(error) => format!("{path} is incomplete: {error}"),
    }
}

/// A file of that name, or of that name with a number; never one that exists.
fn new_file(name: &str) -> io::Result<(String, File)> {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, "folded"));
    let mut last = None;
    for number in 0..1000 {
        let path = if number == 0 { format!("{stem}.{ending}") } else { format!("{stem}-{number}.{ending}") };
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
}

mod folded {
    use super::*;

    /// A line per stack, root first.
    pub fn write(model: &Model, query: &TreeQuery, output: &mut impl Write) -> io::Result<()> {
        let tree = model.tree(query);
        for node in tree.nodes.iter().skip(1).filter(|node| node.self_weight > 0) {
            let mut frames = vec![folded_name(&node.name)];
            let mut parent = node.parent;
            while let Some(node) = tree.nodes.get(parent as usize).filter(|_| parent != 0) {
                frames.push(folded_name(&node.name));
                parent = node.parent;
            }
            frames.reverse();
            writeln!(output, "{} {}", frames.join(";"), node.self_weight)?;
        }
        Ok(())
    }
}
