//! The thread that reads debug information: lines, and functions that were inlined.

use crossbeam_channel::{Receiver, Sender};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{CodeFile, LINES_BYTES, SymbolStats, WantDetail, debug_file};
use crate::collect::dwarf::DebugInfo;
use crate::collect::object::Object;
use crate::tick::{Detail, FrameId, ModuleId, Names};

/// Addresses between two looks at whether to stop.
const CHUNK: usize = 256;

/// What it keeps.
pub struct LineWorker {
    /// Files that were read, least recently used first; `None` where there is no debug information.
    files: VecDeque<(ModuleId, Option<DebugFile>)>,
    /// Memory of it all, at most.
    limit: usize,
    results: Sender<Names>,
    stop: Arc<AtomicBool>,
    stats: Arc<SymbolStats>,
}

/// A file and its debug information, which may be in another.
struct DebugFile {
    object: Object,
    info: DebugInfo,
}

impl DebugFile {
    /// Compressed, it may take half of the room once it is unpacked.
    fn open(file: &CodeFile, limit: usize) -> Option<Self> {
        let object = Object::open(Arc::new(file.open()?))?;
        let here = object.section(".debug_info").is_some();
        let separate = if here { None } else { Some(debug_file::find(&object, &file.seen())?) };
        let info = DebugInfo::open(separate.as_ref().unwrap_or(&object), limit / 2).ok()?;
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
    pub fn new(results: Sender<Names>, stop: Arc<AtomicBool>, stats: Arc<SymbolStats>) -> Self {
        LineWorker { files: VecDeque::new(), limit: LINES_BYTES, results, stop, stats }
    }

    /// Answers until nobody asks any more.
    pub fn run(&mut self, messages: &Receiver<Vec<WantDetail>>) {
        while let Ok(first) = messages.recv() {
            let mut by_file: BTreeMap<ModuleId, Vec<WantDetail>> = BTreeMap::new();
            for want in first.into_iter().chain(messages.try_iter().flatten()) {
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
        self.files.push_back(held.unwrap_or_else(|| (file.module, DebugFile::open(file, self.limit))));
        match self.files.back_mut() {
            Some((_, Some(file))) => file.find(wants, self.limit),
            _ => Vec::new(),
        }
    }

    /// Lets go of the files that were not used for longest, then of parts of the last one.
    fn stay_bounded(&mut self) {
        let bytes = |files: &VecDeque<(ModuleId, Option<DebugFile>)>| -> usize { files.iter().map(bytes_of).sum() };
        while bytes(&self.files) > self.limit && self.files.len() > 1 {
            self.files.pop_front();
        }
        if let Some((_, Some(file))) = self.files.back_mut() {
            file.info.shrink(self.limit);
        }
        self.stats.lines_bytes.store(bytes(&self.files), Ordering::Relaxed);
    }
}

fn bytes_of((_, file): &(ModuleId, Option<DebugFile>)) -> usize {
    size_of::<(ModuleId, Option<DebugFile>)>() + file.as_ref().map_or(0, |file| file.info.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::symbols::oracle::Built;
    use crossbeam_channel::unbounded;
    use std::fs::File;

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
        let mut worker = LineWorker::new(results, Arc::new(AtomicBool::new(false)), Arc::clone(&stats));
        // Room for one of them.
        worker.limit = 8 << 10;
        for round in 0..3 {
            for (number, program) in (0..).zip(&built) {
                let file: Arc<std::os::fd::OwnedFd> = Arc::new(File::open(&program.path).unwrap().into());
                let path = program.path.to_str().unwrap().into();
                let file = CodeFile { module: ModuleId(number), file, path, process: None };
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
}
