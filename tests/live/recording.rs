//! Runs the live source beside a workload and keeps all it yields, to be asked afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use sberf::collect::live::{Live, LiveOptions};
use sberf::collect::{Request, Source, SourceError};
use sberf::model::folded::{self, FoldedLens};
use sberf::model::{Limits, Model, Window};
use sberf::tick::{
    Batch, CpuTick, Detail, DiskOp, Event, Frame, FrameId, FrameKind, Hist, Loss, Module, ModuleId, Names, Session,
    Stack, StackEnd, StackId, StateNs, Symbol, ThreadTick, Tick,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Names come from a worker, after the ticks; a frame of a stripped file never gets one.
const NAMES: Duration = Duration::from_secs(4);

/// A live source at work on a thread of its own.
pub struct Recording {
    session: Session,
    requests: Sender<Request>,
    heard: Arc<Heard>,
    thread: JoinHandle<Result<(), SourceError>>,
}

#[derive(Default)]
struct Heard {
    batches: Mutex<Vec<Batch>>,
    said: Mutex<Vec<String>>,
    arrived: Condvar,
}

impl Recording {
    /// Starts with half a second to a tick.
    pub fn start() -> Recording {
        Self::with(|_| ())
    }

    /// Starts with half a second to a tick and what else is set.
    pub fn with(set: impl FnOnce(&mut LiveOptions)) -> Recording {
        let mut options = LiveOptions { interval: Duration::from_millis(500), ..LiveOptions::default() };
        set(&mut options);
        let mut live = Live::start(options).expect("BPF works here, so sberf must");
        let session = live.session();
        let heard = Arc::new(Heard::default());
        let (requests, asked) = unbounded();
        let tell = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            while let Some(batch) = live.next(&asked)? {
                tell.said.lock().expect("no panic under the lock").extend(live.said());
                tell.batches.lock().expect("no panic under the lock").push(batch);
                tell.arrived.notify_all();
            }
            Ok(())
        });
        Recording { session, requests, heard, thread }
    }

    /// Waits until a tick has come that ends after `ns`: all that happened before is in.
    pub fn wait_past(&self, ns: u64) {
        let past = |batch: &Batch| matches!(batch, Batch::Tick(tick) if tick.span.end_ns > ns);
        assert!(self.wait_for(PATIENCE, |heard| heard.iter().any(past)), "no tick past {ns} within {PATIENCE:?}");
    }

    /// Waits until there are that many ticks.
    pub fn wait_ticks(&self, count: usize) {
        let enough = |heard: &[Batch]| heard.iter().filter(|batch| matches!(batch, Batch::Tick(_))).count() >= count;
        assert!(self.wait_for(PATIENCE, enough), "fewer than {count} ticks within {PATIENCE:?}");
    }

    /// Waits until every frame of a process's stacks so far has its symbol, or for a while: some have none.
    pub fn wait_names(&self, tgid: u32) {
        self.wait_for(NAMES, |heard| nameless(heard, tgid) == 0);
    }

    /// Waits until that many stacks of a process are whole; false if they are not for so long.
    pub fn wait_whole(&self, patience: Duration, tgid: u32, count: usize) -> bool {
        self.wait_for(patience, |heard| {
            let ticks = heard.iter().filter_map(|batch| if let Batch::Tick(tick) = batch { Some(tick) } else { None });
            let weights = ticks.flat_map(|tick| &tick.stacks).filter(|weight| weight.process.tgid == tgid);
            let its: HashSet<StackId> = weights.map(|weight| weight.stack).collect();
            let stacks: HashMap<_, _> = names(heard).flat_map(|names| names.stacks.iter().cloned()).collect();
            its.iter().filter(|id| stacks.get(id).is_some_and(|stack| stack.end == StackEnd::Complete)).count() >= count
        })
    }

    /// Waits until the details of these frames have come.
    pub fn wait_details(&self, frames: &[(FrameId, Frame)]) {
        let told = |heard: &[Batch]| {
            let told: HashSet<FrameId> = names(heard).flat_map(|names| &names.details).map(|(id, _)| *id).collect();
            frames.iter().all(|(id, _)| told.contains(id))
        };
        assert!(self.wait_for(PATIENCE, told), "no details within {PATIENCE:?}");
    }

    /// Waits until something has such a name; false if nothing has for so long.
    pub fn wait_symbol(&self, patience: Duration, is_it: impl Fn(&str) -> bool) -> bool {
        self.wait_for(patience, |heard| {
            names(heard).flat_map(|names| &names.symbols).any(|(_, symbol)| is_it(&symbol.function))
        })
    }

    /// Frames so far of the modules with that path.
    pub fn frames_of(&self, path: &str) -> Vec<(FrameId, Frame)> {
        let heard = self.heard.batches.lock().expect("no panic under the lock");
        let modules: HashSet<ModuleId> = names(&heard)
            .flat_map(|names| &names.modules)
            .filter(|(_, module)| module.path == path)
            .map(|(id, _)| *id)
            .collect();
        let frames = names(&heard).flat_map(|names| &names.frames).filter(|(_, frame)| modules.contains(&frame.module));
        frames.copied().collect()
    }

    fn wait_for(&self, patience: Duration, enough: impl Fn(&[Batch]) -> bool) -> bool {
        let heard = self.heard.batches.lock().expect("no panic under the lock");
        let waiting = |heard: &mut Vec<Batch>| !enough(heard) && !self.thread.is_finished();
        let (heard, _) =
            self.heard.arrived.wait_timeout_while(heard, patience, waiting).expect("no panic under the lock");
        enough(&heard)
    }

    pub fn request(&self, request: Request) {
        self.requests.send(request).expect("source listens");
    }

    /// Ends the source and gives what it saw. It must end without an error.
    pub fn stop(self) -> Recorded {
        drop(self.requests);
        self.thread.join().expect("source does not panic").expect("source ends without an error");
        let heard = std::mem::take(&mut *self.heard.batches.lock().expect("no panic under the lock"));
        let said = std::mem::take(&mut *self.heard.said.lock().expect("no panic under the lock"));
        Recorded { said, ..Recorded::new(self.session, heard) }
    }
}

