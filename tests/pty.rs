//! The real binary on a pseudo-terminal: every key, every size, every way out. The terminal must be as it was.

#[path = "pty/commands.rs"]
mod commands;
mod common;
#[path = "pty/terminal.rs"]
mod terminal;

use std::time::Duration;

use crossterm::event::KeyCode;
use sberf::ui::keys::{BINDINGS, Command, Key};

use terminal::Terminal;

/// What a terminal sends for a key.
fn bytes(key: Key) -> Vec<u8> {
    match key {
        Key::Char(c) => c.to_string().into_bytes(),
        Key::Twice(c) => format!("{c}{c}").into_bytes(),
        Key::Ctrl(c) => vec![c as u8 & 0x1f],
        Key::F(number @ 1..=4) => vec![0x1b, b'O', b'P' + number - 1],
        Key::F(number) => {
            let code = [15, 17, 18, 19, 20, 21, 23, 24][usize::from(number) - 5];
            format!("\x1b[{code}~").into_bytes()
        }
        Key::Code(code) => match code {
            KeyCode::Enter => b"\r".into(),
            KeyCode::Esc => b"\x1b".into(),
            KeyCode::Tab => b"\t".into(),
            KeyCode::BackTab => b"\x1b[Z".into(),
            KeyCode::Backspace => b"\x7f".into(),
            KeyCode::Up => b"\x1b[A".into(),
            KeyCode::Down => b"\x1b[B".into(),
            KeyCode::Right => b"\x1b[C".into(),
            KeyCode::Left => b"\x1b[D".into(),
            KeyCode::Home => b"\x1b[H".into(),
            KeyCode::End => b"\x1b[F".into(),
            KeyCode::PageUp => b"\x1b[5~".into(),
            KeyCode::PageDown => b"\x1b[6~".into(),
            KeyCode::Delete => b"\x1b[3~".into(),
            KeyCode::Insert => b"\x1b[2~".into(),
            other => panic!("the table binds {other:?}: say here what a terminal sends for it"),
        },
    }
}

fn leaves(command: Command) -> bool {
    matches!(command, Command::Quit | Command::BackOrQuit)
}

/// Every key of the table but those that leave.
fn keys() -> Vec<Vec<u8>> {
    let staying = BINDINGS.iter().filter(|binding| !leaves(binding.command));
    staying.flat_map(|binding| binding.keys).map(|&key| bytes(key)).collect()
}

/// Closes whatever is open: prompts, popups, panes.
const OUT: &[u8] = b"\x1b";

fn press_everything(terminal: &mut Terminal) {
    for place in [&b"1"[..], b"2", b"3", b"4", b"1\r", b"1\r\t", b"1\r\t\t", b"1\r\t\t\t"] {
        terminal.press(place);
        for key in keys() {
            terminal.press(&key);
            assert!(
                terminal.is_running(),
                "after {:?} in {place:?}: {}",
                key.escape_ascii().to_string(),
                terminal.text()
            );
            if key == bytes(Key::F(9)) {
                // Whatever comes next must not choose a signal for a process of this machine.
                terminal.settle(Duration::from_millis(20));
                terminal.press(OUT);
                terminal.settle(Duration::from_millis(20));
            }
            // A lone Esc must not become the start of the next key.
            terminal.settle(Duration::from_millis(2));
        }
        for _ in 0..6 {
            terminal.press(OUT);
            terminal.settle(Duration::from_millis(20));
        }
    }
}

/// The demo capture on the screen, in a directory of its own.
fn replay(size: (u16, u16)) -> (tempfile::TempDir, Terminal) {
    let dir = common::demo();
    let terminal = Terminal::start(&["top", "--read", "demo.sberf"], &[], dir.path(), size);
    terminal.wait_for("COMMAND");
    (dir, terminal)
}

#[test]
fn every_key_is_taken_and_q_quits() {
    let dir = common::demo();
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo.sberf");
    for file in ["demo.sberf", recorded] {
        let mut terminal = Terminal::start(&["top", "--read", file], &[], dir.path(), (40, 120));
        terminal.wait_for("COMMAND");
        press_everything(&mut terminal);
        terminal.press(b"1");
        terminal.press(b"q");
        let status = terminal.end();
        assert!(status.success(), "{status:?}");
        terminal.assert_given_back();
    }
}

