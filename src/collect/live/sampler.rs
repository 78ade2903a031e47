//! The perf events that drive `oncpu`: one per CPU, hardware cycles where they exist, the cpu-clock timer otherwise.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use libbpf_rs::{Link, ProgramMut};
use perf_event_open_sys as perf;

use super::{Live, objects};
use crate::collect::checks::Sampling;
use crate::collect::privileges::Privileges;
use crate::tick::{CpuTick, Refusal, Sampler, Tick};

/// Sampling on every CPU that is online.
pub struct Events {
    kind: Sampler,
    no_cycles: Option<Refusal>,
    /// As of now, which may be less than was asked for.
    rate_hz: u32,
    events: BTreeMap<u32, Event>,
}

/// What following the CPUs came to.
#[derive(Debug, Default)]
pub struct Followed {
    /// CPUs that are known to have had no event that works in the interval that ended.
    pub unsampled: u64,
    /// Why some have none now: of one of them.
    pub refused: Option<Refusal>,
}

impl Events {
    /// Starts sampling `rate_hz` times per second on each of `cpus`.
    pub fn start(program: &ProgramMut<'_>, cpus: &[u32], rate_hz: u32) -> Result<Self, Refusal> {
        let first = cpus.first().copied().unwrap_or(0);
        let (kind, no_cycles) = match open(&Sampler::Cycles(rate_hz), first) {
            Ok(_) => (Sampler::Cycles(rate_hz), None),
            Err(error) => {
                (Sampler::CpuClock(rate_hz), Some(refusal("perf_event_open of hardware cycles", &error, rate_hz)))
            }
        };
        let mut events = Events { kind, no_cycles, rate_hz, events: BTreeMap::new() };
        match events.open_missing(program, cpus.iter().copied()) {
            Some(why) => Err(why),
            None => Ok(events),
        }
    }

    /// What samples are taken by.
    pub fn kind(&self) -> &Sampler {
        &self.kind
    }

    /// Why it is not hardware cycles, if it is not.
    pub fn no_cycles(&self) -> Option<Refusal> {
        self.no_cycles.clone()
    }

    /// Takes no more samples; the next `follow` begins again, at another rate. 0: it does not.
    pub fn set_rate(&mut self, rate_hz: u32) {
        self.events.clear();
        self.rate_hz = rate_hz;
    }

    /// Samples on these CPUs from now on: CPUs go and come, also between two calls. `cpus`: what they did since the last, by
    /// rising id.
    pub fn follow(&mut self, program: &ProgramMut<'_>, cpus: &[CpuTick]) -> Followed {
        if self.rate_hz == 0 {
            return Followed::default();
        }
        self.events.retain(|id, event| {
            let cpu = cpus.binary_search_by_key(id, |cpu| cpu.id).ok().map(|at| &cpus[at]);
            cpu.is_some_and(|cpu| !is_suspect(cpu) || event.goes_on())
        });
        let unsampled = (cpus.len() - self.events.len()) as u64;
        Followed { unsampled, refused: self.open_missing(program, cpus.iter().map(|cpu| cpu.id)) }
    }

