//! The thread that reads debug information: lines, and functions that were inlined.

use crossbeam_channel::{Receiver, Sender, never, select};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fetch::{BuildId, Fetcher};
use super::{CodeFile, LINES_BYTES, SymbolStats, WantDetail, debug_file};
use crate::collect::dwarf::DebugInfo;
use crate::collect::object::Object;
use crate::tick::{Detail, FrameId, ModuleId, Names};

/// Addresses between two looks at whether to stop.
const CHUNK: usize = 256;
/// Addresses in files whose debug information is being fetched; of more it is not told when it has come.
const MAX_WAITING: usize = 4096;

/// What it keeps.
pub struct LineWorker {
    /// Files that were read, least recently used first.
    files: VecDeque<(ModuleId, Known)>,
    /// Memory of it all, at most.
    limit: usize,
    /// What fetches debug information that is not here, if that is wanted.
    fetcher: Option<Fetcher>,
    /// What was asked of files whose debug information is being fetched: it is answered again when that has come.
    waiting: Vec<(BuildId, WantDetail)>,
    results: Sender<Names>,
    stop: Arc<AtomicBool>,
    stats: Arc<SymbolStats>,
}

/// What is known of a file.
enum Known {
    Debug(Box<DebugFile>),
    /// It has no debug information.
    Nothing,
    /// It is being fetched.
    Coming(BuildId),
}

/// A file and its debug information, which may be in another.
struct DebugFile {
    object: Object,
    info: DebugInfo,
}

impl DebugFile {
    /// Compressed, it may take half of the room once it is unpacked.
    fn open(object: Object, separate: Option<&Object>, limit: usize) -> Option<Self> {
        let info = DebugInfo::open(separate.unwrap_or(&object), limit / 2).ok()?;
        Some(DebugFile { object, info })
    }

    fn find(&mut self, wants: &[WantDetail], limit: usize) -> Vec<Detail> {
        // What is mapped from nowhere is at no address that anything is known of.
        let address = |want: &WantDetail| self.object.address_of(want.offset).unwrap_or(0);
        let addresses: Vec<u64> = wants.iter().map(address).collect();
        self.info.find(&addresses, limit)
    }
}

impl LineWorker {
    /// Has read nothing yet.
    pub fn new(
        fetcher: Option<Fetcher>,
        results: Sender<Names>,
        stop: Arc<AtomicBool>,
        stats: Arc<SymbolStats>,
    ) -> Self {
        let (files, waiting) = (VecDeque::new(), Vec::new());
        LineWorker { files, limit: LINES_BYTES, fetcher, waiting, results, stop, stats }
    }

    /// Answers until nobody asks any more.
    pub fn run(&mut self, messages: &Receiver<Vec<WantDetail>>) {
        let done = self.fetcher.as_ref().map_or_else(never, |fetcher| fetcher.done().clone());
        loop {
            let wants: Vec<WantDetail> = select! {
                recv(messages) -> first => match first {
                    Ok(first) => first.into_iter().chain(messages.try_iter().flatten()).collect(),
                    Err(_) => return,
                },
                recv(done) -> id => id.map(|id| self.settle(&id)).unwrap_or_default(),
            };
            let mut by_file: BTreeMap<ModuleId, Vec<WantDetail>> = BTreeMap::new();
            for want in wants {
                by_file.entry(want.file.module).or_default().push(want);
            }
            for wants in by_file.values() {
                for chunk in wants.chunks(CHUNK) {
                    if self.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    self.answer(chunk);
                }
            }
        }
    }