#[test]
fn any_size_is_survived() {
    let (_dir, mut terminal) = replay((40, 120));
    for size in [(24, 80), (1, 1), (2, 300), (200, 2), (10, 40), (60, 250), (1, 1), (40, 120)] {
        terminal.resize(size);
        terminal.press(b"2");
        terminal.press(b"1");
        terminal.settle(Duration::from_millis(60));
        assert!(terminal.is_running(), "at {size:?}");
    }
    terminal.wait_for("COMMAND");
    terminal.press(b"\x03");
    assert!(terminal.end().success());
    terminal.assert_given_back();
}

#[test]
fn the_terminal_comes_back_after_signals() {
    let dir = common::demo();
    for (signal, name) in [(libc::SIGTERM, "Terminated"), (libc::SIGINT, "Interrupt"), (libc::SIGQUIT, "Quit")] {
        let mut terminal = Terminal::start(&["top", "--read", "demo.sberf"], &[], dir.path(), (24, 80));
        terminal.wait_for("COMMAND");
        terminal.signal(signal);
        let status = terminal.end();
        assert!(status.signal().is_some_and(|signal| signal.starts_with(name)), "{name}: {status:?}");
        terminal.assert_given_back();
    }
}

#[test]
fn the_terminal_comes_back_after_a_panic() {
    let dir = common::demo();
    for thread in ["main", "source"] {
        let env = [("SBERF_TEST_PANIC", thread)];
        let mut terminal = Terminal::start(&["top", "--read", "demo.sberf"], &env, dir.path(), (24, 80));
        assert_eq!(terminal.end().exit_code(), 101);
        terminal.assert_given_back();
        terminal.wait_for(&format!("SBERF_TEST_PANIC={thread}"));
    }
}

#[test]
fn stop_and_continue() {
    let (_dir, mut terminal) = replay((24, 80));
    for by_key in [true, false] {
        if by_key {
            terminal.press(b"\x1a")
        } else {
            terminal.signal(libc::SIGTSTP)
        }
        terminal.wait_until("given back", |terminal| terminal.given_back().is_ok());
        terminal.wait_until("stopped", Terminal::is_stopped);
        terminal.signal(libc::SIGCONT);
        terminal.wait_for("COMMAND");
        assert!(terminal.given_back().is_err(), "taken again");
    }
    // Stopped without being asked, as by `kill -STOP`, and the shell has put the terminal to its own use.
    terminal.signal(libc::SIGSTOP);
    terminal.wait_until("stopped", Terminal::is_stopped);
    terminal.make_sane();
    assert!(!terminal.is_raw());
    terminal.signal(libc::SIGCONT);
    terminal.wait_until("raw again", Terminal::is_raw);
    terminal.press(b"q");
    assert!(terminal.end().success());
    terminal.assert_given_back();
}

#[test]
fn a_lost_terminal_ends_it_quietly() {
    let dir = common::demo();
    let mut terminal = Terminal::start_unread(&["top", "--read", "demo.sberf"], &[], dir.path(), (24, 80));
    terminal.settle(Duration::from_millis(1500));
    assert!(terminal.is_running());
    let mut child = terminal.hang_up();
    let status = terminal::wait(child.as_mut());
    assert!(status.is_some(), "still running without its terminal");
}

#[test]
fn what_fails_early_leaves_no_escape_sequences() {
    let dir = common::demo();
    for args in [&["top", "--read", "nothing.sberf"][..], &["top", "--read", "demo.sberf", "-p", "4000000"]] {
        let mut terminal = Terminal::start(args, &[], dir.path(), (24, 80));
        assert_eq!(terminal.end().exit_code(), 1);
        assert!(!terminal.raw().contains('\x1b'), "{:?}", terminal.raw());
        assert_eq!(terminal.raw().lines().count(), 1, "{:?}", terminal.raw());
    }
}

