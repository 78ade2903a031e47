//! The last line: keys that can be pressed here, from the table of bindings. They can be clicked too.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::keys::{self, Command, Context, Key};
use super::{Theme, draw, format};

/// One entry: its first column, the key, the word, what it does.
struct Entry {
    x: u16,
    key: String,
    word: &'static str,
    command: Command,
}

impl Entry {
    fn end(&self) -> u16 {
        self.x + (format::width(&self.key) + 1 + format::width(self.word)) as u16
    }
}

/// As many entries as fit, nearest context first; help and quit always stand at the end.
fn entries(context: Context, area: Rect) -> Vec<Entry> {
    let offered: Vec<_> = keys::in_reach(context).filter_map(|binding| Some((binding, binding.footer?))).collect();
    let always = |command| matches!(command, Command::Help | Command::BackOrQuit);
    let width = |key: &str, word: &str| (format::width(key) + 1 + format::width(word) + 2) as u16;
    let short =
        |keys: &[Key]| keys.iter().map(|&key| keys::name(key)).min_by_key(|name| name.len()).unwrap_or_default();
    let reserved: u16 = offered
        .iter()
        .filter(|(binding, _)| always(binding.command))
        .map(|(binding, word)| width(&short(binding.keys), word))
        .sum();
    let mut free = area.width.saturating_sub(1 + reserved);
    let mut x = area.x + 1;
    let mut entries = Vec::new();
    for (binding, word) in offered {
        let key = short(binding.keys);
        let cells = width(&key, word);
        if !always(binding.command) {
            if cells > free {
                continue;
            }
            free -= cells;
        }
        entries.push(Entry { x, key, word, command: binding.command });
        x = x.saturating_add(cells);
    }
    entries
}

/// The command under a column.
pub fn at(context: Context, area: Rect, column: u16) -> Option<Command> {
    let mut entries = entries(context, area).into_iter();
    entries.find(|entry| (entry.x..entry.end()).contains(&column)).map(|entry| entry.command)
}

/// Draws it.
pub fn render(context: Context, theme: &Theme, area: Rect, buf: &mut Buffer) {
    for entry in entries(context, area) {
        let x = draw::put(buf, entry.x, area.y, &entry.key, area.right().saturating_sub(entry.x), theme.accent());
        draw::put(buf, x + 1, area.y, entry.word, area.right().saturating_sub(x + 1), theme.dim());
    }
}
