//! A program in a terminal of 200×50, watched from outside: its CPU clocks, its screen, its memory.

use std::fs;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::bpf;

const ROWS: u16 = 50;
const COLS: u16 = 200;
/// The steady window begins here.
const WARM_UP: Duration = Duration::from_secs(3);
/// A screen is full with this share of the cells it has later on.
const FULL: f64 = 0.85;

/// Programs that run on the CPU time of the process that loaded them (iterators, and one that it has run): that is counted as
/// its own already.
const ON_OWN_TIME: [&str; 5] = ["tasks", "some_tasks", "glance", "mappings", "nothing"];

/// What a terminal answers; programs wait for it.
const ANSWERS: [(&[u8], &[u8]); 4] = [
    (b"\x1b[6n", b"\x1b[1;1R"),
    (b"\x1b[c", b"\x1b[?62;22c"),
    (b"\x1b[0c", b"\x1b[?62;22c"),
    (b"\x1b]11;?", b"\x1b]11;rgb:0000/0000/0000\x07"),
];

/// What was seen of one run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// From start to the first byte on the terminal.
    pub first_byte_ms: Option<f64>,
    /// From start to a full screen.
    pub full_ms: Option<f64>,
    /// CPU time until the steady window.
    pub start_cpu_ms: f64,
    /// CPU time in the steady window, % of one CPU.
    pub cpu_percent: f64,
    /// To the terminal, in the steady window.
    pub kb_per_s: f64,
    /// High-water mark of resident memory.
    pub rss_mb: f64,
    /// In BPF programs that it loaded, in the steady window, as far as it is charged to whoever was interrupted.
    pub bpf_percent: f64,
}

type Chunks = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// A program at work in a terminal; ended politely, then less so, when dropped.
pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Arc<Mutex<Box<dyn Write + Send>>>,
    chunks: Chunks,
    start: Instant,
}

impl Terminal {
    pub fn start(command: &[String]) -> Result<Self> {
        let size = PtySize { rows: ROWS, cols: COLS, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).context("opening a pseudo-terminal")?;
        let mut builder = CommandBuilder::new(&command[0]);
        builder.args(&command[1..]);
        builder.env("TERM", "xterm-256color");
        builder.env("COLORTERM", "truecolor");
        let reader = pair.master.try_clone_reader()?;
        let keys = Arc::new(Mutex::new(pair.master.take_writer()?));
        let chunks = Chunks::default();
        let start = Instant::now();
        let child = pair.slave.spawn_command(builder).with_context(|| format!("starting {command:?}"))?;
        drop(pair.slave);
        let (into, answer) = (chunks.clone(), keys.clone());
        std::thread::spawn(move || collect(reader, &into, &answer));
        Ok(Terminal { child, master: pair.master, keys, chunks, start })
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.process_id().context("no process id")
    }

    /// CPU time so far, exact to the ns, reaped children (to 10 ms) included.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.pid()?)
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(mut keys) = self.keys.lock() {
            let _ = keys.write_all(b"q");
        }
        for patience in [1500, 1500] {
            let end = Instant::now() + Duration::from_millis(patience);
            while Instant::now() < end {
                if !self.is_alive() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            if let Some(pid) = self.master.process_group_leader().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads until the terminal closes, noting when what came, and answers what only a terminal can.
fn collect(mut reader: Box<dyn Read + Send>, chunks: &Chunks, keys: &Mutex<Box<dyn Write + Send>>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count) = reader.read(&mut buffer) {
        if count == 0 {
            return;
        }
        let data = buffer[..count].to_vec();
        for (query, answer) in ANSWERS {
            if data.windows(query.len()).any(|window| window == query)
                && let Ok(mut keys) = keys.lock()
            {
                let _ = keys.write_all(answer);
            }
        }
        if let Ok(mut chunks) = chunks.lock() {
            chunks.push((Instant::now(), data));
        }
    }
}

/// CPU time of a process and of the children it has waited for.
fn cpu_of(pid: u32) -> Result<Duration> {
    // CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) makes it.
    let clock = (!(pid as libc::clockid_t) << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours and lives across the call; a wrong clock id is an error, not undefined.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    ensure!(result == 0, "process {pid} has ended");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32) + Duration::from_millis(ticks * 10))
}

/// `VmHWM` in MB.
fn rss_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kb| kb / 1024.0)
}