#[test]
fn the_first_frame_comes_at_once_and_frames_write_only_what_changed() {
    let (_dir, mut terminal) = replay((50, 200));
    let first = terminal.first_byte().expect("something was written");
    // The goal is 50 ms; a debug build on a busy machine gets more.
    assert!(first < Duration::from_millis(1000), "{first:?}");
    terminal.settle(Duration::from_millis(1500));
    assert_eq!(terminal.raw().matches("\x1b[2J").count(), 1, "cleared once, at the start");
    assert!(terminal.raw().contains("\x1b[?2026h"), "frames are synchronized");
    terminal.press(b"q");
    assert!(terminal.end().success());
}

#[test]
fn no_color_means_none() {
    let dir = common::demo();
    let is_coloured = |raw: &str| raw.contains("\x1b[38;") || raw.contains("\x1b[48;") || raw.contains(";38;");
    for (args, env, coloured) in [
        (&["top", "--read", "demo.sberf"][..], &[("NO_COLOR", "1")][..], false),
        (&["top", "--read", "demo.sberf", "--color", "none"], &[], false),
        (&["top", "--read", "demo.sberf", "--color", "true"], &[("NO_COLOR", "1")], true),
    ] {
        let mut terminal = Terminal::start(args, env, dir.path(), (30, 100));
        terminal.wait_for("COMMAND");
        terminal.press(b"q");
        assert!(terminal.end().success());
        assert_eq!(is_coloured(&terminal.raw()), coloured, "{args:?} {env:?}");
    }
}

#[test]
fn a_terminal_that_takes_nothing_stalls_nobody() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let args = ["top", "-d", "0.1", "--write", "live.sberf"];
    let mut terminal = Terminal::start_unread(&args, &[], dir.path(), (60, 250));
    common::wait_until(|| common::read_capture(&dir.path().join("live.sberf")).0 >= 30);
    terminal.signal(libc::SIGTERM);
    assert!(terminal.end().signal().is_some());
    assert_eq!(common::read_capture(&dir.path().join("live.sberf")).1, Ok(()));
}

/// The part of the screen that ticks change: not the footer, which says `pause` or what was pressed.
fn body(terminal: &Terminal) -> String {
    terminal.text().lines().skip(3).take(30).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_held_picture_holds() {
    let (_dir, mut terminal) = replay((40, 120));
    terminal.press(b" ");
    terminal.settle(Duration::from_millis(300));
    let held = body(&terminal);
    terminal.settle(Duration::from_millis(1500));
    assert_eq!(body(&terminal), held);
    terminal.press(b" ");
    terminal.wait_until("moving again", |terminal| body(terminal) != held);
    terminal.press(b"q");
    assert!(terminal.end().success());
}

#[test]
fn w_writes_what_is_shown_and_overwrites_nothing() {
    let dir = common::demo();
    let folded = || files(dir.path(), "folded");
    let mut terminal = Terminal::start(&["top", "--read", "demo.sberf"], &[], dir.path(), (40, 120));
    terminal.wait_for("COMMAND");
    for count in 1..=2 {
        terminal.press(b"w");
        terminal.wait_until("another file", |_| folded().len() == count);
        terminal.wait_for("wrote ");
    }
    terminal.press(b"\rw");
    terminal.wait_until("a third", |_| folded().len() == 3);
    for path in folded() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() > 0, "{}", path.display());
        let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600, "it tells of all processes");
        let parses = |line: &str| line.rsplit_once(' ').is_some_and(|(_, weight)| weight.parse::<u64>().is_ok());
        assert!(text.lines().all(parses), "{text}");
    }
    terminal.press(b"\x03");
    assert!(terminal.end().success());
}

