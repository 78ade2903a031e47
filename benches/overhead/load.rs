//! Work whose speed is known: this program starts itself again as one of these, so that nothing else is needed.
//!
//! `perf bench sched pipe` is not used for throughput: its two speeds (a factor 1.45 apart, chosen anew at each start) hide
//! anything smaller. Both ends of the ping-pong here sit on one CPU, so every round trip is exactly two switches.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// First argument of a program that is a load.
pub const CHILD: &str = "--as-load";

/// What this program does when it was started as a load.
pub fn child(args: &[String]) -> ExitCode {
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let done = match args.first().map(String::as_str) {
        Some("ping-pong") => {
            ping_pong(number(1), number(2) as usize, number(3)).map(|took| println!("{}", took.as_nanos()))
        }
        Some("echo") => echo(number(1)),
        Some("sleepers") => sleepers(number(1)),
        Some("reads") => {
            reads(Path::new(args.get(1).map_or("", String::as_str)), number(2)).map(|count| println!("{count}"))
        }
        other => Err(anyhow::anyhow!("no such load: {other:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// This program, started as a load, killed when dropped.
pub struct Load(Child);

impl Load {
    pub fn start(args: &[&str]) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting load {args:?}"))?;
        Ok(Load(child))
    }

    /// Its first line of output, without the end of the line.
    pub fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        let out = self.0.stdout.as_mut().context("no output")?;
        while out.read(&mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        ensure!(!line.is_empty(), "the load ended without an answer");
        Ok(String::from_utf8(line)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The sleepers end when this closes; waiting for them keeps the next run clean.
        drop(self.0.stdin.take());
        let patience = Instant::now() + Duration::from_secs(20);
        while Instant::now() < patience {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Seconds that `trips` round trips take, both ends on the last CPU; each end computes `steps` in between.
pub fn ping_pong_seconds(trips: u64, steps: u64) -> Result<f64> {
    ping_pongs_seconds(trips, steps, 1)
}

/// The same on each of the last `cpus` CPUs at once, the mean of their times.
pub fn ping_pongs_seconds(trips: u64, steps: u64, cpus: usize) -> Result<f64> {
    let all = std::thread::available_parallelism()?.get();
    ensure!(cpus <= all, "{cpus} CPUs are needed, {all} are here");
    let start = |cpu: usize| Load::start(&["ping-pong", &trips.to_string(), &cpu.to_string(), &steps.to_string()]);
    let mut pairs = (all - cpus..all).map(start).collect::<Result<Vec<_>>>()?;
    let ns = pairs.iter_mut().map(|pair| Ok(pair.line()?.parse::<f64>()?)).sum::<Result<f64>>()?;
    Ok(ns / 1e9 / cpus as f64)
}

/// How many steps to compute at each end, so that a round trip takes so long while nobody watches.
pub fn steps_for(trip: Duration) -> Result<u64> {
    const TRIPS: u64 = 20_000;
    const STEPS: u64 = 10_000;
    let ns = |steps| ping_pong_seconds(TRIPS, steps).map(|seconds| seconds * 1e9 / TRIPS as f64);
    let (bare, with) = (ns(0)?, ns(STEPS)?);
    let wanted = (trip.as_nanos() as f64 - bare) / ((with - bare) / STEPS as f64);
    Ok(wanted.max(0.0) as u64)
}

fn compute(steps: u64) {
    let mut sum = 1u64;
    for step in 0..steps {
        sum = std::hint::black_box(sum.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step);
    }
}

fn ping_pong(trips: u64, cpu: usize, steps: u64) -> Result<Duration> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("pinning to CPU {cpu}"))?;
    let mut other = Command::new(std::env::current_exe()?)
        .args([CHILD, "echo", &steps.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to: File = OwnedFd::from(other.stdin.take().context("no pipe")?).into();
    let mut from: File = OwnedFd::from(other.stdout.take().context("no pipe")?).into();
    let mut byte = [0];
    let mut trip = || -> Result<()> {
        compute(steps);
        to.write_all(&[1])?;
        from.read_exact(&mut byte)?;
        Ok(())
    };
    (0..1000).try_for_each(|_| trip())?;
    let start = Instant::now();
    (0..trips).try_for_each(|_| trip())?;
    let took = start.elapsed();
    drop(to);
    other.wait()?;
    Ok(took)
}

fn echo(steps: u64) -> Result<()> {
    // Unbuffered on purpose: a byte in, a byte out.
    let input = File::from(rustix::io::dup(rustix::stdio::stdin())?);
    let output = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    let mut byte = [0];
    while (&input).read(&mut byte)? == 1 {
        compute(steps);
        (&output).write_all(&byte)?;
    }
    Ok(())
}

/// That many processes which only wait on a pipe for the end of this one; says so once all are there.
fn sleepers(count: u64) -> Result<()> {
    let (wait, hold) = std::io::pipe()?;
    let start = |_| Command::new("cat").stdin(wait.try_clone()?).stdout(Stdio::null()).spawn();
    let mut children = (0..count).map(start).collect::<std::io::Result<Vec<_>>>()?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(hold);
    for child in &mut children {
        child.wait()?;
    }
    Ok(())
}

/// Size of the file that is read.
const FILE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;

/// Makes a file to read from `dir`, its blocks on the disk.
pub fn make_file(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("blocks");
    let mut file = File::create(&path)?;
    let chunk: Vec<u8> = (0..1u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for _ in 0..FILE_BYTES / chunk.len() as u64 {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(path)
}

/// Reads single blocks past the page cache for so many milliseconds; how many.
fn reads(path: &Path, milliseconds: u64) -> Result<u64> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("{}: no direct I/O on this file system", path.display()))?;
    let mut space = vec![0u8; 2 * BLOCK];
    let aligned = space.as_ptr().align_offset(BLOCK);
    let block = &mut space[aligned..aligned + BLOCK];
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let (mut count, mut at) = (0u64, 1u64);
    while Instant::now() < end {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (at >> 33) % (FILE_BYTES / BLOCK as u64) * BLOCK as u64;
        file.read_exact_at(block, place).context("reading past the page cache")?;
        count += 1;
    }
    Ok(count)
}

/// The clang that sberf itself is built with.
pub fn clang() -> Result<String> {
    let found = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/clang.sh")).output()?;
    ensure!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}

/// A C file that keeps `clang -O2` busy for a second or two.
pub fn make_c(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("work.c");
    let mut out = String::from("typedef unsigned long u;\n");
    for n in 0..260 {
        out += &format!(
            "u f{n}(u *a, u n) {{ u s = {n}; for (u i = 0; i < n; i++) {{ for (u j = i; j < n; j += {step}) \
             s += a[i] * (a[j] ^ {n}) + (s >> {shift}); if (s & {mask}) a[i] = s - a[n - i - 1]; else s ^= a[i] << 3; \
             switch (s % 7) {{ case 0: s += i; break; case 1: s *= 3; break; case 2: s ^= n; break; case 3: s -= a[0]; \
             break; default: a[i] += s; }} }} return s; }}\n",
            step = n % 5 + 1,
            shift = n % 31,
            mask = 1u64 << (n % 17),
        );
    }
    std::fs::write(&path, out)?;
    Ok(path)
}

/// Seconds that two compilations side by side take.
pub fn build_seconds(source: &Path) -> Result<f64> {
    let clang = clang()?;
    let start = Instant::now();
    let both = (0..2).map(|_| {
        Command::new(&clang).args(["-O2", "-c", "-o", "/dev/null"]).arg(source).spawn().context("starting clang")
    });
    for mut child in both.collect::<Result<Vec<_>>>()? {
        ensure!(child.wait()?.success(), "clang failed");
    }
    Ok(start.elapsed().as_secs_f64())
}
