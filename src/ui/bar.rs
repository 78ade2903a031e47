//! The state bar: a span of wall time as a row of cells, cut by state, to an eighth of a cell.
//!
//! Its full width is the whole time, always. States come in the order of [`State::ALL`], but for idle waits, which come
//! last: what is not idle is then one piece from the left edge, and its length can be compared from row to row.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Theme;
use super::theme::Depth;
use crate::model::is_idle_wait as is_idle;
use crate::tick::{State, StateNs};

/// Parts of a bar, in their order: (state, units). Units sum to `units` exactly, unless there is no time at all.
///
/// What rounding leaves goes to the largest remainders.
pub fn parts(ns: &StateNs, kernel_thread: bool, units: usize) -> Vec<(State, usize)> {
    let total = u128::from(ns.total());
    if total == 0 {
        return Vec::new();
    }
    let order = |idle: bool| State::ALL.into_iter().filter(move |&state| is_idle(state, kernel_thread) == idle);
    let exact = |state: State| u128::from(ns[state]) * units as u128;
    let mut parts: Vec<(State, usize)> =
        order(false).chain(order(true)).map(|state| (state, (exact(state) / total) as usize)).collect();
    let left = units - parts.iter().map(|&(_, units)| units).sum::<usize>();
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    by_remainder.sort_by_key(|&at| std::cmp::Reverse(exact(parts[at].0) % total));
    for &at in by_remainder.iter().take(left) {
        parts[at].1 += 1;
    }
    parts.retain(|&(_, units)| units > 0);
    parts
}

/// Draws the bar on the first line of `area`. Idle waits are left blank unless `idle`.
pub fn render(ns: &StateNs, kernel_thread: bool, idle: bool, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(*buf.area());
    if area.is_empty() {
        return;
    }
    let parts = parts(ns, kernel_thread, usize::from(area.width) * 8);
    let mut pieces = parts.into_iter().peekable();
    let mut used = 0;
    for x in area.left()..area.right() {
        let mut cell = [None; 8];
        for slot in &mut cell {
            while pieces.next_if(|&(_, units)| used >= units).is_some() {
                used = 0;
            }
            let state = pieces.peek().map(|&(state, _)| state);
            *slot = state.filter(|&state| idle || !is_idle(state, kernel_thread));
            used += 1;
        }
        let (glyph, style) = cell_of(&cell, theme);
        buf[(x, area.y)].set_symbol(glyph).set_style(style);
    }
}

/// How a cell shows what its eighths are, from the left.
fn cell_of(eighths: &[Option<State>; 8], theme: &Theme) -> (&'static str, Style) {
    let first = eighths[0];
    let same = eighths.iter().take_while(|&&state| state == first).count();
    if same < 8 && !theme.ascii && theme.depth >= Depth::Ansi256 {
        // Two colours are all a cell can have: the first state, and the largest of the others behind it.
        let behind = most(&eighths[same..]);
        let tint = |state: Option<State>| state.and_then(|state| theme.state_tint(state));
        return (theme.eighth(same), Style { fg: tint(first), bg: tint(behind), ..Style::new() });
    }
    match most(eighths) {
        Some(state) => (theme.state_glyph(state), theme.state(state)),
        None => (" ", Style::new()),
    }
}

/// What most of them are; the earliest of equals.
fn most(eighths: &[Option<State>]) -> Option<State> {
    let count = |state: &Option<State>| eighths.iter().filter(|&other| other == state).count();
    eighths.iter().rev().max_by_key(|state| count(state)).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::theme::Background;

    fn ns(pairs: &[(State, u64)]) -> StateNs {
        let mut ns = StateNs::default();
        pairs.iter().for_each(|&(state, time)| ns[state] = time);
        ns
    }

    fn drawn(ns: &StateNs, width: u16, idle: bool) -> Buffer {
        let theme = Theme::new(Depth::None, false, Background::Dark);
        let mut buf = Buffer::empty(Rect::new(0, 0, width, 1));
        render(ns, false, idle, &theme, buf.area, &mut buf);
        buf
    }

    #[test]
    fn parts_sum_exactly_to_the_width() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        for round in 0..2000 {
            let mut time = StateNs::default();
            for state in State::ALL {
                time[state] = if random() % 3 == 0 { 0 } else { random() << (round % 30) };
            }
            let units = (random() % 400) as usize;
            let sum: usize = parts(&time, round % 2 == 0, units).iter().map(|&(_, units)| units).sum();
            assert_eq!(sum, if time.total() == 0 { 0 } else { units }, "{time:?}");
        }
        assert!(parts(&StateNs::default(), false, 80).is_empty());
        let huge = ns(&[(State::User, u64::MAX / 2), (State::Poll, u64::MAX / 2)]);
        assert_eq!(parts(&huge, false, 10), [(State::User, 5), (State::Poll, 5)]);
    }

    #[test]
    fn each_part_is_within_one_unit_of_its_share() {
        let time = ns(&[(State::User, 333), (State::Kernel, 333), (State::Disk, 334)]);
        assert_eq!(parts(&time, false, 8), [(State::User, 3), (State::Kernel, 2), (State::Disk, 3)]);
    }

    #[test]
    fn idle_waits_come_last_and_blank() {
        let time = ns(&[(State::User, 2), (State::Poll, 5), (State::Other, 3)]);
        assert_eq!(drawn(&time, 10, false), Buffer::with_lines(["██───     "]));
        assert_eq!(drawn(&time, 10, true), Buffer::with_lines(["██───-----"]));
    }

    #[test]
    fn a_boundary_within_a_cell_has_both_colours() {
        let theme = Theme::default();
        let time = ns(&[(State::User, 3), (State::Disk, 5)]);
        let mut buf = Buffer::empty(Rect::new(0, 0, 1, 1));
        render(&time, false, false, &theme, buf.area, &mut buf);
        let cell = &buf[(0, 0)];
        assert_eq!(cell.symbol(), "▍");
        assert_eq!(Some(cell.fg), theme.state_tint(State::User));
        assert_eq!(Some(cell.bg), theme.state_tint(State::Disk));
        assert_ne!(cell.fg, cell.bg);
    }

    #[test]
    fn without_colours_the_larger_part_has_the_cell() {
        let time = ns(&[(State::User, 11), (State::Disk, 5)]);
        assert_eq!(drawn(&time, 2, false), Buffer::with_lines(["█▚"]));
    }

    #[test]
    fn no_room_draws_nothing() {
        let time = ns(&[(State::User, 1)]);
        let mut buf = Buffer::empty(Rect::new(0, 0, 2, 1));
        render(&time, false, false, &Theme::default(), Rect::new(5, 5, 3, 1), &mut buf);
        render(&time, false, false, &Theme::default(), Rect::new(0, 0, 0, 1), &mut buf);
        assert_eq!(buf, Buffer::empty(buf.area));
    }
}
