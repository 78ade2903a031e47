//! What every table needs: columns that drop by priority where there is no room, and a cursor that stays in view.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Command, draw, format};

/// A column: how wide, and how soon it goes.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// Cells it needs.
    pub width: u16,
    /// Cells it can use beside those; 0: none.
    pub extra: u16,
    /// Dropped before columns with a smaller number; 0 stays.
    pub drop: u8,
    /// Numbers end at its right edge, so that magnitudes line up.
    pub right: bool,
}

/// A column that is shown, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the column.
    pub column: usize,
    /// Cells from the left edge of the table.
    pub x: u16,
    /// Cells.
    pub width: u16,
}

/// From this `drop` on, a column has to wait until those that can use more cells have some.
const LUXURY: u8 = 8;
/// So many each.
const EASE: u16 = 12;

/// Which columns fit into `width` cells, one cell apart, after `margin`. Those with `drop` 255 never do. What is left over
/// is shared evenly by the columns that can use it.
pub fn lay_out(columns: &[Column], margin: u16, width: u16) -> Vec<Slot> {
    let room = usize::from(width.saturating_sub(margin)) + 1;
    let ease = |column: &Column, limit: u8| if limit > LUXURY { column.extra.min(EASE) } else { 0 };
    let needed = |limit: u8| -> usize {
        let shown = columns.iter().filter(|column| column.drop < limit);
        shown.map(|column| usize::from(column.width + ease(column, limit)) + 1).sum()
    };
    let limit = (1..=u8::MAX).rev().find(|&limit| needed(limit) <= room).unwrap_or(1);
    let shown = || columns.iter().enumerate().filter(|(_, column)| column.drop < limit);
    let used: usize = shown().map(|(_, column)| usize::from(column.width) + 1).sum();
    let extras: Vec<usize> = shown().map(|(_, column)| column.extra.into()).collect();
    let extras = share(room.saturating_sub(used), &extras);
    let widths: Vec<_> = shown().zip(extras).map(|((at, column), extra)| (at, column.width as usize + extra)).collect();
    place(&widths, margin, width)
}

/// Shares `free` evenly among those that can use some, none getting more than it can use.
fn share(mut free: usize, wanted: &[usize]) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    loop {
        let hungry: Vec<usize> = (0..wanted.len()).filter(|&at| given[at] < wanted[at]).collect();
        if free == 0 || hungry.is_empty() {
            return given;
        }
        let each = (free / hungry.len()).max(1);
        for at in hungry {
            let more = each.min(wanted[at] - given[at]).min(free);
            given[at] += more;
            free -= more;
        }
    }
}

fn place(widths: &[(usize, usize)], margin: u16, width: u16) -> Vec<Slot> {
    let mut x = margin;
    let mut slots = Vec::new();
    for &(column, cells) in widths {
        let cells = cells.min(width.saturating_sub(x).into()) as u16;
        if cells == 0 {
            break;
        }
        slots.push(Slot { column, x, width: cells });
        x = x.saturating_add(cells + 1);
    }
    slots
}

/// The column at a cell of the table, gaps included.
pub fn column_at(slots: &[Slot], x: u16) -> Option<usize> {
    slots.iter().find(|slot| (slot.x..=slot.x + slot.width).contains(&x)).map(|slot| slot.column)
}

/// Draws one cell of a table whose line is `line`.
pub fn cell(buf: &mut Buffer, line: Rect, slot: Slot, right: bool, text: &str, style: Style) {
    if line.height == 0 || slot.x >= line.width {
        return;
    }
    let width = slot.width.min(line.width - slot.x);
    let text = format::fit(text, width.into());
    let blank = if right { width.saturating_sub(format::width(&text) as u16) } else { 0 };
    draw::put(buf, line.x + slot.x + blank, line.y, &text, width - blank, style);
}

/// Draws the heads; the column sorted by carries an arrow and `style_sorted`.
pub fn heads(buf: &mut Buffer, line: Rect, columns: &[Column], slots: &[Slot], sorted: Sorted, styles: (Style, Style)) {
    for &slot in slots {
        let column = &columns[slot.column];
        if slot.column != sorted.column {
            cell(buf, line, slot, column.right, column.head, styles.0);
            continue;
        }
        let arrow = if sorted.descending { "▼" } else { "▲" };
        let head = format::fit(column.head, usize::from(slot.width).saturating_sub(1));
        cell(buf, line, slot, column.right, &format!("{head}{arrow}"), styles.1);
    }
}

