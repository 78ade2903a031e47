//! The command line from outside: flags, exit codes, one-line errors, exports, closed pipes, damaged files.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn sberf(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sberf"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).env_remove("SBERF_TEST_PANIC");
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    sberf(dir, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Failed with exit code 1 and one line, which is returned; nothing on standard output.
#[track_caller]
fn one_line(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("sberf: "), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    stderr
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let dir = common::demo();
    for args in [
        &["top", "-F", "0"][..],
        &["top", "-F", "5000"],
        &["top", "-F", "many"],
        &["top", "-d", "0"],
        &["top", "-d", "0.09"],
        &["top", "-d", "61"],
        &["top", "-d", "-1"],
        &["top", "-d", "nan"],
        &["top", "-p", "0"],
        &["top", "-p", "self"],
        &["top", "--read", "demo.sberf", "--write", "other.sberf"],
        &["top", "--read", "demo.sberf", "-F", "99"],
        &["top", "--color", "8"],
        &["top", "--count", "3"],
        &["top", "--json", "--debuginfod"],
        &["top", "--read", "demo.sberf", "--debuginfod"],
        &["top", "--read", "demo.sberf", "--", "true"],
        &["top", "true"],
        &["export", "demo.sberf", "--", "true"],
        &["top", "--json", "--count", "0"],
        &["record"],
        &["record", "-o", "x.sberf", "--duration", "0"],
        &["export"],
        &["export", "demo.sberf", "--lens", "sideways"],
        &["export", "demo.sberf", "--format", "pprof"],
        &["completions", "tcsh"],
        &["frobnicate"],
        &[],
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("--help"), "{args:?}");
    }
}

#[test]
fn a_number_that_is_too_small_is_no_command() {
    let dir = common::demo();
    for (args, said) in [
        (&["top", "--max-overhead", "-1"][..], "0.01 to 100 percent"),
        (&["top", "-d", "-1"], "0.1 to 60 seconds"),
        (&["record", "-o", "x.sberf", "--duration", "-1"], "more than 0"),
        (&["export", "--duration", "-1"], "more than 0"),
    ] {
        let stderr = text(&run(dir.path(), args).stderr);
        assert!(stderr.contains(said) && !stderr.contains("'-- -1'"), "{args:?}: {stderr}");
    }
}

#[test]
fn nothing_to_write_is_said() {
    let dir = common::demo();
    let ticks = text(&run(dir.path(), &["export", "demo.sberf", "--format", "json"]).stdout);
    let mut samples = std::collections::BTreeMap::<u64, u64>::new();
    for tick in ticks.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        for process in tick["processes"].as_array().unwrap() {
            *samples.entry(process["pid"].as_u64().unwrap()).or_default() += process["samples"].as_u64().unwrap_or(0);
        }
    }
    let (idle, _) = samples.into_iter().find(|&(_, samples)| samples == 0).expect("somebody never ran");
    let output = run(dir.path(), &["export", "demo.sberf", "--pid", &idle.to_string()]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(text(&output.stderr), format!("sberf: nothing to write: process {idle} has no on-CPU samples\n"));
    assert!(run(dir.path(), &["export", "demo.sberf"]).stderr.is_empty());
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let dir = common::demo();
    for format in ["folded", "json"] {
        let output = run(dir.path(), &["export", "demo.sberf", "--format", format, "-o", "/dev/full"]);
        let line = one_line(&output);
        assert!(line.starts_with("sberf: cannot write /dev/full: No space left"), "{line}");
    }
}