    /// Answers for each, be it that nothing is known.
    fn answer(&mut self, wants: &[WantDetail]) {
        let found = catch_unwind(AssertUnwindSafe(|| self.look_up(wants))).unwrap_or_else(|_| {
            self.files.clear();
            self.stats.broken.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        let details = found.into_iter().chain(std::iter::repeat_with(Detail::default));
        let details: Vec<(FrameId, Detail)> = wants.iter().map(|want| want.frame).zip(details).collect();
        let _ = self.results.send(Names { details, ..Names::default() });
        self.stay_bounded();
    }

    fn look_up(&mut self, wants: &[WantDetail]) -> Vec<Detail> {
        let Some(file) = wants.first().map(|want| &want.file) else { return Vec::new() };
        let held = self.files.iter().position(|(module, _)| *module == file.module);
        let held = held.and_then(|at| self.files.remove(at));
        let held = held.unwrap_or_else(|| (file.module, self.open(file)));
        self.files.push_back(held);
        match self.files.back_mut() {
            Some((_, Known::Debug(file))) => file.find(wants, self.limit),
            Some((_, Known::Coming(id))) => {
                let room = MAX_WAITING.saturating_sub(self.waiting.len());
                self.waiting.extend(wants.iter().take(room).map(|want| (id.clone(), want.clone())));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Looks into the file, beside it, among what was fetched, and then has it fetched.
    fn open(&mut self, file: &CodeFile) -> Known {
        let Some(object) = file.open().and_then(|file| Object::open(Arc::new(file))) else { return Known::Nothing };
        let debug = |found: Option<DebugFile>| found.map_or(Known::Nothing, |file| Known::Debug(Box::new(file)));
        if has_info(&object) {
            return debug(DebugFile::open(object, None, self.limit));
        }
        if let Some(separate) = debug_file::find(&object, &file.seen()).filter(has_info) {
            return debug(DebugFile::open(object, Some(&separate), self.limit));
        }
        let Some((fetcher, id)) = self.fetcher.as_mut().zip(object.build_id()) else { return Known::Nothing };
        match fetcher.cached(&id) {
            Some(separate) => debug(DebugFile::open(object, Some(&separate), self.limit)),
            None if fetcher.ask(&id, &file.path) => Known::Coming(id),
            None => Known::Nothing,
        }
    }

    /// Debug information has come, or will not: what waited for it, to be answered again.
    fn settle(&mut self, id: &[u8]) -> Vec<WantDetail> {
        if let Some(fetcher) = &mut self.fetcher {
            fetcher.settle(id);
        }
        self.files.retain(|(_, known)| !matches!(known, Known::Coming(coming) if coming == id));
        self.waiting.extract_if(.., |(coming, _)| coming == id).map(|(_, want)| want).collect()
    }

    /// Lets go of the files that were not used for longest, then of parts of the last one.
    fn stay_bounded(&mut self) {
        let bytes = |files: &VecDeque<(ModuleId, Known)>| -> usize { files.iter().map(bytes_of).sum() };
        while bytes(&self.files) > self.limit && self.files.len() > 1 {
            self.files.pop_front();
        }
        if let Some((_, Known::Debug(file))) = self.files.back_mut() {
            file.info.shrink(self.limit);
        }
        self.stats.lines_bytes.store(bytes(&self.files), Ordering::Relaxed);
    }
}

fn has_info(object: &Object) -> bool {
    object.section(".debug_info").is_some()
}

fn bytes_of((_, known): &(ModuleId, Known)) -> usize {
    let more = if let Known::Debug(file) = known { size_of::<DebugFile>() + file.info.bytes() } else { 0 };
    size_of::<(ModuleId, Known)>() + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::symbols::debuginfod::tests::{client, send, serve};
    use crate::collect::symbols::oracle::Built;
    use crossbeam_channel::unbounded;
    use std::fs::File;
    use std::time::Duration;

    const SOURCE: &str = "
        #include <stdlib.h>
        static inline __attribute__((always_inline)) int twice(int n) { return n * 2 + rand(); }
        int main(int n, char **v) { return twice(n) + !v; }
    ";

    #[test]
    fn everything_is_answered_and_what_is_kept_stays_within_the_bound() {
        let flags = [["-O1", "-g"], ["-O2", "-g"], ["-O3", "-g"], ["-O1", "-g0"]];
        let built: Vec<Built> = flags.iter().filter_map(|flags| Built::c("cc", SOURCE, flags)).collect();
        if built.len() < flags.len() {
            return;
        }
        let (results, found) = unbounded();
        let stats = Arc::new(SymbolStats::default());
        let mut worker = LineWorker::new(None, results, Arc::default(), Arc::clone(&stats));
        // Room for one of them.
        worker.limit = 8 << 10;
        for round in 0..3 {
            for (number, program) in (0..).zip(&built) {
                let file = code_file(number, program);
                // Their code is mapped where it stands in the file.
                let main = program.address("main").unwrap();
                let want = |n: u64| WantDetail { frame: FrameId(n as u32), file: file.clone(), offset: main + n };
                worker.answer(&(0..20).map(want).collect::<Vec<_>>());
                let details: Vec<_> = found.try_iter().flat_map(|names| names.details).collect();
                assert_eq!(details.len(), 20, "{round} {number}");
                let inlined = details.iter().any(|(_, detail)| detail.inlined.iter().any(|at| at.function == "twice"));
                assert_eq!(inlined, number < 3, "{round} {number}: {details:?}");
                assert!(stats.bytes() <= worker.limit as u64, "{}", stats.bytes());
            }
        }
    }

    fn code_file(number: u32, program: &Built) -> CodeFile {
        let file = Arc::new(File::open(&program.path).unwrap().into());
        CodeFile { module: ModuleId(number), file, path: program.path.to_str().unwrap().into(), process: None }
    }

    #[test]
    fn what_is_fetched_answers_what_was_asked_before() {
        let Some(built) = Built::c("cc", SOURCE, &["-O1", "-g", "-Wl,--build-id=sha1"]) else { return };
        let main = built.address("main").unwrap();
        if !built.tool("objcopy", &["--only-keep-debug", "fixture", "elsewhere"])
            || !built.tool("objcopy", &["--strip-debug", "fixture"])
        {
            return;
        }
        let debug = std::fs::read(built.dir().join("elsewhere")).unwrap();
        let server = serve(move |_, stream| send(stream, "200 OK", "", &debug));
        let cache = tempfile::tempdir().unwrap();
        let (say, said) = unbounded();
        // Two modules of one file, both asked for before it comes.
        let want = |n| WantDetail { frame: FrameId(n), file: code_file(n, &built), offset: main };
        let run = || {
            let ((results, found), (asks, messages)) = (unbounded(), unbounded());
            let stop = Arc::<AtomicBool>::default();
            let fetcher = Fetcher::start(client(&[&server], cache.path()), Arc::clone(&stop), say.clone()).unwrap();
            let mut worker = LineWorker::new(Some(fetcher), results, stop, Arc::default());
            let thread = std::thread::spawn(move || worker.run(&messages));
            asks.send(vec![want(1), want(2)]).unwrap();
            (found, asks, thread)
        };
        let next = |found: &Receiver<Names>| found.recv_timeout(Duration::from_secs(30)).unwrap().details.remove(0);
        let (found, asks, thread) = run();
        for n in [1, 2] {
            assert_eq!(next(&found), (FrameId(n), Detail::default()), "nothing is known at once");
        }
        for n in [1, 2] {
            let (frame, detail) = next(&found);
            assert_eq!((frame, detail.function.as_deref()), (FrameId(n), Some("main")));
            assert!(detail.line.is_some());
        }
        drop(asks);
        thread.join().unwrap();
        // The next time it is there at once.
        let (found, asks, thread) = run();
        assert_eq!(next(&found).1.function.as_deref(), Some("main"));
        drop(asks);
        thread.join().unwrap();
        assert_eq!(said.try_iter().filter(|said| said.contains(&server)).count(), 1);
    }
}
