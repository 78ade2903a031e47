//! `make install` by its script: what it puts where, that it asks before the file gets capabilities, and that it takes back
//! all of it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install.sh");

/// Everything below a directory, without it, sorted.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// Without a terminal: a session of its own has none.
fn run(prefix: &Path, args: &[&str]) -> Option<Output> {
    let output =
        Command::new("setsid").arg("-w").arg(SCRIPT).args(args).env("PREFIX", prefix).env_remove("DESTDIR").output();
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: setsid: {error}");
            None
        }
    }
}

fn capabilities(prefix: &Path) -> usize {
    let mut bytes = [0; 64];
    rustix::fs::getxattr(prefix.join("bin/sberf"), "security.capability", &mut bytes).unwrap_or(0)
}

#[test]
fn all_of_it_is_put_there_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(output) = run(dir.path(), &["install", env!("CARGO_BIN_EXE_sberf")]) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let expected = [
        "bin/sberf",
        "share/bash-completion/completions/sberf",
        "share/fish/vendor_completions.d/sberf.fish",
        "share/man/man1/sberf-doctor.1",
        "share/man/man1/sberf-export.1",
        "share/man/man1/sberf-record.1",
        "share/man/man1/sberf-top.1",
        "share/man/man1/sberf.1",
        "share/zsh/site-functions/_sberf",
    ];
    assert_eq!(files(dir.path()), expected);
    let page = std::fs::read_to_string(dir.path().join("share/man/man1/sberf-doctor.1")).unwrap();
    assert!(page.contains("Exit codes"), "{page}");
    // Nobody can be asked: the command is printed, with the capabilities that doctor looks for.
    let wanted = sberf::collect::privileges::WANTED.map(|capability| capability.name.to_lowercase()).join(",");
    assert!(said.contains(&format!("setcap {wanted}+ep {}/bin/sberf", dir.path().display())), "{said}");
    assert_eq!(capabilities(dir.path()), 0);
    std::fs::write(dir.path().join("bin/other"), "not ours").unwrap();
    assert!(run(dir.path(), &["uninstall"]).unwrap().status.success());
    assert_eq!(files(dir.path()), ["bin/other"]);
    assert!(run(dir.path(), &["uninstall"]).unwrap().status.success(), "nothing there is nothing to do");
}

/// On a terminal, with that answer; yields what was said.
fn answered(prefix: &Path, answer: &str) -> String {
    let pty = native_pty_system().openpty(PtySize { rows: 24, cols: 200, pixel_width: 0, pixel_height: 0 }).unwrap();
    let mut command = CommandBuilder::new(SCRIPT);
    command.args(["install", env!("CARGO_BIN_EXE_sberf")]);
    command.env("PREFIX", prefix);
    command.env_remove("DESTDIR");
    let mut child = pty.slave.spawn_command(command).unwrap();
    drop(pty.slave);
    let mut reader = pty.master.try_clone_reader().unwrap();
    // It waits in the terminal until it is asked for.
    pty.master.take_writer().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
    let mut said = Vec::new();
    // The other end closes with an error on Linux.
    drop(reader.read_to_end(&mut said));
    child.wait().unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn capabilities_are_set_only_when_the_answer_is_yes() {
    let dir = tempfile::tempdir().unwrap();
    let said = answered(dir.path(), "n");
    assert!(said.contains("Set them now? [y/N]") && said.contains("not set; later: setcap"), "{said}");
    assert_eq!(capabilities(dir.path()), 0);
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: setting them needs root");
    }
    let said = answered(dir.path(), "y");
    if said.contains("no setcap here") || said.contains("Operation not supported") || said.contains("not permitted") {
        return eprintln!("skipped: {said}");
    }
    assert!(said.contains("sberf doctor"), "{said}");
    assert!(capabilities(dir.path()) > 0, "{said}");
}
