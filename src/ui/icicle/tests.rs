//! Icicles of small trees against drawn lines, and what keys do to them across ticks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::layout::tests::{random, tree};
use super::view::{Icicle, Under};
use super::{draw, parts};
use crate::model::CallTree;
use crate::tick::FrameKind;
use crate::ui::Command;
use crate::ui::theme::{Background, Depth, Theme};

fn mono() -> Theme {
    Theme::new(Depth::None, false, Background::Dark)
}

fn shown(tree: CallTree, columns: u16, rows: u16) -> Icicle {
    let mut icicle = Icicle::new(None);
    icicle.resize(columns, rows);
    icicle.show(tree);
    icicle
}

fn lines(icicle: &mut Icicle, theme: &Theme, width: u16, height: u16) -> Vec<String> {
    let area = Rect::new(0, 0, width, height);
    let rows = parts(area).1;
    icicle.resize(rows.width, rows.height);
    let mut buf = Buffer::empty(area);
    draw(icicle, theme, area, &mut buf);
    text(&buf)
}

/// The symbols of a buffer, a string per line, without blanks at the ends.
pub fn text(buf: &Buffer) -> Vec<String> {
    let line = |y| (0..buf.area.width).map(|x| buf[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buf.area.height).map(line).collect()
}

fn press(icicle: &mut Icicle, commands: &[Command]) {
    for &command in commands {
        assert!(icicle.command(command), "{command:?} means something");
    }
}

fn at(icicle: &Icicle) -> String {
    match icicle.under() {
        Under::Frame(_, node) => node.name.to_string(),
        Under::Small(node, frames, _) => format!("{frames} below {}", node.name),
        Under::Gone(seen) => format!("{} gone", seen.node.name),
        Under::Nothing => "nothing".into(),
    }
}

/// all ─ main ─┬ parse(20) ─ lex(20)
///             └ write(40) ─ pwrite64(20, kernel)
fn small_tree() -> CallTree {
    let mut tree =
        tree(&[(0, "all", 0), (0, "main", 0), (1, "parse", 20), (2, "lex", 20), (1, "write", 40), (4, "pwrite64", 20)]);
    tree.nodes[5].kind = FrameKind::Kernel;
    tree
}

#[test]
fn drawn_without_colours() {
    let mut icicle = shown(small_tree(), 78, 10);
    press(&mut icicle, &[Command::Down, Command::Down]);
    assert_eq!(
        lines(&mut icicle, &mono(), 78, 9),
        [
            "[on-CPU] blocked  all   100 samples, last 10 s, complete 100 %  by function",
            "│all",
            "│main  100 %",
            "│parse  40.0 %                 │write  60.0 %",
            "│lex  20.0 %                   │pwrite64_k",
            "",
            "",
            " write   app",
            " self 40.0 %  total 60.0 % of all   60 samples   user",
        ]
    );
}

#[test]
fn edges_lie_on_eighths() {
    let tree = tree(&[(0, "all", 0), (0, "a", 33), (0, "b", 67)]);
    let mut icicle = shown(tree, 20, 3);
    let drawn = lines(&mut icicle, &Theme::default(), 20, 4);
    // 33 % of 20 cells are 6 cells and 4 eighths.
    assert_eq!(drawn[2], "a     ▌b  67.0 %");
}

#[test]
fn cursor_goes_by_the_picture() {
    let mut icicle = shown(small_tree(), 60, 10);
    let mut walk = |command| {
        press(&mut icicle, &[command]);
        at(&icicle)
    };
    assert_eq!(walk(Command::Down), "main");
    assert_eq!(walk(Command::Down), "write", "the widest child");
    assert_eq!(walk(Command::Left), "parse");
    assert_eq!(walk(Command::Left), "parse", "nothing further left");
    assert_eq!(walk(Command::Down), "lex");
    assert_eq!(walk(Command::Right), "pwrite64", "the next in the row, over the gap");
    assert_eq!(walk(Command::Up), "write");
    assert_eq!(walk(Command::Top), "all");
    assert_eq!(walk(Command::Bottom), "pwrite64");
}

#[test]
fn zoom_in_and_out() {
    let mut icicle = shown(small_tree(), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Down, Command::Enter]);
    assert_eq!((at(&icicle).as_str(), icicle.zoomed(), icicle.is_zoomed()), ("write", 4, true));
    assert_eq!(lines(&mut icicle, &mono(), 60, 8)[1..5], ["all", "main", "│write  100 %", "│pwrite64_k  33.3 %"]);
    press(&mut icicle, &[Command::PercentBasis]);
    assert_eq!(lines(&mut icicle, &mono(), 60, 8)[4], "│pwrite64_k  20.0 %");
    press(&mut icicle, &[Command::Unzoom]);
    assert_eq!((at(&icicle).as_str(), icicle.is_zoomed()), ("write", false));
    press(&mut icicle, &[Command::Unzoom]);
    assert!(!icicle.is_zoomed(), "out of nothing leads nowhere");
}

