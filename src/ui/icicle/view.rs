//! What an icicle remembers between ticks: query, zoom, cursor, search. All of it by identity, so that it holds still
//! while the tree below it is made anew each tick.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::layout::{Cell, Layout, What, layout};
use super::search::{Hits, Pattern};
use super::spot::{Found, Spot};
use crate::model::{CallTree, Merge, Model, TreeLens, TreeNode, TreeQuery, Window};
use crate::tick::{ProcessKey, Session};
use crate::ui::keys::Command;

/// Deeper rows than this are not drawn; the kernel's own limit of a stack is far below.
const MAX_ROWS: usize = 1024;
/// Callers that stay in sight above a frame that is zoomed into.
const CALLERS_IN_SIGHT: usize = 2;

/// An icicle of one process or of all.
#[derive(Default)]
pub struct Icicle {
    query: TreeQuery,
    tree: CallTree,
    made: Option<(u64, u64, TreeQuery)>,
    layout: Layout,
    size: (u16, u16),
    /// Frames zoomed into, the innermost last; none: the root.
    zooms: Vec<Spot>,
    cursor: Spot,
    seen: Option<Seen>,
    scroll: usize,
    search: Option<(Pattern, Hits)>,
    of_all: bool,
    kept: FxHashMap<Shape, (Vec<Spot>, Spot)>,
    off: Option<String>,
    ran_ns: u64,
}

