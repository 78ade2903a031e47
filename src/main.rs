//! Parses the command line, joins source, model and screen, and picks the exit code.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::todo, clippy::unimplemented, clippy::dbg_macro)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod cli;
mod command;
mod doctor;
mod export;
mod exports;
mod feed;
mod glance;
mod held;
mod input;
mod look;
mod memory;
mod record;
mod save;
mod screen;
mod source;
mod terminal;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};

/// Why the program failed, as far as the person must know.
pub enum Failure {
    /// One line on standard error; exit code 1.
    Line(String),
    /// One line on standard error, and that exit code.
    Exit(u8, String),
    /// The command that was observed ended so, which was said.
    Status(u8),
    /// Ended by a signal: the program dies of it, as its parent expects.
    Signal(i32),
    /// Whoever read our output has heard enough; exit code 0.
    Hush,
}

impl Failure {
    /// One line on standard error; exit code 1.
    pub fn line(text: impl Into<String>) -> Self {
        Failure::Line(text.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Hush,
            _ => Failure::line(error.to_string()),
        }
    }
}

fn main() -> ExitCode {
    memory::give_back();
    restore_terminal_on_panic();
    outlive_file_size_limit();
    let result = match Cli::parse().command {
        Command::Top(args) if args.json => export::ticks(args),
        Command::Top(args) => look::top(args),
        Command::Record(args) => record::run(args),
        Command::Export(args) => export::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => completions(shell),
        Command::Man { command } => manual(command.as_deref()),
    };
    match result {
        Ok(()) | Err(Failure::Hush) => ExitCode::SUCCESS,
        Err(Failure::Line(text)) => {
            say(&text);
            ExitCode::FAILURE
        }
        Err(Failure::Exit(code, text)) => {
            say(&text);
            ExitCode::from(code)
        }
        Err(Failure::Status(code)) => ExitCode::from(code),
        Err(Failure::Signal(signal)) => {
            drop(signal_hook::low_level::emulate_default_handler(signal));
            ExitCode::FAILURE
        }
    }
}

/// One line for the person, where there is one.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "sberf: {}", one_line(text));
}

/// Names in messages (files, processes) may hold anything; none of it reaches the terminal raw.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The terminal first, then the message. No thread's panic leaves a program that is half alive; only the workers of
/// `collect`, which read files that we do not control, catch their own.
fn restore_terminal_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_worker = std::thread::current().name().is_some_and(|name| name.starts_with("sberf-"));
        if is_worker && terminal::is_ours() {
            return;
        }
        if !is_worker {
            terminal::restore_for_good();
        }
        print(info);
        if !is_worker {
            std::process::exit(101);
        }
    }));
}

/// A limit of file sizes is an error of `write`, not the end of the program.
fn outlive_file_size_limit() {
    // Should it fail, the program ends as it would have.
    drop(signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false))));
}

/// Panics in the thread that `SBERF_TEST_PANIC` names; only in debug builds, for `tests/pty.rs`.
pub fn test_panic(thread: &str) {
    if cfg!(debug_assertions) && std::env::var_os("SBERF_TEST_PANIC").is_some_and(|name| name == thread) {
        panic!("SBERF_TEST_PANIC={thread}");
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sberf", &mut text);
    Ok(io::stdout().write_all(&text)?)
}

fn manual(command: Option<&str>) -> Result<(), Failure> {
    let mut all = Cli::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::line(format!("there is no command {name}; see `sberf --help`")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    Ok(io::stdout().write_all(&text)?)
}
