//! Opens, loads and attaches the BPF objects. `sched` comes first and is required; the others share its maps and are
//! optional: each is tried by loading it, and what fails is told as a [`LensStatus`].

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, OpenObject, ProgramMut};

use super::LiveOptions;
use super::floor;
use super::ids::{self, Births, Ids};
use super::maps::{Settings, memory_of};
use super::names::Asked;
use super::said;
use super::skel::{block, life, mappings, names, numa, oncpu, sched};
use super::unwind::{Unwinder, layout};
use crate::collect::cpus::possible;
use crate::collect::mappings::open_process;
use crate::collect::privileges::Privileges;
use crate::collect::verdicts::Found;
use crate::tick::{LensStatus, ProcessKey, Refusal, is_run_by_us};

/// All objects that could be loaded, with their links: dropping it detaches everything.
pub struct Objects {
    pub sched: sched::SchedSkel<'static>,
    pub oncpu: Option<oncpu::OncpuSkel<'static>>,
    pub life: Option<life::LifeSkel<'static>>,
    pub block: Option<block::BlockSkel<'static>>,
    pub numa: Option<numa::NumaSkel<'static>>,
    /// Names the kernel's code, until somebody takes it; without it, names come from a list.
    pub names: Option<Asked>,
    names_bytes: u64,
    /// Programs whose objects somebody else keeps: who names code, who tells mappings.
    elsewhere: Vec<Program>,
    /// Makes tables; only where stacks are walked by them.
    pub unwinder: Option<Unwinder>,
    /// The task iterator.
    pub tasks: Link,
    /// The iterator over those that had an event; `None` where a kernel cannot find a thread by its id.
    pub some: Option<Link>,
    /// Translates ids of the kernel side.
    pub ids: Ids,
    births: Option<Births>,
    /// Processes whose stacks are taken, with the ids that the kernel side has of them; empty: everybody's.
    chosen: Vec<(ProcessKey, u32)>,
    /// Any of those may have ended without our being told: before that was hooked, or because it is not.
    unheard: bool,
    /// What is on and off.
    pub lenses: Vec<LensStatus>,
    /// The same by what was tried.
    pub found: Found,
    _links: Vec<Link>,
}

/// A skeleton borrows the place of its object for as long as it lives; ours live as long as the collector does. The
/// few hundred bytes of each place stay allocated when a collector is dropped.
pub(super) fn place() -> &'static mut MaybeUninit<OpenObject> {
    Box::leak(Box::new(MaybeUninit::uninit()))
}

fn refused(what: &str, error: &libbpf_rs::Error) -> Refusal {
    let said = said::last();
    let said = if said.is_empty() { error.to_string() } else { format!("{error}; {said}") };
    Privileges::read().explain_bpf(&format!("loading the BPF programs of {what} failed: {said}"), errno(error))
}

/// What the kernel answered; libbpf-rs keeps it in its text only.
fn errno(error: &libbpf_rs::Error) -> Option<i32> {
    let text = format!("{error:#}");
    text.rsplit_once("(os error ")?.1.split(')').next()?.parse().ok()
}