/// All names that were told, in order.
fn names(heard: &[Batch]) -> impl Iterator<Item = &Names> {
    heard.iter().map(|batch| match batch {
        Batch::Tick(tick) => &tick.names,
        Batch::Names(names) => &**names,
    })
}

/// Frames of a process's stacks that have no symbol yet.
fn nameless(heard: &[Batch], tgid: u32) -> usize {
    let (mut stacks, mut named, mut wanted) = (HashMap::new(), HashSet::new(), HashSet::new());
    for batch in heard {
        let names = match batch {
            Batch::Tick(tick) => {
                wanted
                    .extend(tick.stacks.iter().filter(|weight| weight.process.tgid == tgid).map(|weight| weight.stack));
                &tick.names
            }
            Batch::Names(names) => &**names,
        };
        stacks.extend(names.stacks.iter().map(|(id, stack)| (*id, stack)));
        named.extend(names.symbols.iter().map(|(id, _)| *id));
    }
    let frames = wanted.iter().filter_map(|id| stacks.get(id)).flat_map(|stack| &stack.frames);
    frames.filter(|id| !named.contains(id)).count()
}

/// All that a live source said.
pub struct Recorded {
    pub session: Session,
    pub batches: Vec<Batch>,
    /// What was told to a person beside that.
    pub said: Vec<String>,
    symbols: HashMap<FrameId, Symbol>,
    details: HashMap<FrameId, Detail>,
    frames: HashMap<FrameId, Frame>,
    modules: HashMap<ModuleId, Module>,
    stacks: HashMap<StackId, Stack>,
}

