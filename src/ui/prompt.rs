//! A line of text that is asked for, on the last line of the screen. The pane sees every change of it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use unicode_segmentation::UnicodeSegmentation;

use super::app::Reply;
use super::{Answer, Query, Theme, draw, format};

/// Longest text, in bytes.
const LONGEST: usize = 256;

/// A prompt and what is typed in it.
pub struct Prompt {
    /// What for.
    pub query: Query,
    /// What the pane says to the text.
    pub answer: Answer,
    text: String,
    before: String,
    done: bool,
}

impl Prompt {
    /// Begins with that text.
    pub fn new(query: Query, text: String, answer: Answer) -> Self {
        Prompt { query, answer, before: text.clone(), text, done: false }
    }

    /// What is typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// It was accepted or given up; the text is what then holds.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Typing. Enter accepts what can be used, Esc brings back what was before, Ctrl-U clears, Ctrl-W takes a word away.
    pub fn key(&mut self, event: &KeyEvent) -> Reply {
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        match event.code {
            KeyCode::Enter if self.answer.bad => return Reply::Stay,
            KeyCode::Enter => self.done = true,
            KeyCode::Esc => self.give_up(),
            KeyCode::Char('c') if control => self.give_up(),
            KeyCode::Char('u') if control => self.text.clear(),
            KeyCode::Char('w') if control => self.take_word(),
            KeyCode::Char(c) if !control => self.push(c),
            KeyCode::Backspace => self.take_one(),
            _ => return Reply::Stay,
        }
        Reply::Text
    }

    /// Text at the end of what is typed, without its control characters: the end of a line is no Enter.
    pub fn insert(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    fn push(&mut self, c: char) {
        if !c.is_control() && self.text.len() < LONGEST {
            self.text.push(c);
        }
    }

    fn give_up(&mut self) {
        self.text.clone_from(&self.before);
        self.done = true;
    }

    fn take_one(&mut self) {
        let end = self.text.grapheme_indices(true).next_back().map_or(0, |(at, _)| at);
        self.text.truncate(end);
    }

    fn take_word(&mut self) {
        let text = self.text.trim_end();
        let end = text.rfind(' ').map_or(0, |at| at + 1);
        self.text.truncate(end);
    }

    /// Draws it: what for, the text with a cursor, what the pane says.
    pub fn render(&self, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let label = match self.query {
            Query::Search => "search: ",
            Query::Filter => "filter (text, or /regex/): ",
        };
        draw::put(buf, area.x, area.y, &" ".repeat(area.width.into()), area.width, theme.text());
        let note = format::width(&self.answer.note) as u16 + 2;
        let x = draw::put(buf, area.x + 1, area.y, label, area.width.saturating_sub(1), theme.accent());
        let room = area.right().saturating_sub(x + 1 + note).max(8);
        let x = draw::put(buf, x, area.y, tail(&self.text, room.into()), room, theme.text());
        let x = draw::put(buf, x, area.y, " ", 1, theme.text().add_modifier(Modifier::REVERSED));
        let style = if self.answer.bad { theme.alert() } else { theme.dim() };
        draw::put(buf, x + 2, area.y, &self.answer.note, area.right().saturating_sub(x + 2), style);
    }
}

/// The end of a text that fits into so many cells.
fn tail(text: &str, cells: usize) -> &str {
    let mut start = text.len();
    for (at, _) in text.grapheme_indices(true).rev() {
        if format::width(&text[at..]) > cells {
            break;
        }
        start = at;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(prompt: &mut Prompt, text: &str) {
        for c in text.chars() {
            prompt.key(&KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
        }
    }

    fn pressed(prompt: &mut Prompt, code: KeyCode) {
        prompt.key(&KeyEvent::new(code, KeyModifiers::NONE));
    }

    #[test]
    fn typing_and_taking_back() {
        let mut prompt = Prompt::new(Query::Filter, String::new(), Answer::default());
        typed(&mut prompt, "ngi日x");
        pressed(&mut prompt, KeyCode::Backspace);
        assert_eq!(prompt.text(), "ngi日");
        pressed(&mut prompt, KeyCode::Enter);
        assert!(prompt.is_done());
    }

    #[test]
    fn what_is_inserted_is_text_and_nothing_else() {
        let mut prompt = Prompt::new(Query::Filter, "a".into(), Answer::default());
        prompt.insert("q\r\n\x1b[31mb\u{9b}日");
        assert_eq!((prompt.text(), prompt.is_done()), ("aq[31mb日", false));
        prompt.insert(&"x".repeat(1 << 20));
        assert_eq!(prompt.text().len(), LONGEST);
    }

    #[test]
    fn escape_brings_back_what_was() {
        let mut prompt = Prompt::new(Query::Search, "old".into(), Answer::default());
        typed(&mut prompt, "er");
        assert_eq!(prompt.text(), "older");
        pressed(&mut prompt, KeyCode::Esc);
        assert!(prompt.is_done());
        assert_eq!(prompt.text(), "old");
    }

    #[test]
    fn a_bad_text_cannot_be_accepted() {
        let mut prompt = Prompt::new(Query::Filter, "/(/".into(), Answer { note: "unclosed group".into(), bad: true });
        pressed(&mut prompt, KeyCode::Enter);
        assert!(!prompt.is_done());
    }

    #[test]
    fn the_end_of_a_long_text_shows() {
        assert_eq!(tail("abcdef", 3), "def");
        assert_eq!(tail("日本語", 5), "本語");
    }
}
