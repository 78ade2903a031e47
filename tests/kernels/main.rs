//! sberf on other kernels: Debian's, booted in QEMU one after the other. This program is both sides: on the host it fetches,
//! boots and reports; in the guest it runs a list of checks in one boot (`guest`).
//!
//! `cargo test --test kernels` takes Linux 6.1 and the newest that Debian has, `SBERF_KERNELS=all` all of them, one machine of 64
//! CPUs with holes and a kernel that is locked down, `cargo test --test kernels -- 6.12` one. `SBERF_WRITE_README=1` writes the table of README.md.
//!
//! A machine that cannot be had (no QEMU, no mirror, too slow) or does not boot is skipped, with the reason. What fails inside fails.
//! Time there is the guest's own: checks are by counts and ratios, never by the host's clock.

#![allow(dead_code, reason = "the guest takes what it needs from the tests of the live kernel")]

mod apt;
mod bounded;
#[path = "../live/compile.rs"]
mod compile;
mod guest;
mod initramfs;
mod kernel;
#[path = "../live/machine.rs"]
#[allow(unused_imports, reason = "what tests are made of")]
mod machine;
mod qemu;
#[path = "../live/recording.rs"]
mod recording;
mod report;
mod unpack;
#[path = "../live/verifier.rs"]
#[allow(unused_imports, reason = "the test in it is none here")]
mod verifier;
#[path = "../live/workload.rs"]
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kernel::{ALL, Kernel, Series};
use qemu::{Boot, End, Machine};
use report::{Outcome, Row};

/// Of one boot with all its checks; one takes about a minute.
const LIMIT: Duration = Duration::from_secs(180);
/// Of the boot with 64 CPUs.
const LIMIT_WIDE: Duration = Duration::from_secs(420);
/// No machine is started after that long when not all were asked for: whoever waits for the tests waits for this, too.
const BUDGET: Duration = Duration::from_secs(150);
/// Of waiting for a package; 17 to 28 s are usual.
const FETCH: Duration = Duration::from_secs(150);
/// The kernel that is booted with 64 CPUs.
const WIDE: &str = "6.12";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role] = words.as_slice()
        && flag == "--guest"
    {
        return guest::main(role);
    }
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let (series, whole) = wanted(&words);
    if series.is_empty() {
        return ExitCode::SUCCESS;
    }
    if let Err(why) = qemu::available() {
        println!("skipped: kernels: {why}");
        return ExitCode::SUCCESS;
    }
    if let Err(why) = guest::known::prepare() {
        println!("skipped: kernels: {why}");
        return ExitCode::SUCCESS;
    }
    let rows = run(series, whole);
    println!("\n{}", report::table(&rows));
    if whole && std::env::var_os("SBERF_WRITE_README").is_some() {
        report::write_readme(&rows);
    }
    let failed = rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} kernels, {failed} failed", rows.len());
    ExitCode::from(u8::from(failed > 0))
}

/// Which kernels, and whether these are all there are. Words that name none are filters of other tests: then nothing runs.
fn wanted(words: &[String]) -> (Vec<&'static Series>, bool) {
    let names: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let set = std::env::var("SBERF_KERNELS").unwrap_or_else(|_| "6.1 newest".to_owned());
    let names = if names.is_empty() { set.split_whitespace().collect() } else { names };
    let whole = names.contains(&"all");
    (ALL.iter().filter(|series| whole || names.contains(&series.name)).collect(), whole)
}

/// Boots them one after the other, the next being fetched meanwhile.
fn run(series: Vec<&'static Series>, whole: bool) -> Vec<Row> {
    let cache = cache();
    let started = Instant::now();
    let (sender, fetched) = mpsc::sync_channel(1);
    let names = series.clone();
    std::thread::spawn(move || names.into_iter().try_for_each(|series| sender.send(Kernel::get(series, &cache))));
    let mut rows = Vec::new();
    let mut slow = false;
    for series in series {
        // Once one did not come in time, what comes next may be that one.
        let kernel = if slow { Err(TOO_SLOW.to_owned()) } else { receive(&fetched) };
        slow = kernel.as_ref().is_err_and(|why| why == TOO_SLOW);
        let late = || !whole && started.elapsed() > BUDGET;
        let kernel = if late() { Err(format!("{} s are over", BUDGET.as_secs())) } else { kernel };
        let row = match &kernel {
            Ok(kernel) => try_machine(series.name, &ordinary(kernel, series), late),
            Err(why) => Row::skipped(series.name, why),
        };
        row.print();
        rows.push(row);
        if let (true, WIDE, Ok(kernel)) = (whole, series.name, &kernel) {
            for (name, machine) in [("64 CPUs", wide(kernel)), ("locked down", locked(kernel))] {
                let row = try_machine(name, &machine, || false);
                row.print();
                rows.push(row);
            }
        }
    }
    rows
}

const TOO_SLOW: &str = "its package did not come in time";

fn receive(fetched: &mpsc::Receiver<Result<Kernel, String>>) -> Result<Kernel, String> {
    fetched.recv_timeout(FETCH).unwrap_or_else(|_| Err(TOO_SLOW.to_owned()))
}

fn ordinary<'a>(kernel: &'a Kernel, series: &Series) -> Machine<'a> {
    let role = if series.runs { "runs" } else { "refuses" };
    Machine { kernel, cpus: 4, nodes: 2, memory_mib: 1536, limit: LIMIT, parameters: "", role }
}

/// As with Secure Boot, where a distribution wants it so.
fn locked(kernel: &Kernel) -> Machine<'_> {
    let parameters = "lockdown=confidentiality";
    Machine { kernel, cpus: 4, nodes: 2, memory_mib: 1536, limit: LIMIT, parameters, role: "locked" }
}

fn wide(kernel: &Kernel) -> Machine<'_> {
    Machine { kernel, cpus: 64, nodes: 4, memory_mib: 4096, limit: LIMIT_WIDE, parameters: "", role: "wide" }
}

/// Boots it, once more if it did not come up or its end was not reached in time and it is not `late`.
fn try_machine(name: &str, machine: &Machine<'_>, late: impl Fn() -> bool) -> Row {
    let mut row = Row::skipped(name, "never tried");
    for _ in 0..2 {
        let Ok(share) = tempfile::tempdir() else { return Row::skipped(name, "no directory to share") };
        row = match machine.boot(share.path()) {
            Ok(Boot::Never(why)) => Row::skipped(name, &format!("did not boot: {why}")),
            Ok(Boot::Ran { told, errors, log, end, seconds }) => {
                let mut row = Row::told(name, &machine.kernel.release, &told, seconds);
                row.judge(end, &errors, &log);
                if end == End::Reached {
                    row.judge_capture(&share.path().join(guest::CAPTURE));
                }
                row
            }
            Err(why) => return Row::skipped(name, &why),
        };
        if !matches!(row.outcome, Outcome::Skipped(_)) || late() {
            break;
        }
    }
    row
}

/// Where kernels are kept.
fn cache() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    let cache = target.join("kernels");
    let _ = std::fs::create_dir_all(&cache);
    cache
}
