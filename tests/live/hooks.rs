//! Takes programs of ours off their hooks, as somebody else could, and puts them back.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::query::ProgInfoIter;

/// Descriptors of ours that are links of a program with that name, or that program itself; and what the kernel calls the program.
fn ours(name: &str, link: bool) -> Vec<(i32, u32)> {
    let named: Vec<u32> =
        ProgInfoIter::default().filter(|info| info.name.to_string_lossy() == name).map(|info| info.id).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo").expect("descriptors").flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let program = value("prog_id:").and_then(|id| id.parse().ok()).filter(|id| named.contains(id));
        if let Some(id) = program.filter(|_| value("link_id:").is_some() == link) {
            found.push((entry.file_name().to_string_lossy().parse().expect("a number"), id));
        }
    }
    found
}

/// Takes a program off its hook: its link is closed under the hands of the library.
pub fn detach(name: &str) {
    let links = ours(name, true);
    assert!(!links.is_empty(), "no link of {name}");
    links.into_iter().for_each(|(fd, _)| close(fd));
}

/// Closes every perf event of this process: once nothing is attached to it either, it is gone.
pub fn close_perf_events() {
    let is_event = |fd: &str| {
        let file = fs::read_link(format!("/proc/self/fd/{fd}"));
        file.is_ok_and(|file| file.to_string_lossy() == "anon_inode:[perf_event]")
    };
    let fds = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let names = fds.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let events = names.filter(|fd| is_event(fd)).collect::<Vec<_>>();
    assert!(!events.is_empty(), "no perf event");
    events.iter().for_each(|fd| close(fd.parse().expect("a number")));
}

/// Its number stays taken, by another file: whoever owns it closes that instead.
fn close(fd: i32) {
    let null = File::open("/dev/null").expect("/dev/null");
    // SAFETY: both are open, and nobody takes what this number now means for what it meant.
    assert!(unsafe { libc::dup2(null.as_raw_fd(), fd) } == fd);
}

/// Puts a program on the hook that it was loaded for, until dropped.
pub fn attach(name: &str) -> OwnedFd {
    let &(_, id) = ours(name, false).first().unwrap_or_else(|| panic!("no program {name}"));
    // SAFETY: takes a number, gives a descriptor or a negative error.
    let program = owned(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) });
    // SAFETY: the descriptor is open for the call, and null names no hook but the program's own.
    owned(unsafe { libbpf_sys::bpf_raw_tracepoint_open(std::ptr::null(), program.as_raw_fd()) })
}

fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::from_raw_os_error(-fd));
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
