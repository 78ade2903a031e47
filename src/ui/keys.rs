//! The one table of key bindings. Keys, help screen, footer and the README's table all come from it.
//!
//! A pane says in which [`Context`] it is; a key means what the nearest context in [`Context::chain`] says, and a test
//! keeps a key from meaning two things within one chain. Bind only what works.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Everything a key or a click can ask of a pane or of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// Cursor one up.
    Up,
    /// Cursor one down.
    Down,
    /// To the left: parent, sibling, previous column.
    Left,
    /// To the right.
    Right,
    /// One screenful up.
    PageUp,
    /// One screenful down.
    PageDown,
    /// To the first.
    Top,
    /// To the last.
    Bottom,
    /// Goes in: opens what is under the cursor, zooms into it.
    Enter,
    /// Goes out: closes the popup, unzooms, leaves the pane; at the top quits if the key was `q`.
    Back,
    /// As `Back`, and quits at the top.
    BackOrQuit,
    /// Quits from anywhere.
    Quit,
    /// Opens the list of keys.
    Help,
    /// Asks for a text to search for.
    Search,
    /// To the next match.
    NextMatch,
    /// To the previous match.
    PrevMatch,
    /// Asks for a filter: only matching rows stay.
    Filter,
    /// Asks for the column to sort by.
    Sort,
    /// Reverses the order.
    Reverse,
    /// Children under their parents.
    Tree,
    /// Threads under their process.
    Threads,
    /// Asks whose processes to show.
    User,
    /// Asks by what to put processes together.
    Group,
    /// Shows or hides threads of the kernel.
    KernelThreads,
    /// Shows idle waiting, or leaves it blank.
    Idle,
    /// The icicle of all processes.
    Stacks,
    /// Next lens: on-CPU, blocked, all.
    Lens,
    /// One step out of a zoom.
    Unzoom,
    /// Leaf first, or root first.
    Invert,
    /// Merges by function, line, module, address.
    Merge,
    /// Names whole, or without arguments.
    LongNames,
    /// How much of the past: this tick, the last seconds, since the start.
    Window,
    /// Fine buckets, or powers of two.
    Buckets,
    /// Percent of one CPU or of the machine; of the view or of all.
    PercentBasis,
    /// Whole command lines, or program names.
    LongCommand,
    /// Freezes the picture; what happens meanwhile is kept.
    Pause,
    /// One tick back in time.
    Earlier,
    /// One tick forward.
    Later,
    /// To the newest tick, and on with it; to the first row when there already.
    Live,
    /// Longer ticks.
    Slower,
    /// Shorter ticks.
    Faster,
    /// Writes the stacks shown as a folded file.
    Export,
    /// Saves the past that is kept as a capture.
    Save,
    /// Copies what is under the cursor.
    Copy,
    /// Shows how complete stacks are.
    Quality,
    /// Shows what sberf costs.
    Cost,
    /// Asks which signal to send to the process.
    Signal,
    /// Place 1.
    Processes,
    /// Place 2.
    Cpus,
    /// Place 3.
    Numa,
    /// Place 4.
    Disks,
    /// Next tab of the pane, or next place.
    NextTab,
    /// Previous tab of the pane, or previous place.
    PrevTab,
    /// Paints the screen anew.
    Redraw,
}

/// Where a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Context {
    /// On every screen.
    Anywhere,
    /// Any list with a cursor: searching, sorting.
    Table,
    /// Place 1.
    Processes,
    /// Inside a process: its threads.
    Threads,
    /// Any icicle.
    Icicle,
    /// Inside a process: latency histograms.
    Latency,
    /// Place 2.
    Cpus,
    /// Place 3.
    Numa,
    /// Place 4.
    Disks,
}

impl Context {
    /// Every context, in the order of the help screen.
    pub const ALL: [Context; 9] = [
        Context::Processes,
        Context::Icicle,
        Context::Threads,
        Context::Latency,
        Context::Cpus,
        Context::Numa,
        Context::Disks,
        Context::Table,
        Context::Anywhere,
    ];

