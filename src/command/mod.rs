//! The command after `--`: found, made to wait, let go once everything is attached, and ended with us.

mod spawn;
mod user;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use sberf::collect::host;
use sberf::ui::exit_words;

use self::spawn::{Gate, Setup};
use self::user::Caller;
use crate::Failure;

/// Exit codes as shells have them.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// Between asking a command to end and ending it.
pub const GRACE: Duration = Duration::from_secs(2);

/// Where what it writes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Where ours goes; it shares our terminal, and the keys that send signals.
    Ours,
    /// To a file of its own: the screen is ours. It has no terminal.
    File,
}

/// How it ended, or why it never ran.
pub enum Ended {
    Exited(ExitStatus),
    NotRun(Failure),
}

/// A command that waits, runs, or has run. Dropped, it is ended.
pub struct Running {
    name: String,
    pid: u32,
    detached: bool,
    gate: Gate,
    ended: Receiver<Ended>,
    reaped: Arc<Mutex<bool>>,
    output: Option<PathBuf>,
}

/// Starts a command, which waits until [`Running::release`]; as whoever called sudo. `None` if there is none.
pub fn start(words: &[OsString], output: Output) -> Result<Option<Running>, Failure> {
    let Some((program, args)) = words.split_first() else { return Ok(None) };
    let caller = user::caller().map_err(Failure::Line)?;
    start_as(program, args, output, caller).map(Some)
}

fn start_as(program: &OsStr, args: &[OsString], output: Output, caller: Option<Caller>) -> Result<Running, Failure> {
    let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
    let path = find(program, &std::env::var_os("PATH").unwrap_or_default())?;
    let mut command = Command::new(&path);
    command.arg0(program).args(args);
    command.envs(caller.iter().flat_map(|caller| caller.env.iter().cloned()));
    let file = match output {
        Output::Ours => None,
        Output::File => Some(redirect(&mut command, caller.as_ref())?),
    };
    let detached = output == Output::File;
    let reaped = Arc::new(Mutex::new(false));
    let (tell, ended) = bounded(1);
    let (gone, called) = (Arc::clone(&reaped), program.to_owned());
    let then = move |child: io::Result<Child>| {
        let end = child.and_then(|child| wait(child, &gone));
        *gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let end = end.map_or_else(|error| Ended::NotRun(cannot_run(&called, &error)), Ended::Exited);
        let _ = tell.send(end);
    };
    match spawn::spawn(command, Setup { caller, detached }, then) {
        Ok((pid, gate)) => Ok(Running { name, pid, detached, gate, ended, reaped, output: file }),
        Err(error) => Err(match ended.recv() {
            Ok(Ended::NotRun(why)) => why,
            _ => cannot_run(program, &error),
        }),
    }
}

/// Waits for the child. It is reaped under a lock: until then its PID is nobody else's.
fn wait(mut child: Child, reaped: &Mutex<bool>) -> io::Result<ExitStatus> {
    let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Some(pid) = pid_of(child.id()) {
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), exited) {}
    }
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    let status = child.wait();
    *reaped = true;
    status
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

impl Running {
    /// Its PID, already before it is let go.
    pub fn pid(&self) -> u32 {
        host::shown_pid(self.pid)
    }

    /// The name of its program; may hold anything.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets it become its program.
    pub fn release(&mut self) {
        self.gate.open();
    }

    /// Says once how it ended.
    pub fn ended(&self) -> &Receiver<Ended> {
        &self.ended
    }

    /// Where what it wrote is, in words: `wrote 6 bytes to /tmp/…`. `None` if it wrote nothing, or where we write.
    pub fn written(&self) -> Option<String> {
        let path = self.output.as_ref()?;
        let len = path.metadata().ok().filter(|meta| meta.len() > 0)?.len();
        Some(format!("wrote {len} bytes to {}", path.display()))
    }

