//! What the machine does meanwhile: processes that come and go, and some of everything else. This program starts itself again as one
//! of these; they end with it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// First argument of a program that is a load.
pub const CHILD: &str = "--as-load";

/// What this program does when it was started as a load.
pub fn child(args: &[String]) -> ExitCode {
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // Whoever started us holds the other end until it ends, however that happens.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let done = match args.first().map(String::as_str) {
        Some("churn") => churn(number(1)),
        Some("mixed") => mixed(Path::new(args.get(1).map_or(".", String::as_str))),
        other => Err(anyhow::anyhow!("no such load: {other:?}")),
    };
    if let Err(error) = done {
        eprintln!("load: {error:#}");
    }
    ExitCode::FAILURE
}

/// This program, started as a load, killed when dropped.
pub struct Load(Child);

impl Load {
    pub fn start(args: &[&str]) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting load {args:?}"))?;
        Ok(Load(child))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// So many processes a second, each with an exec: as many as there is time for on a busy machine.
fn churn(per_s: u64) -> Result<()> {
    let (start, mut born) = (Instant::now(), 0u64);
    loop {
        let due = start.elapsed().as_millis() as u64 * per_s / 1000;
        // What could not be kept up with is not made up for.
        born = born.max(due.saturating_sub(per_s));
        while born < due {
            Command::new("true").stdin(Stdio::null()).status().context("starting true")?;
            born += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Computes, writes, passes bytes through pipes, sleeps, and makes threads, all of it in turns.
fn mixed(dir: &Path) -> Result<()> {
    let path = dir.join("written");
    let writer = File::create(&path)?;
    std::thread::spawn(move || write(&writer));
    std::thread::spawn(pass);
    std::thread::spawn(brief);
    loop {
        compute(Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(70));
    }
}

/// Calls of changing depth, so that stacks differ.
#[inline(never)]
fn compute(how_long: Duration) -> u64 {
    let end = Instant::now() + how_long;
    let mut sum = 0u64;
    while Instant::now() < end {
        sum = sum.wrapping_add(deeper(sum % 23, sum));
    }
    std::hint::black_box(sum)
}

#[inline(never)]
fn deeper(depth: u64, seed: u64) -> u64 {
    let spin = (0..500u64).fold(seed, |sum, n| std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n)));
    if depth == 0 { spin } else { deeper(depth - 1, spin).rotate_left(1) }
}

fn write(mut file: &File) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let block = vec![7u8; 256 << 10];
    let mut at = 0;
    loop {
        file.write_all_at(&block, at % (16 << 20))?;
        file.flush()?;
        file.sync_data()?;
        at += block.len() as u64;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two threads, a few thousand switches a second.
fn pass() -> Result<()> {
    let (mut read, mut back) = std::io::pipe()?;
    let (mut ask, mut go) = std::io::pipe()?;
    std::thread::spawn(move || -> Result<()> {
        let mut byte = [0];
        loop {
            ask.read_exact(&mut byte)?;
            back.write_all(&byte)?;
        }
    });
    let mut byte = [0];
    loop {
        for _ in 0..50 {
            go.write_all(&[1])?;
            read.read_exact(&mut byte)?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Threads that live for a moment.
fn brief() -> Result<()> {
    loop {
        let thread = std::thread::Builder::new().name("brief".into()).spawn(|| compute(Duration::from_micros(300)))?;
        let _ = thread.join();
        std::thread::sleep(Duration::from_millis(50));
    }
}