    /// Itself and what it lies within, nearest first; ends with [`Context::Anywhere`].
    pub const fn chain(self) -> &'static [Context] {
        use Context::*;
        match self {
            Anywhere => &[Anywhere],
            Table => &[Table, Anywhere],
            Processes => &[Processes, Table, Anywhere],
            Threads => &[Threads, Table, Anywhere],
            Icicle => &[Icicle, Anywhere],
            Latency => &[Latency, Anywhere],
            Cpus => &[Cpus, Anywhere],
            Numa => &[Numa, Anywhere],
            Disks => &[Disks, Anywhere],
        }
    }

    /// Heading on the help screen.
    pub const fn title(self) -> &'static str {
        match self {
            Context::Anywhere => "Everywhere",
            Context::Table => "Tables",
            Context::Processes => "Processes",
            Context::Threads => "Threads of a process",
            Context::Icicle => "Icicle",
            Context::Latency => "Latency",
            Context::Cpus => "CPUs",
            Context::Numa => "NUMA",
            Context::Disks => "Disks",
        }
    }
}

/// One key, or two in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A character as typed, with shift if it needs one.
    Char(char),
    /// With control held.
    Ctrl(char),
    /// A function key.
    F(u8),
    /// Any other.
    Code(KeyCode),
    /// The same character twice.
    Twice(char),
}

/// Keys that mean a command in a context.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Any of these.
    pub keys: &'static [Key],
    /// Where.
    pub when: Context,
    /// What.
    pub command: Command,
    /// One line for the help screen and the README.
    pub help: &'static str,
    /// A word for the footer, for those that stand there.
    pub footer: Option<&'static str>,
}

const fn bind(
    when: Context,
    keys: &'static [Key],
    command: Command,
    help: &'static str,
    footer: Option<&'static str>,
) -> Binding {
    Binding { keys, when, command, help, footer }
}

use Context as In;
use Key::{Char, Code, Ctrl, F, Twice};

