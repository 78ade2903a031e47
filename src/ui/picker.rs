//! One of a list to be chosen: the column to sort by, a user.

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::Reply;
use super::keys::{self, Key};
use super::{Choices, Command, Context, Theme, draw, format};

/// A list and the cursor in it.
pub struct Picker {
    choices: Choices,
    at: usize,
}

impl Picker {
    /// With the cursor where the choices say.
    pub fn new(choices: Choices) -> Self {
        let at = choices.at.min(choices.items.len().saturating_sub(1));
        Picker { choices, at }
    }

    /// Which question it answers.
    pub fn command(&self) -> Command {
        self.choices.command
    }

    /// Moves by the keys of the table, jumps to the first item that begins with a letter.
    pub fn key(&mut self, context: Context, event: &KeyEvent) -> Reply {
        let Some(key) = keys::key_of(event) else { return Reply::Stay };
        let last = self.choices.items.len().saturating_sub(1);
        if let Key::Char(c) = key
            && let Some(at) = self.starting_with(c)
        {
            self.at = at;
            return Reply::Stay;
        }
        match keys::lookup(context, key) {
            Some(Command::Up) => self.at = self.at.saturating_sub(1),
            Some(Command::Down) => self.at = (self.at + 1).min(last),
            Some(Command::PageUp | Command::Top | Command::Live) => self.at = 0,
            Some(Command::PageDown | Command::Bottom) => self.at = last,
            Some(Command::Quit) => return Reply::Pass,
            Some(Command::Back | Command::BackOrQuit) => return Reply::Close,
            Some(command) if command == self.choices.command => return Reply::Close,
            _ if event.code == crossterm::event::KeyCode::Enter && !self.choices.items.is_empty() => {
                return Reply::Chosen(self.at);
            }
            _ => {}
        }
        Reply::Stay
    }

    /// The next item after the cursor that begins with that letter. `j`, `k` and `q` keep their meaning.
    fn starting_with(&self, c: char) -> Option<usize> {
        if matches!(c, 'j' | 'k' | 'q') {
            return None;
        }
        let starts = |at: &usize| {
            let first = self.choices.items.get(*at).and_then(|item| item.trim_start().chars().next());
            first.is_some_and(|first| first.eq_ignore_ascii_case(&c))
        };
        (self.at + 1..self.choices.items.len()).chain(0..=self.at).find(starts)
    }

    /// A click chooses, the wheel moves, a click beside it closes.
    pub fn mouse(&mut self, mouse: MouseEvent, body: Rect) -> Reply {
        let frame = self.frame(body);
        let inner = Rect { x: frame.x + 1, y: frame.y + 1, width: frame.width - 2, height: frame.height - 2 };
        match mouse.kind {
            MouseEventKind::ScrollUp => self.at = self.at.saturating_sub(1),
            MouseEventKind::ScrollDown => self.at = (self.at + 1).min(self.choices.items.len().saturating_sub(1)),
            MouseEventKind::Down(MouseButton::Left) if inner.contains((mouse.column, mouse.row).into()) => {
                let at = self.first(inner.height) + usize::from(mouse.row - inner.y);
                return if at < self.choices.items.len() { Reply::Chosen(at) } else { Reply::Stay };
            }
            MouseEventKind::Down(_) if !frame.contains((mouse.column, mouse.row).into()) => return Reply::Close,
            _ => {}
        }
        Reply::Stay
    }

    fn frame(&self, body: Rect) -> Rect {
        let widest = self.choices.items.iter().map(|item| format::width(item)).max().unwrap_or(0);
        let width = widest.max(format::width(&self.choices.title) + 2) + 4;
        let height = self.choices.items.len() + 2;
        let clamp = |cells: usize| cells.min(u16::MAX.into()) as u16;
        let frame = draw::centred(body, clamp(width), clamp(height));
        Rect { width: frame.width.max(2), height: frame.height.max(2), ..frame }
    }

    /// The first item that shows when so many lines do.
    fn first(&self, lines: u16) -> usize {
        (self.at + 1).saturating_sub(lines.into())
    }

    /// Draws it in the middle of `body`.
    pub fn render(&self, theme: &Theme, body: Rect, buf: &mut Buffer) {
        let inner = draw::framed(buf, theme, self.frame(body).intersection(*buf.area()), &self.choices.title);
        let first = self.first(inner.height);
        for (row, (index, item)) in
            self.choices.items.iter().enumerate().skip(first).take(inner.height.into()).enumerate()
        {
            let style = if index == self.at { theme.selected() } else { theme.text() };
            let text = format::left(&format!(" {item}"), inner.width.into());
            draw::put(buf, inner.x, inner.y + row as u16, &text, inner.width, style);
        }
    }
}
