//! The three parts of the measurement, each with its table.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::bpf::{self, Floor, Least, Program, Stats};
use crate::load::{self, Load};
use crate::screen::{self, Run};
use crate::stats::{Spread, cell, order, ratios, short, spread};
use crate::tools::{self, Running, Tool};

/// Round trips of one run: about a second.
const TRIPS: u64 = 200_000;

/// Which machine this was: without it no figure means anything.
pub fn machine(rounds: usize) {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb = memory.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cpus} × {}, {:.1} GB, Linux {}; {rounds} rounds, order turned every round; middle (least–greatest).",
        model.trim_start_matches([' ', '\t', ':']),
        kb as f64 / 1e6,
        kernel.trim()
    );
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).unwrap_or(0.0);
    if load > 0.5 {
        println!("Other work runs here (load average {load:.1} at the start): what follows is not a measurement.");
    }
}

/// CPU time that the hypervisor gave to somebody else.
pub struct Steal {
    stolen: u64,
    all: u64,
}

impl Steal {
    pub fn start() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        Steal { stolen: ticks.get(7).copied().unwrap_or(0), all: ticks.iter().take(8).sum() }
    }

    pub fn percent(&self) -> f64 {
        let now = Steal::start();
        100.0 * (now.stolen - self.stolen) as f64 / (now.all - self.all).max(1) as f64
    }
}

/// What is done while programs are counted: its name, and doing it.
type Work<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);

/// (a) ns per event of every program, as the kernel counts, and the same less what an empty program is charged.
pub fn programs(rounds: usize, scratch: &Path) -> Result<()> {
    let tools = tools::attachers();
    println!("\n| load | tool | program | events | ns/event | net of measuring |\n|---|---|---|--:|--:|--:|");
    let _stats = Stats::on()?;
    let file = load::make_file(scratch)?;
    let file = file.to_string_lossy();
    let works: [Work; 2] = [
        ("pipe ping-pong", Box::new(|| load::ping_pong_seconds(TRIPS, 0).map(|_| ()))),
        ("4 KiB direct reads", Box::new(|| Load::start(&["reads", &file, "1500"])?.line().map(|_| ()))),
    ];
    for (name, work) in &works {
        if let Err(error) = work() {
            eprintln!("{name}: left out: {error:#}");
            continue;
        }
        let (mut floors, mut rows) = (Vec::new(), vec![Vec::new(); tools.len()]);
        for round in 0..rounds {
            let floor = Floor::attach(scratch, Least::Nothing)?;
            floors.push(counted(std::process::id(), work)?);
            drop(floor);
            for at in order(tools.len(), round) {
                match counted_tool(&tools[at], work, scratch) {
                    Ok(run) => rows[at].push(run),
                    Err(error) => eprintln!("{error:#}"),
                }
            }
        }
        for (tool, runs) in tools.iter().zip(&rows) {
            print_programs(name, tool, runs, &floors);
        }
    }
    Ok(())
}

/// What the programs of a process do while the work is done.
fn counted(pid: u32, work: &dyn Fn() -> Result<()>) -> Result<Vec<Program>> {
    let before = bpf::programs_of(pid);
    work()?;
    Ok(bpf::since(&before, &bpf::programs_of(pid)))
}

/// The same for a tool that is started for it, and has seen the work once: of a program that is new to it, sberf makes unwind tables on
/// the other CPU meanwhile, and for some tenths of a second the load itself may be a third slower.
fn counted_tool(tool: &Tool, work: &dyn Fn() -> Result<()>, scratch: &Path) -> Result<Vec<Program>> {
    let running = Running::start(tool, scratch)?;
    work()?;
    counted(running.pid()?, work)
}

fn print_programs(load: &str, tool: &Tool, runs: &[Vec<Program>], floors: &[Vec<Program>]) {
    let mut names: Vec<&str> = runs.iter().flatten().map(|program| program.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of = |wanted: &str, runs: &[Vec<Program>]| -> Vec<Option<f64>> {
            let find = |run: &Vec<Program>| run.iter().find(|program| program.name == wanted)?.ns_per_run();
            runs.iter().map(find).collect()
        };
        let events = spread(runs.iter().flatten().filter(|p| p.name == name).map(|p| p.runs as f64));
        // A handful of cold runs says nothing about the cost of one.
        if events.is_none_or(|events| events.median < 50.0) {
            continue;
        }
        let raw = of(name, runs);
        let net = floor_of(name).and_then(|floor| {
            let floor = of(floor, floors);
            spread(raw.iter().zip(&floor).filter_map(|(raw, floor)| Some((*raw)? - (*floor)?)))
        });
        let events = events.map_or(0.0, |events| events.median);
        let (raw, net) = (cell(spread(raw.into_iter().flatten())), cell(net));
        println!("| {load} | {} | `{name}` | {events:.0} | {raw} | {net} |", tool.name);
    }
}

/// The empty program on the same hook, by what a program is called.
fn floor_of(program: &str) -> Option<&'static str> {
    match program {
        name if name.contains("switch") => Some("empty_switch"),
        name if name.contains("wakeup") => Some("empty_wakeup"),
        name if name.contains("block") || name.contains("rq_") => Some("empty_block"),
        _ => None,
    }
}

