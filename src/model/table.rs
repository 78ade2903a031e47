//! Entities by key, in slots that stay where they are while the entity lives: one look-up per tick and entity, and
//! neighbours refer to each other by slot.

use rustc_hash::FxHashMap;
use std::hash::Hash;

/// Place of an entity in its [`Table`]. Re-used after removal.
pub(super) type Slot = usize;

/// Values by key and by slot.
pub(super) struct Table<K, V> {
    slots: Vec<Option<V>>,
    free: Vec<Slot>,
    index: FxHashMap<K, Slot>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { slots: Vec::new(), free: Vec::new(), index: FxHashMap::default() }
    }
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// Where `key` is.
    pub fn find(&self, key: K) -> Option<Slot> {
        self.index.get(&key).copied()
    }

    /// What `key` stands for.
    pub fn get(&self, key: K) -> Option<&V> {
        self.at(self.find(key)?)
    }

    /// What is in a slot.
    pub fn at(&self, slot: Slot) -> Option<&V> {
        self.slots.get(slot)?.as_ref()
    }

    /// What is in a slot, to change.
    pub fn at_mut(&mut self, slot: Slot) -> Option<&mut V> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Puts a value under a key that is not in yet.
    pub fn insert(&mut self, key: K, value: V) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(value);
        self.index.insert(key, slot);
        slot
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let slot = self.index.remove(&key)?;
        self.free.push(slot);
        self.slots[slot].take()
    }

    /// Every value, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.slots.iter().flatten()
    }

    /// Every value, by slot, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().flatten()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.index.len()
    }
}
