//! Gives out the ids of modules, frames and stacks, and says which are new.
//!
//! Memory is bounded: beyond [`MAX_FRAMES`] or [`MAX_STACKS`] everything is forgotten and given new ids when it is seen
//! again. Ids are never re-used, so what was sent before stays true; when there are no more, what is new gets the last one, which says so.

use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::tick::{
    Frame, FrameId, FrameKind, Module, ModuleId, ModuleKind, Names, Stack, StackEnd, StackId, Symbol, Walk,
};

/// About 20 MB of table.
const MAX_FRAMES: usize = 500_000;
/// About 12 MB of table.
const MAX_STACKS: usize = 300_000;
/// The last id of each kind; the very last number means something else to the model.
const LAST: u32 = u32::MAX - 1;

/// The tables. Stacks are kept as a 128-bit keyed hash: whoever makes stacks cannot make two that collide.
pub struct Interner {
    frames: FxHashMap<Frame, FrameId>,
    stacks: HashMap<u128, StackId>,
    keys: [RandomState; 2],
    next_module: u32,
    next_frame: u32,
    next_stack: u32,
    nameless: u64,
}

impl Default for Interner {
    fn default() -> Self {
        Interner {
            frames: FxHashMap::default(),
            stacks: HashMap::default(),
            keys: [RandomState::new(), RandomState::new()],
            next_module: 0,
            next_frame: 0,
            next_stack: 0,
            nameless: 0,
        }
    }
}

impl Interner {
    /// A new module; whether it is new only the caller can know.
    pub fn module(&mut self, module: Module, names: &mut Names) -> ModuleId {
        let (id, has_own) = give(&mut self.next_module, &mut self.nameless);
        let id = ModuleId(id);
        names.modules.push((id, if has_own { module } else { Module { kind: ModuleKind::Note, ..Module::default() } }));
        id
    }

    /// The id of a frame, and whether it was seen for the first time.
    pub fn frame(&mut self, module: ModuleId, offset: u64, kind: FrameKind, names: &mut Names) -> (FrameId, bool) {
        let frame = Frame { module, offset, kind };
        if let Some(&id) = self.frames.get(&frame) {
            return (id, false);
        }
        if self.frames.len() >= MAX_FRAMES {
            self.forget();
        }
        let (id, has_own) = give(&mut self.next_frame, &mut self.nameless);
        let id = FrameId(id);
        if !has_own {
            names.frames.push((id, Frame { module: ModuleId(LAST), offset: 0, kind: FrameKind::Note }));
            names.symbols.push((id, Symbol { function: NO_MORE.into(), ..Symbol::default() }));
            return (id, false);
        }
        self.frames.insert(frame, id);
        names.frames.push((id, frame));
        (id, true)
    }

    fn hash(&self, frames: &[FrameId], end: StackEnd) -> u128 {
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.keys[half].hash_one((frames, end))));
        high << 64 | low
    }

    /// What a stack is really, that was sent as something else.
    pub fn replace(&mut self, id: StackId, frames: &[FrameId], end: StackEnd, walk: Walk, names: &mut Names) {
        if id.0 == LAST {
            return;
        }
        self.stacks.entry(self.hash(frames, end)).or_insert(id);
        names.stacks.push((id, Stack { frames: frames.to_vec(), end, walk }));
    }

    /// The id of a stack, root first. Stacks that differ only in how they were walked are the same.
    pub fn stack(&mut self, frames: &[FrameId], end: StackEnd, walk: Walk, names: &mut Names) -> StackId {
        let hash = self.hash(frames, end);
        if let Some(&id) = self.stacks.get(&hash) {
            return id;
        }
        if self.stacks.len() >= MAX_STACKS {
            self.stacks.clear();
        }
        let id = self.provisional(frames, end, walk, names);
        self.stacks.insert(hash, id);
        id
    }

    /// An id for a stack that is going to be replaced, so for this one alone.
    pub fn provisional(&mut self, frames: &[FrameId], end: StackEnd, walk: Walk, names: &mut Names) -> StackId {
        let (id, has_own) = give(&mut self.next_stack, &mut self.nameless);
        let id = StackId(id);
        let stack = match has_own {
            true => Stack { frames: frames.to_vec(), end, walk },
            false => Stack { end: StackEnd::NotTaken, ..Stack::default() },
        };
        names.stacks.push((id, stack));
        id
    }

    /// How many found no id of their own since the last call.
    pub fn take_nameless(&mut self) -> u64 {
        std::mem::take(&mut self.nameless)
    }

    fn forget(&mut self) {
        self.frames.clear();
        self.stacks.clear();
    }
}