impl Objects {
    /// Loads and attaches what this kernel takes.
    ///
    /// `named`: the processes of `options.pids`.
    pub fn load(options: &LiveOptions, named: &[ProcessKey], nodes: &[(u32, Vec<u32>)]) -> Result<Self, Refusal> {
        said::keep();
        let (ids, births, own) = ids::load().map_err(|error| refused("the ids of tasks", &error))?;
        let chosen: Vec<_> = named.iter().filter_map(|&key| Some((key, ids.first(key)?))).collect();
        let us = Us { tgid: if options.include_self { 0 } else { own }, ids: &ids, chosen: &chosen };
        let mut found = Found { one_node: nodes.len() <= 1, ..Found::default() };
        let mappings = match options.by_tables {
            true => load_mappings(),
            false => Err(Refusal::from("switched off (--unwind fp)")),
        };
        found.mappings = mappings.as_ref().err().cloned();
        let mut elsewhere: Vec<Program> =
            mappings.iter().flat_map(|mappings| programs_of(Part::Tasks, mappings.object())).collect();
        let unwinding = mappings.and_then(|mappings| layout::check().map(|()| mappings).map_err(Refusal::from));
        let (loaded, unwinding) = load_by_tables(options, &us, nodes.len(), unwinding)?;
        let (sched, [tasks, some], mut links) = loaded;
        let mut lenses = vec![on("sched"), on("tasks")];
        let unwinder = keep(&mut found.tables, unwinding);
        lenses.push(lens("unwind", &found.tables.as_ref().map(|why| Refusal::from(format!("{why}; {BY_FP}")))));
        found.blocked = (options.walks_per_s == 0).then(|| Refusal::from("switched off (--walks 0)"));
        lenses.push(lens("stacks", &found.blocked));
        let oncpu = keep(&mut found.samples, load_oncpu(options, &us, &sched, unwinder.is_some()));
        lenses.push(lens("oncpu", &found.samples));
        let life = keep(&mut found.life, load_life(&sched, &mut links));
        lenses.push(lens("life", &found.life));
        let block = keep(&mut found.block, load_block(&sched, &mut links));
        lenses.push(lens("block", &found.block));
        let names = keep(&mut found.names, load_names());
        elsewhere.extend(names.iter().flat_map(|names| programs_of(Part::Tasks, names.object())));
        let numa = match found.one_node {
            true => {
                lenses.push(off("numa", "one node: there is nothing to move between".to_owned()));
                None
            }
            false => {
                let numa = keep(&mut found.numa, load_numa(&sched, nodes, &mut links));
                lenses.push(lens("numa", &found.numa));
                numa
            }
        };
        let names_bytes = names.as_ref().map_or(0, Asked::map_bytes);
        Ok(Objects {
            sched,
            oncpu,
            life,
            block,
            numa,
            names,
            names_bytes,
            elsewhere,
            unwinder,
            tasks,
            some: (Privileges::read().kernel >= FINDS_THREADS).then_some(some),
            chosen: if only_some(options) { chosen } else { Vec::new() },
            unheard: true,
            ids,
            births,
            lenses,
            found,
            _links: links,
        })
    }
}

impl Objects {
    /// The program that samples.
    pub fn sample(&self) -> Option<&ProgramMut<'static>> {
        let progs = &self.oncpu.as_ref()?.progs;
        Some(if self.unwinder.is_some() { &progs.sample } else { &progs.sample_fp })
    }

    /// Memory of the maps of each part that is there, bytes, as the kernel states it.
    pub fn map_bytes(&self) -> Vec<(Part, u64)> {
        let all = |object: &libbpf_rs::Object| object.maps().map(|map| memory_of(&map)).sum();
        let for_stacks = |map: &libbpf_rs::Map<'_>| {
            let name = map.name().to_string_lossy();
            STACK_MAPS.iter().any(|stack_map| name.starts_with(stack_map))
        };
        let sched = self.sched.object();
        let stacks = sched.maps().filter(for_stacks).map(|map| memory_of(&map)).sum();
        let oncpu = self.oncpu.as_ref().map(|oncpu| {
            // The others are those of `sched`.
            memory_of(&oncpu.maps.scratch) + memory_of(&oncpu.maps.walks) + memory_of(&oncpu.maps.sampled)
        });
        let parts = [
            (Part::Sched, Some(all(sched) - stacks)),
            (Part::Stacks, Some(stacks)),
            (Part::OnCpu, oncpu),
            (Part::Life, self.life.as_ref().map(|life| memory_of(&life.maps.life))),
            (Part::Block, self.block.as_ref().map(|block| all(block.object()))),
            (Part::Numa, self.numa.as_ref().map(|numa| memory_of(&numa.maps.moves))),
            (Part::Tasks, Some(self.names_bytes + self.births.as_ref().map_or(0, Births::map_bytes))),
        ];
        parts.into_iter().filter_map(|(part, bytes)| Some((part, bytes?))).collect()
    }

    /// Every program that is loaded, with its part and name.
    pub fn programs(&self) -> Vec<Program> {
        let objects = [
            (Part::Sched, Some(self.sched.object())),
            (Part::OnCpu, self.oncpu.as_ref().map(|skel| skel.object())),
            (Part::Life, self.life.as_ref().map(|skel| skel.object())),
            (Part::Block, self.block.as_ref().map(|skel| skel.object())),
            (Part::Numa, self.numa.as_ref().map(|skel| skel.object())),
            (Part::Tasks, self.births.as_ref().map(Births::object)),
        ];
        let kept = objects.into_iter().filter_map(|(part, object)| Some((part, object?)));
        let elsewhere = self.elsewhere.iter().filter_map(|program| {
            let fd = program.fd.try_clone().ok()?;
            Some(Program { part: program.part, name: program.name.clone(), fd })
        });
        kept.flat_map(|(part, object)| programs_of(part, object)).chain(elsewhere).collect()
    }
}

