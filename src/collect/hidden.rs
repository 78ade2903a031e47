//! Threads that the kernel hides from our programs: what procfs says that they did.

use crate::collect::reread::Reread;
use crate::tick::{ProcessFacts, Tick};

/// Threads that are followed at most.
const MOST: usize = 64;

/// Those that are known.
#[derive(Default)]
pub struct Hidden(Vec<Thread>);

struct Thread {
    tid: u32,
    schedstat: Reread,
    ns: u64,
    runs: u64,
}

/// What they did in an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Did {
    /// Times they left a CPU.
    pub switches: u64,
    /// Time on CPUs.
    pub ns: u64,
    tids: Vec<u32>,
}

impl Hidden {
    /// From now on these, beside those that are known and still live.
    pub fn follow(&mut self, tids: &[u32]) {
        for &tid in tids.iter().take(MOST) {
            if !self.0.iter().any(|thread| thread.tid == tid)
                && let Ok(schedstat) = Reread::open(&format!("/proc/{tid}/schedstat"), 256)
            {
                let mut thread = Thread { tid, schedstat, ns: 0, runs: 0 };
                thread.since();
                self.0.push(thread);
            }
        }
        self.0.retain(|thread| tids.contains(&thread.tid));
    }

    /// What they did since the last call.
    pub fn since(&mut self) -> Did {
        let mut did = Did::default();
        for thread in &mut self.0 {
            let (ns, runs) = thread.since();
            (did.ns, did.switches) = (did.ns + ns, did.switches + runs);
            did.tids.push(thread.tid);
        }
        did
    }
}

impl Thread {
    fn since(&mut self) -> (u64, u64) {
        let Some((ns, runs)) = self.schedstat.read().and_then(parse) else { return (0, 0) };
        let since = (ns.saturating_sub(self.ns), runs.saturating_sub(self.runs));
        (self.ns, self.runs) = (ns, runs);
        since
    }
}

/// ns on CPUs, ns waiting for one, how often it had one.
fn parse(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some((fields.next()??, fields.nth(1)??))
}

impl Did {
    /// Processes first seen in a tick that they made: nobody told of their birth. Those that ended at once are not among them.
    pub fn children(&self, tick: &Tick) -> u64 {
        let theirs = |facts: &&ProcessFacts| self.tids.contains(&facts.ppid);
        tick.processes.iter().filter(theirs).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_followed_while_it_is_hidden() {
        let own = std::process::id();
        let mut hidden = Hidden::default();
        hidden.follow(&[own, 0]);
        assert_eq!(hidden.since().tids, [own]);
        std::thread::sleep(std::time::Duration::from_millis(1));
        hidden.follow(&[]);
        assert_eq!(hidden.since(), Did::default());
        assert_eq!((parse("5 6 7\n"), parse("5 6"), parse("")), (Some((5, 7)), None, None));
    }
}
