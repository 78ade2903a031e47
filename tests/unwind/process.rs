//! A child that is stopped now and then, and what it looks like then: registers, stack, mappings. As its parent we may, without
//! being root.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sberf::collect::unwind::Registers;

/// A line of `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub addresses: Range<u64>,
    pub executable: bool,
    pub offset: u64,
    pub path: String,
}

/// The child at one moment.
pub struct Moment {
    pub registers: Registers,
    pub stack_start: u64,
    pub stack: Vec<u8>,
    pub mappings: Vec<Mapping>,
}

pub struct Process {
    child: Child,
    memory: File,
}

/// More of a stack is not copied.
const MOST_STACK: u64 = 1 << 20;
const BELOW_STACK: u64 = 128 << 10;

fn ok(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Process {
    /// Starts a program; `None` if there is none of that name, or tracing is not allowed here.
    pub fn start(program: &str, arguments: &[&str]) -> Option<Process> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        // It has loaded its libraries by then, and sent itself the signals it wants.
        std::thread::sleep(Duration::from_millis(300));
        let memory = File::open(format!("/proc/{}/mem", child.id()));
        // SAFETY: a plain system call about a child of ours.
        let seized = ok(unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.id() as libc::pid_t, 0, 0) });
        let mut process = Process { child, memory: memory.ok()? };
        if let Err(error) = seized {
            eprintln!("skipped: {program} cannot be traced: {error}");
            return None;
        }
        process.child.try_wait().ok()?.is_none().then_some(process)
    }

    /// Stops it, looks, and lets it go on.
    pub fn look(&mut self) -> io::Result<Moment> {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: a plain system call about a child of ours.
        ok(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) })?;
        let mut status = 0;
        // SAFETY: the status is written into a variable of ours.
        ok(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }.into())?;
        if !libc::WIFSTOPPED(status) {
            return Err(io::Error::other("it has ended"));
        }
        let moment = self.moment(pid);
        // A signal that it was stopped with is delivered.
        let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
        // SAFETY: a plain system call about a child of ours.
        ok(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal) })?;
        moment
    }

    fn moment(&self, pid: libc::pid_t) -> io::Result<Moment> {
        // SAFETY: zeroes are a valid `user_regs_struct`, and the kernel fills one.
        let raw = unsafe {
            let mut raw: libc::user_regs_struct = std::mem::zeroed();
            ok(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut raw as *mut libc::user_regs_struct))?;
            raw
        };
        let general = [
            raw.rax, raw.rdx, raw.rcx, raw.rbx, raw.rsi, raw.rdi, raw.rbp, raw.rsp, raw.r8, raw.r9, raw.r10, raw.r11,
            raw.r12, raw.r13, raw.r14, raw.r15,
        ];
        let mappings = mappings(pid)?;
        let lies_in = mappings.iter().find(|mapping| mapping.addresses.contains(&raw.rsp));
        let whole = lies_in.map(|mapping| mapping.addresses.clone()).ok_or_else(|| io::Error::other("no stack"))?;
        // A signal handler on a stack of its own may have interrupted something below it.
        let start = whole.start.max(raw.rsp - BELOW_STACK);
        let mut stack = vec![0; (whole.end - start).min(MOST_STACK) as usize];
        self.memory.read_exact_at(&mut stack, start)?;
        Ok(Moment { registers: Registers { pc: raw.rip, general }, stack_start: start, stack, mappings })
    }

    /// Bytes of its memory.
    pub fn read(&self, addresses: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (addresses.end - addresses.start) as usize];
        self.memory.read_exact_at(&mut bytes, addresses.start)?;
        Ok(bytes)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mappings(pid: libc::pid_t) -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = |line: &str| -> Option<Mapping> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let executable = fields.next()?.contains('x');
        let offset = hex(fields.next()?)?;
        let path = fields.nth(2)?.trim().to_owned();
        Some(Mapping { addresses: hex(start)?..hex(end)?, executable, offset, path })
    };
    Ok(text.lines().filter_map(line).collect())
}
