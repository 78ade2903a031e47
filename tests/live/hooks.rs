//! Takes programs of ours off their hooks, as somebody else could, and puts them back.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::query::ProgInfoIter;

/// Kernel ids of the loaded programs with that name.
fn programs(name: &str) -> Vec<u32> {
    ProgInfoIter::default().filter(|info| info.name.to_string_lossy() == name).map(|info| info.id).collect()
}

/// Takes a program off its hook: its link is closed under the hands of the library.
pub fn detach(name: &str) {
    let ids = programs(name);
    let its_link = |fd: &str| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let is_link = value("link_id:").is_some();
        let program = value("prog_id:").and_then(|id| id.parse::<u32>().ok());
        is_link && program.is_some_and(|id| ids.contains(&id))
    };
    assert!(close(its_link) > 0, "no link of {name}");
}

/// Closes every perf event of this process: once nothing is attached to it either, it is gone.
pub fn close_perf_events() {
    let is_event = |fd: &str| {
        let file = fs::read_link(format!("/proc/self/fd/{fd}"));
        file.is_ok_and(|file| file.to_string_lossy() == "anon_inode:[perf_event]")
    };
    assert!(close(is_event) > 0, "no perf event");
}

/// Closes the descriptors of this process that are meant; how many.
fn close(is_meant: impl Fn(&str) -> bool) -> usize {
    let fds = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let meant: Vec<String> =
        fds.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|fd| is_meant(fd)).collect();
    for fd in &meant {
        let fd: i32 = fd.parse().expect("a number");
        let null = File::open("/dev/null").expect("/dev/null");
        // SAFETY: the number stays taken, by another file: whoever owns it closes that instead.
        assert!(unsafe { libc::dup2(null.as_raw_fd(), fd) } == fd);
    }
    meant.len()
}

/// Puts a program on the hook that it was loaded for, until dropped.
pub fn attach(name: &str) -> OwnedFd {
    let &[id] = programs(name).as_slice() else { panic!("one program is called {name}") };
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
