//! Just enough of Rust's syntax to know which paths a file names: comments, strings and test modules left out,
//! `use` groups spelt out, `super` resolved.

/// A path as written in one place, `use` groups spelt out: `std::fs::File`, `crate::collect::Source`, `std::time::*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    /// Counted from 1.
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }
}

/// A file, read.
pub struct Source {
    tokens: Vec<Token>,
    module: Vec<String>,
    /// Modules declared `#[cfg(test)] mod name;`: files of their own that hold only tests.
    pub test_modules: Vec<String>,
}

impl Source {
    /// Reads the text of the module with that path (`["ui", "table"]`), without what is only compiled for tests.
    pub fn parse(text: &str, module: &[&str]) -> Self {
        let mut tokens = tokenize(text);
        let test_modules = drop_test_modules(&mut tokens);
        Source { tokens, module: module.iter().map(|name| name.to_string()).collect(), test_modules }
    }

    /// Every path of two or more segments, and every single name that is imported.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let importing = self.tokens[at].text == "use";
            let starts = self.tokens[at].is_word() && !importing;
            if importing || starts {
                let from = if importing { at + 1 } else { at };
                let mut found = Vec::new();
                at = spell_out(&self.tokens, from, &[], &mut found).max(from);
                found.retain(|path| importing || path.segments.len() > 1);
                paths.extend(found);
            } else {
                at += 1;
            }
        }
        paths.iter_mut().for_each(|path| self.resolve(path));
        paths
    }

    /// Lines on which a word stands, outside comments and strings.
    pub fn lines_of(&self, word: &str) -> Vec<usize> {
        self.tokens.iter().filter(|token| token.text == word).map(|token| token.line).collect()
    }

    /// Whether these tokens follow each other somewhere.
    pub fn has(&self, tokens: &[&str]) -> bool {
        self.tokens.windows(tokens.len()).any(|window| window.iter().map(|token| &token.text).eq(tokens))
    }

    /// `super::x` in module a::b becomes `crate::a::x`.
    fn resolve(&self, path: &mut Path) {
        let ups = path.segments.iter().take_while(|segment| *segment == "super").count();
        let here = path.segments.first().is_some_and(|segment| segment == "self");
        if ups == 0 && !here {
            return;
        }
        let keep = self.module.len().saturating_sub(ups);
        let mut segments = vec!["crate".to_string()];
        segments.extend_from_slice(&self.module[..keep]);
        segments.extend_from_slice(&path.segments[ups + usize::from(here)..]);
        path.segments = segments;
    }
}

/// Reads one path, with its groups, at `at`; gives the place after it.
fn spell_out(tokens: &[Token], mut at: usize, prefix: &[String], out: &mut Vec<Path>) -> usize {
    let line = tokens.get(at).map_or(0, |token| token.line);
    let mut segments = prefix.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    if text(at) == "::" {
        at += 1;
    }
    loop {
        if text(at) == "{" {
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                let next = spell_out(tokens, at, &segments, out);
                at = next.max(at + 1);
                if text(at) == "as" {
                    at += 2;
                }
                if text(at) == "," {
                    at += 1;
                }
            }
            return at + 1;
        }
        if text(at) == "*" || tokens.get(at).is_some_and(Token::is_word) {
            // `{self, …}` names the module itself.
            if text(at) != "self" || segments.is_empty() {
                segments.push(text(at).to_string());
            }
            at += 1;
        }
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    if segments.len() > prefix.len() || tokens.get(at.wrapping_sub(1)).is_some_and(|token| token.text == "self") {
        out.push(Path { segments, line });
    }
    at
}

/// Takes out `#[cfg(test)] mod name { … }` and what else stands under `#[cfg(test)]`; names of those without a body.
fn drop_test_modules(tokens: &mut Vec<Token>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut outside = Vec::new();
    while let Some(start) = tokens.windows(MARK.len()).position(|w| w.iter().map(|t| t.text.as_str()).eq(MARK)) {
        let mut depth = 0usize;
        let mut end = start + MARK.len();
        let mut name = None;
        while let Some(token) = tokens.get(end) {
            match token.text.as_str() {
                "mod" if depth == 0 => name = tokens.get(end + 1).map(|token| token.text.clone()),
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            end += 1;
            let closes = token.text == "}" && depth == 0;
            let ends = token.text == ";" && depth == 0;
            if ends {
                outside.extend(name.take());
            }
            if closes || ends {
                break;
            }
        }
        tokens.drain(start..end);
    }
    outside
}

/// Words, `::` and single signs; comments, strings and character literals left out.
fn tokenize(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut tokens) = (0, 1, Vec::new());
    while at < chars.len() {
        let start = at;
        let next = chars.get(at + 1).copied();
        match chars[at] {
            '/' if next == Some('/') => at = find(&chars, at, |c| c == '\n'),
            '/' if next == Some('*') => at = after_block_comment(&chars, at),
            '"' => at = after_string(&chars, at + 1, 0, true),
            'r' | 'b' | 'c' if let Some((open, hashes, escapes)) = string_start(&chars, at) => {
                at = after_string(&chars, open, hashes, escapes);
            }
            '\'' => at = after_quote(&chars, at),
            c if c.is_alphanumeric() || c == '_' => {
                at = find(&chars, at, |c| !c.is_alphanumeric() && c != '_');
                tokens.push(Token { text: chars[start..at].iter().collect(), line });
            }
            ':' if next == Some(':') => {
                at += 2;
                tokens.push(Token { text: "::".into(), line });
            }
            c if c.is_whitespace() => at += 1,
            c => {
                at += 1;
                tokens.push(Token { text: c.into(), line });
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| stop(c)).map_or(chars.len(), |offset| from + offset)
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// `r"`, `r#"`, `b"`, `br#"`, `c"`: (place after the quote, number of hashes, whether a backslash escapes).
fn string_start(chars: &[char], at: usize) -> Option<(usize, usize, bool)> {
    let mut open = at;
    while matches!(chars.get(open), Some('r' | 'b' | 'c')) && open - at < 2 {
        open += 1;
    }
    let raw = chars[at..open].contains(&'r');
    let hashes = chars[open..].iter().take_while(|c| **c == '#').count();
    (chars.get(open + hashes) == Some(&'"') && (raw || hashes == 0)).then_some((open + hashes + 1, hashes, !raw))
}

fn after_string(chars: &[char], mut at: usize, hashes: usize, escapes: bool) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' if escapes => at += 2,
            '"' if chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes => return at + 1 + hashes,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal or a lifetime.
fn after_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => find(chars, (at + 3).min(chars.len()), |c| c == '\'') + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => find(chars, at + 1, |c| !c.is_alphanumeric() && c != '_'),
    }
}
