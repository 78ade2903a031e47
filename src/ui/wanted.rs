//! What panes want kept fresh or explained, and what of that was asked for already.

use rustc_hash::FxHashSet;

use super::{Action, Wants};
use crate::tick::{Frame, FrameId};

/// Frames that are remembered as asked for; beyond that they may be asked for again.
const MOST_DETAILED: usize = 200_000;

/// What was asked for.
#[derive(Default)]
pub(super) struct Asked {
    wants: Wants,
    detailed: FxHashSet<FrameId>,
}

impl Asked {
    /// What is new in what a pane wants.
    pub fn news(&mut self, wants: Wants, plain: Vec<(FrameId, Frame)>) -> Vec<Action> {
        let mut actions = Vec::new();
        if wants.visible != self.wants.visible {
            actions.push(Action::Visible(wants.visible.clone()));
        }
        if wants.focus != self.wants.focus {
            actions.push(Action::Focus(wants.focus));
        }
        self.wants = wants;
        if self.detailed.len() > MOST_DETAILED {
            self.detailed.clear();
        }
        let new: Vec<_> = plain.into_iter().filter(|(id, _)| self.detailed.insert(*id)).collect();
        if !new.is_empty() {
            actions.push(Action::Detail(new));
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_asked_for_once() {
        let mut asked = Asked::default();
        let frame = |id| (FrameId(id), Frame::default());
        assert_eq!(asked.news(Wants::default(), vec![frame(1)]), [Action::Detail(vec![frame(1)])]);
        assert!(asked.news(Wants::default(), vec![frame(1)]).is_empty());
        assert_eq!(asked.news(Wants::default(), vec![frame(1), frame(2)]), [Action::Detail(vec![frame(2)])]);
        let many = (0..=MOST_DETAILED as u32).map(frame).collect();
        asked.news(Wants::default(), many);
        assert_eq!(asked.news(Wants::default(), vec![frame(1)]).len(), 1, "what is forgotten is asked for again");
    }
}
