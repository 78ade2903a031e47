//! Where each frame of an icicle lies: a pure function from a tree, a zoom and a width to rows of cells.
//!
//! Costs what is visible: a frame narrower than one character is never descended into, however much hangs below it.

use crate::model::{CallTree, TreeNode};

/// Parts of a character cell: horizontal positions are counted in eighths of one.
pub const EIGHTHS: u32 = 8;

/// What a cell stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A frame: index into `CallTree::nodes`.
    Frame(u32),
    /// All children of a frame that are too narrow to be drawn one by one.
    Small {
        /// Index of the frame they were called from.
        parent: u32,
        /// How many.
        frames: u32,
        /// Their weight together.
        weight: u64,
    },
}

/// One rectangle, a row high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What it stands for.
    pub what: What,
    /// Left edge, eighths of a character.
    pub x: u32,
    /// Width, eighths of a character; never less than one character, unless all that there is is narrower.
    pub width: u32,
}

impl Cell {
    /// Right edge, eighths of a character; not part of it.
    pub fn end(&self) -> u32 {
        self.x + self.width
    }

    /// The node whose place this is: the frame itself, or the one whose small children are folded here.
    pub fn node(&self) -> u32 {
        match self.what {
            What::Frame(node) => node,
            What::Small { parent, .. } => parent,
        }
    }
}

/// Rows of cells: row 0 is the root, row *n* holds frames of depth *n*. Within a row cells rise in `x` and do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Cells by depth.
    pub rows: Vec<Vec<Cell>>,
    /// Depth of the frame that fills the width.
    pub zoom_depth: usize,
    scale: Scale,
}

impl Layout {
    /// A frame of this weight is drawn, rather than folded, if its caller is drawn and within the zoom.
    pub fn shows(&self, weight: u64) -> bool {
        weight > 0 && self.scale.shows(weight)
    }

    /// The cell of a row under column `column` (characters from the left edge).
    pub fn at(&self, row: usize, column: u16) -> Option<&Cell> {
        let (left, right) = (u32::from(column) * EIGHTHS, u32::from(column) * EIGHTHS + EIGHTHS);
        let cells = self.rows.get(row)?;
        // A character belongs to the cell that covers its middle, else to any that touches it.
        let middle = left + EIGHTHS / 2;
        let covers = |cell: &&Cell| cell.x <= middle && middle < cell.end();
        let touches = |cell: &&Cell| cell.x < right && left < cell.end();
        cells.iter().find(covers).or_else(|| cells.iter().find(touches))
    }

    /// Row and position within it of the cell that stands for `what` (of folded cells, only the parent counts).
    pub fn find(&self, node: u32, small: bool) -> Option<(usize, usize)> {
        let is = |cell: &Cell| match cell.what {
            What::Frame(at) => !small && at == node,
            What::Small { parent, .. } => small && parent == node,
        };
        self.rows.iter().enumerate().find_map(|(row, cells)| Some((row, cells.iter().position(is)?)))
    }
}

/// Lays out what hangs below `zoom` on `columns` characters, its callers at full width above it, down to `max_rows`.
///
/// Siblings keep the order of `TreeNode::children`. Edges are the floor of exact positions, so children lie within their
/// parents and a frame worth a character is at least a character wide.
pub fn layout(tree: &CallTree, zoom: u32, columns: u16, max_rows: usize) -> Layout {
    let Some(top) = tree.nodes.get(zoom as usize) else { return Layout::default() };
    if columns == 0 || max_rows == 0 {
        return Layout::default();
    }
    let scale = Scale { units: u32::from(columns) * EIGHTHS, total: top.total_weight };
    let mut rows = callers(tree, zoom, scale.units);
    let zoom_depth = rows.len() - 1;
    let mut frames = vec![Placed { node: zoom, start: 0 }];
    while !frames.is_empty() && rows.len() < max_rows {
        let mut row = Row::default();
        frames.iter().for_each(|frame| row.children_of(tree, *frame, scale));
        if !row.cells.is_empty() {
            rows.push(row.cells);
        }
        frames = row.frames;
    }
    rows.truncate(max_rows);
    Layout { rows, zoom_depth, scale }
}

/// From the root to `zoom`, each at full width.
fn callers(tree: &CallTree, zoom: u32, width: u32) -> Vec<Vec<Cell>> {
    let mut rows: Vec<_> =
        path_to(tree, zoom).map(|node| vec![Cell { what: What::Frame(node), x: 0, width }]).collect();
    rows.reverse();
    rows
}

/// A node and its callers, itself first, the root last. Ends as well if parents did not precede children.
pub fn path_to(tree: &CallTree, node: u32) -> impl Iterator<Item = u32> + '_ {
    std::iter::successors(Some(node), |&at| {
        let parent = tree.nodes.get(at as usize)?.parent;
        (parent < at).then_some(parent)
    })
}

/// How weight becomes width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scale {
    units: u32,
    total: u64,
}

