//! Which source the command line means, and the filter by PID for those that cannot filter themselves.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;

use crossbeam_channel::Receiver;

use sberf::collect::capture::{CaptureSource, Pace, Reader};
use sberf::collect::host;
use sberf::collect::live::{Live, LiveOptions};
use sberf::collect::process_facts::with_inner_pid;
use sberf::collect::symbols::Debuginfod;
use sberf::collect::{self, Request, Source, SourceError};
use sberf::tick::{Batch, Session, Tick};

use crate::Failure;
use crate::cli::{Observe, Unwind};
use crate::feed::Open;
use crate::glance;

/// The live machine: what is plain to see is checked now, the rest is loaded on the source's thread. `follow` is a process
/// that is told of with all that descends from it; `debuginfod`: debug information may be fetched over the network.
/// `fold`: nobody but the model takes the ticks.
pub fn live(observe: &Observe, follow: Option<u32>, debuginfod: bool, fold: bool) -> Result<Open, Failure> {
    let debuginfod = debuginfod.then(Debuginfod::from_env).transpose();
    let debuginfod = debuginfod.map_err(|why| Failure::line(format!("--debuginfod: {why}")))?;
    let options = LiveOptions { debuginfod, fold, ..options(observe, follow)? };
    Ok(Box::new(move || Ok(collect::observe(options))))
}

/// Who is there, told before all that [`live`] loads has been loaded.
pub fn glance(observe: &Observe, follow: Option<u32>) -> Result<glance::Look, Failure> {
    let options = options(observe, follow)?;
    Ok(Box::new(move || collect::live::glance(&options)))
}

/// [`live`] for what procfs alone has nothing of.
pub fn live_by_bpf(observe: &Observe) -> Result<Open, Failure> {
    let options = options(observe, None)?;
    Ok(Box::new(move || Ok(Box::new(Live::start(options)?))))
}

fn options(observe: &Observe, follow: Option<u32>) -> Result<LiveOptions, Failure> {
    let pids = observe.pids.iter().map(|&pid| resolve(pid)).collect::<Result<_, _>>()?;
    Ok(LiveOptions {
        rate_hz: observe.rate_hz,
        interval: observe.interval,
        pids,
        follow,
        walks_per_s: observe.walks,
        max_overhead: (observe.max_overhead < 100.0).then_some(observe.max_overhead / 100.0),
        by_tables: observe.unwind == Unwind::Table,
        command: command_line(std::env::args_os()),
        ..LiveOptions::default()
    })
}

/// Bytes of a command line that are kept: it stands in every line of JSON.
const COMMAND_BYTES: usize = 4096;

/// Arguments as one would type them into a shell.
fn command_line(args: impl Iterator<Item = OsString>) -> String {
    let mut line = String::new();
    for arg in args {
        let arg = arg.to_string_lossy();
        if !line.is_empty() {
            line.push(' ');
        }
        let is_plain = |char: char| char.is_alphanumeric() || "_-+=:,./@%^".contains(char);
        match !arg.is_empty() && arg.chars().all(is_plain) {
            true => line.push_str(&arg),
            false => line.extend(["'", &arg.replace('\'', r"'\''"), "'"]),
        }
        if line.len() > COMMAND_BYTES {
            let end = (0..=COMMAND_BYTES).rev().find(|&at| line.is_char_boundary(at));
            line.truncate(end.unwrap_or(0));
            line.push('…');
            break;
        }
    }
    line
}

/// The PID of the process that is meant: that PID, or if none has it, the only process that has it in its own pid namespace.
pub fn resolve(pid: u32) -> Result<u32, Failure> {
    if is_process(pid) {
        return Ok(pid);
    }
    match &*with_inner_pid(pid) {
        [] => {
            let place = if host::in_pid_namespace() == Some(true) { " in this pid namespace" } else { "" };
            Err(Failure::line(format!("there is no process {pid}{place}")))
        }
        [only] => Ok(*only),
        several => {
            let all = several.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let why = "but several have it in their own pid namespaces; here they are";
            Err(Failure::line(format!("there is no process {pid} here, {why} {all}: name one of these")))
        }
    }
}

/// The id of a process. `/proc/TID` exists for every thread, so its directory alone proves nothing.
fn is_process(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Tgid:")).is_some_and(|tgid| tgid.trim() == pid.to_string())
}

/// A capture. With `pids`, only those processes; each must occur in it.
pub fn capture(path: &Path, pace: Pace, pids: &[u32]) -> Result<Box<dyn Source>, SourceError> {
    let source = CaptureSource::open(path, pace)?;
    if pids.is_empty() {
        return Ok(Box::new(source));
    }
    if let Some(pid) = find_unknown(path, pids) {
        return Err(SourceError(format!("{}: holds no process {pid}", path.display())));
    }
    Ok(Box::new(Only { source, pids: pids.iter().copied().collect() }))
}

/// The first pid that never occurs in the capture; `None` too when that cannot be found out.
fn find_unknown(path: &Path, pids: &[u32]) -> Option<u32> {
    let mut reader = Reader::open(path).ok()?;
    let mut unknown = pids.to_vec();
    // Up to the end or the damage, of which reading proper will tell.
    while let Ok(Some(batch)) = reader.next_batch() {
        if let Batch::Tick(tick) = batch {
            let seen: HashSet<u32> = tick.threads.iter().map(|thread| thread.process.tgid).collect();
            unknown.retain(|pid| !seen.contains(pid));
        }
        if unknown.is_empty() {
            break;
        }
    }
    unknown.first().copied()
}

/// A source without the processes that nobody asked for. CPUs, nodes and disks stay whole.
struct Only<S> {
    source: S,
    pids: HashSet<u32>,
}

impl<S> Only<S> {
    fn keep(&self, tick: &mut Tick) {
        let pids = &self.pids;
        tick.threads.retain(|thread| pids.contains(&thread.process.tgid));
        tick.processes.retain(|process| pids.contains(&process.key.tgid));
        tick.io.retain(|io| pids.contains(&io.process.tgid));
        tick.stacks.retain(|stack| pids.contains(&stack.process.tgid));
        tick.slow_requests.retain(|slow| pids.contains(&slow.process.tgid));
        tick.stuck.retain(|stuck| pids.contains(&stuck.process.tgid));
        tick.events.retain(|event| pids.contains(&event.process.tgid));
    }
}

impl<S: Source> Source for Only<S> {
    fn session(&self) -> Session {
        self.source.session()
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        let mut batch = self.source.next(requests)?;
        if let Some(Batch::Tick(tick)) = &mut batch {
            self.keep(tick);
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let line = |args: &[&str]| command_line(args.iter().map(OsString::from));
        assert_eq!(line(&["sberf", "top", "-d", "0.5", "--", "sh", "-c", "a b"]), "sberf top -d 0.5 -- sh -c 'a b'");
        assert_eq!(line(&["sberf", "", "it's", "$HOME"]), r"sberf '' 'it'\''s' '$HOME'");
        let odd = OsString::from_vec(b"/tmp/\xff".to_vec());
        assert_eq!(command_line([odd].into_iter()), "'/tmp/\u{fffd}'");
        let long = line(&["é".repeat(5000).as_str(), "more"]);
        assert!(long.len() < COMMAND_BYTES + 8 && long.ends_with('…'), "{}", long.len());
    }
}
