//! The command line: what can be said, and what `--help` says of it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where every thread's time goes, live, in the terminal.
///
/// sberf watches the whole machine through BPF programs on scheduler and block tracepoints, and through a timer that
/// samples stacks. Each second it accounts for every thread's wall-clock time: running, waiting for a CPU, or blocked,
/// and by what. Totals are exact and summed in the kernel; stacks are samples. What was lost is counted and shown.
#[derive(Debug, Parser)]
#[command(name = "sberf", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_long_help = "\
Privileges: a live view takes root, or the capabilities CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, \
CAP_SYSLOG and CAP_CHECKPOINT_RESTORE (`setcap` on the program), and a kernel with BTF. With less, what works still works: \
`sberf doctor` says what does not, and why. With nothing at all, `top` shows what procfs says. Captures are read without any.

Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage; of `doctor`, 3 and 4 see there. With a command after --: 127 it was not found, 126 it cannot be run; `record` and `top --json` exit as it did, with 128+N if signal N ended it.

Examples:
  sudo sberf top                               the whole machine
  sudo sberf top -p 4711                       one process
  sudo sberf top -- make -j8                   a command and all it starts, from its first instruction
  sberf top --read assets/demo.sberf           a recorded machine, without root
  sudo sberf record -o slow.sberf --duration 60
  sberf doctor                                 what works here, and what would mend the rest
  sberf export slow.sberf --lens blocked | flamegraph.pl --countname ns > blocked.svg")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What sberf can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch: processes, CPUs, NUMA nodes and disks, and for each process where its time goes
    Top(Top),
    /// Record to a file, without a screen
    Record(Record),
    /// Write stacks as folded lines, or ticks as JSON, from a capture or from the live machine
    Export(Export),
    /// Say what works here, what does not, why, and what would mend it
    Doctor(Doctor),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of sberf or of one of its commands
    Man {
        /// Which command's page
        command: Option<String>,
    },
}

/// Blocked stacks walked per second and CPU when nothing is said.
pub const WALKS_PER_S: u32 = 1000;

/// How a live machine is observed.
#[derive(Args, Debug)]
pub struct Observe {
    /// Only these processes, by PID
    ///
    /// A filter of what is shown and written; the same programs run, so the machine pays nearly the same. A PID that no process
    /// has here may be one in a pid namespace of its own, as within a container, if only one process has it there. Who gets
    /// the PID of a process that has ended is not watched.
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,

    /// Samples per second and CPU
    ///
    /// The default is odd so as not to run in step with timers. Cost grows with it: each sample walks a stack. Hardware
    /// cycles are used where there is a PMU, else the kernel's cpu-clock timer, which cannot see into code that has
    /// interrupts off; the status line says which.
    #[arg(short = 'F', long = "rate", value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=4999))]
    pub rate_hz: u32,

    /// Blocked stacks that may be walked, per second and CPU; 0: none
    ///
    /// A thread that blocks where it blocked before needs no walk. Waits for whose stack the budget had no room are
    /// charged to [stack not taken]; totals are exact either way.
    #[arg(long, value_name = "PER_S", default_value_t = WALKS_PER_S, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub walks: u32,

    /// How user stacks are walked
    ///
    /// By the tables that programs and libraries carry, and by frame pointers only where there is none (code made at run
    /// time); or by frame pointers alone, which few programs keep. Kernels before 6.1 can only do the latter.
    #[arg(long, value_name = "HOW", default_value = "table")]
    pub unwind: Unwind,

    /// CPU time that sberf may take, in percent of the machine's; 100: as much as it does
    ///
    /// Above it for three ticks, what costs most is stepped down: blocked stacks (as --walks), then the rate of samples, each
    /// of which then counts for several; as it is, the screen and `governor` in the JSON say so. Totals are never given up, and
    /// what was is taken back when there is room. Making tables and finding names is not counted: it has a budget of its own.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = overhead, allow_negative_numbers = true)]
    pub max_overhead: f64,