impl Scale {
    /// Floor of the exact position, eighths.
    fn position(self, weight: u64) -> u32 {
        if self.total == 0 {
            return 0;
        }
        let exact = u128::from(weight) * u128::from(self.units) / u128::from(self.total);
        (exact as u32).min(self.units)
    }

    /// Worth a character.
    fn shows(self, weight: u64) -> bool {
        self.position(weight) >= EIGHTHS.min(self.units)
    }
}

/// A frame that is laid out: weight to the left of it within the zoom.
#[derive(Clone, Copy)]
struct Placed {
    node: u32,
    start: u64,
}

/// A row in the making, and the frames in it whose children come next.
#[derive(Default)]
struct Row {
    cells: Vec<Cell>,
    frames: Vec<Placed>,
}

impl Row {
    fn children_of(&mut self, tree: &CallTree, parent: Placed, scale: Scale) {
        let Some(node) = tree.nodes.get(parent.node as usize) else { return };
        let mut start = parent.start;
        let (mut frames, mut weight) = (0, 0u64);
        for (at, child) in children(tree, node) {
            if scale.shows(child.total_weight) {
                self.push(What::Frame(at), start, child.total_weight, scale);
                self.frames.push(Placed { node: at, start });
                start += child.total_weight;
            } else {
                frames += 1;
                weight += child.total_weight;
            }
        }
        if scale.shows(weight) {
            self.push(What::Small { parent: parent.node, frames, weight }, start, weight, scale);
        }
    }

    fn push(&mut self, what: What, start: u64, weight: u64, scale: Scale) {
        let x = scale.position(start);
        self.cells.push(Cell { what, x, width: scale.position(start.saturating_add(weight)) - x });
    }
}

