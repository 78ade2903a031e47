//! Gives out the ids of modules, frames and stacks, and says which are new.
//!
//! Memory is bounded: beyond [`MAX_FRAMES`] or [`MAX_STACKS`] everything is forgotten and given new ids when it is seen
//! again. Ids are never re-used, so what was sent before stays true.

use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::tick::{Frame, FrameId, FrameKind, Module, ModuleId, Names, Stack, StackEnd, StackId, Walk};

/// About 20 MB of table.
const MAX_FRAMES: usize = 500_000;
/// About 12 MB of table.
const MAX_STACKS: usize = 300_000;

/// The tables. Stacks are kept as a 128-bit keyed hash: whoever makes stacks cannot make two that collide.
pub struct Interner {
    frames: FxHashMap<Frame, FrameId>,
    stacks: HashMap<u128, StackId>,
    keys: [RandomState; 2],
    next_module: u32,
    next_frame: u32,
    next_stack: u32,
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
        }
    }
}

impl Interner {
    /// A new module; whether it is new only the caller can know.
    pub fn module(&mut self, module: Module, names: &mut Names) -> ModuleId {
        let id = ModuleId(self.next_module);
        self.next_module += 1;
        names.modules.push((id, module));
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
        let id = FrameId(self.next_frame);
        self.next_frame += 1;
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
        let id = StackId(self.next_stack);
        self.next_stack += 1;
        names.stacks.push((id, Stack { frames: frames.to_vec(), end, walk }));
        id
    }

    fn forget(&mut self) {
        self.frames.clear();
        self.stacks.clear();
    }
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
}