#[test]
fn what_is_pasted_is_no_commands() {
    let (dir, mut terminal) = replay((30, 100));
    // Would save, export and quit.
    terminal.press(b"\x1b[200~Wwq\nq\x1b[201~");
    terminal.wait_for("what is pasted is not taken for keys");
    assert!(terminal.is_running());
    terminal.press(b"\\");
    terminal.wait_for("filter (text");
    terminal.press(b"\x1b[200~quarry\nq\x1b[201~");
    terminal.wait_for("quarryq");
    terminal.press(b"\r");
    terminal.wait_for("filter quarryq");
    terminal.press(b"\x1b");
    terminal.settle(Duration::from_millis(100));
    terminal.press(b"q");
    assert!(terminal.end().success());
    terminal.assert_given_back();
    assert_eq!(
        files(dir.path(), "folded").len() + files(dir.path(), "sberf").len(),
        1,
        "only the capture that was read"
    );
}

#[test]
fn y_hands_the_row_to_the_clipboard() {
    use base64::Engine;
    let (_dir, mut terminal) = replay((24, 80));
    terminal.press(b"y");
    terminal.wait_for("clipboard");
    terminal.press(b"q");
    assert!(terminal.end().success());
    let raw = terminal.raw();
    let sent: Vec<&str> = raw.split("\x1b]52;c;").skip(1).filter_map(|rest| rest.split('\x07').next()).collect();
    assert_eq!(sent.len(), 1);
    let text = base64::engine::general_purpose::STANDARD.decode(sent[0]).expect("base64");
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.starts_with("PID\tUSER\t") && text.lines().count() == 2, "{text:?}");
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    assert!(text.chars().all(harmless), "{text:?}");
    terminal.assert_given_back();
}

/// Files with that ending.
fn files(dir: &std::path::Path, ending: &str) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    paths.sort();
    paths
}

#[test]
fn time_can_be_stepped_through_and_what_is_kept_saved() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, mut terminal) = replay((40, 120));
    terminal.press(b" ");
    terminal.wait_for("paused");
    // One by one: no second is missed, however fast the replay would be.
    let clock = |terminal: &Terminal| {
        let status = terminal.text().lines().next().unwrap_or_default().to_owned();
        status.split_whitespace().find(|word| word.matches(':').count() == 2).unwrap_or_default().to_owned()
    };
    // Below the table the axes grow with what was ever shown.
    let table = |terminal: &Terminal| body(terminal).lines().take(21).map(str::trim_end).collect::<Vec<_>>().join("\n");
    let mut seen = vec![(clock(&terminal), table(&terminal))];
    for _ in 0..4 {
        let before = seen[seen.len() - 1].0.clone();
        terminal.press(b"]");
        terminal.wait_until("a tick later", |terminal| clock(terminal) != before);
        terminal.settle(Duration::from_millis(30));
        seen.push((clock(&terminal), table(&terminal)));
    }
    for (then, shown) in seen.iter().rev().skip(1) {
        terminal.press(b"[");
        terminal.wait_until("a tick earlier", |terminal| clock(terminal) == *then);
        terminal.wait_until("as it was", |terminal| table(terminal) == *shown);
        assert!(terminal.text().contains("past "), "{}", terminal.text());
    }
    terminal.press(b"W");
    terminal.wait_for("saved ");
    terminal.press(b"W");
    terminal.wait_until("a second file", |terminal| terminal.text().contains("-1.sberf"));
    terminal.wait_for("saved ");
    terminal.press(b"\x1b[H");
    terminal.wait_for("replay ");
    terminal.press(b"q");
    assert!(terminal.end().success());
    let saved: Vec<_> = files(dir.path(), "sberf").into_iter().filter(|path| !path.ends_with("demo.sberf")).collect();
    assert_eq!(saved.len(), 2, "{saved:?}");
    for path in &saved {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(common::read_capture(path).1, Ok(()));
        assert!(common::read_capture(path).0 >= seen.len() as u64);
    }
    let file = saved[0].to_str().unwrap();
    let mut terminal = Terminal::start(&["top", "--read", file], &[], dir.path(), (40, 120));
    terminal.wait_for("COMMAND");
    terminal.wait_until("the end of it", |terminal| terminal.text().contains("replay over"));
    terminal.press(b"q");
    assert!(terminal.end().success());
}

