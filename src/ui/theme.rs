//! What the terminal can show, and how each thing looks on it. Colours come from `assets/palettes`; every meaning a
//! colour has is also a glyph, so that `NO_COLOR` and 16 colours say the same.
//!
//! Panes draw with Unicode. Where the terminal cannot, [`App`](super::app::App) replaces what is left of it in a last
//! pass ([`Theme::to_ascii`]); glyphs that must stay distinct in ASCII come from here ([`Theme::state_glyph`],
//! [`Theme::shade`], [`Theme::eighth`]).

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use super::palette::{Palette, Role};
use crate::tick::{FrameKind, State};

/// How many colours there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// None: attributes (bold, reversed, underlined) and glyphs only.
    #[default]
    None,
    /// The sixteen of ANSI.
    Ansi16,
    /// xterm's 256.
    Ansi256,
    /// Red, green and blue.
    True,
}

/// What lies behind the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Light text on a dark ground.
    #[default]
    Dark,
    /// Dark text on a light ground.
    Light,
}

/// How everything looks.
#[derive(Clone, Debug)]
pub struct Theme {
    /// Colours there are.
    pub depth: Depth,
    /// Only ASCII may be written.
    pub ascii: bool,
    /// What lies behind.
    pub background: Background,
    palette: Palette,
}

/// Density of each state, [`State::ALL`] order: distinct without colour.
const STATE_GLYPHS: [&str; State::COUNT] = ["█", "▓", "▒", "░", "▚", "╳", "≈", "═", "·", "-", "▞", "▪", "─"];
/// How much of a cell each of these inks, about.
const STATE_INK: [f64; State::COUNT] = [1.0, 0.75, 0.5, 0.25, 0.5, 0.35, 0.3, 0.3, 0.1, 0.1, 0.5, 0.2, 0.12];
const STATE_ASCII: [&str; State::COUNT] = ["#", "%", "+", "x", "D", "L", "N", "P", ".", "-", "F", "S", "o"];
const SHADES: [char; 6] = [' ', '·', '░', '▒', '▓', '█'];
const SHADES_ASCII: [char; 8] = [' ', '.', ':', '-', '+', '*', '#', '@'];
/// Cells filled from the left by 0…8 eighths.
const EIGHTHS: [&str; 9] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
/// Cells filled from below by 0…8 eighths.
const LEVELS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const LEVELS_ASCII: [&str; 9] = [" ", ".", ".", ":", ":", "+", "+", "#", "#"];

impl Default for Theme {
    /// True colour on a dark ground, Unicode.
    fn default() -> Self {
        Theme::new(Depth::True, false, Background::Dark)
    }
}

impl Theme {
    /// The default palette at that depth.
    pub fn new(depth: Depth, ascii: bool, background: Background) -> Self {
        Theme { depth, ascii, background, palette: Palette::okabe_ito(background) }
    }

    /// What the environment says of the terminal: `NO_COLOR`, `COLORTERM`, `TERM`, `COLORFGBG`, and the locale for UTF-8.
    pub fn detect(env: &impl Fn(&str) -> Option<String>) -> Self {
        Theme::new(detect_depth(env), !detect_utf8(env), detect_background(env))
    }

    /// Another palette, as in `assets/palettes`.
    pub fn with_palette(mut self, toml: &str) -> Result<Self, String> {
        self.palette = Palette::parse(toml, self.background)?;
        Ok(self)
    }

    /// The colour of a role here; `None` without colours.
    pub fn color(&self, role: Role) -> Option<Color> {
        self.palette.color(role, self.depth)
    }

    fn fg(&self, role: Role) -> Style {
        Style { fg: self.color(role), ..Style::new() }
    }

    /// A state, as foreground.
    pub fn state(&self, state: State) -> Style {
        self.fg(state_role(state))
    }