/// Runs it for the warm-up and `steady`; the kernel's statistics must be on.
pub fn run(command: &[String], steady: Duration) -> Result<Run> {
    let mut terminal = Terminal::start(command)?;
    let pid = terminal.pid()?;
    std::thread::sleep(WARM_UP.saturating_sub(terminal.start.elapsed()));
    ensure!(terminal.is_alive(), "{} ended at once:\n{}", command[0], last_words(&terminal.chunks));
    let (opened, cpu, bpf_opened) = (Instant::now(), terminal.cpu()?, bpf::programs_of(pid));
    std::thread::sleep(steady);
    ensure!(terminal.is_alive(), "{} ended early:\n{}", command[0], last_words(&terminal.chunks));
    let (span, cpu_steady) = (opened.elapsed().as_secs_f64(), terminal.cpu()?.saturating_sub(cpu));
    let closed = opened + Duration::from_secs_f64(span);
    let programs = bpf::since(&bpf_opened, &bpf::programs_of(pid));
    let of_others = programs.iter().filter(|program| !ON_OWN_TIME.contains(&program.name.as_str()));
    let bpf_ns: u64 = of_others.map(|program| program.ns).sum();
    let rss_mb = rss_mb(pid).unwrap_or(f64::NAN);
    let start = terminal.start;
    let chunks = std::mem::take(&mut *terminal.chunks.lock().map_err(|_| anyhow::anyhow!("the reader failed"))?);
    drop(terminal);
    let bytes: usize = chunks.iter().filter(|(at, _)| (opened..closed).contains(at)).map(|(_, data)| data.len()).sum();
    let ms = |at: Instant| at.duration_since(start).as_secs_f64() * 1e3;
    Ok(Run {
        first_byte_ms: chunks.first().map(|(at, _)| ms(*at)),
        full_ms: full_screen(&chunks, opened).map(ms),
        start_cpu_ms: cpu.as_secs_f64() * 1e3,
        cpu_percent: cpu_steady.as_secs_f64() / span * 100.0,
        kb_per_s: bytes as f64 / 1024.0 / span,
        rss_mb,
        bpf_percent: bpf_ns as f64 / 1e9 / span * 100.0,
    })
}

/// When the screen first held what it holds later on, but for a little. Played after the run, not during it.
fn full_screen(chunks: &[(Instant, Vec<u8>)], steady: Instant) -> Option<Instant> {
    let mut parser = vt100::Parser::new(ROWS, COLS, 0);
    let mut history = Vec::new();
    // Later chunks change little: a look at each of the first 400 and at the rest together will do.
    for (number, (at, data)) in chunks.iter().enumerate() {
        parser.process(data);
        if number < 400 || number + 1 == chunks.len() {
            history.push((*at, filled(parser.screen())));
        }
    }
    let mut late: Vec<usize> = history.iter().filter(|(at, _)| *at >= steady).map(|(_, cells)| *cells).collect();
    late.sort_unstable();
    let want = *late.get(late.len() / 2).or(history.last().map(|(_, cells)| cells))? as f64 * FULL;
    history.iter().find(|(_, cells)| *cells > 0 && *cells as f64 >= want).map(|(at, _)| *at)
}

/// Cells that hold something; frames drawn with lines are not content.
fn filled(screen: &vt100::Screen) -> usize {
    let blank = |text: &str| text.trim().is_empty() || text.chars().all(|c| ('\u{2500}'..='\u{257f}').contains(&c));
    (0..ROWS)
        .flat_map(|row| (0..COLS).map(move |col| (row, col)))
        .filter(|&(row, col)| screen.cell(row, col).is_some_and(|cell| !blank(cell.contents())))
        .count()
}

/// What stands on the screen, for the message of a program that ended.
fn last_words(chunks: &Chunks) -> String {
    let mut parser = vt100::Parser::new(ROWS, COLS, 0);
    if let Ok(chunks) = chunks.lock() {
        chunks.iter().for_each(|(_, data)| parser.process(data));
    }
    parser.screen().contents().trim().to_string()
}
