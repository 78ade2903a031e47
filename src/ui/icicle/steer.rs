//! What keys and clicks do to an icicle: cursor, zoom, query, search.

use std::time::Duration;

use super::layout::{Cell, What};
use super::search::{Hits, Pattern};
use super::spot::Spot;
use super::view::{Icicle, MAX_ROWS, Shape};
use crate::model::{Merge, TreeLens, Window};
use crate::ui::keys::Command;

/// Callers that stay in sight above a frame that is zoomed into.
const CALLERS_IN_SIGHT: usize = 2;

impl Icicle {
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
            Command::LongNames => self.short = !self.short,
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

    /// With idle waits, or without.
    pub fn show_idle(&mut self, idle: bool) {
        self.query.hide_idle = !idle;
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
        self.scroll_to(self.scroll.clamp((row + 1).saturating_sub(rows), row));
    }

    /// Scrolls by rows, the cursor stays where it is.
    pub fn scroll_by(&mut self, rows: isize) {
        self.scroll_to(self.scroll.saturating_add_signed(rows).min(self.last_scroll()));
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

    pub(super) fn find_hits(&mut self) {
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

fn next_lens(lens: TreeLens) -> TreeLens {
    match lens {
        TreeLens::OnCpu => TreeLens::Blocked,
        TreeLens::Blocked => TreeLens::All,
        TreeLens::All => TreeLens::OnCpu,
    }
}

fn next_merge(merge: Merge) -> Merge {
    match merge {
        Merge::Function => Merge::Line,
        Merge::Line => Merge::Module,
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