/// A program of ours.
pub struct Program {
    pub part: Part,
    pub name: String,
    pub fd: OwnedFd,
}

/// Those of one object that are loaded.
fn programs_of(part: Part, object: &libbpf_rs::Object) -> impl Iterator<Item = Program> {
    // A program that was left out has no descriptor.
    let loaded = object.progs().filter(|program| program.as_fd().as_raw_fd() >= 0);
    loaded.filter_map(move |program| {
        let name = program.name().to_string_lossy().into_owned();
        let part = if is_run_by_us(&name) { Part::Tasks } else { part };
        Some(Program { part, name, fd: program.as_fd().try_clone_to_owned().ok()? })
    })
}

impl Objects {
    /// Takes no more stacks of a process that was named and has ended: its PID becomes another's.
    pub fn let_go(&mut self, process: ProcessKey) {
        for (_, id) in self.chosen.extract_if(.., |(key, _)| key.tgid == process.tgid) {
            // Gone already is as good.
            let _ = self.sched.maps.chosen.delete(&id.to_ne_bytes());
        }
    }

    /// A tick is over.
    pub fn end_tick(&mut self) {
        if let Some(births) = &mut self.births {
            births.tick();
        }
        if std::mem::replace(&mut self.unheard, self.life.is_none()) {
            let gone = self.chosen.iter().map(|&(key, _)| key).filter(|&key| open_process(key).is_err());
            gone.collect::<Vec<_>>().into_iter().for_each(|key| self.let_go(key));
        }
    }
}

/// What the programs are told of sberf itself.
struct Us<'a> {
    /// The process whose stacks are not taken; 0: none.
    tgid: u32,
    ids: &'a Ids,
    /// As in [`Objects`].
    chosen: &'a [(ProcessKey, u32)],
}

/// From this release on a program finds a thread by its id (`bpf_task_from_pid`).
const FINDS_THREADS: (u32, u32) = (6, 2);

/// How the names of those maps of `sched` begin that are there for stacks.
const STACK_MAPS: [&str; 10] =
    ["stacks", "unrecorded", "sent", "frames", "scratch", "walks", "unwind_", "near", "chosen", "asleep"];

/// Parts of the kernel side, each with its own cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Sched,
    /// Walks of blocked stacks, and the maps of all stacks and tables.
    Stacks,
    OnCpu,
    Life,
    Block,
    Numa,
    /// What runs on our own CPU time: the iterator, and what names addresses.
    Tasks,
}

impl Part {
    /// As [`LensStatus::name`].
    pub fn name(self) -> &'static str {
        match self {
            Part::Sched => "sched",
            Part::Stacks => "stacks",
            Part::OnCpu => "oncpu",
            Part::Life => "life",
            Part::Block => "block",
            Part::Numa => "numa",
            Part::Tasks => "tasks",
        }
    }
}

/// A lens that works.
pub fn on(name: &str) -> LensStatus {
    LensStatus { name: name.to_owned(), off: None }
}

/// A lens that does not, and why.
pub fn off(name: &str, why: String) -> LensStatus {
    LensStatus { name: name.to_owned(), off: Some(why) }
}

/// On, unless it was refused.
fn lens(name: &str, refused: &Option<Refusal>) -> LensStatus {
    LensStatus { name: name.to_owned(), off: refused.as_ref().map(Refusal::to_string) }
}

/// What was loaded; or else why it was not.
fn keep<T>(refused: &mut Option<Refusal>, loaded: Result<T, Refusal>) -> Option<T> {
    loaded.map_err(|why| *refused = Some(why)).ok()
}

/// Leaves out the maps of tables where there are none.
macro_rules! without_tables {
    ($open:ident, $by_tables:ident, $fail:ident) => {
        let maps = &mut $open.maps;
        maps.walks.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_keys.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_files.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_pages.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_rows.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_rules.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_needs.set_autocreate($by_tables).map_err($fail)?;
        maps.unwind_snapshots.set_autocreate($by_tables).map_err($fail)?;
    };
}

type Sched = sched::SchedSkel<'static>;
type Mappings = mappings::MappingsSkel<'static>;
type LoadedSched = (Sched, [Link; 2], Vec<Link>);

