//! The rules of all files of the machine, each once: a few thousand, however many files there are.

use rustc_hash::FxHashMap;

use super::rule::{Rule, shape};

/// Rules by index. The first two are always the same.
#[derive(Debug)]
pub struct Rules {
    packed: Vec<u64>,
    index: FxHashMap<u64, u16>,
    full: u64,
}

/// Index of [`Rule::NONE`].
pub const NONE: u16 = 0;
/// Index of [`Rule::UNSUPPORTED`].
pub const UNSUPPORTED: u16 = 1;

/// New rules that one file may bring. Real ones have up to 800; who invents more shall not take the room of all others.
pub const MOST_OF_A_FILE: u32 = 4096;

impl Default for Rules {
    fn default() -> Self {
        let mut rules = Rules { packed: Vec::new(), index: FxHashMap::default(), full: 0 };
        for rule in [Rule::NONE, Rule::UNSUPPORTED] {
            rules.add(rule.pack());
        }
        rules
    }
}

impl Rules {
    /// Index of a rule; `new` counts those that were not there. Where there is no room for another one, in all or of this
    /// file, it is [`UNSUPPORTED`].
    pub fn index(&mut self, rule: Rule, new: &mut u32) -> u16 {
        let packed = rule.pack();
        if let Some(&index) = self.index.get(&packed) {
            return index;
        }
        if self.packed.len() >= shape::RULES as usize || *new >= MOST_OF_A_FILE {
            self.full += 1;
            return UNSUPPORTED;
        }
        *new += 1;
        self.add(packed)
    }

    fn add(&mut self, packed: u64) -> u16 {
        let index = self.packed.len() as u16;
        self.packed.push(packed);
        self.index.insert(packed, index);
        index
    }

    /// The rule at an index.
    pub fn get(&self, index: u16) -> Option<Rule> {
        self.packed.get(usize::from(index)).copied().map(Rule::unpack)
    }

    /// All of them, packed, by index. It only grows: who wrote the first n needs to write those behind them.
    pub fn packed(&self) -> &[u64] {
        &self.packed
    }

    /// Rows whose rule found no room.
    pub fn refused(&self) -> u64 {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Cfa, Fp};
    use super::*;

    fn sp(offset: i32) -> Rule {
        Rule { cfa: Cfa::Sp(offset), fp: Fp::Same }
    }

    #[test]
    fn equal_rules_share_an_index() {
        let (mut rules, mut new) = (Rules::default(), 0);
        let a = rules.index(sp(8), &mut new);
        let b = rules.index(sp(16), &mut new);
        assert_eq!((rules.index(sp(8), &mut new), new), (a, 2));
        assert_eq!((rules.get(a), rules.get(b), rules.get(99)), (Some(sp(8)), Some(sp(16)), None));
        assert_eq!(rules.index(Rule::NONE, &mut new), NONE);
        assert_eq!(rules.index(Rule::UNSUPPORTED, &mut new), UNSUPPORTED);
        assert_eq!((rules.packed().len(), new), (4, 2));
    }

    #[test]
    fn neither_a_file_nor_all_take_more_than_their_room() {
        let mut rules = Rules::default();
        let mut new = 0;
        for offset in 0..5000 {
            rules.index(sp(offset), &mut new);
        }
        assert_eq!((new, rules.refused()), (MOST_OF_A_FILE, 5000 - u64::from(MOST_OF_A_FILE)));
        for file in 1..40 {
            let mut new = 0;
            for offset in 0..4000 {
                rules.index(sp(file * 10_000 + offset), &mut new);
            }
        }
        assert_eq!(rules.packed().len(), shape::RULES as usize);
        assert_eq!(rules.index(sp(-1), &mut 0), UNSUPPORTED);
        assert!(rules.get(u16::MAX).is_some_and(|last| rules.index(last, &mut 0) == u16::MAX));
    }
}