    /// Opens an event on each of these CPUs that has none. Why that is not possible, if it is not on one of them.
    fn open_missing(&mut self, program: &ProgramMut<'_>, cpus: impl Iterator<Item = u32>) -> Option<Refusal> {
        let kind = match self.kind {
            Sampler::Cycles(_) => Sampler::Cycles(self.rate_hz),
            Sampler::CpuClock(_) => Sampler::CpuClock(self.rate_hz),
            Sampler::Off => Sampler::Off,
        };
        let mut refused = None;
        for cpu in cpus {
            if self.events.contains_key(&cpu) {
                continue;
            }
            match Event::start(&kind, program, cpu) {
                Ok(Some(event)) => drop(self.events.insert(cpu, event)),
                Ok(None) => {}
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        refused
    }
}

/// A CPU that had work and gave no sample. Looking at its event costs a system call and an interrupt there, so the others are left
/// alone: those that gave samples, and those that sleep.
fn is_suspect(cpu: &CpuTick) -> bool {
    cpu.samples == 0 && cpu.user_ns + cpu.kernel_ns > 0
}

/// Sampling on one CPU.
struct Event {
    /// Owns the descriptor, too.
    _link: Link,
    fd: RawFd,
    /// How long it had been enabled when looked at last, ns.
    enabled_ns: Option<u64>,
}

impl Event {
    /// `None`: the CPU has gone offline since the list was read.
    fn start(kind: &Sampler, program: &ProgramMut<'_>, cpu: u32) -> Result<Option<Self>, Refusal> {
        let fd = match open(kind, cpu) {
            Ok(event) => event.into_raw_fd(),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => {
                return Err(refusal(&format!("opening a perf event on CPU {cpu}"), &error, rate_of(kind)));
            }
        };
        // The link owns the descriptor from here on, also when attaching fails.
        let link = program
            .attach_perf_event(fd)
            .map_err(|error| format!("attaching to the perf event of CPU {cpu} failed: {error}"))?;
        Ok(Some(Event { _link: link, fd, enabled_ns: None }))
    }

    /// Whether it was enabled for longer than when looked at last. A CPU that goes offline, for suspending too, takes its events off
    /// for good: their descriptors stay, and their time stands still.
    fn goes_on(&mut self) -> bool {
        let now = self.read_enabled_ns();
        let before = std::mem::replace(&mut self.enabled_ns, now);
        now.is_some() && now != before
    }

    /// `None`: it is no perf event any more, or one that the kernel gave up.
    fn read_enabled_ns(&self) -> Option<u64> {
        // The count, and how long it was enabled.
        let mut bytes = [0; 16];
        // SAFETY: the link keeps the descriptor open as long as it lives, and it lives as long as we do.
        let event = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let read = rustix::io::read(event, &mut bytes).ok()?;
        let enabled_ns = bytes.get(8..read)?.try_into().ok()?;
        Some(u64::from_ne_bytes(enabled_ns))
    }
}

impl Live {
    /// Begins to sample; where that fails, the lens says why.
    pub(super) fn sample(&mut self) {
        let online = self.machine.online();
        let Some(program) = self.objects.sample() else { return };
        match Events::start(program, &online, self.options.rate_hz) {
            Ok(events) => {
                self.objects.found.cycles = events.no_cycles();
                self.sampling = Some(events);
            }
            Err(why) => {
                self.objects.lenses.retain(|lens| lens.name != "oncpu");
                self.objects.lenses.push(objects::off("oncpu", why.to_string()));
                self.objects.found.samples = Some(why);
            }
        }
    }

    /// CPUs come and go: sampling follows. How many are known to have been without in the interval. What cannot be opened now is
    /// tried again at the next tick, and told to a person once until all is well.
    pub(super) fn follow_cpus(&mut self, tick: &Tick) -> u64 {
        let (Some(program), Some(sampling)) = (self.objects.sample(), &mut self.sampling) else { return 0 };
        let Followed { unsampled, refused } = sampling.follow(program, &tick.cpus);
        let again = self.unfollowed;
        self.unfollowed = refused.is_some();
        if let Some(why) = refused.filter(|_| !again) {
            self.notes.push(format!("not every CPU is sampled: {why}"));
        }
        unsampled
    }

    /// How all that runs is sampled now; `None`: nothing is, or not everybody.
    pub(super) fn sampling_of_all(&self) -> Option<Sampling> {
        let events = self.sampling.as_ref()?;
        let by_cycles = matches!(events.kind, Sampler::Cycles(_));
        let sampling = Sampling { rate_hz: events.rate_hz, by_cycles, include_self: self.options.include_self };
        (events.rate_hz > 0 && !objects::only_some(&self.options)).then_some(sampling)
    }
}

fn rate_of(kind: &Sampler) -> u32 {
    match *kind {
        Sampler::Cycles(hz) | Sampler::CpuClock(hz) => hz,
        Sampler::Off => 0,
    }
}

fn refusal(what: &str, error: &io::Error, rate_hz: u32) -> Refusal {
    Privileges::read().explain_perf(what, error.raw_os_error().unwrap_or(libc::EIO), rate_hz)
}

fn open(kind: &Sampler, cpu: u32) -> io::Result<OwnedFd> {
    let (event_type, config, rate_hz) = match *kind {
        Sampler::Cycles(hz) => (perf::bindings::PERF_TYPE_HARDWARE, perf::bindings::PERF_COUNT_HW_CPU_CYCLES, hz),
        Sampler::CpuClock(hz) => (perf::bindings::PERF_TYPE_SOFTWARE, perf::bindings::PERF_COUNT_SW_CPU_CLOCK, hz),
        Sampler::Off => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    let mut attr = perf::bindings::perf_event_attr {
        type_: event_type,
        size: size_of::<perf::bindings::perf_event_attr>() as u32,
        config: u64::from(config),
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_freq = u64::from(rate_hz);
    attr.read_format = u64::from(perf::bindings::PERF_FORMAT_TOTAL_TIME_ENABLED);
    attr.set_freq(1);
    attr.set_exclude_idle(1);
    // SAFETY: `attr` is a valid attribute structure of the size it states and outlives the call.
    let fd =
        unsafe { perf::perf_event_open(&mut attr, -1, cpu as i32, -1, perf::bindings::PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