#[test]
fn zoom_and_cursor_follow_their_frame_into_the_next_tick() {
    let mut icicle = shown(small_tree(), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Down, Command::Enter, Command::Down]);
    assert_eq!(at(&icicle), "pwrite64");
    // A new frame takes an earlier index; the same places keep their ids.
    let next = tree(&[
        (0, "all", 0),
        (0, "start", 10),
        (0, "main", 0),
        (2, "write", 10),
        (3, "fsync", 70),
        (3, "pwrite64", 5),
    ]);
    icicle.show(next);
    assert_eq!((at(&icicle).as_str(), icicle.zoomed()), ("pwrite64", 3));
}

#[test]
fn what_vanished_keeps_its_place_until_left() {
    let mut icicle = shown(small_tree(), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Down, Command::Left, Command::Down]);
    let before = icicle.cursor_cell();
    icicle.show(tree(&[(0, "all", 0), (0, "main", 0), (1, "write", 40)]));
    assert_eq!((at(&icicle).as_str(), icicle.cursor_cell()), ("lex gone", before));
    let drawn = lines(&mut icicle, &mono(), 60, 9);
    assert_eq!(drawn[4], "lex (gone)");
    assert_eq!(drawn[8], " not seen last 10 s; when last seen it had 20 samples");
    icicle.show(small_tree());
    assert_eq!(at(&icicle), "lex", "and is itself again when it comes back");
    icicle.show(tree(&[(0, "all", 0), (0, "main", 0), (1, "write", 40)]));
    press(&mut icicle, &[Command::Up]);
    assert_eq!(at(&icicle), "write");
    assert!(!lines(&mut icicle, &mono(), 60, 9).join("").contains("gone"));
}

#[test]
fn a_zoom_that_vanished_stays_and_can_be_left() {
    let mut icicle = shown(small_tree(), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Down, Command::Enter]);
    icicle.show(tree(&[(0, "all", 0), (0, "main", 0), (1, "parse", 40)]));
    assert!(icicle.zoom_is_gone());
    let drawn = lines(&mut icicle, &mono(), 60, 9);
    assert_eq!(drawn[1..5], ["all", "│main  100 %", "write (gone)", ""], "{drawn:?}");
    icicle.show(small_tree());
    assert_eq!((at(&icicle).as_str(), icicle.zoomed()), ("write", 4));
    icicle.show(tree(&[(0, "all", 0), (0, "main", 0), (1, "parse", 40)]));
    press(&mut icicle, &[Command::Unzoom]);
    assert!(!icicle.is_zoomed());
    assert_eq!(lines(&mut icicle, &mono(), 60, 9)[3], "│parse  100 %");
}

#[test]
fn search_totals_and_walks() {
    let mut icicle = shown(small_tree(), 60, 10);
    icicle.set_search("(wr|pw)");
    assert!(lines(&mut icicle, &mono(), 60, 9)[0].ends_with("/(wr|pw)  2 frames, 60.0 %"));
    press(&mut icicle, &[Command::NextMatch]);
    assert_eq!(at(&icicle), "write");
    press(&mut icicle, &[Command::NextMatch]);
    assert_eq!(at(&icicle), "pwrite64");
    press(&mut icicle, &[Command::NextMatch]);
    assert_eq!(at(&icicle), "write", "round the end");
    press(&mut icicle, &[Command::PrevMatch]);
    assert_eq!(at(&icicle), "pwrite64");
    icicle.show(tree(&[(0, "all", 60), (0, "main", 0), (1, "write", 40)]));
    assert!(lines(&mut icicle, &mono(), 60, 9)[0].ends_with("/(wr|pw)  1 frame, 40.0 %"), "the search goes on");
    icicle.set_search("");
    assert!(icicle.search().is_none());
}

#[test]
fn each_shape_of_query_keeps_its_place() {
    let mut icicle = shown(small_tree(), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Down, Command::Enter, Command::Invert]);
    assert!(icicle.query().inverted && !icicle.is_zoomed());
    assert_eq!(at(&icicle), "all");
    press(&mut icicle, &[Command::Invert]);
    assert_eq!((at(&icicle).as_str(), icicle.is_zoomed()), ("write", true));
    press(&mut icicle, &[Command::Window]);
    assert!(icicle.is_zoomed(), "places are the same in every window");
}