    /// The glyph of a state: its density tells it from the others without colour.
    pub fn state_glyph(&self, state: State) -> &'static str {
        if self.ascii { STATE_ASCII[state as usize] } else { STATE_GLYPHS[state as usize] }
    }

    /// A state as an even colour that looks like its glyph does; `None` where there are too few colours for that.
    pub fn state_tint(&self, state: State) -> Option<Color> {
        self.palette.tint(state_role(state), STATE_INK[state as usize], self.depth, self.background)
    }

    /// A kind of frame, as foreground.
    pub fn kind(&self, kind: FrameKind) -> Style {
        match kind {
            FrameKind::User => self.fg(Role::User),
            FrameKind::Kernel => self.fg(Role::Kernel),
            FrameKind::Jit => self.fg(Role::Jit),
            FrameKind::Inlined => self.fg(Role::Inlined),
            FrameKind::Note => self.fg(Role::Note).add_modifier(Modifier::ITALIC),
        }
    }

    /// A block of a state's colour with text on it that can be read; reversed without colours.
    pub fn state_fill(&self, state: State) -> Style {
        self.fill(state_role(state))
    }

    /// A block of a kind's colour with text on it that can be read; reversed without colours.
    pub fn kind_fill(&self, kind: FrameKind) -> Style {
        match kind {
            FrameKind::User => self.fill(Role::User),
            FrameKind::Kernel => self.fill(Role::Kernel),
            FrameKind::Jit => self.fill(Role::Jit),
            FrameKind::Inlined => self.fill(Role::Inlined),
            FrameKind::Note => self.fill(Role::Note).add_modifier(Modifier::ITALIC),
        }
    }

    fn fill(&self, role: Role) -> Style {
        match self.color(role) {
            None => Style::new().add_modifier(Modifier::REVERSED),
            Some(color) => Style::new().bg(color).fg(self.palette.ink_on(role, self.depth)),
        }
    }

    /// One cell of a heat map, `level` from 0 (nothing: a blank) to 1: density and colour both rise.
    pub fn shade(&self, level: f64) -> (char, Style) {
        let glyphs: &[char] = if self.ascii { &SHADES_ASCII } else { &SHADES };
        let level = if level.is_finite() { level.clamp(0.0, 1.0) } else { 0.0 };
        if level == 0.0 {
            return (' ', Style::new());
        }
        let steps = glyphs.len() - 1;
        let step = ((level * steps as f64).ceil() as usize).clamp(1, steps);
        (glyphs[step], Style { fg: self.palette.ramp(level, self.depth), ..Style::new() })
    }

    /// A cell filled from the left by that many eighths. ASCII: blank or `#`.
    pub fn eighth(&self, eighths: usize) -> &'static str {
        match self.ascii {
            true if eighths >= 4 => "#",
            true => " ",
            false => EIGHTHS[eighths.min(8)],
        }
    }

    /// A cell filled from below by that many eighths.
    pub fn level(&self, eighths: usize) -> &'static str {
        if self.ascii { LEVELS_ASCII[eighths.min(8)] } else { LEVELS[eighths.min(8)] }
    }

    /// Ordinary text.
    pub fn text(&self) -> Style {
        Style::new()
    }

    /// What matters less: units, what has exited, hints.
    pub fn dim(&self) -> Style {
        match self.color(Role::Dim) {
            Some(color) => Style::new().fg(color),
            None => Style::new().add_modifier(Modifier::DIM),
        }
    }

    /// Column heads and titles.
    pub fn header(&self) -> Style {
        self.fg(Role::Header).add_modifier(Modifier::BOLD)
    }

    /// The row or cell under the cursor: patch it over what is there.
    pub fn selected(&self) -> Style {
        match (self.depth, self.color(Role::Selected)) {
            (Depth::Ansi256 | Depth::True, Some(color)) => Style::new().bg(color).add_modifier(Modifier::BOLD),
            _ => Style::new().add_modifier(Modifier::REVERSED),
        }
    }

    /// What can be pressed or clicked: keys, the place we are at, the column sorted by.
    pub fn accent(&self) -> Style {
        self.fg(Role::Accent).add_modifier(Modifier::BOLD)
    }

    /// Loss and error.
    pub fn alert(&self) -> Style {
        match self.color(Role::Alert) {
            Some(color) => Style::new().fg(color).add_modifier(Modifier::BOLD),
            None => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }

    /// Worth a look: paused, a stack quality that is low.
    pub fn warn(&self) -> Style {
        self.fg(Role::Warn).add_modifier(Modifier::BOLD)
    }

    /// What a search found: patch it over what is there.
    pub fn match_(&self) -> Style {
        match self.color(Role::Match) {
            Some(color) => Style::new().fg(color).add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            None => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
        }
    }

    /// Lines between parts.
    pub fn border(&self) -> Style {
        self.fg(Role::Border)
    }

    /// Replaces what is not ASCII on a finished frame, when the terminal cannot show it.
    pub fn to_ascii(&self, buf: &mut Buffer) {
        if !self.ascii {
            return;
        }
        for cell in &mut buf.content {
            if !cell.symbol().is_ascii() {
                let replacement = cell.symbol().chars().next().map_or(' ', ascii_of);
                cell.set_char(replacement);
            }
        }
    }
}