/// (b) How long work takes while it is watched.
pub fn work(rounds: usize, scratch: &Path) -> Result<()> {
    let tools = tools::watchers();
    println!(
        "\n| work | watched by | seconds | ratio to nothing | best to best | added, in runqlat's | in offcputime's |\n\
         |---|---|--:|--:|--:|--:|--:|"
    );
    let source = load::make_c(scratch)?;
    type Timed<'a> = (&'static str, Box<dyn Fn() -> Result<f64> + 'a>);
    // Two switches each.
    let steps = load::steps_for(Duration::from_micros(20))?;
    let steps_of_two = load::steps_for(Duration::from_micros(40))?;
    let works: [Timed; 4] = [
        ("200 000 pipe round trips on one CPU", Box::new(|| load::ping_pong_seconds(TRIPS, 0))),
        ("the same with work in between, 100 000 switches/s", Box::new(|| load::ping_pong_seconds(TRIPS, steps))),
        (
            "the same on each of two CPUs, 50 000 switches/s",
            Box::new(|| load::ping_pongs_seconds(TRIPS / 2, steps_of_two, 2)),
        ),
        ("2 × clang -O2", Box::new(|| load::build_seconds(&source))),
    ];
    for (name, work) in &works {
        if let Err(error) = work() {
            eprintln!("{name}: left out: {error:#}");
            continue;
        }
        let mut seconds = vec![Vec::new(); tools.len()];
        for round in 0..rounds {
            for at in order(tools.len(), round) {
                seconds[at].push(match Running::start(&tools[at], scratch) {
                    // It watches until the work is done.
                    Ok(_running) => Some(work()?),
                    Err(error) => {
                        eprintln!("{error:#}");
                        None
                    }
                });
            }
        }
        print_work(name, &tools, &seconds);
    }
    Ok(())
}

fn print_work(work: &str, tools: &[Tool], seconds: &[Vec<Option<f64>>]) {
    let spreads: Vec<Option<Spread>> = seconds.iter().map(|runs| spread(runs.iter().copied().flatten())).collect();
    let base = spreads[0];
    // Time that watching adds, by the medians of the ratios.
    let extra = |at: usize| ratios(&seconds[at], &seconds[0]).map(|ratio| ratio.median - 1.0);
    let peer = |name: &str| tools.iter().position(|tool| tool.name == name).and_then(extra);
    for (at, tool) in tools.iter().enumerate() {
        let Some(own) = spreads[at] else { continue };
        let against = |name: &str| match (extra(at), peer(name)) {
            // Below a twentieth the noise is larger than what is measured.
            (Some(own), Some(peer)) if at > 0 && peer > 0.05 => short(own / peer),
            _ => "–".into(),
        };
        println!(
            "| {work} | {} | {} | {} | {} | {} | {} |",
            tool.name,
            cell(Some(own)),
            if at == 0 { "1".into() } else { cell(ratios(&seconds[at], &seconds[0])) },
            base.map_or("–".into(), |base| short(own.min / base.min)),
            against("runqlat"),
            against("offcputime"),
        );
    }
}

/// (c) What a screen that is redrawn once a second costs, by number of sleeping processes.
pub fn screens(rounds: usize, steady: Duration, tasks: &[u64]) -> Result<()> {
    let tools = tools::screens();
    println!(
        "\n| processes | program | first byte ms | full screen ms | start CPU ms | CPU % | BPF % | CPU to htop's | full screen to htop's \
         | KB/s | peak RSS MB |\n|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for &count in tasks {
        let mut sleepers = (count > 0).then(|| Load::start(&["sleepers", &count.to_string()])).transpose()?;
        if let Some(sleepers) = &mut sleepers {
            sleepers.line()?;
        }
        let processes =
            fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).count();
        let mut runs = vec![Vec::new(); tools.len()];
        let _stats = Stats::on()?;
        for round in 0..rounds {
            for at in order(tools.len(), round) {
                let run = screen::run(&tools[at].command, steady);
                runs[at].push(run.map_err(|error| eprintln!("{error:#}")).ok());
            }
        }
        print_screens(processes, &tools, &runs);
    }
    Ok(())
}

fn print_screens(processes: usize, tools: &[Tool], runs: &[Vec<Option<Run>>]) {
    let column = |at: usize, value: &dyn Fn(&Run) -> Option<f64>| -> Vec<Option<f64>> {
        runs[at].iter().map(|run| run.as_ref().and_then(value)).collect()
    };
    let all = |at: usize, value: &dyn Fn(&Run) -> Option<f64>| cell(spread(column(at, value).into_iter().flatten()));
    let to_first = |at: usize, value: &dyn Fn(&Run) -> Option<f64>| match at {
        0 => "1".into(),
        _ => cell(ratios(&column(at, value), &column(0, value))),
    };
    // What its BPF programs take is its own as well.
    let cpu = |run: &Run| Some(run.cpu_percent + run.bpf_percent);
    for (at, tool) in tools.iter().enumerate() {
        println!(
            "| {processes} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            tool.name,
            all(at, &|run| run.first_byte_ms),
            all(at, &|run| run.full_ms),
            all(at, &|run| Some(run.start_cpu_ms)),
            all(at, &|run| Some(run.cpu_percent)),
            all(at, &|run| Some(run.bpf_percent)),
            to_first(at, &cpu),
            to_first(at, &|run| run.full_ms),
            all(at, &|run| Some(run.kb_per_s)),
            all(at, &|run| Some(run.rss_mb)),
        );
    }
}
