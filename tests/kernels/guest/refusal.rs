//! A kernel that lacks what sberf cannot do without.

use std::process::Command;

use sberf::collect::live::{Live, LiveOptions};

const SBERF: &str = env!("CARGO_BIN_EXE_sberf");

/// Loading says so in words.
pub fn says_why() -> String {
    let Err(error) = Live::start(LiveOptions::default()) else { panic!("it runs: the table should say so") };
    let said = error.to_string();
    assert!(said.contains("Linux 5.15"), "{said}");
    said
}

const LOCKED: &str = "locked down (confidentiality)";

/// Whatever the kernel answers, lockdown is named.
pub fn says_locked_down() -> String {
    let Err(error) = Live::start(LiveOptions::default()) else { panic!("it runs, although BPF may not read memory") };
    let said = error.to_string();
    assert!(said.contains(LOCKED), "{said}");
    said
}

/// And what can be done about it; not even in part does BPF run.
pub fn doctor_says_so() -> String {
    let doctor = Command::new(SBERF).arg("doctor").output().expect("sberf");
    let out = String::from_utf8_lossy(&doctor.stdout);
    assert!(out.contains(LOCKED) && out.contains("lockdown=integrity"), "{out}");
    format!("exit code {:?}", doctor.status.code())
}

/// `sberf top` shows what procfs says, and that it is no more than that.
pub fn procfs_alone() -> String {
    let top = Command::new(SBERF).args(["top", "--json", "-d", "0.5", "--count", "2"]).output().expect("sberf");
    let (out, errors) = (String::from_utf8_lossy(&top.stdout), String::from_utf8_lossy(&top.stderr));
    assert!(top.status.success(), "{}: {errors}", top.status);
    let tick: serde_json::Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(tick["basis"], "procfs", "{errors}");
    let processes = tick["processes"].as_array().map_or(0, Vec::len);
    assert!(processes > 10, "{processes} processes");
    format!("{processes} processes")
}
