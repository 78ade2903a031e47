//! Runs the programs under `tests/fixtures`: builds them, keeps step with them, reads what they say of themselves.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::compile::workload as build;

/// Longer than any workload takes on a busy machine; past it the workload hangs and the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running workload. Dropped, it ends, whatever became of the test.
pub struct Workload {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    truth: Vec<String>,
}

impl Workload {
    /// Starts a workload and waits until it is set up; it does nothing more until told to.
    pub fn prepare(name: &str, args: &[&str]) -> Workload {
        Self::try_prepare(name, args).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// The same; `Err` when it ends instead, with what it said on stderr and its exit code.
    pub fn try_prepare(name: &str, args: &[&str]) -> Result<Workload, String> {
        let mut command = Command::new(build(name));
        command.args(args);
        Self::try_start(name, command)
    }

    /// The same, with the program bound to one CPU.
    pub fn prepare_pinned(name: &str, cpu: u32, args: &[&str]) -> Workload {
        let mut command = Command::new("taskset");
        command.arg("-c").arg(cpu.to_string()).arg(build(name)).args(args);
        Self::try_start(name, command).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// The same for a program that was compiled in a way of its own.
    pub fn prepare_program(program: &Path, args: &[&str]) -> Workload {
        let mut command = Command::new(program);
        command.args(args);
        let name = program.display().to_string();
        Self::try_start(&name, command).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// The same, however it is started; `Err` when it ends instead, with what it said on stderr and its exit code.
    pub fn try_start(name: &str, mut command: Command) -> Result<Workload, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut workload = Workload { name: name.into(), child, stdin, lines, truth: Vec::new() };
        workload.read_until("ready")?;
        Ok(workload)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it work, and waits until it has.
    pub fn run(&mut self) {
        self.go();
        self.wait_done();
    }

    /// Lets it work.
    pub fn go(&mut self) {
        self.stdin.as_mut().expect("not let go yet").write_all(b"g").expect("workload reads");
    }

    /// Waits until its work is over.
    pub fn wait_done(&mut self) {
        if let Err(why) = self.read_until("done") {
            panic!("{}: {why}", self.name);
        }
    }

    /// Lets it exit and waits for that; true if it exited with 0.
    pub fn finish(&mut self) -> bool {
        drop(self.stdin.take());
        self.child.wait().is_ok_and(|status| status.success())
    }

    fn read_until(&mut self, end: &str) -> Result<(), String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == end => return Ok(()),
                Ok(line) => self.truth.push(line),
                Err(_) => return Err(self.last_words(end)),
            }
        }
    }

    fn last_words(&mut self, awaited: &str) -> String {
        let _ = self.child.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        format!("no `{awaited}`; exit code {code:?}; {}", said.trim())
    }

    /// What it said after `key`, each time it did.
    pub fn told(&self, key: &str) -> Vec<Vec<&str>> {
        self.truth
            .iter()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| words.first() == Some(&key))
            .map(|words| words[1..].to_vec())
            .collect()
    }

    /// The numbers it told under a key, once.
    pub fn numbers(&self, key: &str) -> Vec<u64> {
        let told = self.told(key);
        let first = told.first().unwrap_or_else(|| panic!("{} told no {key}", self.name));
        first.iter().map(|word| word.parse().expect("a number")).collect()
    }

    pub fn number(&self, key: &str) -> u64 {
        self.numbers(key)[0]
    }

    /// Its threads: (tid, what it said of it).
    pub fn threads(&self) -> Vec<(u32, Vec<&str>)> {
        self.told("thread").into_iter().map(|words| (words[0].parse().expect("a tid"), words[1..].to_vec())).collect()
    }

    /// When its work began and ended, CLOCK_MONOTONIC ns.
    pub fn span(&self) -> (u64, u64) {
        (self.number("begin_ns"), self.number("end_ns"))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let patience = Instant::now() + Duration::from_secs(3);
        while Instant::now() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
