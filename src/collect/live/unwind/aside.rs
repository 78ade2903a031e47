//! Work that may never end (reading from a file system whose server is gone, or memory that somebody else hands out), done on
//! a thread that can be given up.

use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};

/// Threads that are given up at most. After that nothing is tried any more.
const MOST: u32 = 4;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that is waited for only so long.
#[derive(Default)]
pub struct Aside {
    jobs: Option<Sender<Job>>,
    given_up: u32,
}

impl Aside {
    /// Does the work and waits for it that long; `None` if it takes longer, or too often did.
    pub fn run<T: Send + 'static>(
        &mut self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.jobs.is_none() && self.given_up < MOST {
            self.jobs = start();
        }
        let (reply, answer) = bounded(1);
        self.jobs.as_ref()?.send(Box::new(move || drop(reply.send(work())))).ok()?;
        let answer = answer.recv_timeout(patience).ok();
        if answer.is_none() {
            // It ends when its work does.
            self.jobs = None;
            self.given_up += 1;
        }
        answer
    }
}

fn start() -> Option<Sender<Job>> {
    let (jobs, inbox) = unbounded::<Job>();
    std::thread::Builder::new().name("sberf-aside".into()).spawn(move || inbox.iter().for_each(|job| job())).ok()?;
    Some(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_given_up() {
        let mut aside = Aside::default();
        assert_eq!(aside.run(Duration::from_secs(20), || 7), Some(7));
        for _ in 0..MOST {
            let stuck = || std::thread::sleep(Duration::from_secs(2));
            assert_eq!(aside.run(Duration::from_millis(5), stuck), None);
        }
        assert_eq!(aside.run(Duration::from_secs(20), || 7), None);
    }
}
