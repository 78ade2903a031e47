//! Finishes the walk of a stack that the kernel side had to leave, from what was kept of it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::ids::Ids;
use super::super::skel::mappings::types::unwind_snapshot;
use super::super::wire;
use super::spaces::{Kind, Space};
use super::worker::{PATIENCE, Worker};
use super::{News, Walked};
use crate::collect::mappings::read_at;
use crate::collect::taken::{Tag, Where, Word};
use crate::collect::unwind::{FileKey, Frame, Part, Place, Registers, Rule, Stack, Stop, walk};
use crate::tick::{FoundBy, ProcessKey};

/// Bytes of stack behind each `struct unwind_snapshot`, as in `src/bpf/sberf.h`, and once more if it is wide.
const STACK_BYTES: usize = 64 << 10;
/// `enum snapshot_taken` there.
const BLOCKS: u32 = 1;
const ASLEEP: u32 = 2;
/// Frames of the user part at most, as there.
const MAX_FRAMES: usize = 128;
/// A stack is looked at so far up at most, when more of it is needed than was copied.
const MOST_STACK: usize = 1 << 20;
/// `add $8,%rsp; ret`: how x86-64 code made at run time may go on after a call.
const THUNK: [u8; 5] = [0x48, 0x83, 0xc4, 0x08, 0xc3];

/// A stack as it was, with the registers of its thread.
pub struct Snapshot {
    head: unwind_snapshot,
    /// From SP on.
    stack: Vec<u8>,
    /// Up to where the stack ends; empty if that is above, or could not be had.
    outer: Vec<u8>,
}

/// Takes the records of a ring apart.
pub fn snapshots(mut bytes: &[u8], ids: &Ids) -> Vec<Snapshot> {
    let one = || {
        let mut head = wire::take::<unwind_snapshot>(&mut bytes)?;
        head.tgid = ids.process(ProcessKey { tgid: head.tgid, start_ns: head.start_ns }).tgid;
        head.tid = ids.latest(head.tid);
        let (stack, rest) = bytes.split_at_checked(if head.taken == ASLEEP { 0 } else { STACK_BYTES })?;
        let (outer, rest) = rest.split_at_checked(if head.wide == 0 { 0 } else { STACK_BYTES })?;
        bytes = rest;
        let stack = stack.get(..head.bytes as usize).unwrap_or(stack).to_vec();
        let outer = outer.len().checked_sub(head.outer_bytes as usize).and_then(|from| outer.get(from..));
        Some(Snapshot { head, stack, outer: outer.unwrap_or_default().to_vec() })
    };
    std::iter::from_fn(one).collect()
}

/// What is read first of the stack of a thread that sleeps.
const FIRST_READ: usize = 4 << 10;

impl Snapshot {
    /// Of a thread that was asleep before: nothing but registers.
    pub fn is_asleep(&self) -> bool {
        self.head.taken == ASLEEP
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.stack.len() + self.outer.len()
    }

    fn registers(&self) -> Registers {
        let mut registers = Registers { pc: self.head.pc, ..Registers::default() };
        registers.general.iter_mut().zip(self.head.regs).for_each(|(general, value)| *general = value);
        registers
    }

    fn process(&self) -> ProcessKey {
        ProcessKey { tgid: self.head.tgid, start_ns: self.head.start_ns }
    }
}

impl Worker {
    /// Walks a stack, making what tables it misses; tells the result.
    pub(super) fn finish(&mut self, snapshot: &Snapshot) {
        let process = snapshot.process();
        let mut space = self.space_in(process, snapshot.head.image);
        if space.places.is_empty() || !space.is_of(snapshot.head.image) {
            // It is gone and was never seen, or executes another program by now.
            return;
        }
        self.meet(process);
        let (mut frames, mut stop) = self.walk(&space, snapshot, &snapshot.stack);
        if stop == Stop::NotCode
            && let Some(renewed) = self.space_renewed(process, &space)
        {
            space = renewed;
            self.meet(process);
            (frames, stop) = self.walk(&space, snapshot, &snapshot.stack);
        }
        if stop == Stop::Read && (snapshot.stack.len() == STACK_BYTES || snapshot.is_asleep()) {
            // What was copied ends: more of it would lead on.
            stop = if snapshot.is_asleep() { Stop::Read } else { Stop::NoTable };
            if let Some(finished) = self.walk_further(&space, snapshot) {
                (frames, stop) = finished;
            }
        }
        let words = frames.iter().map(|frame| self.word(&space, frame).0).collect();
        self.tell(News::Walked(Walked { hash: snapshot.head.hash, words, stop }));
    }

    fn walk(&mut self, space: &Space, snapshot: &Snapshot, bytes: &[u8]) -> (Vec<Frame>, Stop) {
        let registers = snapshot.registers();
        let outer =
            Part { start: snapshot.head.outer_end.wrapping_sub(snapshot.outer.len() as u64), bytes: &snapshot.outer };
        let stack = Stack { inner: Part { start: registers.general[SP], bytes }, outer };
        let mut frames = Vec::new();
        let stop = walk(&registers, stack, &mut |address| self.place(space, address), MAX_FRAMES, &mut frames);
        (frames, stop)
    }