impl Recorded {
    fn new(session: Session, batches: Vec<Batch>) -> Self {
        let mut seen = Recorded {
            session,
            batches: Vec::new(),
            said: Vec::new(),
            symbols: HashMap::new(),
            details: HashMap::new(),
            frames: HashMap::new(),
            modules: HashMap::new(),
            stacks: HashMap::new(),
        };
        names(&batches).for_each(|names| seen.learn(names));
        seen.batches = batches;
        seen.check_spans();
        seen
    }

    fn learn(&mut self, names: &Names) {
        self.symbols.extend(names.symbols.iter().cloned());
        self.frames.extend(names.frames.iter().copied());
        self.modules.extend(names.modules.iter().cloned());
        self.details.extend(names.details.iter().cloned());
        self.stacks.extend(names.stacks.iter().cloned());
    }

    /// Whatever is tested: ticks follow each other without a gap, and no number is one that a negative interval would make.
    /// (`/proc/stat` itself goes back now and then; that is counted as a loss.)
    fn check_spans(&self) {
        let spans = self.ticks().map(|tick| tick.span).collect::<Vec<_>>();
        assert!(spans.iter().all(|span| span.start_ns < span.end_ns), "{spans:?}");
        assert!(spans.windows(2).all(|pair| pair[0].end_ns == pair[1].start_ns), "{spans:?}");
        for tick in self.ticks() {
            // A thread that ends may have its last account of the tick before in this one, too.
            let most = 3 * tick.span.len_ns() + 1_000_000_000;
            assert!(tick.threads.iter().all(|thread| thread.ns.total() < most), "more than there is: {:?}", tick.span);
            let hists = tick.threads.iter().flat_map(|thread| [&thread.runq, &thread.off_cpu, &thread.slice]);
            assert!(
                hists.into_iter().all(|hist| hist.max <= tick.span.end_ns),
                "older than the machine: {:?}",
                tick.span
            );
            let busy =
                |cpu: &CpuTick| cpu.user_ns + cpu.kernel_ns + cpu.irq_ns + cpu.softirq_ns + cpu.steal_ns + cpu.idle_ns;
            for cpu in &tick.cpus {
                assert!(busy(cpu) < most, "more than a CPU has: {:?} {cpu:?}", tick.span);
            }
        }
    }

    pub fn ticks(&self) -> impl DoubleEndedIterator<Item = &Tick> {
        self.batches.iter().filter_map(|batch| match batch {
            Batch::Tick(tick) => Some(&**tick),
            Batch::Names(_) => None,
        })
    }

    /// Lengths of the ticks and how late they came, ms: for messages.
    pub fn pace(&self) -> Vec<(u64, u64)> {
        self.ticks().map(|tick| (tick.span.len_ns() / 1_000_000, tick.cost.late_ns / 1_000_000)).collect()
    }

    /// Ticks that lie wholly in `[from, to]`.
    pub fn ticks_within(&self, (from, to): (u64, u64)) -> impl DoubleEndedIterator<Item = &Tick> {
        self.ticks().filter(move |tick| tick.span.start_ns >= from && tick.span.end_ns <= to)
    }

    /// Everything of one thread, in order of time.
    pub fn thread(&self, tid: u32) -> Vec<(&Tick, &ThreadTick)> {
        self.ticks()
            .flat_map(|tick| tick.threads.iter().filter(move |t| t.key.tid == tid).map(move |t| (tick, t)))
            .collect()
    }

    /// Everything of all threads of one process.
    pub fn process(&self, tgid: u32) -> Vec<&ThreadTick> {
        self.ticks().flat_map(|tick| &tick.threads).filter(|thread| thread.process.tgid == tgid).collect()
    }

    /// Where a thread's time went, over the whole recording.
    pub fn thread_ns(&self, tid: u32) -> StateNs {
        total(self.thread(tid).into_iter().map(|(_, thread)| &thread.ns))
    }

    /// One of a thread's histograms over the whole recording.
    pub fn thread_hist(&self, tid: u32, which: impl Fn(&ThreadTick) -> &Hist) -> Hist {
        merged(self.thread(tid).into_iter().map(|(_, thread)| which(thread)))
    }