    /// Length of a tick, in seconds, 0.1 to 60
    ///
    /// All numbers on a screen are of one tick, or of several. Shorter ticks cost more: sberf's own share is on the
    /// status line.
    #[arg(short = 'd', long = "interval", value_name = "SECONDS", default_value = "1", value_parser = interval, allow_negative_numbers = true)]
    pub interval: Duration,
}

/// How user stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unwind {
    /// By tables made of .eh_frame
    Table,
    /// By frame pointers
    Fp,
}

/// `sberf top`.
#[derive(Args, Debug)]
pub struct Top {
    #[command(flatten)]
    pub observe: Observe,

    /// Show a capture instead of the live machine, at the speed it was recorded
    #[arg(long, value_name = "FILE", conflicts_with_all = ["write", "rate_hz", "interval"])]
    pub read: Option<PathBuf>,

    /// Also record everything to a capture
    ///
    /// The file can be read by its owner only, for it holds the command lines of all processes. An older capture of that
    /// name is overwritten, any other file is not. Should the disk fill up, recording stops and says so; the screen goes
    /// on, and the file stays readable.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// Fetch debug information that is not on this machine, for the lines of what is looked at
    ///
    /// Over the network, by build id, from the servers of DEBUGINFOD_URLS, which then learn what runs here; for files whose
    /// frames stand in an open icicle, and only if there is none for them on this machine. It is kept where other clients
    /// of debuginfod keep it (DEBUGINFOD_CACHE_PATH, XDG_CACHE_HOME/debuginfod_client, ~/.cache/debuginfod_client).
    #[arg(long, conflicts_with_all = ["read", "json"])]
    pub debuginfod: bool,

    /// No screen: one JSON object per tick on standard output
    ///
    /// Times are in ns, in fields that end in _ns. Fields are added, never changed.
    #[arg(long)]
    pub json: bool,

    /// End after that many ticks
    #[arg(long, value_name = "N", requires = "json", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Memory for the past that can be looked at, in MB
    ///
    /// When it is full the oldest is let go, and counted as evicted.
    #[arg(long, value_name = "MB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub history: u32,

    #[command(flatten)]
    pub look: Look,

    /// Start a command and watch it, with all it starts
    ///
    /// It begins once everything is attached, so nothing of its start is lost. Its standard input is empty; what it
    /// writes goes to a new file in the directory for temporary files (TMPDIR, else /tmp), which is named when it ends
    /// and when sberf does. It has no terminal. Under sudo it runs as the user who called sudo, not as root. If it still
    /// runs when sberf ends, it is asked to end (SIGTERM, to all of its session), and made to (SIGKILL) after two
    /// seconds. With --json, sberf ends with it, and with its exit status.
    #[arg(last = true, value_name = "COMMAND ARGS", conflicts_with = "read")]
    pub command: Vec<OsString>,
}

/// How the screen looks.
#[derive(Args, Debug)]
pub struct Look {
    /// Draw with ASCII only
    #[arg(long)]
    pub ascii: bool,

    /// How many colours to use; auto asks NO_COLOR, COLORTERM and TERM
    #[arg(long, value_name = "DEPTH", default_value = "auto")]
    pub color: Color,

    /// Colours: the name of a palette that is built in, or a TOML file
    ///
    /// The default can be told apart with every common kind of colour blindness.
    #[arg(long, value_name = "NAME")]
    pub palette: Option<String>,
}

/// How many colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// What the environment says
    Auto,
    /// None: bold, reverse and glyphs only
    None,
    /// The sixteen of ANSI
    #[value(name = "16")]
    Ansi16,
    /// xterm's 256
    #[value(name = "256")]
    Ansi256,
    /// Red, green and blue
    True,
}

/// `sberf record`.
#[derive(Args, Debug)]
pub struct Record {
    #[command(flatten)]
    pub observe: Observe,

