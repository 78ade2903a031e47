//! A signal for exactly one process: the one that was looked at, not whoever has its PID by now.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::host::{own_pid, pid_of};
use super::mappings::open_process;
use crate::tick::ProcessKey;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// No process has this PID, or another one has it by now.
    #[error("it has exited; nothing was sent")]
    Gone,
    /// The first process, whose end would be the machine's.
    #[error("sberf sends no signals to PID 1")]
    Init,
    /// We would be our own target.
    #[error("that is sberf itself; q ends it")]
    Own,
    /// EPERM.
    #[error("not permitted (EPERM): it takes root, CAP_KILL, or the same user")]
    NotPermitted,
    /// Something else.
    #[error("{doing} failed: {error}")]
    Failed {
        /// The call.
        doing: &'static str,
        /// What the system said.
        error: Errno,
    },
}

/// Sends a signal to the process with that identity, through a descriptor of it: between the check and the signal its PID
/// cannot become another's.
pub fn send(key: ProcessKey, signal: Signal) -> Result<(), SignalError> {
    let pid = i32::try_from(key.tgid).ok().and_then(Pid::from_raw).ok_or(SignalError::Gone)?;
    match pid {
        pid if pid.is_init() => return Err(SignalError::Init),
        _ if key.tgid == own_pid() => return Err(SignalError::Own),
        _ => {}
    }
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed("pidfd_open"))?;
    // Where /proc is of another pid namespace than ours, the same number is somebody else's there.
    if pid_of(&process) != Some(key.tgid) {
        return Err(SignalError::Gone);
    }
    // If whoever has the PID now is who we mean, then so is whoever had it a moment ago, when the descriptor was opened.
    open_process(key).map_err(|_| SignalError::Gone)?;
    pidfd_send_signal(&process, signal).map_err(failed("pidfd_send_signal"))
}

fn failed(doing: &'static str) -> impl Fn(Errno) -> SignalError {
    move |error| match error {
        Errno::SRCH => SignalError::Gone,
        Errno::PERM => SignalError::NotPermitted,
        error => SignalError::Failed { doing, error },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::collect::mappings::{ns_per_clock_tick, start_ticks};

    fn key_of(pid: u32) -> ProcessKey {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
        ProcessKey { tgid: pid, start_ns: start_ticks(&stat).unwrap() * ns_per_clock_tick() + 3 }
    }

    #[test]
    fn only_the_process_that_is_meant_is_hit() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let key = key_of(child.id());
        let elder = ProcessKey { start_ns: key.start_ns - ns_per_clock_tick(), ..key };
        assert!(matches!(send(elder, Signal::KILL), Err(SignalError::Gone)), "its PID was another's");
        assert!(child.try_wait().unwrap().is_none());
        send(key, Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert!(matches!(send(key, Signal::TERM), Err(SignalError::Gone)));
    }

    #[test]
    fn some_are_never_hit() {
        assert!(matches!(send(ProcessKey { tgid: 1, start_ns: 0 }, Signal::CONT), Err(SignalError::Init)));
        assert!(matches!(send(key_of(std::process::id()), Signal::CONT), Err(SignalError::Own)));
        for tgid in [0, u32::MAX] {
            assert!(matches!(send(ProcessKey { tgid, start_ns: 0 }, Signal::CONT), Err(SignalError::Gone)));
        }
    }
}
