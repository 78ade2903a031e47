//! Search in a tree: which frames match, and what share of the weight lies under them.

use regex::{Regex, RegexBuilder};

use crate::model::CallTree;

/// A text to look for: a regular expression if it is one, else the text as it stands. Case is ignored unless the text
/// has a capital.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// `None` for an empty text.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let ignore_case = !text.chars().any(char::is_uppercase);
        let build =
            |pattern: &str| RegexBuilder::new(pattern).case_insensitive(ignore_case).size_limit(1 << 20).build().ok();
        let regex = build(text).or_else(|| build(&regex::escape(text)))?;
        Some(Pattern { text: text.to_owned(), regex })
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

/// What a search found in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// By node: it matches.
    matched: Vec<bool>,
    /// By node: it matches, or something below it does.
    within: Vec<bool>,
    /// Frames that match.
    pub frames: usize,
    /// Weight under them; a path with several of them counts once.
    pub weight: u64,
}

impl Hits {
    /// Looks through what hangs below `top`, `top` itself included.
    pub fn find(tree: &CallTree, top: u32, pattern: &Pattern) -> Self {
        let count = tree.nodes.len();
        let mut hits = Hits { matched: vec![false; count], within: vec![false; count], ..Hits::default() };
        // Parents precede children, so one pass knows whether a path is counted already.
        let mut path = vec![Path::Outside; count];
        for (at, node) in tree.nodes.iter().enumerate().skip(top as usize) {
            let above = if at == top as usize { Path::Inside } else { path[node.parent as usize] };
            if above == Path::Outside {
                continue;
            }
            let matched = at != 0 && pattern.matches(&node.name);
            if matched && above == Path::Inside {
                hits.weight += node.total_weight;
            }
            hits.frames += usize::from(matched);
            hits.matched[at] = matched;
            path[at] = if matched { Path::Counted } else { above };
        }
        hits.spread(tree);
        hits
    }

    fn spread(&mut self, tree: &CallTree) {
        for at in (0..self.matched.len()).rev() {
            self.within[at] |= self.matched[at];
            if self.within[at] {
                self.within[tree.nodes[at].parent as usize] = true;
            }
        }
    }

    /// The node matches.
    pub fn matched(&self, node: u32) -> bool {
        self.matched.get(node as usize).copied().unwrap_or(false)
    }

    /// The node matches or something below it does.
    pub fn within(&self, node: u32) -> bool {
        self.within.get(node as usize).copied().unwrap_or(false)
    }
}

/// Where a path stands, seen from a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Outside,
    Inside,
    Counted,
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::tree;
    use super::*;

    #[test]
    fn a_path_counts_once() {
        //  all ─ main ─ parse(10) ─ parse(20) ─ lex(5)
        //            └─ write(65)
        let tree = tree(&[
            (0, "all", 0),
            (0, "main", 0),
            (1, "parse_expr", 10),
            (2, "parse_expr", 20),
            (3, "lex", 5),
            (1, "write", 65),
        ]);
        let hits = Hits::find(&tree, 0, &Pattern::new("parse").unwrap());
        assert_eq!((hits.frames, hits.weight), (2, 35));
        assert!(hits.matched(2) && hits.matched(3) && !hits.matched(4) && !hits.matched(1));
        assert!(hits.within(1) && hits.within(0) && !hits.within(5) && !hits.within(99));
    }

    #[test]
    fn below_a_zoom_only() {
        let tree = tree(&[(0, "all", 0), (0, "a", 1), (1, "x", 2), (0, "b", 4), (3, "x", 8), (4, "x", 16)]);
        let hits = Hits::find(&tree, 3, &Pattern::new("^x$").unwrap());
        assert_eq!((hits.frames, hits.weight), (2, 24));
        assert!(!hits.matched(2));
    }

    #[test]
    fn any_text_is_a_pattern() {
        assert!(Pattern::new("").is_none());
        assert!(Pattern::new("operator()(").unwrap().matches("Foo::operator()(int)"));
        assert!(Pattern::new("[k").unwrap().matches("pwrite64_[k]"));
        assert!(Pattern::new("exec").unwrap().matches("ExecScan"));
        assert!(!Pattern::new("Exec").unwrap().matches("exec_simple"));
        assert!(Pattern::new("^Exec|^pg_").unwrap().matches("pg_parse"));
    }

    #[test]
    fn nothing_in_an_empty_tree() {
        assert_eq!(Hits::find(&CallTree::default(), 0, &Pattern::new("x").unwrap()), Hits::default());
    }
}