/// Loads the scheduler's programs, walking by tables if that has worked so far and works with them, too. Tables of what runs
/// are made from here on, while the rest is loaded.
fn load_by_tables(
    options: &LiveOptions,
    us: &Us<'_>,
    nodes: usize,
    mappings: Result<Mappings, Refusal>,
) -> Result<(LoadedSched, Result<Unwinder, Refusal>), Refusal> {
    let by_tables = mappings.and_then(|mappings| {
        let loaded = load_sched(options, us, nodes, true)?;
        let only: Vec<u32> = options.pids.iter().copied().chain(options.follow).collect();
        let unwinder = Unwinder::start(&loaded.0.maps, &mappings, us.ids.clone(), only, options.table_bytes)
            .map_err(|error| format!("starting the maker of unwind tables failed: {error}"))?;
        Ok((loaded, unwinder))
    });
    match by_tables {
        Ok((loaded, unwinder)) => Ok((loaded, Ok(unwinder))),
        Err(why) => match load_sched(options, us, nodes, false) {
            Ok(loaded) => Ok((loaded, Err(why))),
            // A capability that is missing comes first: without it, nobody knows what the kernel could do.
            Err(why) => Err(floor::why_not().filter(|_| why.errno != Some(libc::EPERM)).map_or(why, Refusal::from)),
        },
    }
}

const BY_FP: &str = "user stacks are walked by frame pointers instead";

fn load_mappings() -> Result<Mappings, Refusal> {
    let fail = |error: libbpf_rs::Error| refused("looking at mappings", &error);
    mappings::MappingsSkelBuilder::default().open(place()).map_err(fail)?.load().map_err(fail)
}

fn load_sched(options: &LiveOptions, us: &Us<'_>, nodes: usize, by_tables: bool) -> Result<LoadedSched, Refusal> {
    let what = "the scheduler";
    let fail = |error: libbpf_rs::Error| refused(what, &error);
    let mut open = sched::SchedSkelBuilder::default().open(place()).map_err(fail)?;
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or("the object for the scheduler has no settings")?;
    rodata.self_tgid = us.tgid;
    rodata.nodes = nodes as u32;
    rodata.totals_only = options.walks_per_s == 0;
    rodata.only_some = only_some(options);
    rodata.syscall_class = super::syscalls::table();
    rodata.period_ns = u64::from(1_000_000_000 / periods_per_s(options.walks_per_s));
    if let Some(bytes) = options.ring_bytes {
        open.maps.dead.set_max_entries(bytes).map_err(fail)?;
        open.maps.frames.set_max_entries(bytes).map_err(fail)?;
    }
    if let Some(entries) = options.stack_entries {
        open.maps.stacks_even.set_max_entries(entries).map_err(fail)?;
        open.maps.stacks_odd.set_max_entries(entries).map_err(fail)?;
    }
    let cpus = possible().next_power_of_two();
    rodata.cpu_mask = u64::from(cpus) - 1;
    open.maps.bss_cpus.set_value_size(cpus * size_of::<sched::types::cpu>() as u32).map_err(fail)?;
    rodata.snapshots_per_period = snapshots_per_period();
    rodata.by_tables = by_tables;
    open.progs.look_tables.set_autoload(by_tables);
    open.progs.look_fp.set_autoload(!by_tables);
    without_tables!(open, by_tables, fail);
    let skel = open.load().map_err(fail)?;
    choose(&skel.maps.chosen, us.chosen)?;
    let progs = &skel.progs;
    let look = if by_tables { &progs.look_tables } else { &progs.look_fp };
    let look = look.as_fd().as_raw_fd().to_ne_bytes();
    skel.maps.looks.update(&0u32.to_ne_bytes(), &look, libbpf_rs::MapFlags::ANY).map_err(fail)?;
    // Switches first: what the iterator adopts must not miss the events that follow.
    let links = vec![
        progs.sched_switch.attach().map_err(fail)?,
        progs.sched_wakeup.attach().map_err(fail)?,
        progs.sched_wakeup_new.attach().map_err(fail)?,
        progs.sched_exec.attach().map_err(fail)?,
    ];
    let iterators =
        [progs.tasks.attach().map_err(fail)?, progs.some_tasks.attach_iter(skel.maps.listed.as_fd()).map_err(fail)?];
    Ok((skel, iterators, links))
}

