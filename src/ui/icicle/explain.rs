//! The words around an icicle: what it shows, and what is under the cursor.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::label;
use super::view::{Icicle, Under};
use crate::model::{Behind, Merge, TreeLens, TreeNode, Window};
use crate::tick::Line;
use crate::ui::theme::Theme;
use crate::ui::{draw, format};

/// `on-CPU  1 402 samples, last 10 s, complete 99.6 %   by function`, and the search at the right end.
pub fn header(icicle: &Icicle, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let found = search(icicle);
    let room = area.width.saturating_sub(format::width(&found) as u16 + 2);
    draw::put_spans(buf, Rect { width: room, ..area }, &head(icicle, area.width >= ROOMY, theme));
    draw::put_right(buf, area, &found, theme.accent());
}

/// The lenses, in their order in the header.
const LENSES: [(TreeLens, &str); 3] =
    [(TreeLens::OnCpu, "on-CPU"), (TreeLens::Blocked, "blocked"), (TreeLens::All, "all")];

/// The lens whose name stands at a column of the header.
pub fn lens_at(area: Rect, column: u16) -> Option<TreeLens> {
    let mut x = area.x;
    LENSES.into_iter().find_map(|(lens, name)| {
        let start = x;
        x += name.len() as u16 + 2;
        (start..x).contains(&column).then_some(lens)
    })
}

fn head<'a>(icicle: &'a Icicle, roomy: bool, theme: &Theme) -> Vec<Span<'a>> {
    let query = icicle.query();
    let lens = |(lens, name): (TreeLens, &'static str)| match query.lens == lens {
        true => Span::styled(format!("[{name}]"), theme.accent()),
        false => Span::styled(format!(" {name} "), theme.dim()),
    };
    let mut spans: Vec<_> = LENSES.into_iter().map(lens).collect();
    spans.push(Span::styled(
        format!("  {}{}, {}", amount(icicle), idle(icicle, roomy), window_name(query.window)),
        theme.text(),
    ));
    if let Some(complete) = complete(icicle) {
        spans.push(Span::styled(format!(", complete {complete} %"), theme.text()));
    }
    if icicle.is_zoomed() {
        let zoom = format!("  zoom {} % of all", format::percent(icicle.zoom_share()));
        spans.push(Span::styled(zoom, theme.header()));
    }
    let mut view = format!("  by {}", merge_name(query.merge));
    if query.inverted {
        view += ", inverted";
    }
    if icicle.is_short() {
        view += ", short names";
    }
    if icicle.of_all() {
        view += ", % of all";
    }
    spans.push(Span::styled(view, theme.dim()));
    spans
}

/// `1 402 samples`, or time.
fn amount(icicle: &Icicle) -> String {
    let total = icicle.tree().nodes.first().map_or(0, |root| root.total_weight);
    match icicle.query().lens {
        TreeLens::OnCpu => format!("{} samples", format::grouped(total)),
        TreeLens::Blocked => format!("{} blocked", format::duration(total)),
        TreeLens::All => format!("{} of thread time", format::duration(total)),
    }
}

/// From that width on words are written out.
const ROOMY: u16 = 100;

/// `, idle waits hidden (8m40s)`, where there could be any.
fn idle(icicle: &Icicle, roomy: bool) -> String {
    let idle = if roomy { "idle waits" } else { "idle" };
    match (icicle.query().lens, icicle.query().hide_idle, icicle.hidden_ns()) {
        (TreeLens::OnCpu, ..) => String::new(),
        (_, false, _) => format!(", {idle} included"),
        (_, true, 0) => format!(", no {idle}"),
        (_, true, ns) => format!(", {idle} hidden ({})", format::duration(ns)),
    }
}

fn complete(icicle: &Icicle) -> Option<String> {
    let tree = icicle.tree();
    let total = tree.nodes.first().filter(|root| root.total_weight > 0)?.total_weight;
    Some(format::percent(tree.complete_weight as f64 / total as f64))
}

/// `this tick`, `last 10 s`, `since start`.
pub fn window_name(window: Window) -> String {
    match window {
        Window::Tick => "this tick".into(),
        Window::Last(length) => format!("last {} s", length.as_secs()),
        Window::Ticks { first, last } => format!("ticks {first} to {last}"),
        Window::All => "since start".into(),
    }
}

fn merge_name(merge: Merge) -> &'static str {
    match merge {
        Merge::Function => "function",
        Merge::Module => "module",
        Merge::Line => "line",
        Merge::Address => "address",
    }
}