#[test]
fn folded_frames_are_counted_and_explained() {
    let mut nodes = vec![(0, "all", 0), (0, "a", 800)];
    let names: Vec<String> = (0..20).map(|at| format!("tiny{at}")).collect();
    nodes.extend(names.iter().map(|name| (0, &**name, 10)));
    let mut icicle = shown(tree(&nodes), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Right]);
    assert_eq!(at(&icicle), "20 below all");
    let drawn = lines(&mut icicle, &mono(), 60, 12);
    assert!(drawn[2].ends_with("│[small +20]"), "{drawn:?}");
    assert_eq!(
        drawn[10..],
        [" 20 small frames below all", " each narrower than a character; together 20.0 % of all   2…",]
    );
    let folded = icicle.folded();
    assert_eq!(folded.len(), 20);
    icicle.zoom_into(folded[3]);
    assert_eq!((at(&icicle).as_str(), icicle.is_zoomed()), ("tiny3", true));
    press(&mut icicle, &[Command::Unzoom]);
    icicle.set_search("tiny7");
    press(&mut icicle, &[Command::Top, Command::NextMatch]);
    assert_eq!(at(&icicle), "20 below all", "a match inside a fold leads to the fold");
}

#[test]
fn clicks_select_then_zoom() {
    let mut icicle = shown(small_tree(), 60, 10);
    assert!(!icicle.click(2, 59));
    assert_eq!(at(&icicle), "write");
    assert!(icicle.click(2, 40), "a second press opens it");
    press(&mut icicle, &[Command::Enter]);
    assert!(icicle.is_zoomed());
    icicle.click(0, 3);
    press(&mut icicle, &[Command::Enter]);
    assert!(!icicle.is_zoomed(), "the root is the way out");
    assert!(!icicle.click(99, 99));
}

#[test]
fn deep_trees_scroll_and_say_how_much_deeper() {
    let nodes: Vec<(u32, String, u64)> =
        (0..40u32).map(|at| (at.saturating_sub(1), format!("f{at}"), u64::from(at == 39))).collect();
    let nodes: Vec<(u32, &str, u64)> = nodes.iter().map(|(parent, name, weight)| (*parent, &**name, *weight)).collect();
    let mut icicle = shown(tree(&nodes), 60, 10);
    let drawn = lines(&mut icicle, &mono(), 60, 13);
    assert!(drawn[10].ends_with("▼ 30 deeper"), "{drawn:?}");
    press(&mut icicle, &[Command::Bottom]);
    assert_eq!(icicle.scroll(), 30);
    assert!(lines(&mut icicle, &mono(), 60, 13)[10].starts_with("│f39"));
    icicle.scroll_by(-100);
    assert_eq!((icicle.scroll(), at(&icicle).as_str()), (0, "f39"));
    press(&mut icicle, &[Command::Up]);
    assert_eq!(icicle.scroll(), 29, "the cursor comes back into sight when it moves");
    press(&mut icicle, &[Command::Enter]);
    assert_eq!(icicle.scroll(), 30);
}

#[test]
fn nothing_to_draw_says_so() {
    let mut icicle = shown(CallTree::default(), 60, 10);
    press(&mut icicle, &[Command::Down, Command::Left, Command::Enter, Command::Unzoom, Command::NextMatch]);
    assert_eq!(at(&icicle), "nothing");
    let drawn = lines(&mut icicle, &mono(), 78, 9).join("\n");
    assert!(drawn.contains("no on-CPU samples, last 10 s"), "{drawn}");
    icicle.show(tree(&[(0, "all", 0)]));
    assert!(lines(&mut icicle, &mono(), 78, 9).join("").contains("no on-CPU samples"));
}

#[test]
fn any_size_and_any_name() {
    let hostile = "\u{1b}]0;pwned\u{7}日本語\u{202e}\n".repeat(200);
    let odd = tree(&[(0, "all", 1), (0, &hostile, 50), (1, "\u{301}\u{301}", 20), (1, "👩‍👩‍👧", 20), (0, "", 9)]);
    for theme in [mono(), Theme::default(), Theme::new(Depth::Ansi16, true, Background::Light)] {
        for (width, height) in (1..12).flat_map(|width| (1..12).map(move |height| (width, height))).chain([(200, 50)]) {
            let mut icicle = shown(odd.clone(), 1, 1);
            icicle.set_search("a");
            press(&mut icicle, &[Command::Down, Command::Enter, Command::Down, Command::PageDown, Command::PageUp]);
            let drawn = lines(&mut icicle, &theme, width, height).join("");
            assert!(drawn.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{drawn:?}");
        }
    }
}

#[test]
fn random_walks_do_not_fail() {
    use Command::*;
    let commands = [
        Up, Down, Left, Right, PageUp, PageDown, Top, Bottom, Enter, Unzoom, NextMatch, PrevMatch, Lens, Invert, Merge,
    ];
    for seed in 0..30 {
        let mut seeded = super::layout::tests::Seeded(seed);
        let mut icicle = shown(random(seed, 500), 80, 20);
        icicle.set_search("f1");
        for step in 0..200 {
            press(&mut icicle, &[commands[seeded.below(commands.len() as u64) as usize]]);
            if step % 20 == 0 {
                icicle.show(random(seed + step % 40, 500));
            }
            lines(&mut icicle, &Theme::default(), 20 + (step % 60) as u16, 20);
        }
    }
}