    /// Sends a signal, if it still runs: to all of its session, or to itself if it shares ours.
    pub fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = pid_of(self.pid).filter(|_| !*reaped);
        // It may end at any moment: that it cannot be reached is no error.
        match pid {
            Some(pid) if self.detached => drop(kill_process_group(pid, signal)),
            Some(pid) => drop(kill_process(pid, signal)),
            None => {}
        }
    }

    fn is_over(&self) -> bool {
        *self.reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, if it still runs: it is asked, and after two seconds made to.
    pub fn end(&mut self) {
        if self.is_over() {
            return;
        }
        if self.gate.is_shut() {
            // It has not begun, and ends by itself.
            self.gate = Gate::default();
            let _ = self.ended.recv_timeout(GRACE);
            return;
        }
        self.signal(Signal::TERM);
        // One that is stopped would not hear it.
        self.signal(Signal::CONT);
        if self.ended.recv_timeout(GRACE).is_err() {
            self.signal(Signal::KILL);
            let _ = self.ended.recv_timeout(GRACE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        // A file that nothing was written to tells nobody anything.
        if let Some(path) = &self.output
            && path.metadata().is_ok_and(|meta| meta.len() == 0)
        {
            drop(std::fs::remove_file(path));
        }
    }
}

/// How it ended, in words: `exited (status 3)`, `killed by SIGKILL`.
pub fn words(status: ExitStatus) -> String {
    exit_words(u32::try_from(status.into_raw()).ok())
}

/// The exit code that says the same, as shells have it.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The file of a program, by PATH as execvp(3) does.
fn find(program: &OsStr, path: &OsStr) -> Result<PathBuf, Failure> {
    let shown = program.to_string_lossy();
    if program.as_encoded_bytes().contains(&b'/') {
        let file = PathBuf::from(program);
        return match is_runnable(&file) {
            Ok(true) => Ok(file),
            Ok(false) => Err(Failure::Exit(NOT_RUNNABLE, format!("cannot run {shown}: it is no executable file"))),
            Err(error) => Err(cannot_run(program, &error)),
        };
    }
    let candidates = || std::env::split_paths(path).map(|dir| dir.join(program));
    if let Some(file) = candidates().find(|file| is_runnable(file).unwrap_or(false)) {
        return Ok(file);
    }
    match candidates().find(|file| file.is_file()) {
        Some(file) => Err(Failure::Exit(NOT_RUNNABLE, format!("cannot run {}: not executable", file.display()))),
        None => Err(Failure::Exit(NOT_FOUND, format!("cannot run {shown}: not found in PATH"))),
    }
}

fn is_runnable(file: &Path) -> io::Result<bool> {
    let meta = file.metadata()?;
    Ok(meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn cannot_run(program: &OsStr, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
    Failure::Exit(code, format!("cannot run {}: {error}", program.to_string_lossy()))
}

/// Gives the command a new file to write to, and nothing to read.
fn redirect(command: &mut Command, caller: Option<&Caller>) -> Result<PathBuf, Failure> {
    let (path, file) = new_file(&std::env::temp_dir())?;
    if let Some(caller) = caller {
        rustix::fs::fchown(&file, Some(caller.uid), Some(caller.gid)).map_err(io::Error::from)?;
    }
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(path)
}

/// A file that did not exist, of its owner only.
fn new_file(dir: &Path) -> Result<(PathBuf, File), Failure> {
    for number in 0..1000 {
        let path = dir.join(format!("sberf-{}-{number}.out", std::process::id()));
        match OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let dir = dir.display();
                return Err(Failure::line(format!("cannot make a file in {dir} for what the command writes: {error}")));
            }
        }
    }
    Err(Failure::line(format!("{} is full of files of sberf", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_code(result: Result<PathBuf, Failure>) -> u8 {
        match result {
            Err(Failure::Exit(code, text)) => {
                assert_eq!(text.lines().count(), 1, "{text}");
                code
            }
            Err(_) => panic!("another failure"),
            Ok(path) => panic!("found {}", path.display()),
        }
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        let path = std::env::join_paths([Path::new("/nowhere"), dir.path(), Path::new("/bin"), Path::new("/usr/bin")]);
        let path = path.unwrap();
        assert!(find(OsStr::new("sh"), &path).is_ok_and(|found| found.ends_with("sh")));
        assert!(find(OsStr::new("/bin/sh"), OsStr::new("")).is_ok());
        assert_eq!(exit_code(find(OsStr::new("no such program"), &path)), NOT_FOUND);
        assert_eq!(exit_code(find(OsStr::new("/no/such/program"), &path)), NOT_FOUND);
        assert_eq!(exit_code(find(OsStr::new("plain"), &path)), NOT_RUNNABLE);
        assert_eq!(exit_code(find(plain.as_os_str(), &path)), NOT_RUNNABLE);
        assert_eq!(exit_code(find(dir.path().as_os_str(), &path)), NOT_RUNNABLE);
    }

    #[test]
    fn ends_in_words_and_numbers() {
        let status = ExitStatus::from_raw(3 << 8);
        assert_eq!((words(status).as_str(), code(status)), ("exited (status 3)", 3));
        let status = ExitStatus::from_raw(9);
        assert_eq!((words(status).as_str(), code(status)), ("killed by SIGKILL", 137));
    }

    /// Runs as whoever runs the tests: nothing here says who called sudo.
    fn running(script: &str) -> Running {
        let args = ["-c", script].map(OsString::from);
        start_as(OsStr::new("sh"), &args, Output::File, None).unwrap_or_else(|_| panic!("sh runs"))
    }

    #[test]
    fn it_waits_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let mut command = running(&format!("echo $$ > {}; echo said; exit 7", mark.display()));
        assert!(command.ended().recv_timeout(Duration::from_millis(200)).is_err());
        assert!(!mark.exists(), "it has not begun");
        command.release();
        let Ok(Ended::Exited(status)) = command.ended().recv_timeout(Duration::from_secs(20)) else {
            panic!("it ends")
        };
        assert_eq!(status.code(), Some(7));
        assert_eq!(std::fs::read_to_string(&mark).unwrap().trim(), command.pid().to_string(), "it keeps its PID");
        let output = command.output.clone().unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "said\n");
        assert_eq!(command.written(), Some(format!("wrote 5 bytes to {}", output.display())));
        assert_eq!(output.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(command);
        std::fs::remove_file(output).unwrap();
    }

    #[test]
    fn one_that_was_never_let_go_ends_without_a_trace() {
        let command = running("touch /tmp/must-not-be");
        let (pid, output) = (command.pid(), command.output.clone().unwrap());
        drop(command);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!output.exists() && !Path::new("/tmp/must-not-be").exists());
    }

    #[test]
    fn one_that_will_not_end_is_made_to_with_all_its_session() {
        let mut command = running("trap '' TERM; sleep 600 & echo $!; wait; wait");
        command.release();
        let output = command.output.clone().unwrap();
        let said = || std::fs::read_to_string(&output).unwrap_or_default();
        while said().is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let child = said().trim().to_owned();
        drop(command);
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        std::fs::remove_file(output).unwrap();
    }

    #[test]
    fn what_cannot_be_executed_is_told_after_it_was_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let command = start_as(script.as_os_str(), &[], Output::File, None);
        let mut command = command.unwrap_or_else(|_| panic!("it looks like a program"));
        command.release();
        match command.ended().recv_timeout(Duration::from_secs(20)) {
            Ok(Ended::NotRun(Failure::Exit(NOT_FOUND, text))) => assert!(text.contains("script"), "{text}"),
            _ => panic!("it cannot run"),
        }
    }
}