#[test]
fn stacks_by_frame_pointers_are_said_to_be() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let mut terminal = Terminal::start(&["top", "-d", "0.2", "--unwind", "fp"], &[], dir.path(), (40, 160));
    terminal.wait_for("fp stacks");
    terminal.press(b"?");
    terminal.wait_for("switched off (--unwind fp)");
    // Together they would be Alt-q.
    terminal.press(b"\x1b");
    terminal.wait_until("closed", |terminal| !terminal.text().contains("any other key closes"));
    terminal.press(b"q");
    assert!(terminal.end().success());
}

#[test]
fn live_ticks_that_wait_can_be_taken_one_by_one() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let mut terminal = Terminal::start(&["top", "-d", "0.2"], &[], dir.path(), (40, 120));
    terminal.wait_for("COMMAND");
    terminal.settle(Duration::from_millis(800));
    terminal.press(b"[[");
    terminal.wait_for("past ");
    terminal.press(b"]]");
    terminal.wait_for("paused ");
    terminal.wait_for(" +3");
    let held = body(&terminal);
    terminal.press(b"]");
    terminal.wait_until("a tick later", |terminal| body(terminal) != held);
    assert!(terminal.text().contains("paused "), "{}", terminal.text());
    terminal.press(b"W");
    terminal.wait_for("saved ");
    terminal.press(b" ");
    terminal.wait_for("live ");
    terminal.press(b"q");
    assert!(terminal.end().success());
    let saved = files(dir.path(), "sberf").into_iter().find(|path| !path.ends_with("demo.sberf")).expect("a capture");
    let (ticks, end) = common::read_capture(&saved);
    assert!(ticks >= 3 && end == Ok(()), "{ticks} {end:?}");
}

#[test]
fn what_cannot_be_saved_is_said() {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo.sberf");
    // Nobody can make a file there.
    let nowhere = std::path::Path::new("/proc");
    let mut terminal = Terminal::start(&["top", "--read", recorded], &[], nowhere, (40, 120));
    terminal.wait_for("COMMAND");
    terminal.press(b"W");
    terminal.wait_for("cannot write sberf-");
    terminal.press(b"q");
    assert!(terminal.end().success());
}

#[test]
fn ascii_means_ascii() {
    let dir = common::demo();
    let mut terminal = Terminal::start(&["top", "--read", "demo.sberf", "--ascii"], &[], dir.path(), (40, 120));
    terminal.wait_for("COMMAND");
    for keys in [&b"2"[..], b"3", b"4", b"1\r", b"\t", b"\t", b"?"] {
        terminal.press(keys);
        terminal.settle(Duration::from_millis(100));
    }
    assert!(terminal.raw().is_ascii(), "{:?}", terminal.raw().chars().find(|c| !c.is_ascii()));
    terminal.press(b"\x03");
    assert!(terminal.end().success());
}

/// Root of a user namespace has every capability there, and none that counts.
#[test]
fn a_kernel_that_refuses_leaves_what_procfs_says() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let possible = std::process::Command::new("unshare").args(["-U", "-r", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return println!("skipped: no user namespaces here");
    }
    let mut terminal = Terminal::start_shell("exec unshare -U -r $SBERF top -d 0.2", dir.path(), (30, 120));
    terminal.wait_for("procfs only");
    terminal.press(b"?");
    terminal.wait_for("user namespace");
    // Closes help, and leaves.
    terminal.press(b"xq");
    assert!(terminal.end().success());
    terminal.assert_given_back();
}

#[test]
fn a_source_that_fails_is_one_line_on_a_terminal_as_it_was() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let mut terminal = Terminal::start(&["top", "--write", "nowhere/x.sberf"], &[], dir.path(), (24, 80));
    assert_eq!(terminal.end().exit_code(), 1);
    terminal.assert_given_back();
    let left = terminal.raw();
    let left = left.rsplit("\x1b[?1049l").next().unwrap_or_default();
    assert_eq!(left.trim_end().lines().count(), 1, "{left:?}");
    assert!(left.starts_with("sberf: ") && left.contains("nowhere/x.sberf"), "{left:?}");
}

