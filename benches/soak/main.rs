//! `sberf top` for a long time on a machine that is never quiet: does anything grow, is any tick lost?
//!
//! `make soak` starts it as root, for 30 minutes. The program runs in a terminal, with 200 processes a second coming and going, and
//! records; it is looked at from outside every few seconds, and what it recorded is read at the end.
//!
//! ```text
//! soak [--minutes M] [--churn PER_S] [--program PATH]
//! ```

mod load;
mod readings;
mod told;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use load::Load;
use readings::{Reading, median};
use told::Told;

/// Between two looks from outside.
const EVERY: Duration = Duration::from_secs(2);
/// Memory for the past, MB: little, so that it is full before what may not grow any more is measured.
const HISTORY_MB: &str = "4";
/// Between the first third after the warm-up and the last, memory may differ by that share.
const FLAT: f64 = 0.05;
/// No run is longer, whatever was asked for.
const LONGEST: f64 = 24.0 * 60.0;

struct Plan {
    minutes: f64,
    churn: u64,
    program: PathBuf,
}

impl Plan {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_sberf"));
        let mut plan = Plan { minutes: 30.0, churn: 200, program };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--minutes" => plan.minutes = value()?.parse::<f64>()?.clamp(0.5, LONGEST),
                "--churn" => plan.churn = value()?.parse()?,
                "--program" => plan.program = value()?.into(),
                // From `cargo bench`.
                "--bench" => {}
                other => bail!("unknown argument {other} (known: --minutes --churn --program)"),
            }
        }
        Ok(plan)
    }

    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// A third of it, and no more than ten minutes.
    fn warm_up(&self) -> Duration {
        (self.length() / 3).min(Duration::from_secs(600))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == load::CHILD) {
        return load::child(&args[1..]);
    }
    if !rustix::process::geteuid().is_root() {
        println!("soak: skipped: needs root (make soak asks for it)");
        return ExitCode::SUCCESS;
    }
    match Plan::parse(args.into_iter()).and_then(|plan| soak(&plan)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if nothing grew and nothing was lost.
fn soak(plan: &Plan) -> Result<bool> {
    let dir = tempfile::tempdir_in(std::env::var("CARGO_TARGET_TMPDIR").unwrap_or_else(|_| "/var/tmp".into()))?;
    let capture = dir.path().join("soak.sberf");
    println!(
        "soak: {} min, {} processes/s come and go; {} to warm up",
        plan.minutes,
        plan.churn,
        format_args!("{:.0} s", plan.warm_up().as_secs_f64())
    );
    let _churn = Load::start(&["churn", &plan.churn.to_string()])?;
    let _mixed = Load::start(&["mixed", &dir.path().display().to_string()])?;
    let (readings, terminal_bytes) = watch(plan, &capture)?;
    let told = Told::read(&capture)?;
    let capture_bytes = std::fs::metadata(&capture)?.len();
    let warm = (plan.warm_up().as_secs_f64() / EVERY.as_secs_f64()) as usize;
    ensure!(readings.len() > warm + 6, "only {} readings: too short a run", readings.len());
    Ok(report(&readings[warm..], &told, capture_bytes, terminal_bytes, plan.length()))
}

/// Runs the program in a terminal and looks at it from outside.
fn watch(plan: &Plan, capture: &Path) -> Result<(Vec<Reading>, u64)> {
    let size = PtySize { rows: 50, cols: 200, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).context("opening a pseudo-terminal")?;
    let mut command = CommandBuilder::new(&plan.program);
    command.args(["top", "--history", HISTORY_MB, "--write"]);
    command.arg(capture);
    command.env("TERM", "xterm-256color");
    let mut reader = pair.master.try_clone_reader()?;
    let mut keys = pair.master.take_writer()?;
    let mut child = pair.slave.spawn_command(command).with_context(|| format!("starting {:?}", plan.program))?;
    drop(pair.slave);
    let bytes = Arc::new(AtomicU64::new(0));
    let written = Arc::clone(&bytes);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            written.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    let pid = child.process_id().context("no process id")?;
    let start = Instant::now();
    let mut readings = Vec::new();
    while start.elapsed() < plan.length() {
        std::thread::sleep(EVERY);
        if let Some(status) = child.try_wait()? {
            bail!("sberf ended after {:.0} s: {status:?}", start.elapsed().as_secs_f64());
        }
        // As somebody would: into the busiest process and out again, the places, what it costs.
        let key = [b"\r".as_slice(), b"o", b"\x1b", b"2", b"4", b"1", b"$", b"\x1b"][readings.len() % 8];
        keys.write_all(key)?;
        readings.push(Reading::take(pid)?);
    }
    keys.write_all(b"\x03")?;
    let patience = Instant::now() + Duration::from_secs(30);
    while child.try_wait()?.is_none() {
        ensure!(Instant::now() < patience, "sberf does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((readings, bytes.load(Ordering::Relaxed)))
}

/// Prints the table; true if every bar holds.
fn report(readings: &[Reading], told: &Told, capture_bytes: u64, terminal_bytes: u64, length: Duration) -> bool {
    let third = readings.len() / 3;
    let (first, last) = (&readings[..third], &readings[readings.len() - third..]);
    let mut good = true;
    let mut row = |what: &str, value: String, bar: &str, holds: bool| {
        good &= holds;
        println!("{what:<28} {value:<44} {bar:<12} {}", if holds { "ok" } else { "FAILED" });
    };
    let mut flat = |what: &str, bar: &str, unit: f64, most: f64, of: fn(&Reading) -> u64| {
        let (from, to) = (median(first, of) as f64, median(last, of) as f64);
        let change = if from > 0.0 { to / from - 1.0 } else { 0.0 };
        let digits = usize::from(unit > 1.0);
        let value = format!("{:.digits$} -> {:.digits$} ({:+.1} %)", from / unit, to / unit, change * 100.0);
        row(what, value, bar, change <= most && (most == 0.0 || change >= -most || to < from));
    };
    println!("\n{:<28} {:<44} {:<12}", "", "first third after warm-up -> last third", "bar");
    flat("resident memory, MB", "±5 %", 1e6, FLAT, |reading| reading.rss_bytes);
    flat("BPF maps, MB", "±5 %", 1e6, FLAT, |reading| reading.map_bytes);
    flat("descriptors", "no growth", 1.0, 0.05, |reading| reading.descriptors);
    flat("threads", "±5 %", 1.0, FLAT, |reading| reading.threads);
    let expected = length.as_secs_f64().floor() as u64;
    let ticks = format!("{} in {} s, {} late, {} gaps", told.ticks, expected, told.late, told.gaps);
    row("ticks", ticks, "none lost", told.late == 0 && told.gaps == 0 && told.ticks + 5 >= expected);
    println!("longest until ready          {:.1} ms", told.longest_late_ns as f64 / 1e6);
    let seconds = told.observed_ns as f64 / 1e9;
    println!("forks seen                   {} ({:.0}/s)", told.forks, told.forks as f64 / seconds);
    println!("own cost, by its account     {:.2} % of one CPU", told.cost_ns as f64 / told.observed_ns as f64 * 100.0);
    if let (Some(first), Some(last)) = (readings.first(), readings.last()) {
        let span = EVERY.as_nanos() as f64 * (readings.len() - 1) as f64;
        let share = (last.cpu_ns.saturating_sub(first.cpu_ns)) as f64 / span * 100.0;
        println!("own CPU time, from outside   {share:.2} % of one CPU (its threads, without BPF)");
    }
    println!("governor                     {} changes, {} ticks governed", told.governor_changes, told.governed_ticks);
    println!("to the terminal              {:.1} KB/s", terminal_bytes as f64 / 1e3 / length.as_secs_f64());
    println!("capture                      {:.1} MB", capture_bytes as f64 / 1e6);
    for (what, count) in &told.losses {
        println!("lost                         {count} {what}");
    }
    for (what, count) in &told.alarms {
        println!("disagreed with procfs        {what}: {count} ticks");
    }
    println!("\n{}", if good { "nothing grew, no tick was lost" } else { "FAILED" });
    good
}