/// The role of a state in a palette.
pub(super) fn state_role(state: State) -> Role {
    match state {
        State::User => Role::User,
        State::Kernel => Role::Kernel,
        State::Woken | State::Preempted => Role::Runnable,
        State::Disk => Role::Disk,
        State::Lock => Role::Lock,
        State::Net => Role::Net,
        State::Pipe => Role::Pipe,
        State::Timer => Role::Timer,
        State::Poll => Role::Poll,
        State::Fault => Role::Fault,
        State::Stopped => Role::Stopped,
        State::Other => Role::Other,
    }
}

/// The nearest to a character that ASCII has; `?` for what it knows nothing of.
fn ascii_of(c: char) -> char {
    match c {
        'µ' | 'μ' => 'u',
        '…' => '~',
        '–' | '—' | '─' | '╌' | '┄' | '▔' => '-',
        '│' | '┃' | '▏' | '▎' | '▕' | '╎' => '|',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' | '╭' | '╮' | '╰' | '╯' => '+',
        '·' | '∙' | '•' | '▁' | '▂' => '.',
        '›' | '▸' | '▶' | '→' | '»' => '>',
        '‹' | '◂' | '◀' | '←' | '«' => '<',
        '▼' | '▾' | '↓' => 'v',
        '▲' | '▴' | '↑' => '^',
        '†' => '!',
        '×' => 'x',
        '⏎' => '>',
        '░' => ':',
        '▒' | '▃' | '▄' => '+',
        '▓' | '▅' | '▆' => '%',
        '█' | '▇' | '▉' | '▊' | '▋' | '▌' | '▍' => '#',
        '◆' | '●' | '■' | '▪' => '*',
        '\u{2002}'..='\u{200a}' | '\u{a0}' | '\u{202f}' => ' ',
        _ => '?',
    }
}

fn detect_depth(env: &impl Fn(&str) -> Option<String>) -> Depth {
    let get = |name: &str| env(name).unwrap_or_default();
    if !get("NO_COLOR").is_empty() {
        return Depth::None;
    }
    let term = get("TERM");
    if term.is_empty() || term == "dumb" || term.starts_with("vt") {
        return Depth::None;
    }
    let direct = ["direct", "kitty", "alacritty", "ghostty", "wezterm", "foot"];
    if matches!(get("COLORTERM").as_str(), "truecolor" | "24bit") || direct.iter().any(|name| term.contains(name)) {
        return Depth::True;
    }
    if term.contains("256color") { Depth::Ansi256 } else { Depth::Ansi16 }
}