    /// Where to
    ///
    /// Each tick is written as soon as it is complete: a recorder that is killed loses the tick it was collecting. The
    /// file can be read by its owner only. An older capture of that name is overwritten, any other file is not.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// For how long, in seconds; otherwise until Ctrl-C
    #[arg(long, value_name = "S", value_parser = duration, allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    /// Start a command and record it, with all it starts, until it ends; exits with its status
    ///
    /// It begins once everything is attached, so nothing of its start is lost. It shares sberf's input, output and
    /// terminal: Ctrl-C reaches both, and what it writes is seen. sberf goes on until it has ended; a second Ctrl-C does
    /// not wait for that. Under sudo it runs as the user who called sudo, not as root. If it still runs when recording
    /// ends (--duration, a second Ctrl-C), it is asked to end (SIGTERM), and made to (SIGKILL) after two seconds.
    #[arg(last = true, value_name = "COMMAND ARGS")]
    pub command: Vec<OsString>,
}

/// `sberf export`.
#[derive(Args, Debug)]
pub struct Export {
    /// A capture; without one, the live machine for --duration
    pub file: Option<PathBuf>,

    /// What to write
    #[arg(long, default_value = "folded")]
    pub format: Format,

    /// Which stacks (folded only)
    #[arg(long, default_value = "on-cpu")]
    pub lens: Lens,

    /// Only this process
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Only so many seconds from the start (of the capture), or from now
    #[arg(long, value_name = "S", value_parser = duration, allow_negative_numbers = true, required_unless_present = "file")]
    pub duration: Option<Duration>,

    /// Samples per second and CPU, when live
    #[arg(short = 'F', long = "rate", value_name = "HZ", default_value_t = 99, conflicts_with = "file", value_parser = clap::value_parser!(u32).range(1..=4999))]
    pub rate_hz: u32,

    /// Where to; otherwise standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// `sberf doctor`: loads what `top` loads, and takes it out again.
///
/// For every signal: where it can come from, which source is in use, why the others are not, and what to do about it.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 `top` runs fully, 3 partly, 4 nothing of BPF can run: `top` shows what procfs says, and no more. 1 and 2 as \
everywhere: failed, wrong usage.")]
pub struct Doctor {
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What an export is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line per stack, root first: `process;frame;frame weight`, as flame graph tools read it
    Folded,
    /// A JSON object per tick, as `sberf top --json` prints it
    Json,
}

/// Which stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lens {
    /// Samples on a CPU; weights are samples
    OnCpu,
    /// Blocked, by reason; weights are ns
    Blocked,
    /// Waiting for a CPU; weights are ns, and there are no stacks below the thread
    Runnable,
    /// All wall time: samples scaled to the exact on-CPU time, blocked, runnable; weights are ns
    Wall,
    /// The part of blocked that waits for a disk; weights are ns. Writes that the kernel does later make nobody wait
    Io,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Ok(seconds),
        _ => Err("not a number of seconds".into()),
    }
}

fn overhead(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.01..=100.0).contains(&percent) => Ok(percent),
        _ => Err("0.01 to 100 percent".into()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        seconds if (0.1..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a tick takes 0.1 to 60 seconds".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    /// A month.
    const LONGEST: f64 = 31.0 * 86_400.0;
    match seconds(text)? {
        seconds if seconds > 0.0 && seconds <= LONGEST => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("more than 0 and at most {LONGEST} seconds")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_hold_at_their_ends() {
        for good in ["0.1", "1", "60"] {
            assert!(interval(good).is_ok(), "{good}");
        }
        for bad in ["0", "0.09", "60.1", "-1", "nan", "inf", "1s", ""] {
            assert!(interval(bad).is_err(), "{bad}");
        }
        assert_eq!(overhead("0.5"), Ok(0.5));
        for bad in ["0", "100.1", "-1", "nan", "1%"] {
            assert!(overhead(bad).is_err(), "{bad}");
        }
        assert!(duration("0").is_err());
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
    }
}
