//! Weights of stacks, and the frames behind the hashes that name them.

use std::hash::BuildHasher;
use std::io::{BufRead, BufReader};
use std::ops::Range;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::ids::Ids;
use super::skel::sched::types::{stack_key, stack_val};
use super::unwind::Walked as Finished;
use super::wire;
use crate::collect::modules::Resolver;
use crate::collect::taken::{Taken, Walked};
use crate::collect::watched::is_elsewhere;
use crate::tick::{Lens, Names, ProcessKey, StackId, StackWeight, State};

/// As in `src/bpf/sberf.h`.
const HASH_NOT_TAKEN: u64 = 0;
const HASH_UNRECORDED: u64 = 1;

/// What a weight is of: process, lens, hash.
type Of = (ProcessKey, u32, u64);

/// Weights of one interval.
#[derive(Default)]
pub struct Weights {
    sums: FxHashMap<Of, (u64, u64)>,
    /// Time of first threads that slept, in the order in which they were told of: on a large machine nearly all there is, and
    /// no two of one process.
    slept: Vec<(Of, u64)>,
}

impl Weights {
    /// None yet, with room for so many that slept.
    pub fn with_capacity(slept: usize) -> Self {
        Weights { sums: FxHashMap::default(), slept: Vec::with_capacity(slept) }
    }

    /// How many slept.
    pub fn slept(&self) -> usize {
        self.slept.len()
    }

    /// Adds the time of the first thread of a process that slept at a known stack all along.
    pub fn slept_on(&mut self, process: ProcessKey, reason: u8, hash: u64, ns: u64) {
        if hash != HASH_NOT_TAKEN && ns > 0 {
            self.slept.push(((process, reason.into(), hash), ns));
        }
    }

    /// Adds what a map of the kernel side counted.
    pub fn counted(&mut self, key: stack_key, val: stack_val) {
        let process = ProcessKey { tgid: key.tgid, start_ns: key.start_ns };
        self.add(process, key.lens, key.hash, val.weight, val.count);
    }

    /// Adds time blocked at a place with a known stack; places without one are accounted for by the thread's states.
    pub fn blocked(&mut self, process: ProcessKey, reason: u64, hash: u64, ns: u64, count: u64) {
        if hash != HASH_NOT_TAKEN && (ns > 0 || count > 0) {
            self.add(process, reason as u32, hash, ns, count);
        }
    }

    fn add(&mut self, process: ProcessKey, lens: u32, hash: u64, weight: u64, count: u64) {
        let sum = self.sums.entry((process, lens, hash)).or_default();
        sum.0 = sum.0.saturating_add(weight);
        sum.1 = sum.1.saturating_add(count);
    }
}

/// The stacks that were seen, by the kernel side's hash.
pub struct Stacks {
    /// With a second hash of the frames, of another kind.
    known: FxHashMap<u64, (StackId, u64)>,
    /// Those whose walk is going to be finished.
    unfinished: FxHashMap<u64, Unfinished>,
    /// Those that were finished before we knew of them.
    early: FxHashMap<u64, Finished>,
    /// Code of the kernel that only runs because we hooked it: not a part of any stack.
    own: Vec<Range<u64>>,
}

/// A stack that the kernel side could not walk to its end, without its user part.
struct Unfinished {
    id: StackId,
    process: ProcessKey,
    kernel: Box<[u64]>,
    image: u64,
}

/// Stacks that wait to be finished at most, and such as were; beyond, the others stay as they are.
const UNFINISHED: usize = 16_384;

/// Stacks remembered at most. The kernel side remembers 65 536 as sent; beyond some times that, both forget.
const KNOWN: usize = 1 << 18;

impl Stacks {
    /// None yet. `own`: where the kernel's code that calls our hooks lies.
    pub fn new(own: Vec<Range<u64>>) -> Self {
        Stacks { known: FxHashMap::default(), unfinished: FxHashMap::default(), early: FxHashMap::default(), own }
    }

