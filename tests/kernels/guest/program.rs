//! The program itself, as people run it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{CAPTURE, check, known};
use crate::qemu::SHARE;

const SBERF: &str = env!("CARGO_BIN_EXE_sberf");
const TICKS: usize = 3;

/// Ticks as JSON.
pub fn json() {
    check("sberf top --json", || {
        let top = Command::new(SBERF).args(["top", "--json", "-d", "0.5", "--count", &TICKS.to_string()]).output();
        let top = top.expect("sberf starts");
        let (out, errors) = (String::from_utf8_lossy(&top.stdout), String::from_utf8_lossy(&top.stderr));
        assert!(top.status.success(), "{errors}");
        let ticks: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect();
        assert_eq!(ticks.len(), TICKS);
        let last = &ticks[TICKS - 1];
        assert_eq!(last["schema"], "sberf.tick/1");
        let processes = last["processes"].as_array().map_or(0, Vec::len);
        assert!(processes > 10, "{processes} processes");
        let cpus = last["cpus"].as_array().map_or(0, Vec::len);
        assert_eq!(cpus, super::cpus::online().len(), "CPUs");
        format!("{TICKS} ticks, {processes} processes, {cpus} CPUs")
    });
}

/// A capture for the host to read.
pub fn capture() {
    check("sberf record", || {
        let capture = Path::new(SHARE).join(CAPTURE);
        let mut record = Command::new(SBERF);
        record.arg("record").arg("-o").arg(&capture).arg("--").arg(known::program("depth")).arg("60");
        let status = record.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("sberf starts");
        assert!(status.success(), "{status}");
        let bytes = capture.metadata().expect("a capture").len();
        format!("{bytes} bytes")
    });
}
