//! Pid namespaces: sberf within one, and from outside of one. What has a PID in both must not be taken for the other.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::compile::workload;
use crate::machine::{machine, scratch, skipped, sleep_ms};

/// A shell in a pid namespace of its own, and all that it started; dropped, all of it ends.
struct Inside(Child);

impl Inside {
    /// `proc`: with a /proc of its own. The script finds `$SBERF`, `$SPLIT` (a program that keeps a CPU busy) and `$OUT`, and what was set.
    fn start(proc: bool, out: &Path, set: &[(&str, String)], script: &str) -> Inside {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).args(proc.then_some("--mount-proc"));
        command.args(["sh", "-c", script]).env("OUT", out).env("SBERF", env!("CARGO_BIN_EXE_sberf"));
        command.env("SPLIT", workload("split")).envs(set.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Inside(command.spawn().expect("unshare(1)"))
    }

    /// Waits for a line in a file that the script writes.
    fn told(path: &Path) -> String {
        for _ in 0..1000 {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                _ => sleep_ms(20),
            }
        }
        panic!("nothing in {}", path.display());
    }

    /// Waits until the script is over.
    fn end(mut self) {
        assert!(self.0.wait().is_ok_and(|status| status.success()), "the script");
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // unshare(1) has its child, the first of the namespace, killed when it ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn can_unshare() -> bool {
    let works = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success()) && Path::new("/proc/sys/kernel/ns_last_pid").exists();
    if !works {
        skipped("no unshare(1) of pid namespaces, or no ns_last_pid");
    }
    works
}