    /// Too many are known: whoever holds what was sent must forget it, too.
    pub fn is_full(&self) -> bool {
        self.known.len() > KNOWN
    }

    /// Forgets all of them; those that are still seen are sent again.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Interns the frames that came through the ring; returns how many records could not be understood.
    pub fn learn(&mut self, mut bytes: &[u8], ids: &Ids, resolver: &mut Resolver, names: &mut Names) -> u64 {
        let mut odd = 0;
        while !bytes.is_empty() {
            let Some((used, sound)) = self.learn_one(bytes, ids, resolver, names) else { return odd + 1 };
            odd += u64::from(!sound);
            bytes = &bytes[used..];
        }
        odd
    }

    /// Interns the record at the front; its length, and whether its hash names these frames and no others. `None` if it is torn.
    fn learn_one(
        &mut self,
        bytes: &[u8],
        ids: &Ids,
        resolver: &mut Resolver,
        names: &mut Names,
    ) -> Option<(usize, bool)> {
        let word = |at: usize| wire::read::<u64>(bytes.get(at..)?);
        let (hash, start_ns, third, fourth) = (word(0)?, word(8)?, word(16)?, word(24)?);
        let process = ids.process(ProcessKey { tgid: third as u32, start_ns });
        let user = (third >> 32) as u32 as i32;
        let kernel = fourth as u32 as i32;
        let [.., by_table, stop, pending] = fourth.to_le_bytes();
        let (users, kernels) = (user.max(0) as usize, kernel.max(0) as usize);
        let len = Self::header() + 8 * (users + kernels);
        let words: Vec<u64> = bytes.get(Self::header()..len)?.chunks_exact(8).filter_map(wire::read::<u64>).collect();
        // A stack that waits for its snapshot has a name of its own.
        if pending == 0 && name_of(word(32)?, &words) != hash {
            return Some((len, false));
        }
        if is_elsewhere(process.tgid) {
            // Where it lies nobody here can find out, and nobody will ask.
            return Some((len, true));
        }
        let (user_words, kernel_ips) = words.split_at(users);
        let own = kernel_ips.iter().take_while(|ip| self.own.iter().any(|code| code.contains(ip))).count();
        let walked = match by_table {
            0 => Walked::FramePointers { error: user.min(0), truncated: users >= super::MAX_FRAMES },
            _ => Walked::by_tables(stop),
        };
        let taken = Taken { user: user_words, kernel: &kernel_ips[own..], walked, image: word(40)? };
        let stack = match pending {
            0 => resolver.stack(process, taken, names),
            _ => self.unfinished(hash, process, taken, resolver, names),
        };
        // Sent again, because the kernel side had forgotten that it was: the same frames, or two stacks share a hash.
        let second = FxBuildHasher.hash_one(&words);
        let before = self.known.insert(hash, (stack, second));
        Some((len, before.is_none_or(|(_, before)| before == second)))
    }

    fn unfinished(
        &mut self,
        hash: u64,
        process: ProcessKey,
        taken: Taken<'_>,
        resolver: &mut Resolver,
        names: &mut Names,
    ) -> StackId {
        if let Some(Finished { words, stop, .. }) = self.early.remove(&hash) {
            return resolver.stack(process, Taken { user: &words, walked: Walked::Tables(stop), ..taken }, names);
        }
        let id = resolver.provisional(process, taken, names);
        if self.unfinished.len() >= UNFINISHED {
            self.unfinished.clear();
        }
        self.unfinished.insert(hash, Unfinished { id, process, kernel: taken.kernel.into(), image: taken.image });
        id
    }

    /// Takes in the user part of a stack that was not whole.
    pub fn complete(&mut self, finished: Finished, resolver: &mut Resolver, names: &mut Names) {
        let Some(Unfinished { id, process, kernel, image }) = self.unfinished.remove(&finished.hash) else {
            if self.early.len() >= UNFINISHED {
                self.early.clear();
            }
            self.early.insert(finished.hash, finished);
            return;
        };
        let walked = Walked::Tables(finished.stop);
        resolver.complete(id, process, Taken { user: &finished.words, kernel: &kernel, walked, image }, names);
    }