/// Every binding there is. Within a context, in the order of help and footer.
pub static BINDINGS: &[Binding] = &[
    bind(In::Processes, &[Code(KeyCode::Enter)], Command::Enter, "look into the process", Some("look in")),
    bind(In::Processes, &[Char('\\'), F(4)], Command::Filter, "show only rows that match", Some("filter")),
    bind(In::Processes, &[Char('>'), F(6)], Command::Sort, "choose the column to sort by", Some("sort")),
    bind(In::Processes, &[Char('b')], Command::Group, "sums by command, user, cgroup or parent", Some("by")),
    bind(In::Processes, &[Char('I')], Command::Reverse, "reverse the order", None),
    bind(In::Processes, &[Char('t'), F(5)], Command::Tree, "children under their parents", Some("tree")),
    bind(In::Processes, &[Char('H')], Command::Threads, "threads under their process", Some("threads")),
    bind(In::Processes, &[Char('u')], Command::User, "processes of one user", Some("user")),
    bind(In::Processes, &[Char('K')], Command::KernelThreads, "kernel threads on or off", None),
    bind(In::Processes, &[Char('i')], Command::Idle, "idle waits in bars and icicles, or left out", Some("idle")),
    bind(In::Processes, &[Char('%')], Command::PercentBasis, "percent of one CPU, or of the machine", None),
    bind(In::Processes, &[Char('p')], Command::LongCommand, "whole command lines, or names", None),
    bind(In::Processes, &[Char('f')], Command::Stacks, "icicle of all processes, on the whole screen", Some("icicle")),
    bind(In::Processes, &[Char('o')], Command::Lens, "lens of the icicle below: on-CPU, blocked, all", None),
    bind(In::Processes, &[Char('w')], Command::Export, "write stacks of all processes as a folded file", None),
    bind(In::Icicle, &[Code(KeyCode::Enter)], Command::Enter, "zoom into the frame", Some("zoom")),
    bind(In::Icicle, &[Code(KeyCode::Backspace)], Command::Unzoom, "zoom out", Some("out")),
    bind(In::Icicle, &[Char('o')], Command::Lens, "next lens: on-CPU, blocked, all", Some("lens")),
    bind(In::Icicle, &[Char('x')], Command::Invert, "callers above, or callees", Some("invert")),
    bind(In::Icicle, &[Char('m')], Command::Merge, "merge by function, line, module or address", Some("merge")),
    bind(In::Icicle, &[Char('p')], Command::LongNames, "names whole, or without types and arguments", None),
    bind(In::Icicle, &[Char('a')], Command::Window, "this tick, the last seconds, or since the start", Some("span")),
    bind(In::Icicle, &[Char('%')], Command::PercentBasis, "percent of the view, or of all", None),
    bind(In::Icicle, &[Char('i')], Command::Idle, "idle waits in bars and icicles, or left out", None),
    bind(In::Icicle, &[Char('w')], Command::Export, "write what is shown as a folded file", Some("folded")),
    bind(In::Icicle, &[Char('/')], Command::Search, "search: highlights, and totals what matches", Some("search")),
    bind(In::Icicle, &[Char('n')], Command::NextMatch, "next match", None),
    bind(In::Icicle, &[Char('N')], Command::PrevMatch, "previous match", None),
    bind(In::Threads, &[Char('>'), F(6)], Command::Sort, "choose the column to sort by", Some("sort")),
    bind(In::Threads, &[Char('I')], Command::Reverse, "reverse the order", None),
    bind(In::Threads, &[Char('i')], Command::Idle, "idle waits in bars and icicles, or left out", Some("idle")),
    bind(In::Threads, &[Code(KeyCode::Enter)], Command::Enter, "latency of the thread", Some("latency")),
    bind(In::Latency, &[Code(KeyCode::Enter)], Command::Enter, "one larger, with its heat map; or all", Some("larger")),
    bind(In::Latency, &[Char('b')], Command::Buckets, "fine buckets, or powers of two", Some("buckets")),
    bind(In::Latency, &[Char('a')], Command::Window, "this tick, the last seconds, or since the start", Some("span")),
    bind(
        In::Disks,
        &[Code(KeyCode::Enter)],
        Command::Enter,
        "latency of the disk; the process that asked",
        Some("look in"),
    ),
    bind(In::Disks, &[Char('b')], Command::Buckets, "fine buckets, or powers of two", Some("buckets")),
    bind(In::Disks, &[Char('a')], Command::Window, "this tick, the last seconds, or since the start", Some("span")),
    bind(In::Numa, &[Code(KeyCode::Enter)], Command::Enter, "look into the process", Some("look in")),
    bind(In::Cpus, &[Code(KeyCode::Enter)], Command::Enter, "run-queue latency of the CPU", Some("latency")),
    bind(In::Table, &[Char('/')], Command::Search, "search; the cursor goes to what matches", Some("search")),
    bind(In::Table, &[Char('n')], Command::NextMatch, "next match", None),
    bind(In::Table, &[Char('N')], Command::PrevMatch, "previous match", None),
    bind(In::Anywhere, &[Code(KeyCode::Up), Char('k')], Command::Up, "up", None),
    bind(In::Anywhere, &[Code(KeyCode::Down), Char('j')], Command::Down, "down", None),
    bind(In::Anywhere, &[Code(KeyCode::Left), Char('h')], Command::Left, "left", None),
    bind(In::Anywhere, &[Code(KeyCode::Right), Char('l')], Command::Right, "right", None),
    bind(In::Anywhere, &[Code(KeyCode::PageUp), Ctrl('b')], Command::PageUp, "one screenful up", None),
    bind(In::Anywhere, &[Code(KeyCode::PageDown), Ctrl('f')], Command::PageDown, "one screenful down", None),
    bind(In::Anywhere, &[Twice('g')], Command::Top, "to the first", None),
    bind(In::Anywhere, &[Char('G'), Code(KeyCode::End)], Command::Bottom, "to the last", None),
    bind(In::Anywhere, &[Char('1')], Command::Processes, "place 1: processes", None),
    bind(In::Anywhere, &[Char('2')], Command::Cpus, "place 2: CPUs", None),
    bind(In::Anywhere, &[Char('3')], Command::Numa, "place 3: NUMA nodes", None),
    bind(In::Anywhere, &[Char('4')], Command::Disks, "place 4: disks", None),
    bind(In::Anywhere, &[Code(KeyCode::Tab)], Command::NextTab, "next tab, or next place", None),
    bind(In::Anywhere, &[Code(KeyCode::BackTab)], Command::PrevTab, "previous tab, or previous place", None),
    bind(In::Anywhere, &[Char(' '), Char('z')], Command::Pause, "hold the picture; recording goes on", Some("pause")),
    bind(In::Anywhere, &[Char('[')], Command::Earlier, "one tick back in time; holds the picture", Some("earlier")),
    bind(In::Anywhere, &[Char(']')], Command::Later, "one tick forward, while the picture is held", None),
    bind(In::Anywhere, &[Code(KeyCode::Home)], Command::Live, "back to live; when live, to the first", None),
    bind(In::Anywhere, &[Char('W')], Command::Save, "save the ticks that are kept, as a capture", Some("save")),
    bind(In::Anywhere, &[Char('y')], Command::Copy, "copy the row, or the stack, to the clipboard", None),
    bind(In::Anywhere, &[Char('c')], Command::Quality, "how complete stacks are, and why the rest is not", None),
    bind(In::Anywhere, &[Char('$')], Command::Cost, "what sberf costs, and other BPF programs", None),
    bind(In::Anywhere, &[F(9)], Command::Signal, "send a signal to the process; asks which", Some("signal")),
    bind(In::Anywhere, &[Char('+'), Char('=')], Command::Slower, "longer interval", None),
    bind(In::Anywhere, &[Char('-')], Command::Faster, "shorter interval", None),
    bind(In::Anywhere, &[Ctrl('l')], Command::Redraw, "paint the screen anew", None),
    bind(In::Anywhere, &[Char('?'), F(1)], Command::Help, "this list, and what does not work here", Some("help")),
    bind(In::Anywhere, &[Code(KeyCode::Esc)], Command::Back, "back", None),
    bind(In::Anywhere, &[Char('q')], Command::BackOrQuit, "back; at the top, quit", Some("quit")),
    bind(In::Anywhere, &[Ctrl('c'), F(10)], Command::Quit, "quit", None),
];

