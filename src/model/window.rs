//! How much of the past a view covers.

use std::time::Duration;

use crate::tick::Span;

/// How much of the past a view covers, up to the tick it stands at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Window {
    /// The newest tick only.
    #[default]
    Tick,
    /// The ticks of that many last seconds; the newest one at least.
    Last(Duration),
    /// These ticks by number, both inclusive; the first tick applied is number 1. What memory does not hold any more
    /// is left out.
    Ticks {
        /// The earliest.
        first: u64,
        /// The latest.
        last: u64,
    },
    /// Since the start.
    All,
}

/// Ticks by number, both inclusive; none if `first > last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TickRange {
    pub first: u64,
    pub last: u64,
}

impl TickRange {
    /// What both have.
    pub fn intersect(self, other: TickRange) -> TickRange {
        TickRange { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// No tick.
    pub fn is_empty(self) -> bool {
        self.first > self.last
    }
}

/// Ticks that a window covers, of those whose spans are given (oldest first, the newest being number `newest`). `None`
/// for [`Window::All`], which has sums of its own.
pub(super) fn resolve(
    window: Window,
    newest: u64,
    spans: impl DoubleEndedIterator<Item = Span> + ExactSizeIterator,
) -> Option<TickRange> {
    let held = TickRange { first: (newest + 1).saturating_sub(spans.len() as u64), last: newest };
    match window {
        Window::All => None,
        Window::Tick => Some(TickRange { first: newest, last: newest }),
        Window::Ticks { first, last } => Some(held.intersect(TickRange { first, last })),
        Window::Last(length) => Some(TickRange { first: newest + 1 - last_ticks(length, spans), last: newest }),
    }
}

/// How many of the last ticks reach into the last `length`: those of which more than half lies in it, one at least.
fn last_ticks(length: Duration, spans: impl DoubleEndedIterator<Item = Span>) -> u64 {
    let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let mut spans = spans.rev().peekable();
    let Some(end_ns) = spans.peek().map(|span| span.end_ns) else { return 0 };
    let within = |span: &Span| end_ns.saturating_sub(span.start_ns.midpoint(span.end_ns)) <= length;
    (spans.take_while(within).count() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn spans(n: u64) -> impl DoubleEndedIterator<Item = Span> + ExactSizeIterator {
        // Ticks that start up to 3 ms late.
        let start = |i: u64| i * SECOND + i % 4 * 1_000_000;
        let spans: Vec<Span> = (0..n).map(|i| Span { start_ns: start(i), end_ns: start(i + 1), wall_ns: 0 }).collect();
        spans.into_iter()
    }

    #[test]
    fn seconds_become_ticks_in_spite_of_jitter() {
        let last = |seconds| resolve(Window::Last(Duration::from_secs(seconds)), 20, spans(20));
        assert_eq!(last(10), Some(TickRange { first: 11, last: 20 }));
        assert_eq!(last(1), Some(TickRange { first: 20, last: 20 }));
        assert_eq!(last(0), Some(TickRange { first: 20, last: 20 }));
        assert_eq!(last(99), Some(TickRange { first: 1, last: 20 }));
    }

    #[test]
    fn only_what_is_held() {
        let at = |first, last| resolve(Window::Ticks { first, last }, 20, spans(5));
        assert_eq!(at(1, 17), Some(TickRange { first: 16, last: 17 }));
        assert!(at(1, 3).is_some_and(TickRange::is_empty));
        assert_eq!(resolve(Window::All, 20, spans(5)), None);
        assert!(resolve(Window::Last(Duration::MAX), 0, spans(0)).is_some_and(TickRange::is_empty));
    }
}