/// Queries of one shape have the same ids: zoom and cursor survive a change of anything else.
type Shape = (TreeLens, Merge, bool);

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
    /// The last ten seconds of a process, or of the machine.
    pub fn new(process: Option<ProcessKey>) -> Self {
        let window = Window::Last(Duration::from_secs(10));
        Icicle { query: TreeQuery { process, window, ..TreeQuery::default() }, ..Icicle::default() }
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
        self.made = Some(wanted);
    }

    /// Exact on-CPU time of the process: there may be some without a sample.
    pub fn ran_ns(&self) -> u64 {
        self.ran_ns
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

    fn arrange(&mut self) {
        self.layout = match self.zoom().find(&self.tree) {
            Found::Here(zoom) => layout(&self.tree, zoom, self.size.0, MAX_ROWS),
            // What was zoomed into is gone: its callers, and nothing below.
            Found::Below(caller) => {
                let depth = Spot::of(&self.tree, caller, false).depth();
                layout(&self.tree, caller, self.size.0, depth + 1)
            }
        };
        self.remember();
        self.scroll = self.scroll.min(self.last_scroll());
    }

    /// Keeps how the frame under the cursor looks, while it is there.
    fn remember(&mut self) {
        let Some(node) = self.cursor.find(&self.tree).here() else { return };
        let Some((row, at)) = self.layout.find(node, self.cursor.small) else { return };
        if let Some(known) = self.tree.nodes.get(node as usize) {
            let node = TreeNode { children: Vec::new(), ..known.clone() };
            self.seen = Some(Seen { node, row, cell: self.layout.rows[row][at] });
        }
    }

    fn last_scroll(&self) -> usize {
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

    /// Does what a key asks; `false` if it means nothing here.
    pub fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Up => self.up(),
            Command::Down => self.down(),
            Command::Left => self.sideways(false),
            Command::Right => self.sideways(true),
            Command::PageUp => (0..self.size.1.max(1)).for_each(|_| self.up()),
            Command::PageDown => (0..self.size.1.max(1)).for_each(|_| self.down()),
            Command::Top => self.select_at(0, 0),
            Command::Bottom => (0..MAX_ROWS).for_each(|_| self.down()),
            Command::Enter => self.zoom_in(),
            Command::Unzoom => self.zoom_out(),
            Command::NextMatch => self.next_match(true),
            Command::PrevMatch => self.next_match(false),
            Command::PercentBasis => self.of_all = !self.of_all,
            _ => return self.change_query(command),
        }
        true
    }

    /// Another lens.
    pub fn set_lens(&mut self, lens: TreeLens) {
        let before = self.shape();
        self.query.lens = lens;
        self.reshape(before);
    }

    fn change_query(&mut self, command: Command) -> bool {
        let before = self.shape();
        match command {
            Command::Lens => self.query.lens = next_lens(self.query.lens),
            Command::Merge => self.query.merge = next_merge(self.query.merge),
            Command::Invert => self.query.inverted = !self.query.inverted,
            Command::Window => self.query.window = next_window(self.query.window),
            Command::Idle => self.query.hide_idle = !self.query.hide_idle,
            _ => return false,
        }
        self.reshape(before);
        true
    }

    fn shape(&self) -> Shape {
        (self.query.lens, self.query.merge, self.query.inverted)
    }

    /// In a tree of another shape ids mean other places: back to where we were in that shape, or to the top.
    fn reshape(&mut self, before: Shape) {
        if self.shape() == before {
            return;
        }
        let place = (std::mem::take(&mut self.zooms), std::mem::take(&mut self.cursor));
        self.kept.insert(before, place);
        (self.zooms, self.cursor) = self.kept.remove(&self.shape()).unwrap_or_default();
        self.seen = None;
        self.scroll = 0;
    }

    fn up(&mut self) {
        if let Some((row, cell)) = self.cursor_cell() {
            self.select_at(row.saturating_sub(1), cell.x);
        }
    }

    /// To the widest of the children; of equals, the first.
    fn down(&mut self) {
        let Some((row, above)) = self.cursor_cell() else { return self.select_at(0, 0) };
        let Some(cells) = self.layout.rows.get(row + 1) else { return };
        let below = cells.iter().filter(|cell| above.x <= cell.x && cell.end() <= above.end());
        if let Some(cell) = below.rev().max_by_key(|cell| cell.width).copied() {
            self.select(cell);
        }
    }

    fn sideways(&mut self, right: bool) {
        let Some((row, from)) = self.cursor_cell() else { return self.select_at(0, 0) };
        let Some(cells) = self.layout.rows.get(row) else { return self.select_at(row, from.x) };
        let next = match right {
            true => cells.iter().find(|cell| cell.x > from.x),
            false => cells.iter().rev().find(|cell| cell.x < from.x),
        };
        if let Some(&cell) = next {
            self.select(cell);
        }
    }

    /// To the cell at or left of `x` in a row, or the last row there is.
    fn select_at(&mut self, row: usize, x: u32) {
        let Some(last) = self.layout.rows.len().checked_sub(1) else { return };
        let cells = &self.layout.rows[row.min(last)];
        let cell = cells.iter().rev().find(|cell| cell.x <= x).or(cells.first());
        if let Some(&cell) = cell {
            self.select(cell);
        }
    }

    fn select(&mut self, cell: Cell) {
        self.cursor = Spot::of(&self.tree, cell.node(), matches!(cell.what, What::Small { .. }));
        self.seen = None;
        self.remember();
        self.follow();
    }

    /// Scrolls until the cursor is in sight.
    fn follow(&mut self) {
        let Some((row, _)) = self.cursor_cell() else { return };
        let rows = usize::from(self.size.1).max(1);
        self.scroll = self.scroll.clamp((row + 1).saturating_sub(rows), row);
    }

    /// Scrolls by rows, the cursor stays where it is.
    pub fn scroll_by(&mut self, rows: isize) {
        self.scroll = self.scroll.saturating_add_signed(rows).min(self.last_scroll());
    }

    /// A press at a character of the drawn rows: selects what is there. `true` if it was selected already.
    pub fn click(&mut self, row: u16, column: u16) -> bool {
        let Some(&cell) = self.layout.at(self.scroll + usize::from(row), column) else { return false };
        let small = matches!(cell.what, What::Small { .. });
        let again = self.cursor == Spot::of(&self.tree, cell.node(), small);
        if !again {
            self.select(cell);
        }
        again
    }

    /// The frames in the fold under the cursor, heaviest first; empty if there is no fold under it.
    pub fn folded(&self) -> Vec<u32> {
        let parent = self.cursor.find(&self.tree).here().filter(|_| self.cursor.small);
        let Some(node) = parent.and_then(|parent| self.tree.nodes.get(parent as usize)) else { return Vec::new() };
        let weight = |at: &u32| self.tree.nodes.get(*at as usize).map_or(0, |node| node.total_weight);
        let is_small = |at: &u32| weight(at) > 0 && !self.layout.shows(weight(at));
        let mut small: Vec<u32> = node.children.iter().copied().filter(is_small).collect();
        small.sort_by_key(|at| std::cmp::Reverse(weight(at)));
        small
    }

    /// Zooms into the frame under the cursor; the root is no zoom. A fold is none either: see [`Icicle::folded`].
    fn zoom_in(&mut self) {
        if self.cursor.small {
            return;
        }
        if let Some(node) = self.cursor.find(&self.tree).here() {
            self.zoom_into(node);
        }
    }

    /// Zooms into a frame.
    pub fn zoom_into(&mut self, node: u32) {
        if node == self.zoomed() && !self.zoom_is_gone() {
            return;
        }
        match node {
            0 => self.zooms.clear(),
            node => self.zooms.push(Spot::of(&self.tree, node, false)),
        }
        self.after_zoom(node);
    }

    /// Back to where we zoomed from, the cursor on the frame we leave.
    fn zoom_out(&mut self) {
        let Some(left) = self.zooms.pop() else { return };
        self.arrange();
        let node = left.find(&self.tree).nearest();
        self.after_zoom(node);
    }

    fn after_zoom(&mut self, node: u32) {
        self.find_hits();
        self.arrange();
        self.scroll = self.layout.zoom_depth.saturating_sub(CALLERS_IN_SIGHT).min(self.last_scroll());
        if let Some((row, at)) = self.layout.find(node, false) {
            self.select(self.layout.rows[row][at]);
        }
    }

    /// Looks for a text from now on; an empty one ends the search.
    pub fn set_search(&mut self, text: &str) {
        self.search = Pattern::new(text).map(|pattern| (pattern, Hits::default()));
        self.find_hits();
    }

    fn find_hits(&mut self) {
        let top = self.zoomed();
        if let Some((pattern, hits)) = &mut self.search {
            *hits = Hits::find(&self.tree, top, pattern);
        }
    }

    /// To the next frame that matches, in reading order, round the end.
    fn next_match(&mut self, forward: bool) {
        let Some((_, hits)) = &self.search else { return };
        let matches = |cell: &Cell| match cell.what {
            What::Frame(node) => hits.matched(node),
            What::Small { parent, .. } => self.small_children_match(parent, hits),
        };
        let rows = self.layout.rows.iter().enumerate();
        let found: Vec<(usize, Cell)> = rows
            .flat_map(|(row, cells)| cells.iter().filter(|cell| matches(cell)).map(move |cell| (row, *cell)))
            .collect();
        let here = self.cursor_cell().map_or((0, 0), |(row, cell)| (row, cell.x));
        let at = |(row, cell): &&(usize, Cell)| (*row, cell.x);
        let next = match forward {
            true => found.iter().find(|hit| at(hit) > here).or(found.first()),
            false => found.iter().rev().find(|hit| at(hit) < here).or(found.last()),
        };
        if let Some(&(_, cell)) = next {
            self.select(cell);
        }
    }

    /// Something that matches is hidden in the fold of this frame's small children.
    pub(super) fn small_children_match(&self, parent: u32, hits: &Hits) -> bool {
        let Some(node) = self.tree.nodes.get(parent as usize) else { return false };
        let weight = |child: u32| self.tree.nodes.get(child as usize).map_or(0, |node| node.total_weight);
        node.children.iter().any(|&child| hits.within(child) && !self.layout.shows(weight(child)))
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

fn next_lens(lens: TreeLens) -> TreeLens {
    match lens {
        TreeLens::OnCpu => TreeLens::Blocked,
        TreeLens::Blocked => TreeLens::All,
        TreeLens::All => TreeLens::OnCpu,
    }
}

fn next_merge(merge: Merge) -> Merge {
    match merge {
        Merge::Function => Merge::Module,
        Merge::Module => Merge::Address,
        Merge::Address => Merge::Function,
    }
}

/// This tick, the last ten seconds, since the start, and round.
pub fn next_window(window: Window) -> Window {
    match window {
        Window::Tick => Window::Last(Duration::from_secs(10)),
        Window::Last(_) => Window::All,
        Window::Ticks { .. } | Window::All => Window::Tick,
    }
}