/// What frames are called that found no id.
const NO_MORE: &str = "[no more ids]";

/// The next id; false if it is the last one, which all get from then on.
fn give(next: &mut u32, nameless: &mut u64) -> (u32, bool) {
    let id = *next;
    let has_own = id < LAST;
    match has_own {
        true => *next += 1,
        false => *nameless += 1,
    }
    (id, has_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_sent_once() {
        let (mut interner, mut names) = (Interner::default(), Names::default());
        let module = interner.module(Module::default(), &mut names);
        let (a, new) = interner.frame(module, 1, FrameKind::User, &mut names);
        assert!(new);
        assert_eq!(interner.frame(module, 1, FrameKind::User, &mut names), (a, false));
        let (b, _) = interner.frame(module, 1, FrameKind::Jit, &mut names);
        assert_ne!(a, b);
        let stack = interner.stack(&[a, b], StackEnd::Complete, Walk::Tables, &mut names);
        assert_eq!(interner.stack(&[a, b], StackEnd::Complete, Walk::Tables, &mut names), stack);
        assert_ne!(interner.stack(&[a, b], StackEnd::Broken, Walk::Tables, &mut names), stack);
        assert_ne!(interner.stack(&[b, a], StackEnd::Complete, Walk::Tables, &mut names), stack);
        assert_eq!((names.modules.len(), names.frames.len(), names.stacks.len()), (1, 2, 3));
    }

    #[test]
    fn ids_rise_after_forgetting() {
        let (mut interner, mut names) = (Interner::default(), Names::default());
        let (first, _) = interner.frame(ModuleId(0), 7, FrameKind::User, &mut names);
        interner.forget();
        let (again, new) = interner.frame(ModuleId(0), 7, FrameKind::User, &mut names);
        assert!(new && again > first);
    }

    #[test]
    fn when_ids_run_out_nothing_new_takes_the_name_of_something_else() {
        let (mut interner, mut names) = (Interner::default(), Names::default());
        (interner.next_module, interner.next_frame, interner.next_stack) = (LAST - 1, LAST - 1, LAST - 1);
        let module = interner.module(Module { path: "a".into(), ..Module::default() }, &mut names);
        let (frame, _) = interner.frame(module, 1, FrameKind::User, &mut names);
        let stack = interner.stack(&[frame], StackEnd::Complete, Walk::Tables, &mut names);
        assert_eq!((module.0, frame.0, stack.0, interner.take_nameless()), (LAST - 1, LAST - 1, LAST - 1, 0));
        for more in 2..5 {
            let other = interner.module(Module { path: "b".into(), ..Module::default() }, &mut names);
            let (frame, new) = interner.frame(other, more, FrameKind::User, &mut names);
            assert_eq!((other.0, frame.0, new), (LAST, LAST, false));
            let stack = interner.stack(&[frame; 2], StackEnd::Complete, Walk::Tables, &mut names);
            assert_eq!(stack.0, LAST);
            interner.replace(stack, &[frame], StackEnd::Complete, Walk::Tables, &mut names);
        }
        let last =
            |names: &Names| names.stacks.iter().filter(|(id, _)| id.0 == LAST).all(|(_, of)| of.frames.is_empty());
        assert!(last(&names), "none of them is told as another");
        assert!(names.frames.iter().filter(|(id, _)| id.0 == LAST).all(|(_, of)| of.kind == FrameKind::Note));
        assert_eq!(interner.take_nameless(), 7, "modules, frames, and a stack that they all share");
        assert_eq!(interner.stack(&[FrameId(LAST - 1)], StackEnd::Complete, Walk::Tables, &mut names), stack);
        assert_eq!(interner.frame(module, 1, FrameKind::User, &mut names), (FrameId(LAST - 1), false));
    }
}
