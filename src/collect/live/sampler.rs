//! The perf events that drive `oncpu`: one per CPU, hardware cycles where they exist, the cpu-clock timer otherwise.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use libbpf_rs::{Link, ProgramMut};
use perf_event_open_sys as perf;

use super::{Live, objects};
use crate::collect::privileges::Privileges;
use crate::tick::{Refusal, Sampler, Tick};

/// Sampling on every CPU that is online.
pub struct Events {
    kind: Sampler,
    no_cycles: Option<Refusal>,
    /// As of now, which may be less than was asked for.
    rate_hz: u32,
    links: BTreeMap<u32, Link>,
}

impl Events {
    /// Starts sampling `rate_hz` times per second on each of `cpus`.
    pub fn start(program: &ProgramMut<'_>, cpus: &[u32], rate_hz: u32) -> Result<Self, Refusal> {
        let first = cpus.first().copied().unwrap_or(0);
        let (kind, no_cycles) = match open(&Sampler::Cycles(rate_hz), first) {
            Ok(_) => (Sampler::Cycles(rate_hz), None),
            Err(error) => (Sampler::CpuClock(rate_hz), Some(refusal("perf_event_open of hardware cycles", &error))),
        };
        let mut events = Events { kind, no_cycles, rate_hz, links: BTreeMap::new() };
        events.follow(program, cpus)?;
        Ok(events)
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
        self.links.clear();
        self.rate_hz = rate_hz;
    }

    /// Samples on these CPUs from now on: CPUs go and come.
    pub fn follow(&mut self, program: &ProgramMut<'_>, cpus: &[u32]) -> Result<(), Refusal> {
        self.links.retain(|cpu, _| cpus.contains(cpu));
        if self.rate_hz == 0 {
            return Ok(());
        }
        let kind = match self.kind {
            Sampler::Cycles(_) => Sampler::Cycles(self.rate_hz),
            Sampler::CpuClock(_) => Sampler::CpuClock(self.rate_hz),
            Sampler::Off => Sampler::Off,
        };
        for &cpu in cpus {
            if self.links.contains_key(&cpu) {
                continue;
            }
            let event = match open(&kind, cpu) {
                Ok(event) => event,
                // Gone offline since the list was read.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => return Err(refusal(&format!("opening a perf event on CPU {cpu}"), &error)),
            };
            // The link owns the descriptor from here on, also when attaching fails.
            let link = program
                .attach_perf_event(event.into_raw_fd())
                .map_err(|error| format!("attaching to the perf event of CPU {cpu} failed: {error}"))?;
            self.links.insert(cpu, link);
        }
        Ok(())
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

    /// CPUs come and go: sampling follows.
    pub(super) fn follow_cpus(&mut self, tick: &Tick) {
        let (Some(program), Some(sampling)) = (self.objects.sample(), &mut self.sampling) else { return };
        let online: Vec<u32> = tick.cpus.iter().map(|cpu| cpu.id).collect();
        // What could not be opened now is tried again at the next tick.
        let _ = sampling.follow(program, &online);
    }
}

fn refusal(what: &str, error: &io::Error) -> Refusal {
    Privileges::read().explain_perf(what, error.raw_os_error().unwrap_or(libc::EIO))
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
