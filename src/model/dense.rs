//! Values by ids that rise from 0, as the source gives them out: a list, not a hash. Ids from a damaged file may be
//! anything; those that would make the list mostly holes are kept apart.

use rustc_hash::FxHashMap;

/// Values by id.
pub(super) struct Dense<T> {
    list: Vec<Option<T>>,
    strays: FxHashMap<u32, T>,
}

impl<T> Default for Dense<T> {
    fn default() -> Self {
        Dense { list: Vec::new(), strays: FxHashMap::default() }
    }
}

/// The list may grow by so much at once.
const STEP: usize = 1 << 16;

impl<T> Dense<T> {
    /// The value of an id.
    pub fn get(&self, id: u32) -> Option<&T> {
        match self.list.get(id as usize) {
            Some(Some(value)) => Some(value),
            _ if self.strays.is_empty() => None,
            _ => self.strays.get(&id),
        }
    }

    /// Sets the value of an id.
    pub fn insert(&mut self, id: u32, value: T) {
        let at = id as usize;
        if at >= self.list.len().saturating_mul(2) + STEP {
            self.strays.insert(id, value);
            return;
        }
        if at >= self.list.len() {
            self.list.resize_with(at + 1, || None);
        }
        self.strays.remove(&id);
        self.list[at] = Some(value);
    }

    /// Every value, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.list.iter().flatten().chain(self.strays.values())
    }

    /// Keeps only those values that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(u32) -> bool) {
        for (id, value) in (0..).zip(&mut self.list) {
            if value.is_some() && !wanted(id) {
                *value = None;
            }
        }
        self.strays.retain(|&id, _| wanted(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let mut dense = Dense::default();
        for id in [0, 5, u32::MAX, 70_000, 200_000] {
            dense.insert(id, id);
        }
        for id in [0, 5, u32::MAX, 70_000, 200_000] {
            assert_eq!(dense.get(id), Some(&id));
        }
        assert_eq!((dense.get(1), dense.get(100_000)), (None, None));
        assert!(dense.list.len() <= 200_001);
        dense.retain(|id| id > 5);
        assert_eq!((dense.get(5), dense.get(u32::MAX)), (None, Some(&u32::MAX)));
    }
}