/// What a key event is, in the table's words; `None` for what the table never names (releases, media keys).
pub fn key_of(event: &KeyEvent) -> Option<Key> {
    if event.kind == crossterm::event::KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        _ if event.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META) => None,
        KeyCode::Char(c) if control => Some(Ctrl(c.to_ascii_lowercase())),
        KeyCode::Char(c) => Some(Char(c)),
        KeyCode::F(number) => Some(F(number)),
        code => Some(Code(code)),
    }
}

/// What a key means in a context.
pub fn lookup(context: Context, key: Key) -> Option<Command> {
    let found = |&when: &Context| BINDINGS.iter().find(|binding| binding.when == when && binding.keys.contains(&key));
    context.chain().iter().find_map(found).map(|binding| binding.command)
}

/// Turns key events into commands; remembers the first of two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keyboard {
    first: Option<char>,
}

impl Keyboard {
    /// The command of a key, if it completes one.
    pub fn press(&mut self, context: Context, event: &KeyEvent) -> Option<Command> {
        let key = key_of(event)?;
        let first = self.first.take();
        if let Char(c) = key {
            let twice = lookup(context, Twice(c));
            if first == Some(c) && twice.is_some() {
                return twice;
            }
            if twice.is_some() && lookup(context, key).is_none() {
                self.first = Some(c);
                return None;
            }
        }
        lookup(context, key)
    }
}

/// Bindings of a context and what it lies within, nearest first: what the footer offers.
pub fn in_reach(context: Context) -> impl Iterator<Item = &'static Binding> {
    context.chain().iter().flat_map(|&when| BINDINGS.iter().filter(move |binding| binding.when == when))
}