    const fn header() -> usize {
        std::mem::offset_of!(super::skel::sched::types::frames_rec, ips)
    }

    /// Weights by hash to weights by stack. Hashes whose frames were lost on the way say so.
    pub fn resolve(&self, weights: Weights, resolver: &mut Resolver, names: &mut Names) -> Vec<StackWeight> {
        let Weights { mut sums, slept } = weights;
        let mut resolved = Vec::with_capacity(sums.len() + slept.len());
        let alone = slept.into_iter().filter_map(|(of, ns)| match sums.get_mut(&of) {
            Some(sum) => {
                sum.0 = sum.0.saturating_add(ns);
                None
            }
            None => Some((of, (ns, 0))),
        });
        // Before the sums are taken apart.
        let alone: Vec<_> = alone.collect();
        for ((process, lens, hash), (weight, count)) in alone.into_iter().chain(sums) {
            let Some(lens) = lens_of(lens) else { continue };
            let stack = match hash {
                HASH_NOT_TAKEN => resolver.note("[stack not taken]", names),
                HASH_UNRECORDED => resolver.note("[unrecorded]", names),
                _ => match self.known.get(&hash) {
                    Some(&(stack, _)) => stack,
                    None => resolver.note("[frames lost]", names),
                },
            };
            resolved.push(StackWeight { process, lens, stack, weight, count });
        }
        resolved
    }
}

/// The hash that names frames, as `name_of` in `src/bpf/stacks.bpf.h` does.
fn name_of(seed: u64, words: &[u64]) -> u64 {
    let mix = |hash: u64, word: &u64| {
        let hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^ (hash >> 29)
    };
    let hash = words.iter().fold(seed, mix);
    if hash <= HASH_UNRECORDED { hash + 2 } else { hash }
}

/// Where the kernel's code lies that calls the hooks of a trace point: it stands between the hooked function and our program
/// once several programs share the hook. Empty where the kernel hides its addresses.
pub fn hook_code() -> Vec<Range<u64>> {
    let Ok(symbols) = std::fs::File::open("/proc/kallsyms") else { return Vec::new() };
    hook_code_in(BufReader::with_capacity(1 << 16, symbols))
}

fn hook_code_in(symbols: impl BufRead) -> Vec<Range<u64>> {
    let mut lines = symbols.split(b'\n').map_while(Result::ok);
    let address = |line: &[u8]| u64::from_str_radix(std::str::from_utf8(line.get(..16)?).ok()?, 16).ok();
    while let Some(line) = lines.next() {
        if line.ends_with(b" __traceiter_sched_switch") {
            let end = lines.next();
            let range = address(&line).zip(end.as_deref().and_then(address)).filter(|(start, end)| start < end);
            return range.map(|(start, end)| start..end + 1).into_iter().collect();
        }
    }
    Vec::new()
}

/// The lens of a number of the kernel side.
fn lens_of(number: u32) -> Option<Lens> {
    use State::*;
    const BLOCKED: [State; 9] = [Disk, Lock, Net, Pipe, Timer, Poll, Fault, Stopped, Other];
    match number {
        0 => Some(Lens::OnCpu),
        3..12 => BLOCKED.get(number as usize - 3).map(|&state| Lens::Blocked(state)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_hook_ends_where_the_next_symbol_begins() {
        let text = "ffffffff81000000 T start\nffffffff81000100 T __traceiter_sched_switch\nffffffff81000180 T next\n";
        assert_eq!(hook_code_in(text.as_bytes()).first(), Some(&(0xffff_ffff_8100_0100..0xffff_ffff_8100_0181)));
        let hidden = "0000000000000000 T __traceiter_sched_switch\n0000000000000000 T next\n";
        assert!(hook_code_in(hidden.as_bytes()).is_empty());
        assert!(hook_code_in("nonsense\n__traceiter_sched_switch".as_bytes()).is_empty());
    }
}