/// How rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorted {
    /// Index of the column.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
}

/// A place in a list of which only a part shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Index of the row under it.
    pub at: usize,
    /// Index of the first row that shows.
    pub first: usize,
    /// How many rows show.
    pub height: usize,
}

impl Cursor {
    /// Moves as a command says, within `rows` rows; `false` if the command does not move.
    pub fn command(&mut self, command: Command, rows: usize) -> bool {
        let page = self.height.max(1);
        self.at = match command {
            Command::Up => self.at.saturating_sub(1),
            Command::Down => self.at + 1,
            Command::PageUp => self.at.saturating_sub(page),
            Command::PageDown => self.at + page,
            Command::Top => 0,
            Command::Bottom => usize::MAX,
            _ => return false,
        };
        self.clamp(rows);
        true
    }

    /// Brings it back among `rows` rows.
    pub fn clamp(&mut self, rows: usize) {
        self.at = self.at.min(rows.saturating_sub(1));
    }

    /// Scrolls as little as brings the cursor into view, and not past the end.
    pub fn show(&mut self, rows: usize, height: usize) {
        self.height = height;
        self.clamp(rows);
        self.first = self.first.min(rows.saturating_sub(height)).min(self.at).max((self.at + 1).saturating_sub(height));
    }

    /// Indices of the rows that show, of `rows`.
    pub fn shown(&self, rows: usize) -> std::ops::Range<usize> {
        let first = self.first.min(rows);
        first..rows.min(first + self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { head: "PID", width: 7, extra: 0, drop: 0, right: true },
        Column { head: "BAR", width: 10, extra: 20, drop: 1, right: false },
        Column { head: "RSS", width: 5, extra: 0, drop: 3, right: true },
        Column { head: "COMMAND", width: 8, extra: 100, drop: 2, right: false },
    ];

    fn shown(width: u16) -> Vec<(usize, u16)> {
        lay_out(&COLUMNS, 2, width).iter().map(|slot| (slot.column, slot.width)).collect()
    }

    #[test]
    fn columns_drop_by_priority() {
        assert_eq!(shown(9), [(0, 7)]);
        assert_eq!(shown(20), [(0, 7), (1, 10)]);
        assert_eq!(shown(25), [(0, 7), (1, 15)]);
        assert_eq!(shown(29), [(0, 7), (1, 10), (3, 8)]);
        assert_eq!(shown(35), [(0, 7), (1, 10), (2, 5), (3, 8)]);
        assert_eq!(shown(60), [(0, 7), (1, 23), (2, 5), (3, 20)]);
        assert_eq!(shown(90), [(0, 7), (1, 30), (2, 5), (3, 43)]);
    }

    #[test]
    fn slots_never_leave_the_table() {
        for width in 0..120 {
            let slots = lay_out(&COLUMNS, 2, width);
            assert!(slots.iter().all(|slot| slot.x + slot.width <= width), "{width}: {slots:?}");
            assert!(slots.windows(2).all(|pair| pair[0].x + pair[0].width < pair[1].x));
        }
    }

    #[test]
    fn cursor_stays_in_view_and_among_the_rows() {
        let mut cursor = Cursor::default();
        cursor.show(100, 10);
        for (command, at, first) in [
            (Command::Down, 1, 0),
            (Command::PageDown, 11, 2),
            (Command::Bottom, 99, 90),
            (Command::Down, 99, 90),
            (Command::PageUp, 89, 89),
            (Command::Top, 0, 0),
        ] {
            assert!(cursor.command(command, 100));
            cursor.show(100, 10);
            assert_eq!((cursor.at, cursor.first), (at, first), "{command:?}");
        }
        cursor.command(Command::Bottom, 100);
        cursor.show(3, 10);
        assert_eq!((cursor.at, cursor.first, cursor.shown(3)), (2, 0, 0..3));
        cursor.show(0, 0);
        assert_eq!(cursor.shown(0), 0..0);
    }

    #[test]
    fn clicks_find_their_column() {
        let slots = lay_out(&COLUMNS, 2, 60);
        assert_eq!(column_at(&slots, 0), None);
        assert_eq!(column_at(&slots, 3), Some(0));
        assert_eq!(column_at(&slots, 59), Some(3));
    }
}
