//! sberf and its peers: how each is started, and how it is made to end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::bpf::{Floor, Least};
use crate::screen::Terminal;

/// From start until a tool has attached whatever it attaches.
const ATTACH: Duration = Duration::from_millis(1500);

/// One way of watching the machine.
#[derive(Clone, Debug)]
pub struct Tool {
    pub name: &'static str,
    /// Empty: no program is started.
    pub command: Vec<String>,
    /// Programs that do the least, attached by this one.
    pub least: Option<Least>,
    /// Lives in a terminal.
    pub screen: bool,
}

impl Tool {
    fn new(name: &'static str, command: &str, screen: bool) -> Self {
        Tool { name, command: command.split_whitespace().map(String::from).collect(), least: None, screen }
    }

    fn least(name: &'static str, least: Least) -> Self {
        Tool { least: Some(least), ..Tool::new(name, "", false) }
    }

    /// The program exists here.
    fn is_installed(&self) -> bool {
        self.command.first().is_none_or(|program| find(program).is_some())
    }
}

/// Where a program lies; `/usr/sbin` is not on every PATH, but is where libbpf-tools are.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", ""])
        .map(|dir| PathBuf::from(dir).join(program))
        .find(|at| at.is_file())
}

/// Those that are installed; the others are named on the way.
fn installed(tools: Vec<Tool>) -> Vec<Tool> {
    let (here, missing): (Vec<_>, Vec<_>) = tools.into_iter().partition(Tool::is_installed);
    for tool in missing {
        println!("\n{} is not there: left out.", tool.name);
    }
    here
}

fn sberf(arguments: &str) -> String {
    // As much as it costs: nothing is given up for a budget.
    format!("{} {arguments} --max-overhead 100", env!("CARGO_BIN_EXE_sberf"))
}

/// What watches while work is timed; the first is nothing. Without blocked stacks sberf keeps the totals that `runqlat`
/// keeps a part of; with them it also does what `offcputime` does.
pub fn watchers() -> Vec<Tool> {
    installed(vec![
        Tool::new("nothing", "", false),
        Tool::least("empty programs", Least::Nothing),
        Tool::least("programs that read the clock", Least::Clock),
        Tool::new("sberf top --walks 0", &sberf("top --walks 0"), true),
        Tool::new("sberf top", &sberf("top"), true),
        Tool::new("runqlat", "runqlat 1 600", false),
        Tool::new("offcputime", "offcputime 600", false),
        Tool::new("perf record -F 99 -a -g", "perf record -q -F 99 -a -g -o /dev/null", false),
    ])
}

/// What has BPF programs whose cost the kernel can tell.
pub fn attachers() -> Vec<Tool> {
    installed(vec![
        Tool::new("sberf", &sberf("top"), true),
        Tool::new("sberf --walks 0", &sberf("top --walks 0"), true),
        Tool::least("the clock alone", Least::Clock),
        Tool::new("runqlat", "runqlat 1 600", false),
        Tool::new("offcputime", "offcputime 600", false),
        Tool::new("biolatency", "biolatency 1 600", false),
    ])
}

/// What fills a screen once a second; ratios are against the first.
pub fn screens() -> Vec<Tool> {
    installed(vec![Tool::new("htop", "htop -d 10", true), Tool::new("sberf", &sberf("top -d 1"), true)])
}

/// A tool at work; ended when dropped.
pub enum Running {
    Nothing,
    Least { _attached: Floor },
    Screen(Terminal),
    Plain(Child),
}

impl Running {
    /// Starts it and gives it time to attach. `scratch`: where something can be compiled.
    pub fn start(tool: &Tool, scratch: &Path) -> Result<Self> {
        if let Some(least) = tool.least {
            return Ok(Running::Least { _attached: Floor::attach(scratch, least)? });
        }
        let Some(program) = tool.command.first() else {
            return Ok(Running::Nothing);
        };
        let mut running = if tool.screen {
            Running::Screen(Terminal::start(&tool.command)?)
        } else {
            let mut command = Command::new(find(program).context("not installed")?);
            command.args(&tool.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Running::Plain(command.spawn().with_context(|| format!("starting {program}"))?)
        };
        std::thread::sleep(ATTACH);
        let alive = match &mut running {
            Running::Nothing | Running::Least { .. } => true,
            Running::Screen(terminal) => terminal.is_alive(),
            Running::Plain(child) => child.try_wait()?.is_none(),
        };
        ensure!(alive, "{} ended before the work began", tool.name);
        Ok(running)
    }

    pub fn pid(&self) -> Result<u32> {
        match self {
            Running::Nothing => bail!("nothing has no process"),
            Running::Least { .. } => Ok(std::process::id()),
            Running::Screen(terminal) => terminal.pid(),
            Running::Plain(child) => Ok(child.id()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Running::Plain(child) = self else { return };
        for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
            let _ = kill_process(Pid::from_child(child), signal);
            // offcputime resolves symbols before it leaves.
            let patience = Instant::now() + Duration::from_secs(5);
            while Instant::now() < patience {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
