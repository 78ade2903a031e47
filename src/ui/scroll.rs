//! How far the lines of a popup are scrolled: never beyond their end, so that each key back does something.

use ratatui::layout::Rect;

use super::keys::Command;

/// The first line that shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scroll(usize);

/// Lines that show at once, of so many, in a frame over `body`.
fn page(lines: usize, body: Rect) -> usize {
    usize::from(body.height).saturating_sub(2).clamp(1, lines.max(1))
}

impl Scroll {
    /// Does what a key asks; `false` if that is no scrolling.
    pub fn command(&mut self, command: Command, lines: usize, body: Rect) -> bool {
        let page = page(lines, body) as isize;
        match command {
            Command::Down => self.by(1, lines, body),
            Command::Up => self.by(-1, lines, body),
            Command::PageDown => self.by(page, lines, body),
            Command::PageUp => self.by(-page, lines, body),
            Command::Top | Command::Live => self.0 = 0,
            Command::Bottom => self.0 = lines.saturating_sub(page as usize),
            _ => return false,
        }
        true
    }

    /// So many lines down, or up.
    pub fn by(&mut self, by: isize, lines: usize, body: Rect) {
        let last = lines.saturating_sub(page(lines, body));
        self.0 = self.0.min(last).saturating_add_signed(by).min(last);
    }

    /// The first line to be drawn.
    pub fn first(self, lines: usize, body: Rect) -> usize {
        self.0.min(lines.saturating_sub(page(lines, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_where_the_lines_end() {
        let body = Rect::new(0, 0, 80, 22);
        let mut scroll = Scroll::default();
        let mut press = |command| {
            assert!(scroll.command(command, 100, body));
            scroll.first(100, body)
        };
        assert_eq!(press(Command::PageDown), 20);
        assert_eq!(press(Command::Bottom), 80);
        assert_eq!((0..60).map(|_| press(Command::Down)).max(), Some(80));
        assert_eq!(press(Command::Up), 79, "nothing was kept of what went too far");
        assert_eq!(press(Command::PageUp), 59);
        assert_eq!(press(Command::Top), 0);
        assert!(!scroll.command(Command::Enter, 100, body));
        scroll.by(7, 3, body);
        assert_eq!(scroll.first(3, body), 0, "all of them show");
        scroll.by(7, 0, Rect::default());
        assert_eq!(scroll.first(0, Rect::default()), 0);
    }
}
