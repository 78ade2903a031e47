//! A kernel that lacks what sberf cannot do without.

use std::process::Command;

use sberf::collect::live::{Live, LiveOptions};

/// It says so in words, and does not fall over.
pub fn says_why() -> String {
    let Err(error) = Live::start(LiveOptions::default()) else { panic!("it runs: the table should say so") };
    let said = error.to_string();
    assert!(said.contains("Linux 5.15"), "{said}");
    let top =
        Command::new(env!("CARGO_BIN_EXE_sberf")).args(["top", "--json", "--count", "1"]).output().expect("sberf");
    let errors = String::from_utf8_lossy(&top.stderr);
    assert!(top.status.code().is_some() && !errors.contains("panicked"), "{errors}");
    if !top.status.success() {
        assert!(errors.contains("Linux 5.15"), "{errors}");
    }
    said
}
