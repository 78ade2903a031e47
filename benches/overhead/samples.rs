//! What one on-CPU sample costs under real programs: both stacks taken, the user's by tables.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bpf::{self, Program, Stats};
use crate::load;
use crate::stats::{Spread, cell, spread};
use crate::tools::{self, Running};

/// Of the program that a sample runs, as the kernel counts it; measuring that is in it.
const MOST_NS: f64 = 25_000.0;
/// Of the time of all CPUs, %.
const MOST_PERCENT: f64 = 0.3;
/// Names of the programs that sample: by tables, and where that cannot be, by frame pointers.
const SAMPLERS: [&str; 2] = ["sample", "sample_fp"];

/// A program and how it is kept busy: lines for the shell, in a directory of their own.
const WORKS: [(&str, &str); 7] = [
    (
        "python3",
        "exec python3 -c 'import json,re\nwhile True:\n  d=[{\"k\":i,\"v\":str(i)*9} for i in range(999)]\n  re.findall(r\"(\\d+)\",json.dumps(sorted(d,key=lambda e:e[\"v\"])))'",
    ),
    (
        "perl",
        "exec perl -e 'while(1){my %h;for(1..9999){$h{$_%977}.=\"x$_\";}my $s=join(\",\",map{\"$_=$h{$_}\"}sort keys %h);}'",
    ),
    (
        "git",
        "[ -d .git ] || { git init -q .; seq 1 60000 >a; git add a; git -c user.name=a -c user.email=a@a commit -qm 1; seq 1 2 60000 >a; git -c user.name=a -c user.email=a@a commit -qam 2; }; while :; do git log -p --stat >/dev/null; done",
    ),
    ("gcc", "while :; do gcc -O2 -c -o o.o work.c; done"),
    ("xz", "seq 1 9999999 | exec xz -9 -c >/dev/null"),
    (
        "sqlite3",
        "exec sqlite3 :memory: 'with recursive c(x) as (select 1 union all select x+1 from c) select sum(length(hex(x))) from c limit 1'",
    ),
    (
        "node",
        "exec node -e 'function f(n){return n<2?n:f(n-1)+f(n-2)};for(;;){f(25);JSON.stringify(Array.from({length:999},(_,i)=>({i})))}'",
    ),
];

/// What the samples of one run cost: how many, ns each, % of all CPUs.
struct Run {
    samples: f64,
    ns: f64,
    percent: f64,
}

/// ns per sample and share of the machine under each program that is installed, 99 samples per second and CPU.
pub fn samples(rounds: usize, each: Duration, scratch: &Path) -> Result<()> {
    println!("\n| load | samples | ns/sample | most is {MOST_NS} | % of the machine | most is {MOST_PERCENT} |");
    println!("|---|--:|--:|---|--:|---|");
    let _stats = Stats::on()?;
    load::make_c(scratch)?;
    for (name, script) in WORKS {
        if !is_installed(name) {
            println!("| {name} | not installed: left out |");
            continue;
        }
        let runs = (0..rounds).map(|_| run(script, each, scratch)).collect::<Result<Vec<_>>>()?;
        let over = |value: fn(&Run) -> f64| spread(runs.iter().map(value));
        let verdict = |found: Option<Spread>, most: f64| match found {
            Some(found) if found.median <= most => "kept",
            _ => "not kept",
        };
        let (ns, percent) = (over(|run| run.ns), over(|run| run.percent));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            cell(over(|run| run.samples)),
            cell(ns),
            verdict(ns, MOST_NS),
            cell(percent),
            verdict(percent, MOST_PERCENT),
        );
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn run(script: &str, each: Duration, dir: &Path) -> Result<Run> {
    let tool = tools::attachers().into_iter().next().context("sberf itself")?;
    let running = Running::start(&tool, dir)?;
    let pid = running.pid()?;
    let (begun, before) = (Instant::now(), bpf::programs_of(pid));
    // It ends all that the shell started: they are of one group.
    let status = Command::new("timeout")
        .arg(each.as_secs().to_string())
        .args(["sh", "-c", script])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting timeout (coreutils)")?;
    ensure!(status.code() == Some(124), "the load ended by itself: {status}");
    let (elapsed, after) = (begun.elapsed(), bpf::programs_of(pid));
    let sampled = bpf::since(&before, &after);
    let sampled: Vec<&Program> = sampled.iter().filter(|program| SAMPLERS.contains(&program.name.as_str())).collect();
    let (runs, ns) = sampled.iter().fold((0, 0), |(runs, ns), program| (runs + program.runs, ns + program.ns));
    ensure!(runs > 0, "no sample was taken");
    let cpus = std::thread::available_parallelism()?.get() as f64;
    Ok(Run {
        samples: runs as f64,
        ns: ns as f64 / runs as f64,
        percent: 100.0 * ns as f64 / (elapsed.as_nanos() as f64 * cpus),
    })
}