    /// Walks on in the memory of the process as it is now. Of a thread that has stayed where it was that is the truth; of
    /// another one it only makes the tables that its next stacks will need.
    fn walk_further(&mut self, space: &Space, snapshot: &Snapshot) -> Option<(Vec<Frame>, Stop)> {
        let stays = || matches!(snapshot.head.taken, BLOCKS | ASLEEP) && is_blocked_at(space, &snapshot.head);
        let stayed = stays();
        let memory = space.memory()?;
        let mut stack = snapshot.stack.clone();
        loop {
            let above = snapshot.head.regs.get(SP)?.checked_add(stack.len() as u64)?;
            let wanted = (stack.len() * 4).clamp(FIRST_READ, MOST_STACK);
            let more = self.read(&memory, above, wanted.saturating_sub(stack.len()))?;
            stack.extend_from_slice(&more);
            let (frames, stop) = self.walk(space, snapshot, &stack);
            if stop != Stop::Read || more.is_empty() || stack.len() >= MOST_STACK {
                return (stayed && stays()).then_some((frames, stop));
            }
        }
    }

    fn place(&mut self, space: &Space, address: u64) -> Place {
        let Some(at) = space.at(address) else { return Place::NotCode };
        let key = match at.kind {
            Kind::Anonymous => return Place::Anonymous { thunk: self.is_thunk(space, address + 1) },
            Kind::Vdso => FileKey::default(),
            Kind::File(key) => key,
        };
        match self.rule(space, at.start, key, address - at.start + at.offset) {
            Some(rule) => Place::File(rule),
            None => Place::NotLoaded,
        }
    }

    /// Whether that code is at a return address of a process.
    fn is_thunk(&mut self, space: &Space, pc: u64) -> bool {
        let code = space.memory().and_then(|memory| self.read(&memory, pc, THUNK.len()));
        code.is_some_and(|code| code == THUNK)
    }

    /// Memory of a process, as far as it can be read. Who made that memory may keep us waiting, but not for long.
    fn read(&mut self, memory: &File, address: u64, bytes: usize) -> Option<Vec<u8>> {
        let memory = memory.try_clone().ok()?;
        self.aside.run(PATIENCE, move || read_up_to(&memory, address, bytes))
    }

    /// What a file says of an offset. If its window is not filled, that one rule is found, and the window made later.
    fn rule(&mut self, space: &Space, start: u64, key: FileKey, offset: u64) -> Option<Rule> {
        let Some(id) = self.file(key) else { return self.is_none(key).then_some(Rule::NONE) };
        self.filled(id, offset).or_else(|| self.reopen(id, space, start).then(|| self.ask(id, offset))?)
    }

    fn word(&mut self, space: &Space, frame: &Frame) -> Word {
        let found = found_by(frame);
        let address = if frame.is_exact { frame.pc } else { frame.pc.wrapping_sub(1) };
        let file = space.at(address).and_then(|at| {
            let key = match at.kind {
                Kind::Anonymous => return None,
                Kind::Vdso => FileKey::default(),
                Kind::File(key) => key,
            };
            let id = self.file(key)?;
            Some(Where::File { tag: Tag::new(id.index, id.generation), offset: address - at.start + at.offset })
        });
        Word::new(found, file.unwrap_or(Where::Address(address)))
    }
}

/// Number of the stack pointer among the registers.
const SP: usize = 7;

fn found_by(frame: &Frame) -> FoundBy {
    use crate::collect::unwind::FoundBy as By;
    match frame.found_by {
        By::Regs => FoundBy::Registers,
        By::Table => FoundBy::Table,
        By::Signal => FoundBy::Signal,
        By::FramePointer => FoundBy::FramePointer,
        By::Thunk => FoundBy::Thunk,
        By::Guess => FoundBy::Guess,
    }
}

/// Whether a thread still waits in the system call in which it was seen to block.
fn is_blocked_at(space: &Space, head: &unwind_snapshot) -> bool {
    let name = format!("task/{}/syscall", head.tid);
    let text = space.dir.as_ref().and_then(|dir| read_at(dir, &name, 512).ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let mut from_end = text.split_ascii_whitespace().rev().map(hex);
    let (pc, sp) = (from_end.next().flatten(), from_end.next().flatten());
    pc == Some(head.pc) && sp == head.regs.get(SP).copied()
}

/// What lies at an address, as far as it can be read.
fn read_up_to(memory: &File, mut address: u64, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    let mut done = 0;
    while let Some(rest) = read.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match memory.read_at(rest, address) {
            Ok(0) | Err(_) => break,
            Ok(more) => {
                done += more;
                address = address.saturating_add(more as u64);
            }
        }
    }
    read.truncate(done);
    read
}