/// A key as it is written: `F5`, `Ctrl-C`, `gg`, `Space`, `PgUp`, `↑`.
pub fn name(key: Key) -> String {
    match key {
        Char(' ') => "Space".into(),
        Char(c) => c.into(),
        Ctrl(c) => format!("Ctrl-{}", c.to_ascii_uppercase()),
        F(number) => format!("F{number}"),
        Twice(c) => format!("{c}{c}"),
        Code(KeyCode::Up) => "↑".into(),
        Code(KeyCode::Down) => "↓".into(),
        Code(KeyCode::Left) => "←".into(),
        Code(KeyCode::Right) => "→".into(),
        Code(KeyCode::PageUp) => "PgUp".into(),
        Code(KeyCode::PageDown) => "PgDn".into(),
        Code(KeyCode::BackTab) => "Shift-Tab".into(),
        Code(code) => format!("{code:?}"),
    }
}

/// All keys of a binding: `F5 t`.
pub fn names(binding: &Binding) -> String {
    binding.keys.iter().map(|&key| name(key)).collect::<Vec<_>>().join(" ")
}

/// The table as Markdown, for the README.
pub fn markdown() -> String {
    let mut text = String::from("| where | keys | does |\n|---|---|---|\n");
    for context in Context::ALL {
        for binding in BINDINGS.iter().filter(|binding| binding.when == context) {
            let keys: Vec<String> = binding.keys.iter().map(|&key| format!("`{}`", name(key))).collect();
            text += &format!("| {} | {} | {} |\n", context.title(), keys.join(" "), binding.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn no_key_means_two_things_in_one_chain() {
        for context in Context::ALL {
            let mut seen = HashMap::new();
            for binding in in_reach(context) {
                for &key in binding.keys {
                    let other = seen.insert(key, binding.command);
                    assert_eq!(other, None, "{} in {context:?}: {:?} too", name(key), binding.command);
                }
            }
        }
    }

    #[test]
    fn a_key_pressed_twice_clashes_with_no_single_one() {
        for context in Context::ALL {
            for binding in in_reach(context) {
                for &key in binding.keys {
                    if let Twice(c) = key {
                        assert_eq!(lookup(context, Char(c)), None, "{c} in {context:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn contexts_end_anywhere_and_are_all_listed() {
        for context in Context::ALL {
            assert_eq!(context.chain().first(), Some(&context));
            assert_eq!(context.chain().last(), Some(&Context::Anywhere));
        }
        assert!(BINDINGS.iter().all(|binding| Context::ALL.contains(&binding.when)));
    }

    #[test]
    fn every_binding_has_keys_and_help() {
        for binding in BINDINGS {
            assert!(!binding.keys.is_empty() && !binding.help.is_empty(), "{binding:?}");
            assert!(binding.help.len() <= 60, "help is one short line: {}", binding.help);
        }
    }

    fn press(keyboard: &mut Keyboard, c: char) -> Option<Command> {
        keyboard.press(Context::Processes, &KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))
    }

    #[test]
    fn gg_is_one_command() {
        let mut keyboard = Keyboard::default();
        assert_eq!(press(&mut keyboard, 'g'), None);
        assert_eq!(press(&mut keyboard, 'g'), Some(Command::Top));
        assert_eq!(press(&mut keyboard, 'g'), None);
        assert_eq!(press(&mut keyboard, 'j'), Some(Command::Down), "a lone g is forgotten");
        assert_eq!(press(&mut keyboard, 'g'), None);
    }

    #[test]
    fn shifted_characters_and_control() {
        let at = |code, modifiers| key_of(&KeyEvent::new(code, modifiers));
        assert_eq!(at(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Char('G')));
        assert_eq!(at(KeyCode::Char('C'), KeyModifiers::CONTROL), Some(Ctrl('c')));
        assert_eq!(at(KeyCode::Char('x'), KeyModifiers::ALT), None);
    }

    #[test]
    fn markdown_lists_every_binding() {
        assert_eq!(markdown().lines().count(), BINDINGS.len() + 2);
    }
}
