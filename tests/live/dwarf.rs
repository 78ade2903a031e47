//! The same load seen by `perf record --call-graph dwarf`, in the same run: whole stacks, bytes, and CPU until they have names.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::machine::{machine, skipped, sleep_ms};
use crate::programs;

/// What one tool made of it.
#[derive(Debug, Default)]
struct Made {
    samples: u64,
    whole: u64,
    bytes: u64,
    cpu_s: f64,
}

impl Made {
    fn whole_percent(&self) -> f64 {
        100.0 * self.whole as f64 / self.samples.max(1) as f64
    }

    fn bytes_per_sample(&self) -> f64 {
        self.bytes as f64 / self.samples.max(1) as f64
    }
}

/// Each tool for so long. Starting takes sberf a third of a second of CPU, so in 5 s the two took the same.
const SECONDS: &str = "20";

/// CPU time of all children that ended so far, seconds.
fn children_cpu_s() -> f64 {
    // SAFETY: `usage` is a valid place for what getrusage writes, and all zeroes is a valid value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn output(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Outermost functions of a whole stack.
const ROOTS: [&str; 5] = ["_start", "__libc_start_call_main", "__libc_start_main", "clone3", "start_thread"];

fn by_perf(file: &Path) -> Made {
    let file_name = file.display().to_string();
    let before = children_cpu_s();
    output(
        "perf",
        &["record", "-q", "-F", "99", "-a", "--call-graph", "dwarf", "-o", &file_name, "--", "sleep", SECONDS],
    );
    let script = output("perf", &["script", "-i", &file_name, "--comms", "git", "-F", "comm,ip,sym"]);
    let mut made = Made { cpu_s: children_cpu_s() - before, ..Made::default() };
    let script = String::from_utf8_lossy(&script);
    for sample in script.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        made.samples += 1;
        let last = sample.trim_end().rsplit('\n').next().unwrap_or_default();
        made.whole += u64::from(ROOTS.iter().any(|root| last.contains(root)));
    }
    made.bytes = bytes_of(file);
    made
}

fn by_sberf(file: &Path) -> Made {
    let (sberf, file_name) = (env!("CARGO_BIN_EXE_sberf"), file.display().to_string());
    let before = children_cpu_s();
    output(sberf, &["record", "-o", &file_name, "--duration", SECONDS]);
    let folded = output(sberf, &["export", &file_name, "--format", "folded", "--lens", "on-cpu"]);
    let mut made = Made { cpu_s: children_cpu_s() - before, ..Made::default() };
    for line in String::from_utf8_lossy(&folded).lines().filter(|line| line.starts_with("git;")) {
        let (stack, weight) = line.rsplit_once(' ').expect("a weight");
        let weight: u64 = weight.parse().expect("a number");
        made.samples += weight;
        let outermost = stack.split(';').nth(1).unwrap_or_default();
        made.whole += if ROOTS.iter().any(|root| outermost.starts_with(root)) { weight } else { 0 };
    }
    made.bytes = bytes_of(file);
    made
}

fn bytes_of(file: &Path) -> u64 {
    file.metadata().expect("it was written").len()
}

#[test]
fn better_than_perf_with_dwarf() {
    let Some(_machine) = machine() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    if Command::new("perf").arg("--version").output().is_err() {
        return skipped("perf is not installed");
    }
    let Some(_git) = programs::start("git", &dir.path().join("repository")) else {
        return skipped("git is not installed");
    };
    sleep_ms(1000);
    let perf = by_perf(&dir.path().join("perf.data"));
    let sberf = by_sberf(&dir.path().join("sberf.capture"));
    let told = format!(
        "whole stacks: perf {:.1} %, sberf {:.1} %; bytes per sample: {:.0}, {:.0}; CPU until they have names: {:.2} s, {:.2} s",
        perf.whole_percent(),
        sberf.whole_percent(),
        perf.bytes_per_sample(),
        sberf.bytes_per_sample(),
        perf.cpu_s,
        sberf.cpu_s
    );
    let _ = writeln!(std::io::stderr(), "{told}");
    assert!(perf.samples > 50 && sberf.samples > 50, "{perf:?} {sberf:?}");
    assert!(sberf.whole_percent() > perf.whole_percent(), "{told}");
    assert!(sberf.bytes_per_sample() < perf.bytes_per_sample(), "{told}");
    assert!(sberf.cpu_s < perf.cpu_s, "{told}");
}