/// Looks at a known place per second and CPU before registers are believed, see `src/bpf/place.bpf.h`: 30 ns each.
const LOOKS_PER_S: u32 = 50_000;

/// Stacks whose tables are missing that are sent along per CPU and 100 ms, each 64 KiB: some 200 a second on the whole machine.
fn snapshots_per_period() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    (24 / cpus).clamp(1, 10)
}

/// Short periods spread the walks, so that a burst does not take them all.
fn periods_per_s(walks_per_s: u32) -> u32 {
    if (1..100).contains(&walks_per_s) { 10 } else { 100 }
}

/// What the programs are told when `walks_per_s` stacks may be walked on each CPU, of those that were asked for.
pub fn settings(options: &LiveOptions, walks_per_s: u32, sample_weight: u32) -> Settings {
    let periods_per_s = periods_per_s(options.walks_per_s);
    Settings { walks: walks_per_s.div_ceil(periods_per_s), looks: LOOKS_PER_S / periods_per_s, sample_weight }
}

/// Who descends from a process that is followed, the kernel side does not know: it takes everybody's stacks then.
pub fn only_some(options: &LiveOptions) -> bool {
    !options.pids.is_empty() && options.follow.is_none()
}

fn choose(map: &impl MapCore, chosen: &[(ProcessKey, u32)]) -> Result<(), String> {
    for (ProcessKey { tgid: pid, .. }, id) in chosen {
        map.update(&id.to_ne_bytes(), &[1], libbpf_rs::MapFlags::ANY)
            .map_err(|error| format!("watching process {pid} failed: {error}; at most 1024 can be watched by -p"))?;
    }
    Ok(())
}

fn load_oncpu(
    options: &LiveOptions,
    us: &Us<'_>,
    sched: &Sched,
    by_tables: bool,
) -> Result<oncpu::OncpuSkel<'static>, Refusal> {
    let fail = |error: libbpf_rs::Error| refused("CPU sampling", &error);
    let mut open = oncpu::OncpuSkelBuilder::default().open(place()).map_err(fail)?;
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or("the object for CPU sampling has no settings")?;
    rodata.self_tgid = us.tgid;
    rodata.only_some = only_some(options);
    rodata.snapshots_per_period = snapshots_per_period();
    open.progs.sample.set_autoload(by_tables);
    open.progs.sample_fp.set_autoload(!by_tables);
    without_tables!(open, by_tables, fail);
    open.maps.data_flip.reuse_fd(sched.maps.data_flip.as_fd()).map_err(fail)?;
    open.maps.losses.reuse_fd(sched.maps.losses.as_fd()).map_err(fail)?;
    open.maps.costs.reuse_fd(sched.maps.costs.as_fd()).map_err(fail)?;
    open.maps.stacks.reuse_fd(sched.maps.stacks.as_fd()).map_err(fail)?;
    open.maps.stacks_even.reuse_fd(sched.maps.stacks_even.as_fd()).map_err(fail)?;
    open.maps.stacks_odd.reuse_fd(sched.maps.stacks_odd.as_fd()).map_err(fail)?;
    open.maps.unrecorded.reuse_fd(sched.maps.unrecorded.as_fd()).map_err(fail)?;
    open.maps.sent.reuse_fd(sched.maps.sent.as_fd()).map_err(fail)?;
    open.maps.frames.reuse_fd(sched.maps.frames.as_fd()).map_err(fail)?;
    open.maps.chosen.reuse_fd(sched.maps.chosen.as_fd()).map_err(fail)?;
    if by_tables {
        open.maps.unwind_keys.reuse_fd(sched.maps.unwind_keys.as_fd()).map_err(fail)?;
        open.maps.unwind_files.reuse_fd(sched.maps.unwind_files.as_fd()).map_err(fail)?;
        open.maps.unwind_pages.reuse_fd(sched.maps.unwind_pages.as_fd()).map_err(fail)?;
        open.maps.unwind_rows.reuse_fd(sched.maps.unwind_rows.as_fd()).map_err(fail)?;
        open.maps.unwind_rules.reuse_fd(sched.maps.unwind_rules.as_fd()).map_err(fail)?;
        open.maps.unwind_needs.reuse_fd(sched.maps.unwind_needs.as_fd()).map_err(fail)?;
        open.maps.unwind_snapshots.reuse_fd(sched.maps.unwind_snapshots.as_fd()).map_err(fail)?;
    }
    open.load().map_err(fail)
}