fn search(icicle: &Icicle) -> String {
    let Some((pattern, hits)) = icicle.search() else { return String::new() };
    let frames = if hits.frames == 1 { "frame" } else { "frames" };
    let share = format::percent(icicle.share(hits.weight));
    format!("/{}  {} {frames}, {share} %", format::fit(pattern.text(), 24), format::grouped(hits.frames as u64))
}

/// Says in the middle why there are no frames.
pub fn empty(icicle: &Icicle, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let window = window_name(icicle.query().window);
    let nothing = match (icicle.off(), icicle.query().lens) {
        (Some(why), _) => format!("this lens is off: {why}"),
        (None, TreeLens::OnCpu) if icicle.ran_ns() > 0 => {
            let ran = format::duration(icicle.ran_ns());
            format!("no on-CPU samples, {window}: it ran for {ran}, and no sample met it")
        }
        (None, TreeLens::OnCpu) => format!("no on-CPU samples, {window}: it did not run"),
        (None, _) if icicle.hidden_ns() > 0 => {
            format!(
                "nothing but idle waits, {window}: {} of them, i includes them",
                format::duration(icicle.hidden_ns())
            )
        }
        (None, TreeLens::Blocked) => format!("no blocked time, {window}"),
        (None, TreeLens::All) => format!("no time accounted for, {window}"),
    };
    let hint = match icicle.query().lens {
        TreeLens::OnCpu => "o shows where it is blocked   a looks further back",
        _ => "o shows another lens   a looks further back",
    };
    let middle = area.height / 2;
    for (at, text) in [(middle.saturating_sub(1), nothing.as_str()), (middle, hint)] {
        let line = draw::line(area, at);
        let width = (format::width(text) as u16).min(area.width);
        if line.height > 0 && (at > 0 || area.height > 1 || text != hint) {
            draw::put(buf, line.x + (area.width - width) / 2, line.y, text, width, theme.dim());
        }
    }
}

/// What is under the cursor: the numbers, and on a second line, if there is one, where it is.
pub fn under(icicle: &Icicle, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let (name, numbers) = match icicle.under() {
        Under::Nothing => return,
        Under::Frame(at, node) => (whole_name(node), frame_numbers(icicle, at, node)),
        Under::Small(node, frames, weight) => small(icicle, node, frames, weight),
        Under::Gone(seen) => (whole_name(&seen.node), gone(icicle, &seen.node)),
    };
    if area.height == 1 {
        let half = name_room(area.width, &numbers);
        let x = draw::put(buf, area.x + 1, area.y, &name, half, theme.header());
        draw::put(buf, x + 2, area.y, &numbers, area.right().saturating_sub(x + 2), theme.text());
        return;
    }
    let width = area.width.saturating_sub(1);
    let x = draw::put(buf, area.x + 1, area.y, &name, width, theme.header());
    let room = area.right().saturating_sub(x + 3);
    draw::put(buf, x + 3, area.y, &places(&icicle.behind().lines, room.into()), room, theme.text());
    let line = draw::line(area, 1);
    if line.height > 0 {
        draw::put(buf, line.x + 1, line.y, &numbers, width, theme.text());
    }
}

/// `src/sort.c:2214`, `sort.c:2214 61 %, sort.c:2220 22 %, 3 more`: lines of source code, as many as fit.
fn places(places: &[(Option<Line>, u64)], room: usize) -> String {
    let all = places.iter().fold(0u64, |sum, (_, weight)| sum.saturating_add(*weight));
    let known: Vec<(&Line, u64)> = places.iter().filter_map(|(line, weight)| Some((line.as_ref()?, *weight))).collect();
    let fits = |text: &String| format::width(text) <= room;
    let base = |line: &Line| format!("{}:{}", line.file.rsplit('/').next().unwrap_or_default(), line.number);
    if let [(line, weight)] = known.as_slice()
        && *weight == all
    {
        let whole = format::clean(&format!("{}:{}", line.file, line.number)).into_owned();
        return Some(whole).filter(fits).unwrap_or_else(|| format::fit(&base(line), room));
    }
    let shown = |count: usize| {
        let share = |weight: u64| format::percent(weight as f64 / all.max(1) as f64);
        let piece = |(line, weight): &(&Line, u64)| format!("{} {} %", base(line), share(*weight));
        let mut pieces: Vec<String> = known.iter().take(count).map(piece).collect();
        if known.len() > count {
            pieces.push(format!("{} more", format::grouped((known.len() - count) as u64)));
        }
        format::clean(&pieces.join(", ")).into_owned()
    };
    (1..=known.len().min(MOST_PLACES)).rev().map(shown).find(fits).unwrap_or_default()
}

