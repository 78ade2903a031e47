//! CPU time of our own threads, by what they do.

use rustc_hash::FxHashMap;

use crate::collect::host::own_pid;
use crate::collect::reread::Reread;
use crate::tick::ThreadCost;

/// What the threads of a name do; the first matching beginning holds.
const ROLES: [(&str, &str); 11] = [
    ("source", "collector"),
    ("sberf-facts", "facts of processes"),
    ("sberf-elf", "files"),
    ("sberf-symbols", "symbols"),
    ("sberf-lines", "lines"),
    // Tables of what is mapped, and walks that missed one.
    ("sberf-", "unwind tables"),
    ("screen", "terminal"),
    ("input", "input"),
    ("hangup", "input"),
    ("signals", "input"),
    ("save", "saving"),
];

fn role(tid: u32, name: &str) -> &'static str {
    let named = ROLES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, role)| *role);
    // The first thread has the name of the program.
    if tid == own_pid() { "model and screen" } else { named.unwrap_or("other") }
}

/// Every thread of this process, with its last reading.
#[derive(Default)]
pub struct Threads(FxHashMap<u32, Thread>);

struct Thread {
    role: &'static str,
    schedstat: Reread,
    ns: u64,
}

impl Threads {
    /// CPU time since the last call by role, most first. Threads that ended since are left out.
    pub fn since(&mut self) -> Vec<ThreadCost> {
        let tids: Vec<u32> = own_threads();
        self.0.retain(|tid, _| tids.contains(tid));
        let mut sums: Vec<ThreadCost> = Vec::new();
        for tid in tids {
            let Some((role, ns)) = self.one(tid) else { continue };
            match sums.iter_mut().find(|sum| sum.role == role) {
                Some(sum) => sum.ns += ns,
                None => sums.push(ThreadCost { role: role.to_owned(), ns }),
            }
        }
        sums.retain(|sum| sum.ns > 0);
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.ns));
        sums
    }

    fn one(&mut self, tid: u32) -> Option<(&'static str, u64)> {
        let thread = match self.0.entry(tid) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(fresh) => fresh.insert(Thread::open(tid)?),
        };
        let now = parse_schedstat(thread.schedstat.read()?)?;
        Some((thread.role, now.saturating_sub(std::mem::replace(&mut thread.ns, now))))
    }
}

impl Thread {
    fn open(tid: u32) -> Option<Self> {
        let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).ok()?;
        let schedstat = Reread::open(&format!("/proc/self/task/{tid}/schedstat"), 256).ok()?;
        Some(Thread { role: role(tid, name.trim_end()), schedstat, ns: 0 })
    }
}

fn own_threads() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The first of three numbers: ns on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_roles() {
        assert_eq!(role(0, "source"), "collector");
        assert_eq!(role(0, "sberf-facts"), "facts of processes");
        assert_eq!(role(0, "sberf-chunks"), "unwind tables");
        assert_eq!(role(0, "what"), "other");
        assert_eq!(role(std::process::id(), "source"), "model and screen");
        assert_eq!((parse_schedstat("12 3 4\n"), parse_schedstat(""), parse_schedstat("x")), (Some(12), None, None));
    }

    #[test]
    fn a_thread_that_works_is_seen_to() {
        let mut threads = Threads::default();
        threads.since();
        let worker = std::thread::Builder::new().name("sberf-facts".into());
        let (done, wait) = std::sync::mpsc::channel();
        let (read, go) = std::sync::mpsc::channel::<()>();
        let worker = worker.spawn(move || {
            let spin = (0..20_000_000u64).fold(0u64, |sum, i| std::hint::black_box(sum ^ i));
            done.send(spin).unwrap();
            let _ = go.recv();
        });
        wait.recv().unwrap();
        let seen = threads.since();
        drop(read);
        worker.unwrap().join().unwrap();
        let ns = seen.iter().find(|thread| thread.role == "facts of processes").map(|thread| thread.ns);
        assert!(ns.is_some_and(|ns| ns > 100_000), "{seen:?}");
    }
}