fn load_life(sched: &Sched, links: &mut Vec<Link>) -> Result<life::LifeSkel<'static>, Refusal> {
    let fail = |error: libbpf_rs::Error| refused("process events", &error);
    let mut open = life::LifeSkelBuilder::default().open(place()).map_err(fail)?;
    open.maps.data_flip.reuse_fd(sched.maps.data_flip.as_fd()).map_err(fail)?;
    open.maps.losses.reuse_fd(sched.maps.losses.as_fd()).map_err(fail)?;
    open.maps.costs.reuse_fd(sched.maps.costs.as_fd()).map_err(fail)?;
    let skel = open.load().map_err(fail)?;
    links.push(skel.progs.on_fork.attach().map_err(fail)?);
    links.push(skel.progs.on_exec.attach().map_err(fail)?);
    links.push(skel.progs.on_exit.attach().map_err(fail)?);
    Ok(skel)
}

fn load_block(sched: &Sched, links: &mut Vec<Link>) -> Result<block::BlockSkel<'static>, Refusal> {
    // `block_io_start` came with 6.5; without it the submitter is who inserts or issues the request.
    open_block(sched, links, true).or_else(|_| open_block(sched, links, false))
}

fn open_block(sched: &Sched, links: &mut Vec<Link>, io_start: bool) -> Result<block::BlockSkel<'static>, Refusal> {
    let fail = |error: libbpf_rs::Error| refused("block I/O", &error);
    let mut open = block::BlockSkelBuilder::default().open(place()).map_err(fail)?;
    open.progs.io_start.set_autoload(io_start);
    open.maps.data_flip.reuse_fd(sched.maps.data_flip.as_fd()).map_err(fail)?;
    open.maps.losses.reuse_fd(sched.maps.losses.as_fd()).map_err(fail)?;
    open.maps.costs.reuse_fd(sched.maps.costs.as_fd()).map_err(fail)?;
    let skel = open.load().map_err(fail)?;
    skel.maps
        .slow_ns
        .update(&0u32.to_ne_bytes(), &super::disks::SLOW_FIRST_NS.to_ne_bytes(), libbpf_rs::MapFlags::ANY)
        .map_err(fail)?;
    // Completions first: a request must not stay in flight for ever because its end was not seen.
    links.push(skel.progs.rq_complete.attach().map_err(fail)?);
    links.push(skel.progs.rq_issue.attach().map_err(fail)?);
    links.push(skel.progs.rq_insert.attach().map_err(fail)?);
    if io_start {
        links.push(skel.progs.io_start.attach().map_err(fail)?);
    }
    Ok(skel)
}

/// Linux 5.15 has not all that it needs.
fn load_names() -> Result<Asked, Refusal> {
    let fail = |error: libbpf_rs::Error| refused("the kernel's names", &error);
    names::NamesSkelBuilder::default().open(place()).map_err(fail)?.load().map_err(fail).map(Asked::new)
}

fn load_numa(
    sched: &Sched,
    nodes: &[(u32, Vec<u32>)],
    links: &mut Vec<Link>,
) -> Result<numa::NumaSkel<'static>, Refusal> {
    let fail = |error: libbpf_rs::Error| refused("NUMA balancing", &error);
    let mut open = numa::NumaSkelBuilder::default().open(place()).map_err(fail)?;
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or("the object for NUMA has no settings")?;
    rodata.nodes = nodes.len() as u32;
    for (index, (_, cpus)) in (0..).zip(nodes) {
        for &cpu in cpus {
            if let Some(node) = rodata.node_of_cpu.get_mut(cpu as usize) {
                *node = index;
            }
        }
    }
    open.maps.moves.set_max_entries((nodes.len() * nodes.len()) as u32).map_err(fail)?;
    open.maps.data_flip.reuse_fd(sched.maps.data_flip.as_fd()).map_err(fail)?;
    open.maps.losses.reuse_fd(sched.maps.losses.as_fd()).map_err(fail)?;
    open.maps.costs.reuse_fd(sched.maps.costs.as_fd()).map_err(fail)?;
    let skel = open.load().map_err(fail)?;
    links.push(skel.progs.move_numa.attach().map_err(fail)?);
    links.push(skel.progs.swap_numa.attach().map_err(fail)?);
    Ok(skel)
}