#[test]
fn a_full_disk_ends_the_recording_and_the_screen_goes_on() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let script = "ulimit -f 200; exec $SBERF top -d 0.1 --write live.sberf";
    let mut terminal = Terminal::start_shell(script, dir.path(), (40, 160));
    terminal.wait_for("recording stopped");
    let (ticks, _) = common::read_capture(&dir.path().join("live.sberf"));
    assert!(ticks > 0);
    let stopped = body(&terminal);
    terminal.wait_until("going on", |terminal| body(terminal) != stopped);
    terminal.press(b"q");
    assert_eq!(terminal.end().exit_code(), 1, "a recording that is not whole is not a success");
    terminal.assert_given_back();
    assert!(terminal.text().contains("recording stopped"), "said again where it can be read: {}", terminal.text());
}

#[test]
fn f9_signals_the_process_that_is_selected() {
    use std::os::unix::process::ExitStatusExt;
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let mut terminal = Terminal::start(&["top", "-p", &child.id().to_string()], &[], dir.path(), (24, 160));
    terminal.wait_for("sleep 600");
    terminal.press(b"\x1b[20~");
    terminal.wait_for(&format!("signal to {} sleep 600", child.id()));
    assert!(child.try_wait().unwrap().is_none(), "nothing is sent before it was asked");
    terminal.press(b"\r");
    terminal.wait_for(&format!("sent SIGTERM to {} sleep 600", child.id()));
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    terminal.wait_for("†TERM");
    terminal.press(b"\x1b[20~");
    terminal.wait_for("has exited");
    terminal.press(b"q");
    assert!(terminal.end().success());
    terminal.assert_given_back();
}

#[test]
fn live() {
    if let Err(why) = common::can_run_live() {
        return println!("skipped: {why}");
    }
    let dir = common::demo();
    let args = ["top", "--write", "live.sberf"];
    let mut terminal = Terminal::start(&args, &[], dir.path(), (40, 120));
    terminal.wait_for("COMMAND");
    press_everything(&mut terminal);
    terminal.press(b"1");
    terminal.press(b"q");
    let status = terminal.end();
    assert!(status.success(), "{status:?} {}", terminal.text());
    terminal.assert_given_back();
    let mut reader = sberf::collect::capture::Reader::open(&dir.path().join("live.sberf")).unwrap();
    let mut batches = 0;
    while reader.next_batch().expect("the capture is whole").is_some() {
        batches += 1;
    }
    assert!(batches > 0);
}

/// As a user who may nothing, the binary copied to where that user can reach it.
#[test]
fn without_any_privilege_the_screen_lives_and_says_what_it_lacks() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root, to become nobody");
    }
    let dir = common::demo();
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    std::fs::copy(env!("CARGO_BIN_EXE_sberf"), dir.path().join("sberf")).unwrap();
    [dir.path(), &dir.path().join("sberf")].into_iter().for_each(open);
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all";
    if !std::process::Command::new("sh")
        .args(["-c", &format!("{nobody} ./sberf --version")])
        .current_dir(dir.path())
        .status()
        .is_ok_and(|status| status.success())
    {
        return println!("skipped: setpriv cannot make a process of nobody here");
    }
    let mut terminal = Terminal::start_shell(&format!("exec {nobody} ./sberf top -d 0.2"), dir.path(), (40, 140));
    terminal.wait_for("procfs only, ? says why");
    terminal.wait_for("sh");
    terminal.press(b"?");
    terminal.wait_for("CAP_BPF, CAP_PERFMON missing");
    terminal.wait_for("time by state (reduced)");
    terminal.press(b"x");
    // Every place, and a process with each of its panes, draws what there is.
    for place in [&b"2"[..], b"3", b"4", b"5", b"1\r", b"\t", b"\t", b"\t", b"\t", b"\t", b"\t"] {
        terminal.press(place);
        terminal.settle(Duration::from_millis(50));
        assert!(terminal.is_running());
    }
    terminal.wait_for("procfs only");
    // Back from the process, and out.
    terminal.press(b"qq");
    assert!(terminal.end().success());
}