#[test]
fn help_version_completions_and_manual() {
    let dir = common::demo();
    for (args, word) in [
        (&["--help"][..], "Exit codes"),
        (&["top", "--help"], "--write"),
        (&["--version"], concat!("sberf ", env!("CARGO_PKG_VERSION"))),
        (&["completions", "bash"], "complete -F _sberf"),
        (&["completions", "zsh"], "#compdef sberf"),
        (&["completions", "fish"], "complete -c sberf"),
        (&["man"], ".TH sberf 1"),
        (&["man", "record"], "\\-\\-duration"),
    ] {
        let output = run(dir.path(), args);
        assert!(output.status.success(), "{args:?}");
        assert!(text(&output.stdout).contains(word), "{args:?}: {}", text(&output.stdout));
        assert!(output.stderr.is_empty(), "{args:?}");
    }
    assert!(one_line(&run(dir.path(), &["man", "nothing"])).contains("no command nothing"));
}

/// (stack, weight) of each line; the weight is what stands after the last space.
fn folded(bytes: &[u8]) -> Vec<(String, u64)> {
    let lines = text(bytes);
    let parse = |line: &str| {
        let (stack, weight) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not folded: {line:?}"));
        assert!(!stack.is_empty() && !stack.chars().any(char::is_control), "{line:?}");
        (stack.to_string(), weight.parse().unwrap_or_else(|_| panic!("not folded: {line:?}")))
    };
    lines.lines().map(parse).collect()
}