/// A new directory for what a script writes.
fn out(name: &str) -> PathBuf {
    let dir = scratch(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn objects(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("what sberf wrote");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn processes(ticks: &[Value]) -> impl Iterator<Item = &Value> {
    ticks.iter().flat_map(|tick| tick["processes"].as_array().expect("processes"))
}

fn sberf(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sberf")).args(args).output().expect("sberf starts")
}

/// A PID that nobody has.
fn unused_pid() -> u32 {
    (20_000..32_000).rev().find(|pid| !Path::new(&format!("/proc/{pid}")).exists()).expect("an unused PID")
}

/// Keeps a CPU busy and tells its PID.
const BUSY: &str = "(echo g; sleep 300) | $SPLIT 300 >/dev/null & echo $! >$OUT/busy\n";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn within_a_namespace_everything_has_the_ids_of_that() {
    let Some(_machine) = machine() else { return };
    if !can_unshare() {
        return;
    }
    let out = out("within");
    // It has the PID outside that sberf has inside.
    let twin = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("sh");
    let twin = Killed(twin);
    let pid = twin.0.id();
    let script = [
        BUSY,
        "echo $((TWIN - 1)) >/proc/sys/kernel/ns_last_pid\n",
        "$SBERF top --json --count 8 -d 0.5 --write $OUT/x.sberf >$OUT/json || exit 1\n",
        "$SBERF export $OUT/x.sberf >$OUT/stacks\n",
    ]
    .concat();
    Inside::start(true, &out, &[("TWIN", pid.to_string())], &script).end();

    let ticks = objects(&out.join("json"));
    for process in processes(&ticks) {
        let lives = process["exited"].is_null();
        assert!(process["comm"] != "" && (process["threads"] != 0 || !lives), "made of nothing: {process}");
        assert!(process["ppid"].as_u64().is_some_and(|ppid| ppid <= u64::from(pid) + 100), "{process}");
    }
    let busy: u64 = Inside::told(&out.join("busy")).parse().expect("a PID");
    let last = || processes(&ticks[ticks.len() - 1..]);
    let split = last().find(|process| process["comm"] == "split").expect("what runs inside");
    assert_eq!(split["pid"], busy, "by the PID that it has there");
    assert!(split["on_cpu_user_ns"].as_u64().is_some_and(|ns| ns > 0), "{split}");
    assert_eq!(split["cmdline"][1], "300", "facts are of the same process: {split}");
    let own = last().find(|process| process["comm"] == "sberf").expect("sberf itself");
    assert_eq!(own["pid"], pid, "the PID of somebody else outside");
    let left_out: u64 = ticks.iter().filter_map(|tick| tick["losses"]["elsewhere"].as_u64()).sum();
    assert!(left_out > 0, "what is elsewhere is counted");

    let stacks = std::fs::read_to_string(out.join("stacks")).expect("stacks");
    assert!(stacks.lines().any(|line| line.starts_with("split;") && line.contains(";seventy")), "{stacks}");
    assert!(!stacks.lines().any(|line| line.starts_with("sberf;")), "our own: {stacks}");
    drop(twin);
}

#[test]
fn with_the_proc_of_the_host_everything_has_the_ids_of_that() {
    let Some(_machine) = machine() else { return };
    if !can_unshare() {
        return;
    }
    let out = out("above");
    let script = [
        BUSY,
        "$SBERF top --json --count 8 -d 0.5 --write $OUT/x.sberf >$OUT/json || exit 1\n",
        "$SBERF top --json --count 4 -d 0.3 -- sleep 1 >$OUT/command\n",
        "$SBERF export $OUT/x.sberf >$OUT/stacks\n",
    ]
    .concat();
    Inside::start(false, &out, &[], &script).end();
    let ticks = objects(&out.join("json"));
    let split = processes(&ticks).filter(|process| process["comm"] == "split").last().expect("what runs inside");
    let inner: u64 = Inside::told(&out.join("busy")).parse().expect("a PID");
    assert!(split["pid"].as_u64().is_some_and(|pid| pid > inner), "as /proc has it: {split}");
    assert_eq!(split["cmdline"][1], "300", "facts are of the same process: {split}");
    let stacks = std::fs::read_to_string(out.join("stacks")).expect("stacks");
    assert!(stacks.lines().any(|line| line.starts_with("split;") && line.contains(";seventy")), "{stacks}");
    assert!(!stacks.lines().any(|line| line.starts_with("sberf;")), "our own: {stacks}");
    let ticks = objects(&out.join("command"));
    assert!(processes(&ticks).any(|process| process["comm"] == "sleep"), "a command is followed: {ticks:?}");
}

#[test]
fn within_a_namespace_doctor_says_partly() {
    let Some(_machine) = machine() else { return };
    if !can_unshare() {
        return;
    }
    let out = out("doctor");
    let script = "$SBERF doctor >$OUT/text; echo $? >$OUT/code; $SBERF doctor --json >$OUT/json; :";
    Inside::start(true, &out, &[], script).end();
    assert_eq!(Inside::told(&out.join("code")), "3");
    let text = std::fs::read_to_string(out.join("text")).expect("a table");
    assert!(text.contains("pid namespace of its own") && text.contains("--pid=host"), "{text}");
    let report = &objects(&out.join("json"))[0];
    assert_eq!((&report["top"], &report["settings"]["pid_namespace"]), (&"partly".into(), &true.into()));
    let signals = report["signals"].as_array().expect("signals");
    let threads = signals.iter().find(|signal| signal["name"] == "threads").expect("the list of threads");
    assert_eq!(threads["grade"], "reduced");
}

#[test]
fn a_pid_of_another_namespace_is_taken_if_it_is_one_only() {
    let Some(_machine) = machine() else { return };
    if !can_unshare() {
        return;
    }
    let (one, two) = (out("inner-one"), out("inner-two"));
    let inner = unused_pid();
    let sleeper = "echo $((INNER - 1)) >/proc/sys/kernel/ns_last_pid; sleep 300 & echo $! >$OUT/pid; wait";
    let start = |out: &Path| Inside::start(true, out, &[("INNER", inner.to_string())], sleeper);
    let (name, first) = (inner.to_string(), start(&one));
    assert_eq!(Inside::told(&one.join("pid")), name);

    let output = sberf(&["top", "--json", "--count", "3", "-d", "0.5", "-p", &name]);
    assert!(output.status.success(), "{output:?}");
    let ticks: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seen: Vec<&Value> = processes(&ticks[ticks.len() - 1..]).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let pid = seen[0]["pid"].as_u64().expect("a PID");
    assert_eq!((&seen[0]["comm"], &seen[0]["inner_pid"]), (&"sleep".into(), &inner.into()));
    assert_ne!(pid, u64::from(inner));
    let output = sberf(&["export", "--duration", "1", "--format", "folded", "--lens", "blocked", "-p", &name]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("sleep;"), "{output:?}");

    let second = start(&two);
    assert_eq!(Inside::told(&two.join("pid")), name);
    let output = sberf(&["top", "--json", "--count", "1", "-p", &name]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&format!("no process {inner} here")) && said.contains(&pid.to_string()), "{said}");
    drop((first, second));
}
