//! Texts to filter and search by: plain text in any case, or `/a regular expression/`.

use regex::{Regex, RegexBuilder};

/// What a row must hold to match.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// This, in any case (held in lower case).
    Text(String),
    /// Something that this describes.
    Regex(Regex),
}

impl Matcher {
    /// `None` for an empty text. A text that begins with `/` is a regular expression, up to a `/` at its end; it minds case
    /// if it holds a capital. The error says in a few words what is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some(pattern) = text.strip_prefix('/') else {
            return Ok((!text.is_empty()).then(|| Matcher::Text(text.to_lowercase())));
        };
        let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
        if pattern.is_empty() {
            return Ok(None);
        }
        let any_case = !pattern.chars().any(char::is_uppercase);
        let regex = RegexBuilder::new(pattern).case_insensitive(any_case).size_limit(1 << 20).build();
        regex.map(|regex| Some(Matcher::Regex(regex))).map_err(|error| explain(&error))
    }

    /// Whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Matcher::Text(wanted) if text.is_ascii() && wanted.is_ascii() => contains_ascii(text, wanted),
            Matcher::Text(wanted) => text.to_lowercase().contains(wanted.as_str()),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }
}

/// `wanted` is in lower case.
fn contains_ascii(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

/// The reason alone, without the picture of where.
fn explain(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "this expression would need too much memory".into(),
        error => {
            let text = error.to_string();
            let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
            format!("not a regular expression: {}", reason.unwrap_or(text.lines().next_back().unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Matcher::parse(pattern).unwrap().unwrap().matches(text)
    }

    #[test]
    fn plain_text_matches_in_any_case() {
        assert!(matches("NgInx", "8120 www nginx: worker"));
        assert!(matches("ÄRGER", "ein ärger"));
        assert!(matches("a.b", "xa.by") && !matches("a.b", "axb"), "a dot is a dot");
        assert!(!matches("nginx", "ngin"));
    }

    #[test]
    fn slashes_make_an_expression() {
        assert!(matches("/^81.*worker$/", "8120 www nginx: worker"));
        assert!(matches("/post|ngi", "NGINX"));
        assert!(!matches("/NGI/", "nginx"), "a capital means case");
    }

    #[test]
    fn nothing_matches_everything_or_says_so() {
        assert!(Matcher::parse("").unwrap().is_none());
        assert!(Matcher::parse("/").unwrap().is_none());
        assert!(Matcher::parse("//").unwrap().is_none());
    }

    #[test]
    fn bad_expressions_are_explained_in_one_line() {
        let error = Matcher::parse("/(a/").unwrap_err();
        assert_eq!(error, "not a regular expression: unclosed group");
        let error = Matcher::parse("/(a{1000}){1000}/").unwrap_err();
        assert!(error.contains("memory"), "{error}");
    }
}
