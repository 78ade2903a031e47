//! The thread that waits for servers of debug information, for those who asked for it.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::debuginfod::{Answer, Debuginfod};
use crate::collect::object::Object;

/// Files that may wait; more are not fetched.
const WAITING: usize = 64;

/// What identifies a file.
pub type BuildId = Vec<u8>;

/// Has files fetched, each once.
pub struct Fetcher {
    client: Debuginfod,
    asks: Sender<(BuildId, Arc<str>)>,
    done: Receiver<BuildId>,
    /// Those that were asked for: true while they may still come.
    asked: FxHashMap<BuildId, bool>,
}

impl Fetcher {
    /// Starts it. `said`: what a person may want to know of it.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(client: Debuginfod, stop: Arc<AtomicBool>, said: Sender<String>) -> std::io::Result<Self> {
        let (asks, asked) = bounded::<(BuildId, Arc<str>)>(WAITING);
        let (tell, done) = unbounded();
        let theirs = client.clone();
        std::thread::Builder::new().name("sberf-fetch".into()).spawn(move || {
            let mut failed = FxHashSet::default();
            for (id, path) in &asked {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                report(&theirs.fetch(&id, &stop), &path, &mut failed, &said);
                let _ = tell.send(id);
            }
        })?;
        Ok(Fetcher { client, asks, done, asked: FxHashMap::default() })
    }

    /// The debug information of a file, if it is here.
    pub fn cached(&self, id: &[u8]) -> Option<Object> {
        self.client.cached(id)
    }

    /// Has it fetched; true if it may come.
    pub fn ask(&mut self, id: &[u8], path: &Arc<str>) -> bool {
        match self.asked.get(id) {
            Some(may_come) => *may_come,
            None => {
                let may_come = self.asks.try_send((id.to_vec(), Arc::clone(path))).is_ok();
                if may_come {
                    self.asked.insert(id.to_vec(), true);
                }
                may_come
            }
        }
    }

    /// Where it is told what has come, or will not.
    pub fn done(&self) -> &Receiver<BuildId> {
        &self.done
    }

    /// It will not come any more, if it has not.
    pub fn settle(&mut self, id: &[u8]) {
        self.asked.insert(id.to_vec(), false);
    }
}

/// Says what came and, once for each, which server fails.
fn report(answer: &Answer, path: &str, failed: &mut FxHashSet<String>, said: &Sender<String>) {
    if let Some((bytes, server)) = &answer.fetched {
        let _ = said.send(format!("debug information of {path}: {} KB from {server}", bytes.div_ceil(1024)));
    }
    for (server, why) in &answer.failures {
        if failed.insert(server.clone()) {
            let _ = said.send(format!("debug information of {path}: {server}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::debuginfod::tests::{client, send, serve};
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_is_asked_for_once_and_each_failure_is_told_once() {
        let (tell, paths) = unbounded();
        let server = serve(move |path, stream| {
            tell.send(path.to_owned()).unwrap();
            send(stream, "500 Broken", "", b"");
        });
        let dir = tempfile::tempdir().unwrap();
        let (say, said) = unbounded();
        let mut fetcher = Fetcher::start(client(&[&server], dir.path()), Arc::default(), say).unwrap();
        let path: Arc<str> = "/bin/x".into();
        assert!(fetcher.ask(&[1, 2], &path) && fetcher.ask(&[1, 2], &path) && fetcher.ask(&[3], &path));
        for expected in [vec![1, 2], vec![3]] {
            let id = fetcher.done().recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(id, expected);
            fetcher.settle(&id);
            assert!(!fetcher.ask(&id, &path));
        }
        assert_eq!(paths.try_iter().collect::<Vec<_>>(), ["/buildid/0102/debuginfo", "/buildid/03/debuginfo"]);
        let said: Vec<String> = said.try_iter().collect();
        assert!(said.len() == 1 && said[0].contains(&server) && said[0].contains("500"), "{said:?}");
    }
}
