//! A process that waits before it becomes its program, until it is let go: what observes it can be attached first, and
//! nothing of its start is lost.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::user::Caller;

/// Let go; any other byte: end without becoming anything.
const GO: u8 = b'g';

/// Holds the process back. Dropped without [`Gate::open`], it ends.
#[derive(Default)]
pub struct Gate(Option<PipeWriter>);

impl Gate {
    /// It has not been opened.
    pub fn is_shut(&self) -> bool {
        self.0.is_some()
    }

    /// Lets the process become its program.
    pub fn open(&mut self) {
        self.say(GO);
    }

    fn say(&mut self, word: u8) {
        if let Some(mut pipe) = self.0.take() {
            // Gone already: then there is nobody to be let go.
            drop(pipe.write_all(&[word]));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.say(b'n');
    }
}

/// How a process is set up.
pub struct Setup {
    /// As whom; `None`: as we are.
    pub caller: Option<Caller>,
    /// In a session of its own: no key and no program reaches our terminal through it. It ends when we do.
    pub detached: bool,
}

/// Makes the process; yields its PID, and what holds it back. Once it has become its program, or could not, a thread calls
/// `then`. An error says only that there is no such process; `then` is told why.
pub fn spawn(
    mut command: Command,
    setup: Setup,
    then: impl FnOnce(io::Result<Child>) + Send + 'static,
) -> io::Result<(u32, Gate)> {
    let (mut ready, tell) = io::pipe()?;
    let (told, gate) = io::pipe()?;
    let mut waiter = Waiter { parent: getpid(), setup, tell, told };
    // SAFETY: the closure runs between fork and exec in a copy of this process in which only the calling thread exists.
    // It makes system calls (read, write, prctl, set*id) and allocates nothing, so no lock that another thread held at the
    // fork is taken.
    unsafe { command.pre_exec(move || waiter.wait()) };
    std::thread::Builder::new().name("command".into()).spawn(move || {
        let child = command.spawn();
        // With it go its ends of the pipes: a process that ended before it said its PID must be noticed.
        drop(command);
        then(child);
    })?;
    let mut pid = [0; 4];
    ready.read_exact(&mut pid)?;
    Ok((u32::from_ne_bytes(pid), Gate(Some(gate))))
}

/// The part that runs in the new process.
struct Waiter {
    parent: Pid,
    setup: Setup,
    tell: PipeWriter,
    told: PipeReader,
}

impl Waiter {
    fn wait(&mut self) -> io::Result<()> {
        if self.setup.detached {
            setsid()?;
        }
        if let Some(caller) = &self.setup.caller {
            // The only thread of this process: what is set for it is set for the process.
            set_thread_groups(&caller.groups)?;
            set_thread_res_gid(caller.gid, caller.gid, caller.gid)?;
            set_thread_res_uid(caller.uid, caller.uid, caller.uid)?;
        }
        // Whoever was to let us go may die first.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        if getppid() != Some(self.parent) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.tell.write_all(&getpid().as_raw_pid().to_ne_bytes())?;
        let mut word = [0];
        self.told.read_exact(&mut word)?;
        if word != [GO] {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if !self.setup.detached {
            set_parent_process_death_signal(None)?;
        }
        Ok(())
    }
}