/// Lines of one frame that are listed at most.
const MOST_PLACES: usize = 8;

/// On one line the numbers come whole, the name gets the rest, but at least a third.
fn name_room(width: u16, numbers: &str) -> u16 {
    width.saturating_sub(format::width(numbers) as u16 + 3).max(width / 3)
}

fn whole_name(node: &TreeNode) -> String {
    let mut text = node.name.to_string();
    if !node.module.is_empty() && *node.module != *node.name {
        text += &format!("   {}", node.module);
    }
    text
}

fn frame_numbers(icicle: &Icicle, at: u32, node: &TreeNode) -> String {
    // A caller of what is zoomed into is no part of the view.
    let outside = usize::from(node.depth) < icicle.layout().zoom_depth;
    let of = |weight| format::percent(if outside { icicle.share_of_all(weight) } else { icicle.share(weight) });
    let basis = if outside { "all" } else { basis(icicle) };
    let mut text = format!("self {} %  total {} % of {basis}", of(node.self_weight), of(node.total_weight));
    if icicle.is_zoomed() && !outside {
        let other = format::percent(icicle.other_share(node.total_weight));
        let basis = if icicle.of_all() { "view" } else { "all" };
        text += &format!(" ({other} % of {basis})");
    }
    text += &format!("   {}", weight(icicle, node));
    if at != 0 {
        text += &format!("   {}", node.state.map_or_else(|| label::word(node.kind), |state| state.name()));
        text += &found(icicle.behind());
    }
    text
}

/// `, found by table`, `, found by table 98.1 %, frame pointer 1.9 %`: how it is known that this was a caller.
fn found(behind: &Behind) -> String {
    let all = behind.found.iter().fold(0u64, |sum, (_, weight)| sum.saturating_add(*weight));
    let share = |weight: u64| format::percent(weight as f64 / all.max(1) as f64);
    match behind.found.as_slice() {
        [] => String::new(),
        [(only, _)] => format!(", found by {}", only.name()),
        several => {
            let pieces = several.iter().map(|(by, weight)| format!("{} {} %", by.name(), share(*weight)));
            format!(", found by {}", pieces.collect::<Vec<_>>().join(", "))
        }
    }
}

fn basis(icicle: &Icicle) -> &'static str {
    if icicle.of_all() || !icicle.is_zoomed() { "all" } else { "view" }
}

/// `174 samples`, `1.2s in 31 waits`.
fn weight(icicle: &Icicle, node: &TreeNode) -> String {
    match icicle.query().lens {
        TreeLens::OnCpu => format!("{} samples", format::grouped(node.total_weight)),
        TreeLens::Blocked if node.count > 0 => {
            format!("{} in {} waits", format::duration(node.total_weight), format::grouped(node.count))
        }
        TreeLens::Blocked => format!("{}, still waiting", format::duration(node.total_weight)),
        TreeLens::All => format::duration(node.total_weight),
    }
}

fn small(icicle: &Icicle, node: &TreeNode, frames: u32, weight: u64) -> (String, String) {
    let name = format!("{frames} small frames below {}", node.name);
    let share = format::percent(icicle.share(weight));
    let amount = match icicle.query().lens {
        TreeLens::OnCpu => format!("{} samples", format::grouped(weight)),
        _ => format::duration(weight),
    };
    (name, format!("each narrower than a character; together {share} % of {}   {amount}", basis(icicle)))
}

fn gone(icicle: &Icicle, node: &TreeNode) -> String {
    let window = window_name(icicle.query().window);
    format!("not seen {window}; when last seen it had {}", weight(icicle, node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_lines_as_fit() {
        let at = |number, weight| (Some(Line { file: "/src/a/sort.c".into(), number }), weight);
        let one = [at(7, 4)];
        assert_eq!(places(&one, 80), "/src/a/sort.c:7");
        assert_eq!(places(&one, 10), "sort.c:7");
        assert_eq!(places(&one, 4), "sor…");
        let some = [at(7, 6), at(9, 2), (None, 1), at(8, 1)];
        assert_eq!(places(&some, 80), "sort.c:7 60.0 %, sort.c:9 20.0 %, sort.c:8 10.0 %");
        assert_eq!(places(&some, 40), "sort.c:7 60.0 %, sort.c:9 20.0 %, 1 more");
        assert_eq!(places(&some, 30), "sort.c:7 60.0 %, 2 more");
        assert_eq!(places(&some, 10), "");
        assert_eq!(places(&[(None, 5)], 80), "");
        assert_eq!(places(&[(Some(Line { file: "\x1b[2J".into(), number: 1 }), 5)], 80), "^[[2J:1");
    }
}
