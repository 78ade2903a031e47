//! Values by ids that rise from 0, as the source gives them out: a list, not a hash, in pages that go when nothing in them is wanted any
//! more. Ids from a damaged file may be anything; those that would make the list mostly holes are kept apart.

use rustc_hash::FxHashMap;

/// Values by id.
pub(super) struct Dense<T> {
    /// By `id / PAGE`; `None`: nothing is kept of those.
    pages: Vec<Option<Page<T>>>,
    strays: FxHashMap<u32, T>,
}

struct Page<T> {
    values: Box<[Option<T>]>,
    used: usize,
}

const PAGE: usize = 1 << 10;
/// The list may grow by so many pages at once.
const STEP: usize = 1 << 6;

impl<T> Default for Dense<T> {
    fn default() -> Self {
        Dense { pages: Vec::new(), strays: FxHashMap::default() }
    }
}

impl<T> Page<T> {
    fn new() -> Self {
        Page { values: (0..PAGE).map(|_| None).collect(), used: 0 }
    }
}

fn place(id: u32) -> (usize, usize) {
    (id as usize / PAGE, id as usize % PAGE)
}

impl<T> Dense<T> {
    /// The value of an id.
    pub fn get(&self, id: u32) -> Option<&T> {
        let (page, at) = place(id);
        match self.pages.get(page) {
            Some(Some(page)) if page.values[at].is_some() => page.values[at].as_ref(),
            _ if self.strays.is_empty() => None,
            _ => self.strays.get(&id),
        }
    }

    /// Sets the value of an id.
    pub fn insert(&mut self, id: u32, value: T) {
        let (page, at) = place(id);
        if page >= self.pages.len().saturating_mul(2) + STEP {
            self.strays.insert(id, value);
            return;
        }
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        self.strays.remove(&id);
        let page = self.pages[page].get_or_insert_with(Page::new);
        page.used += usize::from(page.values[at].is_none());
        page.values[at] = Some(value);
    }

    /// Every value, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten().flat_map(|page| page.values.iter().flatten()).chain(self.strays.values())
    }

    /// Keeps only those values that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(u32) -> bool) {
        for (first, slot) in (0..).step_by(PAGE).zip(&mut self.pages) {
            let Some(page) = slot else { continue };
            for (id, value) in (first..).zip(&mut page.values) {
                if value.is_some() && !wanted(id) {
                    *value = None;
                    page.used -= 1;
                }
            }
            if page.used == 0 {
                *slot = None;
            }
        }
        self.strays.retain(|&id, _| wanted(id));
        self.strays.shrink_to_fit();
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
        assert!(dense.pages.len() * PAGE <= 201_000);
        dense.retain(|id| id > 5);
        assert_eq!((dense.get(5), dense.get(u32::MAX)), (None, Some(&u32::MAX)));
    }

    #[test]
    fn what_is_not_wanted_any_more_takes_no_room() {
        let mut dense = Dense::default();
        // One long-lived value in front, and newcomers that go: as frames of processes do.
        for id in 0..1_000_000 {
            dense.insert(id, id);
            if id % 10_000 == 9_999 {
                dense.retain(|id| id == 7);
                assert!(dense.pages.iter().flatten().count() <= 1, "of {id} ids one is wanted");
            }
        }
        assert_eq!(dense.iter().collect::<Vec<_>>(), [&7]);
        dense.insert(8, 80);
        dense.insert(8, 81);
        dense.retain(|id| id != 8);
        assert_eq!((dense.get(7), dense.get(8)), (Some(&7), None));
        dense.retain(|_| false);
        assert!(dense.pages.iter().all(Option::is_none), "nothing is left");
    }
}