#[test]
fn folded_export_weighs_what_the_capture_holds() {
    let dir = tempfile::tempdir().unwrap();
    let batches = common::write_capture(&dir.path().join("x.sberf"), 5);
    let sum = |lens: &str| {
        let output = run(dir.path(), &["export", "x.sberf", "--lens", lens]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        folded(&output.stdout).iter().map(|(_, weight)| weight).sum::<u64>()
    };
    let told = common::Sums::of(&batches);
    assert_eq!(sum("on-cpu"), told.samples);
    assert_eq!(sum("runnable"), told.runnable_ns);
    assert_eq!(sum("blocked"), told.blocked_ns);
    assert!(told.disk_ns > 0 && sum("io") == told.disk_ns, "{} of {}", sum("io"), told.disk_ns);
    let wall = sum("wall");
    assert!(wall.abs_diff(told.wall_ns) <= told.wall_ns / 1000, "{wall} of {}", told.wall_ns);
}

#[test]
fn export_of_one_process_and_of_some_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let batches = common::write_capture(&dir.path().join("x.sberf"), 5);
    let sum = |args: &[&str]| {
        let output = run(dir.path(), &[&["export", "x.sberf", "--lens", "runnable"], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        folded(&output.stdout).iter().map(|(_, weight)| weight).sum::<u64>()
    };
    let pid = common::busiest(&batches);
    let expected = common::Sums::of_process(&batches, pid).runnable_ns;
    assert!(expected > 0);
    assert_eq!(sum(&["--pid", &pid.to_string()]), expected);
    let first_two: Vec<_> = common::first_ticks(&batches, 2);
    assert_eq!(sum(&["--duration", "2"]), common::Sums::of(&first_two).runnable_ns);
    assert_eq!(sum(&["--duration", "60"]), common::Sums::of(&batches).runnable_ns);
}

#[test]
fn export_to_a_file() {
    let dir = common::demo();
    let output = run(dir.path(), &["export", "demo.sberf", "-o", "out.folded"]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    let to_pipe = run(dir.path(), &["export", "demo.sberf"]).stdout;
    assert_eq!(std::fs::read(dir.path().join("out.folded")).unwrap(), to_pipe);
    let nowhere = one_line(&run(dir.path(), &["export", "demo.sberf", "-o", "no/such/dir"]));
    assert!(nowhere.contains("cannot create no/such/dir"), "{nowhere}");
}

#[test]
fn flame_graph_tools_read_it() {
    let dir = common::demo();
    for lens in ["on-cpu", "blocked", "runnable", "wall", "io"] {
        let output = run(dir.path(), &["export", "demo.sberf", "--lens", lens]).stdout;
        let lines = text(&output);
        let mut svg = Vec::new();
        let mut options = inferno::flamegraph::Options::default();
        inferno::flamegraph::from_lines(&mut options, lines.lines(), &mut svg).unwrap();
        assert!(text(&svg).contains("</svg>"), "{lens}");
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    common::write_capture(&dir.path().join("x.sberf"), 200);
    for args in [&["export", "x.sberf"][..], &["top", "--json", "--read", "x.sberf"]] {
        let mut child = sberf(dir.path(), args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        drop(reader);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn files_that_cannot_be_read_say_why_in_one_line() {
    let dir = common::demo();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("empty.sberf", b"");
    write("elf.sberf", b"\x7fELF\x02\x01\x01 and more");
    let whole = std::fs::read(dir.path().join("demo.sberf")).unwrap();
    write("header.sberf", &whole[..11]);
    for (file, why) in [
        ("missing.sberf", "No such file"),
        ("empty.sberf", "is empty"),
        ("elf.sberf", "not a sberf capture"),
        ("header.sberf", "torn at byte 0"),
        (".", "Is a directory"),
    ] {
        let said = one_line(&run(dir.path(), &["export", file]));
        assert!(said.contains(file) && said.contains(why), "{said}");
        // The same before a screen is taken; here there is none, which is said first.
        let said = one_line(&run(dir.path(), &["top", "--read", file]));
        assert!(said.contains("not a terminal"), "{said}");
    }
}

#[test]
fn everything_before_the_damage_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let batches = common::write_capture(&dir.path().join("x.sberf"), 5);
    let whole = std::fs::read(dir.path().join("x.sberf")).unwrap();
    // All ticks but a part of the last.
    let last = (0..whole.len()).rfind(|&at| whole[at..].starts_with(b"TICK")).unwrap();
    std::fs::write(dir.path().join("torn.sberf"), &whole[..last + 40]).unwrap();
    let mut damaged = whole.clone();
    damaged[last + 40] ^= 4;
    std::fs::write(dir.path().join("damaged.sberf"), damaged).unwrap();
    let expected = common::Sums::of(&common::first_ticks(&batches, 4)).runnable_ns;
    for (file, why) in [("torn.sberf", "torn at byte"), ("damaged.sberf", "the checksum does not fit")] {
        let output = run(dir.path(), &["export", file, "--lens", "runnable"]);
        let sum: u64 = folded(&output.stdout).iter().map(|(_, weight)| weight).sum();
        assert_eq!(sum, expected);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(why) && said.contains(&last.to_string()) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn an_unknown_process_is_one_line() {
    let dir = common::demo();
    let said = one_line(&run(dir.path(), &["export", "demo.sberf", "--pid", "4000000"]));
    assert!(said.contains("holds no process 4000000"), "{said}");
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let said = one_line(&run(dir.path(), &["export", "--duration", "1", "--pid", "4000000"]));
    assert!(said.contains("there is no process 4000000"), "{said}");
    let said = one_line(&run(dir.path(), &["record", "-o", "x.sberf", "-p", "1,4000000"]));
    assert!(said.contains("there is no process 4000000"), "{said}");
    assert!(!dir.path().join("x.sberf").exists());
}

#[test]
fn a_screen_needs_a_terminal() {
    let dir = common::demo();
    let said = one_line(&run(dir.path(), &["top", "--read", "demo.sberf"]));
    assert!(said.contains("not a terminal") && said.contains("--json"), "{said}");
}

/// Each line as JSON, all of them valid by the schema that is shipped.
#[track_caller]
fn valid_ticks(bytes: &[u8]) -> Vec<serde_json::Value> {
    let schema = serde_json::from_str(include_str!("../assets/tick.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let lines = text(bytes);
    let parse = |line: &str| {
        let tick = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let errors: Vec<_> = validator.iter_errors(&tick).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        tick
    };
    lines.lines().map(parse).collect()
}

#[test]
fn doctor_says_the_same_to_people_and_machines() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema = serde_json::from_str(include_str!("../assets/doctor.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let code = match report["top"].as_str().unwrap() {
        "fully" => 0,
        "partly" => 3,
        _ => 4,
    };
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    let table = run(dir.path(), &["doctor"]);
    assert_eq!(table.status.code(), Some(code));
    for signal in report["signals"].as_array().unwrap() {
        let title = signal["title"].as_str().unwrap();
        let grade = signal["grade"].as_str().unwrap();
        let lines = text(&table.stdout);
        let line = lines.lines().find(|line| line.trim_start().starts_with(title)).unwrap_or_default();
        assert!(line.contains(grade), "{title}: {line}");
        assert_eq!(signal["in_use"].is_null(), ["missing", "nothing"].contains(&grade), "{signal}");
    }
}

#[test]
fn json_of_a_capture() {
    let dir = tempfile::tempdir().unwrap();
    let batches = common::write_capture(&dir.path().join("x.sberf"), 5);
    let output = run(dir.path(), &["export", "x.sberf", "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let ticks = valid_ticks(&output.stdout);
    assert_eq!(ticks.len(), 5);
    let runnable = |tick: &serde_json::Value| {
        let processes = tick["processes"].as_array().unwrap().iter();
        processes.map(|process| process["runnable_ns"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(ticks.iter().map(runnable).sum::<u64>(), common::Sums::of(&batches).runnable_ns);
    let by_top = run(dir.path(), &["top", "--json", "--read", "x.sberf"]).stdout;
    assert_eq!(text(&by_top), text(&output.stdout));
    let counted = run(dir.path(), &["top", "--json", "--count", "2", "--read", "x.sberf"]).stdout;
    assert_eq!(valid_ticks(&counted), ticks[..2]);
    let by_time = run(dir.path(), &["export", "x.sberf", "--format", "json", "--duration", "3"]).stdout;
    assert_eq!(valid_ticks(&by_time), ticks[..3]);
}

#[test]
fn json_live_and_recorded_at_once() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["top", "--json", "--count", "3", "-d", "0.3", "--write", "x.sberf"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let ticks = valid_ticks(&output.stdout);
    assert_eq!(ticks.len(), 3);
    let command = ticks[0]["session"]["command"].as_str().unwrap();
    assert!(command.ends_with("top --json --count 3 -d 0.3 --write x.sberf"), "{command}");
    let (recorded, end) = common::read_capture(&dir.path().join("x.sberf"));
    assert!(recorded >= 3 && end.is_ok(), "{recorded} {end:?}");
    // What was recorded says the same as what was seen.
    let replayed = run(dir.path(), &["top", "--json", "--count", "3", "--read", "x.sberf"]).stdout;
    assert_eq!(valid_ticks(&replayed), ticks);
    // Only the process that was asked for.
    let pid = std::process::id();
    let output = run(dir.path(), &["top", "--json", "--count", "2", "-d", "0.2", "-p", &pid.to_string()]);
    for tick in valid_ticks(&output.stdout) {
        let processes = tick["processes"].as_array().unwrap();
        assert!(processes.iter().all(|process| process["pid"].as_u64() == Some(pid.into())), "{processes:?}");
    }
}

/// As a user who may nothing, the binary copied to where that user can reach it.
#[test]
fn without_privileges_it_says_what_is_missing() {
    let dir = common::demo();
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let binary = dir.path().join("sberf");
    std::fs::copy(env!("CARGO_BIN_EXE_sberf"), &binary).unwrap();
    [dir.path(), &binary, &dir.path().join("demo.sberf")].into_iter().for_each(open);
    let unprivileged = |args: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(args).current_dir(dir.path()).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.output().unwrap()
    };
    let said = one_line(&unprivileged(&["export", "--duration", "1"]));
    assert!(said.contains("CAP_BPF, CAP_PERFMON missing") && said.contains("sudo"), "{said}");
    // What procfs says is better than nothing, and said to be that.
    let seen = unprivileged(&["top", "--json", "--count", "2", "-d", "0.2"]);
    assert!(seen.status.success(), "{}", text(&seen.stderr));
    for tick in valid_ticks(&seen.stdout) {
        assert_eq!((&tick["basis"], &tick["signals"]["samples"]), (&"procfs".into(), &"missing".into()));
        let processes = tick["processes"].as_array().unwrap();
        assert!(processes.len() > 1 && processes.iter().all(|process| process["samples"].is_null()));
    }
    assert_eq!(unprivileged(&["doctor"]).status.code(), Some(4));
    let recorded = unprivileged(&["record", "-o", "/dev/null", "--duration", "0.2"]);
    assert!(text(&recorded.stderr).contains("what procfs says"), "{}", text(&recorded.stderr));
    assert!(unprivileged(&["export", "demo.sberf"]).status.success(), "captures need no privileges");
}

#[test]
fn recording() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["record", "-o", "x.sberf", "-d", "0.2", "--duration", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (ticks, end) = common::read_capture(&dir.path().join("x.sberf"));
    assert!((4..=6).contains(&ticks) && end.is_ok(), "{ticks} ticks, {end:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&dir.path().join("x.sberf").metadata().unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "command lines of all processes are nobody else's business");
    std::fs::write(dir.path().join("thesis"), "mine").unwrap();
    let said = one_line(&run(dir.path(), &["record", "-o", "thesis", "--duration", "1"]));
    assert!(said.contains("not overwritten"), "{said}");
    assert_eq!(std::fs::read(dir.path().join("thesis")).unwrap(), b"mine");
}

#[test]
fn a_killed_recorder_loses_the_last_tick_at_most_and_an_interrupted_one_nothing() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sberf");
    for signal in [libc::SIGKILL, libc::SIGINT, libc::SIGTERM] {
        let mut child = sberf(dir.path(), &["record", "-o", "x.sberf", "-d", "0.2"]).spawn().unwrap();
        common::wait_until(|| common::read_capture(&path).0 >= 3);
        let ticks = common::read_capture(&path).0;
        // SAFETY: `kill(2)` takes two numbers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
        let status = child.wait().unwrap();
        let (after, end) = common::read_capture(&path);
        assert!(after >= ticks);
        if signal == libc::SIGKILL {
            assert!(end.unwrap_err().contains("without an end mark"));
        } else {
            assert!(status.success() && end.is_ok(), "{status:?} {end:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}

/// A file size limit acts as a disk that is full.
#[test]
fn a_full_disk_ends_the_recording_and_keeps_what_is_there() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let command = format!("ulimit -f 100; {} record -o x.sberf -d 0.1 --duration 8", env!("CARGO_BIN_EXE_sberf"));
    let output = Command::new("bash").args(["-c", &command]).current_dir(dir.path()).output().unwrap();
    let said = one_line(&output);
    assert!(said.contains("recording stopped") && said.contains("stays readable"), "{said}");
    let (ticks, end) = common::read_capture(&dir.path().join("x.sberf"));
    assert!(ticks > 0, "{end:?}");
    assert!(end.is_ok() || end.as_ref().is_err_and(|end| end.contains("without an end mark")), "{end:?}");
    assert!(said.contains(&format!("{ticks} ticks")), "{said}, and {ticks} are in the file");
}

#[test]
fn a_command_that_cannot_run_is_one_line_and_no_screen() {
    let dir = common::demo();
    std::fs::write(dir.path().join("plain"), "x").unwrap();
    for (args, code) in [
        (&["top", "--", "no-such-program-anywhere"][..], 127),
        (&["top", "--json", "--", "./no-such-program"], 127),
        (&["record", "-o", "x.sberf", "--", "no-such-program-anywhere"], 127),
        (&["record", "-o", "x.sberf", "--", "./plain"], 126),
        (&["record", "-o", "x.sberf", "--", "./"], 126),
    ] {
        let output = run(dir.path(), args);
        let stderr = text(&output.stderr);
        // The screen is asked for first: without a terminal nothing is started.
        if args[0] == "top" && !args.contains(&"--json") {
            assert!(one_line(&output).contains("not a terminal"), "{stderr}");
            continue;
        }
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.starts_with("sberf: cannot run "), "{stderr}");
        assert!(output.stdout.is_empty());
        assert!(!dir.path().join("x.sberf").exists(), "nothing was recorded, so nothing was made");
    }
}

/// Every tick of a capture.
fn ticks(path: &Path) -> Vec<sberf::tick::Tick> {
    let mut reader = sberf::collect::capture::Reader::open(path).unwrap();
    std::iter::from_fn(|| reader.next_batch().expect("whole"))
        .filter_map(|batch| match batch {
            sberf::tick::Batch::Tick(tick) => Some(*tick),
            sberf::tick::Batch::Names(_) => None,
        })
        .collect()
}

/// User and system time of a shell and of its children, as `times` says it: `0m0.12s 0m0.03s` on two lines.
fn cpu_seconds(times: &str) -> f64 {
    let seconds = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    times.split_whitespace().map(seconds).sum()
}

#[test]
fn a_command_is_recorded_from_its_first_instruction_to_its_end() {
    use sberf::tick::Life;
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    // Busy from the start, in itself and in a child; others are busy meanwhile.
    let busy = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done";
    let script = format!("{busy}; ( {busy} ); times; exit 5");
    let mut other = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let output = run(dir.path(), &["record", "-o", "x.sberf", "-d", "0.2", "--", "sh", "-c", &script]);
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "nobody watches: {}", text(&output.stderr));
    let expected = cpu_seconds(&text(&output.stdout));
    let ticks = ticks(&dir.path().join("x.sberf"));
    let events = ticks.iter().flat_map(|tick| &tick.events);
    let root = events.clone().find(|event| event.what == Life::Exec).expect("it became its program").process;
    let seen: Vec<_> = events.map(|event| (event.process.tgid, event.what)).collect();
    assert!(seen.contains(&(root.tgid, Life::Exit { status: 5 << 8 })), "{seen:?}");
    let child = seen.iter().find_map(|&(tgid, what)| (what == Life::Fork { parent: root.tgid }).then_some(tgid));
    let tree = [root.tgid, child.expect("it had a child")];
    let threads = || ticks.iter().flat_map(|tick| &tick.threads);
    assert!(threads().all(|thread| tree.contains(&thread.process.tgid)), "nobody else is in it");
    let ran = threads().map(|thread| thread.ns.on_cpu()).sum::<u64>() as f64 / 1e9;
    // `times` counts in hundredths, and what comes before the exec and after it was printed is not in it.
    assert!((ran - expected).abs() < 0.02 * expected + 0.05, "{ran} s seen, {expected} s told");
}

#[test]
fn json_of_a_command_ends_with_it() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = sberf(dir.path(), &["top", "--json", "--", "sh", "-c", "echo not for you; kill -9 $$"]);
    let output = command.env("TMPDIR", dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 9), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    assert!(!lines.is_empty() && lines.lines().all(|line| line.starts_with("{\"schema\":")), "{lines}");
    assert!(lines.contains("\"comm\":\"sh\"") || lines.contains("\"exited\""), "{lines}");
}

#[test]
fn what_outlasts_the_recording_is_ended_with_it() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo ended; exit 0' TERM; echo $$; while :; do sleep 0.05; done";
    let output = run(dir.path(), &["record", "-o", "x.sberf", "--duration", "0.5", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let pid = said.lines().next().expect("its PID");
    assert!(said.ends_with("ended\n"), "{said}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_command_under_sudo_runs_as_who_called_it() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command =
        sberf(dir.path(), &["record", "-o", "x.sberf", "--", "sh", "-c", "id -u; id -g; cat /proc/self/status"]);
    let output = command.env("SUDO_UID", "65534").env("SUDO_GID", "65533").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("65534\n65533\n"), "{said}");
    assert!(said.contains("CapEff:\t0000000000000000"), "{said}");
    let mut command = sberf(dir.path(), &["record", "-o", "y.sberf", "--", "id"]);
    let refused = command.env("SUDO_UID", "me").output().unwrap();
    assert!(one_line(&refused).contains("SUDO_UID"));
}
