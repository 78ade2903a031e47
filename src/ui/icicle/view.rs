//! What an icicle remembers between ticks: query, zoom, cursor, search. All of it by identity, so that it holds still
//! while the tree below it is made anew each tick.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::layout::{Cell, Layout, What, layout};
use super::search::{Hits, Pattern};
use super::spot::{Found, Spot};
use crate::model::{Behind, CallTree, Merge, Model, TreeLens, TreeNode, TreeQuery, Window};
use crate::tick::{Frame, FrameId, ProcessKey, Session};

/// Deeper rows than this are not drawn; the kernel's own limit of a stack is far below.
pub(super) const MAX_ROWS: usize = 1024;

/// An icicle of one process or of all.
#[derive(Default)]
pub struct Icicle {
    pub(super) query: TreeQuery,
    pub(super) tree: CallTree,
    made: Option<(u64, u64, TreeQuery)>,
    pub(super) layout: Layout,
    pub(super) size: (u16, u16),
    /// Frames zoomed into, the innermost last; none: the root.
    pub(super) zooms: Vec<Spot>,
    pub(super) cursor: Spot,
    pub(super) seen: Option<Seen>,
    pub(super) scroll: usize,
    pub(super) search: Option<(Pattern, Hits)>,
    pub(super) of_all: bool,
    pub(super) kept: FxHashMap<Shape, (Vec<Spot>, Spot)>,
    /// Names without arguments.
    pub(super) short: bool,
    /// What stands behind the frame under the cursor, and when that was found out.
    behind: Behind,
    looked: Option<(u64, u64, TreeQuery, Spot)>,
    /// What is on the screen has changed since it was asked for details.
    is_new: bool,
    off: Option<String>,
    ran_ns: u64,
    hidden_ns: u64,
}

/// Queries of one shape have the same ids: zoom and cursor survive a change of anything else.
pub(super) type Shape = (TreeLens, Merge, bool);

/// How the frame under the cursor looked when it was last there.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The frame as it was.
    pub node: TreeNode,
    /// Its row.
    pub row: usize,
    /// Its cell.
    pub cell: Cell,
}

