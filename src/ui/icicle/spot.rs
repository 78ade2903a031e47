//! A place in a tree that outlives the tree: each tick makes a new one, with other indices.

use super::layout::path_to;
use crate::model::CallTree;

/// A frame by the ids from the root down to it, or the fold of its small children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    ids: Vec<u64>,
    /// The fold of small children, not the frame itself.
    pub small: bool,
}

/// Where a spot is in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There.
    Here(u32),
    /// Not seen in this tree; the number is the deepest of its callers that was.
    Below(u32),
}

impl Found {
    /// The frame, or the deepest caller that is there.
    pub fn nearest(self) -> u32 {
        match self {
            Found::Here(node) | Found::Below(node) => node,
        }
    }

    /// The frame, if it is there.
    pub fn here(self) -> Option<u32> {
        match self {
            Found::Here(node) => Some(node),
            Found::Below(_) => None,
        }
    }
}

impl Spot {
    /// The place of a node.
    pub fn of(tree: &CallTree, node: u32, small: bool) -> Self {
        let mut ids: Vec<u64> =
            path_to(tree, node).filter_map(|at| tree.nodes.get(at as usize)).map(|node| node.id).collect();
        ids.reverse();
        Spot { ids, small }
    }

    /// Looks it up. The root is always there, whatever its id.
    pub fn find(&self, tree: &CallTree) -> Found {
        let mut at = 0;
        for id in self.ids.iter().skip(1) {
            let children = tree.nodes.get(at as usize).map_or(&[][..], |node| &node.children);
            let child = children.iter().find(|&&child| tree.nodes.get(child as usize).is_some_and(|c| c.id == *id));
            match child {
                Some(&child) => at = child,
                None => return Found::Below(at),
            }
        }
        Found::Here(at)
    }

    /// Ids from the root down to it.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Frames above it.
    pub fn depth(&self) -> usize {
        self.ids.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::tree;
    use super::*;

    #[test]
    fn found_again_in_another_tree() {
        let first = tree(&[(0, "all", 0), (0, "main", 1), (1, "a", 2), (1, "b", 3)]);
        let spot = Spot::of(&first, 3, false);
        assert_eq!((spot.find(&first), spot.depth()), (Found::Here(3), 2));
        let second = tree(&[(0, "all", 0), (0, "other", 1), (0, "main", 1), (2, "b", 3), (3, "c", 3)]);
        assert_eq!(spot.find(&second), Found::Here(3));
        let third = tree(&[(0, "all", 0), (0, "main", 1), (1, "a", 2)]);
        assert_eq!(spot.find(&third), Found::Below(1));
        assert_eq!(spot.find(&CallTree::default()), Found::Below(0));
        assert_eq!(Spot::default().find(&CallTree::default()), Found::Here(0));
    }
}