/// The first of these that is set decides, as `setlocale(3)` has it.
fn detect_utf8(env: &impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| env(name)).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// rxvt's `COLORFGBG=foreground;background`, which others set too; without it, dark.
fn detect_background(env: &impl Fn(&str) -> Option<String>) -> Background {
    let background = env("COLORFGBG").and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok());
    match background {
        Some(7 | 9..=15) => Background::Light,
        _ => Background::Dark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    }

    #[test]
    fn environment_decides_the_depth() {
        let depth = |pairs| Theme::detect(&env(pairs)).depth;
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]), Depth::None);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "")]), Depth::Ansi256);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")]), Depth::True);
        assert_eq!(depth(&[("TERM", "xterm")]), Depth::Ansi16);
        assert_eq!(depth(&[("TERM", "linux")]), Depth::Ansi16);
        assert_eq!(depth(&[("TERM", "dumb")]), Depth::None);
        assert_eq!(depth(&[]), Depth::None);
    }

    #[test]
    fn locale_decides_unicode() {
        assert!(!Theme::detect(&env(&[("LANG", "en_US.UTF-8")])).ascii);
        assert!(!Theme::detect(&env(&[("LC_ALL", "C.utf8"), ("LANG", "C")])).ascii);
        assert!(Theme::detect(&env(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")])).ascii);
        assert!(Theme::detect(&env(&[])).ascii);
    }

    #[test]
    fn background_comes_from_colorfgbg() {
        assert_eq!(Theme::detect(&env(&[("COLORFGBG", "0;15")])).background, Background::Light);
        assert_eq!(Theme::detect(&env(&[("COLORFGBG", "15;default;0")])).background, Background::Dark);
    }

    #[test]
    fn states_differ_without_colour() {
        for ascii in [false, true] {
            let theme = Theme::new(Depth::None, ascii, Background::Dark);
            let glyphs: HashSet<_> = State::ALL.iter().map(|&state| theme.state_glyph(state)).collect();
            assert_eq!(glyphs.len(), State::COUNT);
            assert!(!glyphs.contains(ascii_of('†').to_string().as_str()), "who exited is no state");
            assert!(!glyphs.contains(" "), "a blank means idle");
        }
    }

    #[test]
    fn without_colours_no_style_has_one() {
        let theme = Theme::new(Depth::None, false, Background::Dark);
        let mut styles: Vec<Style> = State::ALL.iter().flat_map(|&s| [theme.state(s), theme.state_fill(s)]).collect();
        let kinds = [FrameKind::User, FrameKind::Kernel, FrameKind::Jit, FrameKind::Inlined, FrameKind::Note];
        styles.extend(kinds.iter().flat_map(|&kind| [theme.kind(kind), theme.kind_fill(kind)]));
        styles.extend([theme.dim(), theme.header(), theme.selected(), theme.accent(), theme.alert()]);
        styles.extend([theme.warn(), theme.match_(), theme.border(), theme.text(), theme.shade(0.7).1]);
        assert!(styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
    }

    #[test]
    fn shades_rise_in_at_least_five_steps() {
        for (depth, ascii) in [(Depth::None, true), (Depth::None, false), (Depth::Ansi16, false)] {
            let theme = Theme::new(depth, ascii, Background::Dark);
            let glyphs: HashSet<char> = (0..=100).map(|level| theme.shade(f64::from(level) / 100.0).0).collect();
            assert!(glyphs.len() >= 6, "{depth:?} {ascii}: {glyphs:?}");
        }
        assert_eq!(Theme::default().shade(0.0).0, ' ');
        assert_ne!(Theme::default().shade(1e-9).0, ' ', "little is not nothing");
        assert_eq!(Theme::default().shade(f64::NAN).0, ' ');
    }

    #[test]
    fn ascii_leaves_nothing_else() {
        let mut buf = Buffer::with_lines(["4.1µs … 日本 ▸ │ é"]);
        Theme::new(Depth::None, true, Background::Dark).to_ascii(&mut buf);
        assert_eq!(buf, Buffer::with_lines(["4.1us ~ ? ?  > | ?"]));
    }
}
