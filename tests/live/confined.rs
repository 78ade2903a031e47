//! Starts sberf with fewer privileges than the test has: another user, some capabilities, a filter of system calls, no BTF.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Nobody.
const NOBODY: u32 = 65534;

/// What a process is left with.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// Runs as nobody with these capabilities (bits) only; `None`: as root, with all.
    pub capabilities: Option<u64>,
    /// A system call that fails with EPERM.
    pub refused: Option<i64>,
    /// `/sys/kernel/btf` is empty.
    pub without_btf: bool,
    /// The file system of the program grants no capabilities.
    pub nosuid: bool,
    /// Root of a user namespace of its own.
    pub user_namespace: bool,
}

/// A copy of the program where everybody may run it, and a place where nobody may write.
pub struct Lodging {
    dir: tempfile::TempDir,
}

impl Lodging {
    /// Copies the program to where files may grant capabilities.
    pub fn new() -> io::Result<Lodging> {
        let dir = places().find_map(|place| tempfile::tempdir_in(place).ok());
        let dir = dir.ok_or_else(|| io::Error::other("no directory where programs may have capabilities"))?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        std::fs::copy(env!("CARGO_BIN_EXE_sberf"), dir.path().join("sberf"))?;
        std::fs::set_permissions(dir.path().join("sberf"), PermissionsExt::from_mode(0o755))?;
        std::fs::create_dir(dir.path().join("out"))?;
        chown(dir.path().join("out"), Some(NOBODY), Some(NOBODY))?;
        std::fs::set_permissions(dir.path().join("out"), PermissionsExt::from_mode(0o777))?;
        Ok(Lodging { dir })
    }

    /// The copy.
    pub fn program(&self) -> PathBuf {
        self.dir.path().join("sberf")
    }

    /// Where it may write.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Has the file grant capabilities, as setcap(8) does: `struct vfs_cap_data` of revision 2, effective.
    pub fn grant(&self, capabilities: u64) -> io::Result<()> {
        let words = [0x0200_0001, capabilities as u32, 0, (capabilities >> 32) as u32, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        let flags = rustix::fs::XattrFlags::empty();
        Ok(rustix::fs::setxattr(self.program(), "security.capability", &bytes, flags)?)
    }

    /// Runs it to its end.
    pub fn run(&self, confinement: &Confinement, args: &[&str]) -> io::Result<Output> {
        let mut command = Command::new(self.program());
        command.args(args).current_dir(self.out()).stdin(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin");
        let confinement = confinement.clone();
        let dir = CString::new(self.dir.path().as_os_str().as_bytes())?;
        // SAFETY: between fork and exec, only system calls are made on memory that was made before.
        unsafe { command.pre_exec(move || confine(&confinement, &dir)) };
        command.output()
    }
}

/// Directories that everybody can enter, on file systems whose programs may have capabilities.
fn places() -> impl Iterator<Item = PathBuf> {
    let takes = |place: &PathBuf| {
        let flags = rustix::fs::statvfs(place).map(|fs| fs.f_flag);
        flags.is_ok_and(|flags| {
            !flags.intersects(rustix::fs::StatVfsMountFlags::NOSUID | rustix::fs::StatVfsMountFlags::RDONLY)
        }) && place.ancestors().all(|dir| dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 1 == 1))
    };
    [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/opt".into()].into_iter().filter(takes)
}

fn checked(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn confine(confinement: &Confinement, dir: &CStr) -> io::Result<()> {
    if confinement.without_btf || confinement.nosuid {
        have_own_mounts()?;
    }
    if confinement.without_btf {
        hide_btf()?;
    }
    if confinement.nosuid {
        forbid_suid(dir)?;
    }
    if confinement.user_namespace {
        enter_namespace()?;
    }
    if let Some(capabilities) = confinement.capabilities {
        become_nobody(capabilities)?;
    }
    confinement.refused.map_or(Ok(()), refuse)
}

/// What is mounted from here on is seen by this process only.
fn have_own_mounts() -> io::Result<()> {
    // SAFETY: takes a number.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE)
}

/// An empty directory over `/sys/kernel/btf`.
fn hide_btf() -> io::Result<()> {
    mount(c"none", c"/sys/kernel/btf", c"tmpfs", 0)
}

fn forbid_suid(dir: &CStr) -> io::Result<()> {
    mount(dir, dir, c"none", libc::MS_BIND)?;
    mount(dir, dir, c"none", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_NOSUID)
}

fn mount(what: &CStr, at: &CStr, kind: &CStr, flags: u64) -> io::Result<()> {
    // SAFETY: the strings end with NUL and outlive the call.
    checked(unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) }.into())
}

/// Root there is root here, with every capability there and none here.
fn enter_namespace() -> io::Result<()> {
    // SAFETY: takes a number.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())?;
    std::fs::write("/proc/self/uid_map", "0 0 1")
}

/// Header and data of capset(2), version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Ambient capabilities outlive the exec of a program that grants none.
fn become_nobody(capabilities: u64) -> io::Result<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let word = |word: u32| CapData { effective: word, permitted: word, inheritable: word };
    let data = [word(capabilities as u32), word((capabilities >> 32) as u32)];
    // SAFETY: plain numbers, and two structures of the layout that capset(2) has.
    unsafe {
        checked(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
        checked(libc::setgroups(0, std::ptr::null()).into())?;
        checked(libc::setresgid(NOBODY, NOBODY, NOBODY).into())?;
        checked(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
        checked(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()))?;
        for bit in (0..64u64).filter(|bit| capabilities >> bit & 1 == 1) {
            checked(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, bit, 0, 0).into())?;
        }
    }
    Ok(())
}

/// From now on that system call fails with EPERM, as container runtimes have it.
fn refuse(call: i64) -> io::Result<()> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number of the call is the first word of `struct seccomp_data`.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter outlive the calls, which copy them.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program).into())
    }
}
