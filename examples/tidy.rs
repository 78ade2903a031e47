//! Makes a capture fit to be given away: only the threads of the kernel and what descends from one process stay, with the
//! names that these need; host name and command line go. Totals of CPUs and disks stay those of the whole machine.
//!
//! ```text
//! tidy CAPTURE OUT.sberf PID
//! ```

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sberf::collect::capture::{Reader, Writer};
use sberf::tick::{Batch, Names, ProcessFacts, ProcessKey, Session, Tick};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    ensure!(args.len() == 3, "usage: tidy CAPTURE OUT.sberf PID");
    let root = args[2].parse().context("PID is a number")?;
    let (session, mut batches) = read(Path::new(&args[0]))?;
    let kept = kept(&batches, root);
    ensure!(!kept.is_empty(), "nothing in {} descends from {root}", args[0]);
    batches.iter_mut().for_each(|batch| keep(batch, &kept));
    let used = Used::of(&batches);
    let mut writer = Writer::create(Path::new(&args[1]), &anonymous(session))?;
    for mut batch in batches {
        match &mut batch {
            Batch::Tick(tick) => used.keep(&mut tick.names),
            Batch::Names(names) => used.keep(names),
        }
        writer.write(&batch)?;
    }
    writer.finish()?;
    println!("{}: {} processes", args[1], kept.len());
    Ok(())
}

fn read(path: &Path) -> Result<(Session, Vec<Batch>)> {
    let mut reader = Reader::open(path)?;
    let session = reader.session().clone();
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        batches.push(batch);
    }
    Ok((session, batches))
}

fn anonymous(session: Session) -> Session {
    Session { hostname: "demo".into(), command: "sberf record -o demo.sberf".into(), ..session }
}

/// Processes of the kernel, and those that descend from `root`.
fn kept(batches: &[Batch], root: u32) -> HashSet<ProcessKey> {
    let ticks = || {
        batches.iter().filter_map(|batch| match batch {
            Batch::Tick(tick) => Some(tick),
            Batch::Names(_) => None,
        })
    };
    let all: Vec<&ProcessFacts> = ticks().flat_map(|tick| &tick.processes).collect();
    let parents: HashMap<u32, u32> = all.iter().rev().map(|facts| (facts.key.tgid, facts.ppid)).collect();
    let descends = |mut tgid: u32| {
        for _ in 0..64 {
            match parents.get(&tgid) {
                _ if tgid == root => return true,
                Some(&parent) => tgid = parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|facts| facts.kernel || descends(facts.key.tgid)).map(|facts| facts.key).collect()
}

fn keep(batch: &mut Batch, kept: &HashSet<ProcessKey>) {
    let Batch::Tick(tick) = batch else { return };
    let Tick { threads, processes, io, stacks, slow_requests, stuck, quotas, events, .. } = tick.as_mut();
    threads.retain(|thread| kept.contains(&thread.process));
    processes.retain(|facts| kept.contains(&facts.key));
    io.retain(|io| kept.contains(&io.process));
    stacks.retain(|stack| kept.contains(&stack.process));
    slow_requests.retain(|request| kept.contains(&request.process));
    stuck.retain(|stuck| kept.contains(&stuck.process));
    quotas.clear();
    events.retain(|event| kept.contains(&event.process));
}

/// Names that are needed by what stayed.
struct Used {
    stacks: HashSet<sberf::tick::StackId>,
    frames: HashSet<sberf::tick::FrameId>,
    modules: HashSet<sberf::tick::ModuleId>,
    users: HashSet<u32>,
}

impl Used {
    fn of(batches: &[Batch]) -> Self {
        let mut used =
            Used { stacks: HashSet::new(), frames: HashSet::new(), modules: HashSet::new(), users: HashSet::new() };
        for batch in batches {
            if let Batch::Tick(tick) = batch {
                used.stacks.extend(tick.stacks.iter().map(|stack| stack.stack));
                used.users.extend(tick.processes.iter().map(|facts| facts.uid));
            }
        }
        let names = || {
            batches.iter().map(|batch| match batch {
                Batch::Tick(tick) => &tick.names,
                Batch::Names(names) => names.as_ref(),
            })
        };
        for (id, stack) in names().flat_map(|names| &names.stacks) {
            if used.stacks.contains(id) {
                used.frames.extend(&stack.frames);
            }
        }
        for (id, frame) in names().flat_map(|names| &names.frames) {
            if used.frames.contains(id) {
                used.modules.insert(frame.module);
            }
        }
        used
    }

    fn keep(&self, names: &mut Names) {
        names.stacks.retain(|(id, _)| self.stacks.contains(id));
        names.frames.retain(|(id, _)| self.frames.contains(id));
        names.symbols.retain(|(id, _)| self.frames.contains(id));
        names.details.retain(|(id, _)| self.frames.contains(id));
        names.modules.retain(|(id, _)| self.modules.contains(id));
        names.users.retain(|(id, _)| self.users.contains(id));
    }
}
