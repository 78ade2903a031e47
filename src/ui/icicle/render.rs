//! Draws an icicle: a header, rows of frames, and what is under the cursor.
//!
//! With colours a frame is a block whose edges lie on eighths of a cell; neighbours of one colour take another tint of it.
//! Without, or with ASCII only, a frame is its name after a `│`.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::layout::{Cell, EIGHTHS, Layout, What, layout};
use super::view::Icicle;
use super::{explain, label};
use crate::model::{TreeLens, TreeNode};
use crate::ui::theme::{Depth, Theme};
use crate::ui::{draw, format};

/// Header, rows of frames, lines of explanation; any of them may have no height.
pub fn parts(area: Rect) -> (Rect, Rect, Rect) {
    let explained = match area.height {
        0..=3 => 0,
        4..=8 => 1,
        _ => 2,
    };
    let head = u16::from(area.height > 1);
    let rows = Rect { y: area.y + head, height: area.height - head - explained, ..area };
    (Rect { height: head, ..area }, rows, Rect { y: rows.bottom(), height: explained, ..area })
}

/// Draws it into `area`.
pub fn draw(icicle: &Icicle, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(*buf.area());
    if area.is_empty() {
        return;
    }
    let (head, rows, below) = parts(area);
    if !head.is_empty() {
        explain::header(icicle, theme, head, buf);
    }
    if icicle.tree().nodes.first().is_none_or(|root| root.total_weight == 0) {
        explain::empty(icicle, theme, rows, buf);
    } else {
        if !rows.is_empty() {
            frames(icicle, theme, rows, buf);
        }
        if !below.is_empty() {
            explain::under(icicle, theme, below, buf);
        }
    }
}

fn frames(icicle: &Icicle, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let fresh;
    let cells = match icicle.columns() == area.width {
        true => icicle.layout(),
        false => {
            fresh = layout(icicle.tree(), icicle.zoomed(), area.width, icicle.scroll() + usize::from(area.height));
            &fresh
        }
    };
    let cursor = icicle.place().map(|(row, at)| (row, icicle.layout().rows[row][at]));
    let painter = Painter { icicle, theme, layout: cells, area, cursor };
    for (y, row) in (icicle.scroll()..cells.rows.len()).take(area.height.into()).enumerate() {
        painter.row(row, area.y + y as u16, buf);
    }
    painter.gone(buf);
    painter.more_below(buf);
}

struct Painter<'a> {
    icicle: &'a Icicle,
    theme: &'a Theme,
    layout: &'a Layout,
    area: Rect,
    /// Row and cell under the cursor, if they are drawn.
    cursor: Option<(usize, Cell)>,
}

/// Columns of the screen that a cell fills wholly.
struct Columns {
    start: u16,
    end: u16,
}

