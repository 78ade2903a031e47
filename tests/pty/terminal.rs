//! A pseudo-terminal with a program on it, and a terminal emulator at its other end.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, SlavePty, native_pty_system};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Terminal {
    master: Option<Box<dyn MasterPty + Send>>,
    /// Kept open, or the kernel would reset the terminal's settings when the program ends.
    slave: Option<Box<dyn SlavePty + Send>>,
    writer: Option<Box<dyn Write + Send>>,
    child: Option<Box<dyn Child + Send + Sync>>,
    seen: Arc<Mutex<Seen>>,
    /// Settings before the program came, and as text.
    sane: rustix::termios::Termios,
    before: String,
    /// Settings when the program had ended.
    after: Option<String>,
    watcher: Option<JoinHandle<()>>,
    tty: Option<std::fs::File>,
    started: Instant,
}

struct Seen {
    screen: vt100::Parser,
    raw: Vec<u8>,
    first: Option<Instant>,
}

fn size((rows, cols): (u16, u16)) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    /// Starts sberf on a terminal of (rows, columns).
    pub fn start(args: &[&str], env: &[(&str, &str)], dir: &Path, cells: (u16, u16)) -> Self {
        let mut terminal = Self::start_unread(args, env, dir, cells);
        terminal.watch();
        terminal
    }

    /// Starts a shell that becomes sberf.
    pub fn start_shell(script: &str, dir: &Path, cells: (u16, u16)) -> Self {
        let mut terminal = Self::spawn("sh", &["-c", script], &[("SBERF", env!("CARGO_BIN_EXE_sberf"))], dir, cells);
        terminal.watch();
        terminal
    }

    /// As `start`, but nobody takes what it writes: as over a line that hangs.
    pub fn start_unread(args: &[&str], env: &[(&str, &str)], dir: &Path, cells: (u16, u16)) -> Self {
        Self::spawn(env!("CARGO_BIN_EXE_sberf"), args, env, dir, cells)
    }

    fn watch(&mut self) {
        let see = Arc::clone(&self.seen);
        let reader = self.master.as_ref().unwrap().try_clone_reader().unwrap();
        self.watcher = Some(std::thread::spawn(move || watch(reader, &see)));
    }

    fn spawn(program: &str, args: &[&str], env: &[(&str, &str)], dir: &Path, cells: (u16, u16)) -> Self {
        let pair = native_pty_system().openpty(size(cells)).unwrap();
        let before = format!("{:?}", pair.master.get_termios().unwrap());
        let mut tty = std::fs::OpenOptions::new();
        tty.read(true).write(true).custom_flags(libc::O_NOCTTY);
        let tty = tty.open(pair.master.tty_name().unwrap()).unwrap();
        let sane = rustix::termios::tcgetattr(&tty).unwrap();
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.cwd(dir);
        for name in ["NO_COLOR", "COLORTERM", "COLORFGBG", "SBERF_TEST_PANIC", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command.env("LANG", "C.UTF-8");
        env.iter().for_each(|(name, value)| command.env(name, value));
        let screen = vt100::Parser::new(cells.0, cells.1, 0);
        let seen = Arc::new(Mutex::new(Seen { screen, raw: Vec::new(), first: None }));
        let started = Instant::now();
        let child = pair.slave.spawn_command(command).unwrap();
        let writer = pair.master.take_writer().unwrap();
        Terminal {
            master: Some(pair.master),
            slave: Some(pair.slave),
            writer: Some(writer),
            child: Some(child),
            seen,
            sane,
            before,
            after: None,
            watcher: None,
            tty: Some(tty),
            started,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands on the screen.
    pub fn text(&self) -> String {
        self.seen().screen.screen().contents()
    }

    /// Everything that was ever written.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen().raw).into_owned()
    }

    /// How long the first byte took.
    pub fn first_byte(&self) -> Option<Duration> {
        Some(self.seen().first?.duration_since(self.started))
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.writer.as_mut().unwrap().write_all(keys).unwrap();
    }

    pub fn resize(&mut self, cells: (u16, u16)) {
        // The emulator panics where wide characters meet so few columns; what stands there nobody reads.
        if cells.0 > 4 && cells.1 > 4 {
            self.seen().screen.screen_mut().set_size(cells.0, cells.1);
        }
        self.master.as_ref().unwrap().resize(size(cells)).unwrap();
    }

    fn pid(&self) -> libc::pid_t {
        self.child.as_ref().and_then(|child| child.process_id()).unwrap() as libc::pid_t
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: `kill(2)` takes two numbers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// State letter in `/proc/PID/stat`.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().unwrap().try_wait(), Ok(None))
    }

    pub fn settle(&self, time: Duration) {
        std::thread::sleep(time);
    }

    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "never {what}; the screen shows:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |terminal| terminal.text().contains(text));
    }

    /// Waits until the program has ended and all it wrote was read.
    pub fn end(&mut self) -> ExitStatus {
        let status = wait(self.child.as_mut().unwrap().as_mut());
        let status = status.unwrap_or_else(|| panic!("does not end; the screen shows:\n{}", self.text()));
        self.after = Some(self.settings());
        // Nobody holds the other end any more: the reader comes to the end of what was written.
        self.slave = None;
        self.tty = None;
        if let Some(watcher) = self.watcher.take() {
            watcher.join().unwrap();
        }
        status
    }

    fn settings(&self) -> String {
        self.after.clone().unwrap_or_else(|| format!("{:?}", self.master.as_ref().unwrap().get_termios().unwrap()))
    }

    /// Takes the terminal away.
    pub fn hang_up(&mut self) -> Box<dyn Child + Send + Sync> {
        self.slave = None;
        self.tty = None;
        self.writer = None;
        self.master = None;
        self.child.take().unwrap()
    }

    /// Settings as they were before the program came.
    pub fn make_sane(&self) {
        rustix::termios::tcsetattr(self.tty.as_ref().unwrap(), rustix::termios::OptionalActions::Now, &self.sane)
            .unwrap();
    }

    /// The settings are not those from before.
    pub fn is_raw(&self) -> bool {
        self.settings() != self.before
    }

    /// Whether the terminal is as it was, and if not, what is left.
    pub fn given_back(&self) -> Result<(), String> {
        let now = self.settings();
        let seen = self.seen();
        let screen = seen.screen.screen();
        match () {
            () if screen.alternate_screen() => Err("alternate screen".into()),
            () if screen.hide_cursor() => Err("hidden cursor".into()),
            () if screen.bracketed_paste() => Err("brackets around what is pasted".into()),
            () if screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None => Err("mouse".into()),
            () if screen.fgcolor() != vt100::Color::Default || screen.inverse() || screen.bold() => {
                Err("colours".into())
            }
            () if now != self.before => Err(format!("settings: {now} instead of {}", self.before)),
            () => Ok(()),
        }
    }

    pub fn assert_given_back(&self) {
        assert_eq!(self.given_back(), Ok(()));
        let raw = self.raw();
        assert_eq!(
            raw.matches("\x1b[?2026h").count(),
            raw.matches("\x1b[?2026l").count().min(raw.matches("\x1b[?2026h").count())
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn watch(mut reader: Box<dyn Read + Send>, seen: &Mutex<Seen>) {
    let mut bytes = [0; 1 << 16];
    while let Ok(len @ 1..) = reader.read(&mut bytes) {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.first.get_or_insert_with(Instant::now);
        seen.raw.extend(&bytes[..len]);
        seen.screen.process(&bytes[..len]);
    }
}

/// The exit status, unless it takes too long.
pub fn wait(child: &mut (dyn Child + Send + Sync)) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