/// What is under the cursor.
#[derive(Clone, Debug)]
pub enum Under<'a> {
    /// A frame that the tree has; it may be too narrow to be drawn.
    Frame(u32, &'a TreeNode),
    /// The fold of small children of a frame: how many, and their weight.
    Small(&'a TreeNode, u32, u64),
    /// A frame that is not in the tree any more.
    Gone(&'a Seen),
    /// Nothing: the tree is empty.
    Nothing,
}

impl Icicle {
    /// The last ten seconds of a process, or of the machine, without idle waits: they would be most of it.
    pub fn new(process: Option<ProcessKey>) -> Self {
        let window = Window::Last(Duration::from_secs(10));
        Icicle { query: TreeQuery { process, window, hide_idle: true, ..TreeQuery::default() }, ..Icicle::default() }
    }

    /// What is asked of the model: also what an export should write.
    pub fn query(&self) -> &TreeQuery {
        &self.query
    }

    /// The tree that is drawn.
    pub fn tree(&self) -> &CallTree {
        &self.tree
    }

    /// Rows of cells, for the width given to [`Icicle::resize`].
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Width it is laid out for.
    pub fn columns(&self) -> u16 {
        self.size.0
    }

    /// Share of a weight: of what is zoomed into, or of all, as chosen.
    pub fn share(&self, weight: u64) -> f64 {
        self.share_of(weight, if self.of_all { 0 } else { self.zoomed() })
    }

    /// Share of all.
    pub fn share_of_all(&self, weight: u64) -> f64 {
        self.share_of(weight, 0)
    }

    /// The share of the basis that is not chosen.
    pub fn other_share(&self, weight: u64) -> f64 {
        self.share_of(weight, if self.of_all { self.zoomed() } else { 0 })
    }

    /// What is zoomed into, as a share of all.
    pub fn zoom_share(&self) -> f64 {
        if self.zoom_is_gone() {
            return 0.0;
        }
        let weight = self.tree.nodes.get(self.zoomed() as usize).map_or(0, |node| node.total_weight);
        self.share_of(weight, 0)
    }

    fn share_of(&self, weight: u64, node: u32) -> f64 {
        match self.tree.nodes.get(node as usize) {
            Some(node) if node.total_weight > 0 => weight as f64 / node.total_weight as f64,
            _ => 0.0,
        }
    }

    /// Name of the frame under the cursor, as it was last there.
    pub fn seen_name(&self) -> Option<&str> {
        self.seen.as_ref().map(|seen| &*seen.node.name)
    }

    /// First row that is drawn.
    pub fn scroll(&self) -> usize {
        self.scroll
    }

    /// Percentages are of all, not of what is zoomed into.
    pub fn of_all(&self) -> bool {
        self.of_all
    }

    /// What is looked for, and what was found.
    pub fn search(&self) -> Option<&(Pattern, Hits)> {
        self.search.as_ref()
    }

    /// Makes the tree anew if the model has news or the query changed.
    pub fn refresh(&mut self, model: &Model) {
        let wanted = (model.ticks(), model.names_version(), self.query);
        if self.made == Some(wanted) {
            return;
        }
        self.off = why_off(model.session(), self.query.lens);
        self.ran_ns = self.query.process.map_or(0, |key| model.totals(key, self.query.window).ns.on_cpu());
        self.show(model.tree(&self.query));
        self.hidden_ns = self.whole_ns(model).saturating_sub(self.tree.total());
        self.made = Some(wanted);
    }

    /// Exact time that a tree with idle waits in it has; 0 where it has none.
    fn whole_ns(&self, model: &Model) -> u64 {
        let ns = match (self.query.hide_idle, self.query.process) {
            (false, _) => return 0,
            (true, Some(key)) => model.totals(key, self.query.window).ns,
            (true, None) => model.machine_totals(self.query.window).ns,
        };
        match self.query.lens {
            TreeLens::OnCpu => 0,
            TreeLens::Blocked => ns.blocked(),
            TreeLens::All => ns.total(),
        }
    }

    /// Time of the idle waits that are left out.
    pub fn hidden_ns(&self) -> u64 {
        self.hidden_ns
    }

    /// Exact on-CPU time of the process: there may be some without a sample.
    pub fn ran_ns(&self) -> u64 {
        self.ran_ns
    }

    /// Finds out what stands behind the frame under the cursor, if that may have changed.
    pub fn look_behind(&mut self, model: &Model) {
        let wanted = (model.ticks(), model.names_version(), self.query, self.cursor.clone());
        if self.looked.as_ref() != Some(&wanted) {
            self.behind = model.behind(&self.query, self.cursor.ids());
            self.looked = Some(wanted);
        }
    }

    /// What stands behind the frame under the cursor.
    pub fn behind(&self) -> &Behind {
        &self.behind
    }

    /// Frames on the screen of which no details are known; empty if the screen is the one that was last asked for.
    pub fn plain_frames(&mut self, model: &Model) -> Vec<(FrameId, Frame)> {
        if !std::mem::take(&mut self.is_new) {
            return Vec::new();
        }
        let rows = self.layout.rows.iter().skip(self.scroll).take(self.size.1.into());
        let cells = rows.flatten().filter(|cell| matches!(cell.what, What::Frame(_)));
        let nodes = cells.filter_map(|cell| self.tree.nodes.get(cell.node() as usize));
        model.plain_frames(nodes.map(|node| node.code))
    }

    /// Other rows are on the screen.
    pub(super) fn scroll_to(&mut self, row: usize) {
        self.is_new |= self.scroll != row;
        self.scroll = row;
    }

    /// Names are drawn without arguments.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Why there is nothing of this lens on this machine, if it is off.
    pub fn off(&self) -> Option<&str> {
        self.off.as_deref()
    }

    /// Draws this tree from now on.
    pub fn show(&mut self, tree: CallTree) {
        self.tree = tree;
        self.find_hits();
        self.arrange();
    }

    /// Lays out on that many columns and rows.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        if self.size != (columns, rows) {
            self.size = (columns, rows);
            self.arrange();
        }
    }

    pub(super) fn arrange(&mut self) {
        self.layout = match self.zoom().find(&self.tree) {
            Found::Here(zoom) => layout(&self.tree, zoom, self.size.0, MAX_ROWS),
            // What was zoomed into is gone: its callers, and nothing below.
            Found::Below(caller) => {
                let depth = Spot::of(&self.tree, caller, false).depth();
                layout(&self.tree, caller, self.size.0, depth + 1)
            }
        };
        self.remember();
        self.is_new = true;
        self.scroll = self.scroll.min(self.last_scroll());
    }

    /// Keeps how the frame under the cursor looks, while it is there.
    pub(super) fn remember(&mut self) {
        let Some(node) = self.cursor.find(&self.tree).here() else { return };
        let Some((row, at)) = self.layout.find(node, self.cursor.small) else { return };
        if let Some(known) = self.tree.nodes.get(node as usize) {
            let node = TreeNode { children: Vec::new(), ..known.clone() };
            self.seen = Some(Seen { node, row, cell: self.layout.rows[row][at] });
        }
    }

    pub(super) fn last_scroll(&self) -> usize {
        self.layout.rows.len().saturating_sub(usize::from(self.size.1))
    }

    fn zoom(&self) -> Spot {
        self.zooms.last().cloned().unwrap_or_default()
    }

    /// The frame that fills the width, or its deepest caller that is still there.
    pub fn zoomed(&self) -> u32 {
        self.zoom().find(&self.tree).nearest()
    }

    /// A frame other than the root is zoomed into.
    pub fn is_zoomed(&self) -> bool {
        !self.zooms.is_empty()
    }

    /// What is zoomed into is not in the tree any more.
    pub fn zoom_is_gone(&self) -> bool {
        self.zoom().find(&self.tree).here().is_none()
    }

    /// What is under the cursor.
    pub fn under(&self) -> Under<'_> {
        let found = self.cursor.find(&self.tree);
        let node = found.here().and_then(|at| Some((at, self.tree.nodes.get(at as usize)?)));
        match (node, self.drawn()) {
            (Some((_, node)), Some(Cell { what: What::Small { frames, weight, .. }, .. })) => {
                Under::Small(node, *frames, *weight)
            }
            (Some((at, node)), _) if !self.cursor.small => Under::Frame(at, node),
            _ => self.seen.as_ref().map_or(Under::Nothing, Under::Gone),
        }
    }

    /// The cell under the cursor, if it is drawn.
    fn drawn(&self) -> Option<&Cell> {
        let (row, at) = self.place()?;
        self.layout.rows.get(row)?.get(at)
    }

    /// Row and position of the cell under the cursor, if it is drawn.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.layout.find(self.cursor.find(&self.tree).here()?, self.cursor.small)
    }

    /// Row and cell where the cursor stands, drawn or not: what is gone keeps its place.
    pub fn cursor_cell(&self) -> Option<(usize, Cell)> {
        match self.place() {
            Some((row, at)) => Some((row, self.layout.rows[row][at])),
            None => self.seen.as_ref().map(|seen| (seen.row, seen.cell)),
        }
    }
}

/// Why the stacks of a lens are not taken here.
fn why_off(session: &Session, lens: TreeLens) -> Option<String> {
    let needs = match lens {
        TreeLens::OnCpu => "oncpu",
        TreeLens::Blocked | TreeLens::All => "stacks",
    };
    session.lenses.iter().find(|status| status.name == needs)?.off.clone()
}