    /// Block I/O that a process asked for: requests, bytes, latency.
    pub fn io(&self, tgid: u32, op: DiskOp) -> (u64, u64, Hist) {
        let of_it = || self.ticks().flat_map(|tick| &tick.io).filter(|io| io.process.tgid == tgid && io.op == op);
        let requests = of_it().map(|io| io.requests).sum();
        let bytes = of_it().map(|io| io.bytes).sum();
        (requests, bytes, merged(of_it().map(|io| &io.latency)))
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.ticks().flat_map(|tick| &tick.events)
    }

    /// How often a cause of loss was met.
    pub fn lost(&self, cause: Loss) -> u64 {
        self.losses().into_iter().filter(|(what, _)| *what == cause).map(|(_, count)| count).sum()
    }

    /// All losses.
    pub fn losses(&self) -> Vec<(Loss, u64)> {
        let mut losses: Vec<(Loss, u64)> = Vec::new();
        for &(cause, count) in self.ticks().flat_map(|tick| &tick.losses) {
            match losses.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, sum)) => *sum += count,
                None => losses.push((cause, count)),
            }
        }
        losses
    }

    /// A stack, once it was named.
    pub fn stack(&self, id: StackId) -> Option<&Stack> {
        self.stacks.get(&id)
    }

    /// Where a frame's code lies.
    pub fn place(&self, id: FrameId) -> Option<(Frame, &Module)> {
        let frame = *self.frames.get(&id)?;
        Some((frame, self.modules.get(&frame.module)?))
    }

    /// What debug information says of a frame, once that was told.
    pub fn detail(&self, frame: FrameId) -> Option<&Detail> {
        self.details.get(&frame)
    }

    /// Frames of that kind of code, and what they are called.
    pub fn frames_of_kind(&self, kind: FrameKind) -> impl Iterator<Item = (Frame, Option<&Symbol>)> {
        let frames = self.frames.iter().filter(move |(_, frame)| frame.kind == kind);
        frames.map(|(id, frame)| (*frame, self.symbols.get(id)))
    }

    /// Frames of that kind of code that nobody named.
    pub fn nameless_of_kind(&self, kind: FrameKind) -> Vec<u64> {
        let nameless = self.frames.iter().filter(|(id, frame)| frame.kind == kind && !self.symbols.contains_key(id));
        nameless.map(|(_, frame)| frame.offset).collect()
    }

    /// What a frame is called, once that was told.
    pub fn symbol(&self, frame: FrameId) -> Option<&Symbol> {
        self.symbols.get(&frame)
    }

    /// Functions of a stack, root first; `?` for one without a name.
    pub fn functions(&self, stack: &Stack) -> Vec<&str> {
        let name = |id: &FrameId| self.symbols.get(id).map_or("?", |symbol| symbol.function.as_str());
        stack.frames.iter().map(name).collect()
    }
}

/// Sum, state by state.
pub fn total<'a>(parts: impl IntoIterator<Item = &'a StateNs>) -> StateNs {
    parts.into_iter().fold(StateNs::default(), |mut sum, part| {
        sum.add(part);
        sum
    })
}

/// Sum of histograms.
pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Hist>) -> Hist {
    parts.into_iter().fold(Hist::default(), |mut sum, part| {
        sum.merge(part);
        sum
    })
}

/// The folded export of one process's on-CPU samples.
pub fn folded_on_cpu(seen: &Recorded, tgid: u32) -> String {
    let mut model = Model::new(seen.session.clone(), Limits::default());
    for batch in seen.batches.clone() {
        match batch {
            Batch::Tick(tick) => model.apply(*tick),
            Batch::Names(names) => model.learn(*names),
        }
    }
    let process = model.processes().map(|process| process.key).find(|key| key.tgid == tgid).expect("it was seen");
    let mut folded = Vec::new();
    folded::write(&mut folded, &model, FoldedLens::OnCpu, Some(process), Window::All).expect("memory takes it");
    String::from_utf8(folded).expect("folded stacks are text")
}
