//! Commands that are watched: on the screen, and by the recorder.

use std::time::Duration;

use super::common;
use super::terminal::Terminal;

/// PIDs of `sleep SECONDS`.
fn sleepers(seconds: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let sleeps = |pid: &u32| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cmdline == format!("sleep\0{seconds}\0").as_bytes()
    };
    pids.filter(sleeps).collect()
}

#[test]
fn a_command_is_watched_and_ended_with_the_screen() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let seconds = format!("{}.5", std::process::id());
    let script = format!("echo out; echo err >&2; echo tty > /dev/tty; sleep {seconds} & wait");
    let tmp = dir.path().to_str().unwrap();
    let args = ["top", "-d", "0.2", "--", "sh", "-c", &script];
    let mut terminal = Terminal::start(&args, &[("TMPDIR", tmp)], dir.path(), (24, 100));
    terminal.wait_for(" sh   ");
    terminal.wait_for("[icicle]");
    terminal.wait_until("asleep", |_| sleepers(&seconds).len() == 1);
    terminal.press(b"q");
    terminal.wait_for("2 processes, ");
    terminal.press(b"q");
    assert!(terminal.end().success());
    terminal.assert_given_back();
    assert!(sleepers(&seconds).is_empty(), "it and what it started are gone");
    let text = terminal.text();
    assert!(text.contains("sberf: sh wrote ") && !text.contains("tty"), "{text}");
    let written = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let written: Vec<_> = written.filter(|path| path.extension().is_some_and(|ending| ending == "out")).collect();
    let written = std::fs::read_to_string(&written[0]).unwrap();
    assert!(written.starts_with("out\nerr\n") && written.contains("/dev/tty"), "it has no terminal: {written:?}");
}

#[test]
fn the_end_of_a_command_is_told_and_the_screen_stays() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let tmp = dir.path().to_str().unwrap();
    let args = ["top", "-d", "0.2", "--", "sh", "-c", "sleep 0.5; exit 3"];
    let mut terminal = Terminal::start(&args, &[("TMPDIR", tmp)], dir.path(), (24, 100));
    terminal.wait_for("sh exited (status 3)");
    terminal.settle(Duration::from_millis(300));
    assert!(terminal.is_running());
    terminal.press(b"\x03");
    assert!(terminal.end().success());
    assert!(!terminal.text().contains("wrote"), "it wrote nothing: {}", terminal.text());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "and no empty file is left");
}

#[test]
fn a_missing_command_leaves_the_terminal_alone() {
    let dir = common::demo();
    let mut terminal = Terminal::start(&["top", "--", "no-such-program-anywhere"], &[], dir.path(), (24, 80));
    assert_eq!(terminal.end().exit_code(), 127);
    assert!(!terminal.raw().contains('\x1b'), "{:?}", terminal.raw());
    assert_eq!(terminal.raw().trim_end(), "sberf: cannot run no-such-program-anywhere: not found in PATH");
}

#[test]
fn control_c_reaches_the_recorder_and_its_command() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    // The first it takes for a question, the second for the end.
    let script = "trap 'echo first; trap \"exit 9\" INT' INT; echo ready; while :; do sleep 0.05; done";
    let args = ["record", "-d", "0.2", "-o", "x.sberf", "--", "sh", "-c", script];
    let mut terminal = Terminal::start(&args, &[], dir.path(), (24, 100));
    terminal.wait_for("ready");
    terminal.press(b"\x03");
    terminal.wait_for("first");
    terminal.settle(Duration::from_millis(300));
    assert!(terminal.is_running(), "recording goes on with the command");
    terminal.press(b"\x03");
    let status = terminal.end();
    let (ticks, end) = common::read_capture(&dir.path().join("x.sberf"));
    assert!(ticks > 0 && end == Ok(()), "{ticks} {end:?}");
    // It may have ended first, or we.
    assert!([0, 9].contains(&status.exit_code()), "{status:?} {}", terminal.text());
}

#[test]
fn a_recorder_says_how_its_command_ended() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let args = ["record", "-o", "x.sberf", "--", "sh", "-c", "read line; echo got $line; exit 6"];
    let mut terminal = Terminal::start(&args, &[], dir.path(), (24, 100));
    terminal.press(b"typed\n");
    assert_eq!(terminal.end().exit_code(), 6);
    let text = terminal.text();
    for said in ["got typed", "sberf: sh exited (status 6)", "bytes in x.sberf"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