impl Painter<'_> {
    fn row(&self, row: usize, y: u16, buf: &mut Buffer) {
        let cells = &self.layout.rows[row];
        let mut left: Option<(u32, Style)> = None;
        for cell in cells {
            let style = self.style(row, cell, left.map(|(_, style)| style));
            if self.is_flat() || row < self.layout.zoom_depth {
                self.flat(row, cell, style, y, buf);
            } else {
                let joined = left.filter(|(end, _)| *end == cell.x).map(|(_, style)| style);
                self.block(row, cell, style, joined, y, buf);
            }
            left = Some((cell.end(), style));
        }
    }

    /// No blocks of colour: there are no colours, or no glyphs for their edges.
    fn is_flat(&self) -> bool {
        self.theme.depth == Depth::None || self.theme.ascii
    }

    /// How a frame looks; another tint than its left neighbour's.
    fn style(&self, row: usize, cell: &Cell, left: Option<Style>) -> Style {
        let Some(node) = self.icicle.tree().nodes.get(cell.node() as usize) else { return Style::new() };
        if row < self.layout.zoom_depth {
            return self.theme.dim();
        }
        let What::Frame(_) = cell.what else { return self.fold_style() };
        // By module: calls within one keep their tint from row to row, calls into another show.
        let tint = node.module.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % TINTS;
        let plain = self.fill(node);
        let style = tinted(plain, tint);
        if left.is_some_and(|left| left.bg == style.bg) { tinted(plain, tint + 1) } else { style }
    }

    fn fill(&self, node: &TreeNode) -> Style {
        match node.state {
            Some(state) if self.icicle.query().lens != TreeLens::OnCpu => self.theme.state_fill(state),
            _ => self.theme.kind_fill(node.kind),
        }
    }

    fn fold_style(&self) -> Style {
        let dim = self.theme.border();
        Style { bg: dim.fg, fg: dim.fg.map(|_| Color::Reset), ..Style::new() }
    }

    /// Marks of cursor and search over the look of a frame.
    fn marked(&self, cell: &Cell, style: Style, is_cursor: bool) -> Style {
        let hit = self.icicle.search().is_some_and(|(_, hits)| match cell.what {
            What::Frame(node) => hits.matched(node),
            What::Small { parent, .. } => self.icicle.small_children_match(parent, hits),
        });
        let style = if hit { self.hit(style) } else { style };
        if is_cursor { self.under_cursor(style) } else { style }
    }

    fn hit(&self, style: Style) -> Style {
        let found = self.theme.match_();
        match found.fg {
            Some(color) if !self.is_flat() => style.bg(color).fg(Color::Black).add_modifier(found.add_modifier),
            _ => style.patch(found),
        }
    }

    fn under_cursor(&self, style: Style) -> Style {
        match self.theme.depth {
            Depth::True | Depth::Ansi256 if !self.theme.ascii => {
                let ink = Style { fg: style.bg.or(style.fg), bg: None, ..style };
                ink.patch(self.theme.selected()).add_modifier(Modifier::BOLD)
            }
            _ => style.add_modifier(Modifier::REVERSED | Modifier::BOLD),
        }
    }

    fn is_cursor(&self, row: usize, cell: &Cell) -> bool {
        self.cursor.is_some_and(|(at, under)| at == row && under.what == cell.what)
    }

    /// A block with edges on eighths. `joined`: the look of the frame that ends where this one begins.
    fn block(&self, row: usize, cell: &Cell, style: Style, joined: Option<Style>, y: u16, buf: &mut Buffer) {
        let marked = self.marked(cell, style, self.is_cursor(row, cell));
        let (lead, trail) = (cell.x % EIGHTHS, cell.end() % EIGHTHS);
        let columns = self.columns(cell.x.div_ceil(EIGHTHS), cell.end() / EIGHTHS);
        let ground = Style::new().fg(Color::Reset).bg(Color::Reset);
        if lead > 0 && columns.start > self.area.x {
            // Left of the edge the neighbour (or nothing), right of it this frame.
            let look = match joined {
                Some(left) => ground.fg(left.bg.unwrap_or(Color::Reset)).bg(style.bg.unwrap_or(Color::Reset)),
                None => ground.fg(style.bg.unwrap_or(Color::Reset)).add_modifier(Modifier::REVERSED),
            };
            self.edge(columns.start - 1, y, lead, look, buf);
        }
        self.text(row, cell, &columns, 0, marked, y, buf);
        if trail > 0 && columns.end < self.area.right() {
            self.edge(columns.end, y, trail, ground.fg(style.bg.unwrap_or(Color::Reset)), buf);
        }
        if self.theme.depth == Depth::Ansi16 && joined.is_some_and(|left| left.bg == style.bg) {
            put_bar(buf, &columns, y, marked);
        }
    }

    fn edge(&self, x: u16, y: u16, eighths: u32, style: Style, buf: &mut Buffer) {
        if let Some(cell) = buf.cell_mut((x, y)) {
            cell.reset();
            cell.set_symbol(self.theme.eighth(eighths as usize)).set_style(style);
        }
    }

    /// A name after a bar.
    fn flat(&self, row: usize, cell: &Cell, style: Style, y: u16, buf: &mut Buffer) {
        let middle = |x: u32| (x + EIGHTHS / 2) / EIGHTHS;
        let columns = self.columns(middle(cell.x), middle(cell.end()));
        let ink = Style { fg: style.bg.or(style.fg), bg: None, add_modifier: style.add_modifier, ..style };
        let ink = ink.remove_modifier(Modifier::REVERSED);
        let marked = self.marked(cell, ink, self.is_cursor(row, cell));
        let bar = u16::from(row >= self.layout.zoom_depth);
        self.text(row, cell, &columns, bar, marked, y, buf);
        if bar > 0 {
            put_bar(buf, &columns, y, ink);
        }
    }

    fn columns(&self, start: u32, end: u32) -> Columns {
        let clamp = |x: u32| self.area.x + x.min(self.area.width.into()) as u16;
        Columns { start: clamp(start), end: clamp(end) }
    }

    /// Fills the columns and writes what stands in the frame, `indent` columns in.
    #[expect(clippy::too_many_arguments, reason = "where, what and how of one piece of text")]
    fn text(&self, row: usize, cell: &Cell, columns: &Columns, indent: u16, style: Style, y: u16, buf: &mut Buffer) {
        let width = columns.end.saturating_sub(columns.start);
        for x in columns.start..columns.end {
            if let Some(cell) = buf.cell_mut((x, y)) {
                cell.reset();
                cell.set_style(style);
            }
        }
        let text = self.label(row, cell, width.saturating_sub(indent).into());
        draw::put(buf, columns.start + indent, y, &text, width.saturating_sub(indent), style);
    }

    fn label(&self, row: usize, cell: &Cell, width: usize) -> String {
        let Some(node) = self.icicle.tree().nodes.get(cell.node() as usize) else { return String::new() };
        if let What::Small { frames, .. } = cell.what {
            return label::fold(frames, width);
        }
        let brief = self.icicle.is_short().then(|| label::brief(&node.name));
        let name = label::frame(brief.as_deref().unwrap_or(&node.name), node.kind, node.guessed, width);
        let mut text = name;
        if let Some(state) = self.new_state(node)
            && format::width(&text) + state.len() + 3 <= width
        {
            text = format!("{text} ({state})");
        }
        let share = format::percent(self.icicle.share(node.total_weight));
        let room = width.saturating_sub(format::width(&text));
        if row > 0 && row >= self.layout.zoom_depth && room >= share.len() + 4 {
            format!("{text}  {share} %")
        } else {
            text
        }
    }

    /// The state of a frame whose caller has another, unless its name says it: colour must not be the only sign of it.
    fn new_state(&self, node: &TreeNode) -> Option<&'static str> {
        let state = node.state.filter(|state| self.icicle.query().lens != TreeLens::OnCpu && !state.is_on_cpu())?;
        let above = self.icicle.tree().nodes.get(node.parent as usize)?.state;
        (above != Some(state) && node.name.trim_matches(['[', ']']) != state.name()).then(|| state.name())
    }

    /// A frame that vanished under the cursor keeps its place until the cursor leaves it.
    fn gone(&self, buf: &mut Buffer) {
        if self.cursor.is_some() {
            return;
        }
        let Some((row, cell)) = self.icicle.cursor_cell() else { return };
        let Some(y) = row.checked_sub(self.icicle.scroll()).filter(|&y| y < self.area.height.into()) else { return };
        let Some(name) = self.icicle.seen_name() else { return };
        let columns = self.columns(cell.x.div_ceil(EIGHTHS), (cell.end() / EIGHTHS).max(cell.x.div_ceil(EIGHTHS) + 1));
        let y = self.area.y + y as u16;
        let style = self.under_cursor(self.theme.dim());
        for x in columns.start..columns.end {
            if let Some(cell) = buf.cell_mut((x, y)) {
                cell.reset();
                cell.set_style(style);
            }
        }
        let width = columns.end.saturating_sub(columns.start);
        let text = format!("{} (gone)", format::clean(name));
        draw::put(buf, columns.start, y, &text, width, style);
    }

    /// Deeper frames than fit are announced at the right end of the last row.
    fn more_below(&self, buf: &mut Buffer) {
        let below = self.layout.rows.len().saturating_sub(self.icicle.scroll() + usize::from(self.area.height));
        if below > 0 && self.area.height > 1 {
            let last = Rect { y: self.area.bottom() - 1, height: 1, ..self.area };
            draw::put_right(buf, last, &format!(" ▼ {below} deeper "), self.theme.accent());
        }
    }
}

fn put_bar(buf: &mut Buffer, columns: &Columns, y: u16, style: Style) {
    if columns.start < columns.end
        && let Some(cell) = buf.cell_mut((columns.start, y))
    {
        cell.set_symbol("│").set_style(style);
    }
}

/// Tints of one colour: neighbours must be told apart.
const TINTS: usize = 3;

/// Another tint of a filled style, the text on it unchanged. Sixteen colours have none.
fn tinted(style: Style, tint: usize) -> Style {
    let Some(Color::Rgb(r, g, b)) = style.bg else { return style };
    let parts = match tint % TINTS {
        0 => 100,
        1 => 88,
        _ => 112,
    };
    let scale = |part: u8| (u32::from(part) * parts / 100).min(255) as u8;
    style.bg(Color::Rgb(scale(r), scale(g), scale(b)))
}