/// The children of a node that weigh anything.
fn children<'a>(tree: &'a CallTree, node: &'a TreeNode) -> impl Iterator<Item = (u32, &'a TreeNode)> {
    let known = |&at: &u32| Some((at, tree.nodes.get(at as usize)?));
    node.children.iter().filter_map(known).filter(|(_, child)| child.total_weight > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::Code;
    use crate::tick::FrameKind;

    /// A tree from (parent, name, self weight), the root first; totals are summed.
    pub fn tree(nodes: &[(u32, &str, u64)]) -> CallTree {
        let mut tree = CallTree::default();
        for (at, &(parent, name, weight)) in nodes.iter().enumerate() {
            let depth = if at == 0 { 0 } else { tree.nodes[parent as usize].depth + 1 };
            let id = tree.nodes.get(parent as usize).map_or(1, |node: &TreeNode| path_id(node.id, name));
            tree.nodes.push(TreeNode {
                name: name.into(),
                module: "app".into(),
                kind: FrameKind::User,
                state: None,
                parent,
                depth,
                code: Code::None,
                guessed: false,
                self_weight: weight,
                total_weight: weight,
                count: weight,
                children: Vec::new(),
                id,
            });
            if at > 0 {
                tree.nodes[parent as usize].children.push(at as u32);
            }
        }
        for at in (1..tree.nodes.len()).rev() {
            let weight = tree.nodes[at].total_weight;
            let parent = tree.nodes[at].parent as usize;
            tree.nodes[parent].total_weight += weight;
        }
        tree.complete_weight = tree.nodes.first().map_or(0, |root| root.total_weight);
        tree
    }

    fn path_id(parent: u64, name: &str) -> u64 {
        name.bytes().fold(parent ^ 0x9e37_79b9, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(5)
        })
    }

    /// A repeatable stream of numbers.
    pub struct Seeded(pub u64);

    impl Seeded {
        pub fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound.max(1)
        }
    }

    /// A random tree of `size` nodes.
    pub fn random(seed: u64, size: usize) -> CallTree {
        let mut seeded = Seeded(seed);
        let names: Vec<String> = (0..size).map(|at| format!("f{at}")).collect();
        let mut nodes = vec![(0, "all", 0)];
        for at in 1..size as u64 {
            // Near ancestors are likelier: deep and wide parts both occur.
            let furthest = 1 + seeded.below(at);
            let back = 1 + seeded.below(furthest);
            let weight = if seeded.below(3) == 0 { 0 } else { seeded.below(10_000) };
            nodes.push(((at - back.min(at)) as u32, &*names[at as usize], weight));
        }
        tree(&nodes)
    }

    fn widths(cells: &[Cell]) -> Vec<(u32, u32)> {
        cells.iter().map(|cell| (cell.x, cell.width)).collect()
    }

    #[test]
    fn shares_become_widths_in_order_of_first_sight() {
        let tree = tree(&[(0, "all", 0), (0, "small first", 25), (0, "large second", 75)]);
        let layout = layout(&tree, 0, 10, 9);
        assert_eq!(layout.rows.len(), 2);
        assert_eq!(widths(&layout.rows[0]), [(0, 80)]);
        assert_eq!(widths(&layout.rows[1]), [(0, 20), (20, 60)]);
    }

    #[test]
    fn narrow_siblings_fold_into_one() {
        let mut nodes = vec![(0, "all", 0), (0, "a", 50)];
        nodes.extend((0..40).map(|_| (0, "tiny", 1)));
        nodes.push((0, "b", 10));
        let layout = layout(&tree(&nodes), 0, 10, 9);
        let row = &layout.rows[1];
        assert_eq!(row.len(), 3);
        assert_eq!((row[0].what, row[1].what), (What::Frame(1), What::Frame(42)));
        assert_eq!(row[2].what, What::Small { parent: 0, frames: 40, weight: 40 });
        assert_eq!(widths(row), [(0, 40), (40, 8), (48, 32)]);
    }

    #[test]
    fn zoom_puts_callers_at_full_width_above() {
        let tree = tree(&[(0, "all", 0), (0, "main", 10), (1, "a", 40), (1, "b", 50), (3, "c", 25)]);
        let layout = layout(&tree, 3, 10, 9);
        assert_eq!(layout.zoom_depth, 2);
        let names: Vec<_> = layout.rows.iter().map(|row| &*tree.nodes[row[0].node() as usize].name).collect();
        assert_eq!(names, ["all", "main", "b", "c"]);
        assert_eq!(widths(&layout.rows[2]), [(0, 80)]);
        assert_eq!(widths(&layout.rows[3]), [(0, 26)]);
    }

    #[test]
    fn nothing_is_laid_out_of_nothing() {
        assert_eq!(layout(&CallTree::default(), 0, 80, 24), Layout::default());
        let empty = tree(&[(0, "all", 0)]);
        assert_eq!(layout(&empty, 0, 0, 24), Layout::default());
        assert_eq!(layout(&empty, 7, 80, 24), Layout::default());
        assert_eq!(layout(&empty, 0, 80, 24).rows.len(), 1);
    }

    /// What holds of any layout: order, no overlap, children within parents, no frame under a character.
    fn check(tree: &CallTree, layout: &Layout, columns: u16) {
        let units = u32::from(columns) * EIGHTHS;
        for (depth, row) in layout.rows.iter().enumerate() {
            assert!(row.iter().all(|cell| cell.end() <= units && cell.width >= EIGHTHS.min(units)), "{row:?}");
            assert!(row.windows(2).all(|pair| pair[0].end() <= pair[1].x), "overlap in row {depth}: {row:?}");
            for cell in row.iter().filter(|_| depth > layout.zoom_depth) {
                let parent = match cell.what {
                    What::Frame(node) => tree.nodes[node as usize].parent,
                    What::Small { parent, .. } => parent,
                };
                let above = layout.rows[depth - 1].iter().find(|cell| cell.what == What::Frame(parent));
                let above = above.expect("a drawn frame has a drawn parent");
                assert!(above.x <= cell.x && cell.end() <= above.end(), "{cell:?} outside {above:?}");
            }
        }
    }

    #[test]
    fn random_trees_keep_the_rules() {
        for seed in 0..200 {
            let tree = random(seed, 2 + (seed as usize * 13) % 600);
            for columns in [1, 2, 7, 80, 200] {
                check(&tree, &layout(&tree, 0, columns, 64), columns);
                let zoom = Seeded(seed).below(tree.nodes.len() as u64) as u32;
                check(&tree, &layout(&tree, zoom, columns, 64), columns);
            }
        }
    }

    #[test]
    fn every_child_is_drawn_or_folded() {
        for seed in 0..50 {
            let tree = random(seed, 300);
            let layout = layout(&tree, 0, 120, 64);
            for (depth, row) in layout.rows.iter().enumerate().take(layout.rows.len() - 1) {
                for cell in row.iter().filter(|cell| matches!(cell.what, What::Frame(_))) {
                    let below: u64 = layout.rows[depth + 1]
                        .iter()
                        .map(|cell| match cell.what {
                            What::Frame(node) => (tree.nodes[node as usize].parent, &tree.nodes[node as usize]),
                            What::Small { parent, .. } => (parent, &tree.nodes[parent as usize]),
                        })
                        .zip(&layout.rows[depth + 1])
                        .filter(|((parent, _), _)| *parent == cell.node())
                        .map(|((_, node), cell)| match cell.what {
                            What::Frame(_) => node.total_weight,
                            What::Small { weight, .. } => weight,
                        })
                        .sum();
                    let node = &tree.nodes[cell.node() as usize];
                    let expected = node.total_weight - node.self_weight;
                    let character = tree.nodes[0].total_weight / 120 + 1;
                    assert!(below <= expected && expected - below <= character, "{below} of {expected}");
                }
            }
        }
    }

    #[test]
    fn a_column_finds_its_frame() {
        let tree = tree(&[(0, "all", 0), (0, "a", 50), (0, "b", 50)]);
        let layout = layout(&tree, 0, 10, 9);
        assert_eq!(layout.at(1, 4).map(Cell::node), Some(1));
        assert_eq!(layout.at(1, 5).map(Cell::node), Some(2));
        assert_eq!(layout.at(1, 10), None);
        assert_eq!(layout.at(2, 0), None);
        assert_eq!(layout.find(2, false), Some((1, 1)));
        assert_eq!(layout.find(2, true), None);
    }
}
