//! What sberf costs, beside the tools it replaces, in one interleaved run. `make bench` starts it as root.
//!
//! Everything is read from outside: CPU clocks of the processes, the kernel's statistics of BPF programs, the speed of the
//! work that is watched, the bytes on the terminal. Order turns every round, ratios are taken within a round, and the
//! middle, least and greatest of all rounds are printed. Peers that are not installed are left out and named.
//!
//! ```text
//! overhead [--rounds N] [--only programs|samples|work|screens] [--steady SECONDS] [--tasks N,N]
//! ```

mod bpf;
mod load;
mod report;
mod samples;
mod screen;
mod stats;
mod tools;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What is measured, and how often.
struct Plan {
    rounds: usize,
    only: Option<String>,
    steady: Duration,
    /// Sleeping processes beside what runs anyway, one table row group each.
    tasks: Vec<u64>,
}

impl Plan {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Plan { rounds: 5, only: None, steady: Duration::from_secs(10), tasks: vec![0, 5000] };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--rounds" => plan.rounds = value()?.parse::<usize>()?.max(1),
                "--only" => plan.only = Some(value()?),
                "--steady" => plan.steady = Duration::from_secs(value()?.parse::<u64>()?.max(1)),
                "--tasks" => plan.tasks = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                // From `cargo bench`.
                "--bench" => {}
                other => bail!("unknown argument {other} (known: --rounds --only --steady --tasks)"),
            }
        }
        Ok(plan)
    }

    fn wants(&self, section: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == section)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == load::CHILD) {
        return load::child(&args[1..]);
    }
    if !rustix::process::geteuid().is_root() {
        println!("overhead: skipped: needs root, as do the tools that it compares (make bench asks for it)");
        return ExitCode::SUCCESS;
    }
    match Plan::parse(args.into_iter()).and_then(|plan| measure(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(plan: &Plan) -> Result<()> {
    libbpf_rs::set_print(None);
    let scratch = tempfile::tempdir_in(std::env::var("CARGO_TARGET_TMPDIR").unwrap_or_else(|_| "/var/tmp".into()))?;
    report::machine(plan.rounds);
    let steal = report::Steal::start();
    if plan.wants("programs") {
        report::programs(plan.rounds, scratch.path())?;
    }
    if plan.wants("samples") {
        samples::samples(plan.rounds, plan.steady, scratch.path())?;
    }
    if plan.wants("work") {
        report::work(plan.rounds, scratch.path())?;
    }
    if plan.wants("screens") {
        report::screens(plan.rounds.min(3), plan.steady, &plan.tasks)?;
    }
    println!("\nTime withheld by the hypervisor during all this: {:.1} %.", steal.percent());
    Ok(())
}
