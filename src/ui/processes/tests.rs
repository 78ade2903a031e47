//! The table on a made-up machine: lines as drawn, and what keys and clicks do to rows.

mod around;

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::{Model, TreeLens};
use crate::tick::{
    Basis, DiskOp, Governor, Hist, LensStatus, Lever, LeverKind, Origin, ProcessFacts, ProcessIo, Refusal, Signal,
    SignalKind, Standing, State,
};
use crate::ui::app::{App, Options};
use crate::ui::fixture::{self, MS, busy, facts, model, model_of, thread, tick};
use crate::ui::theme::{Background, Depth};
use crate::ui::{Action, Theme};

const LATER: Duration = Duration::from_secs(60);

/// A screen with the table on it, as a person has it before them.
struct Screen {
    app: App,
    model: Model,
    size: (u16, u16),
    now: Duration,
}

impl Screen {
    fn new(model: Model, width: u16, height: u16) -> Self {
        let theme = Theme::new(Depth::None, false, Background::Dark);
        let mut app = App::new(theme, Options::default());
        app.render(&model, Rect::new(0, 0, width, height), &mut Buffer::empty(Rect::new(0, 0, width, height)));
        app.on_tick(&model, LATER);
        Screen { app, model, size: (width, height), now: LATER }
    }

    fn draw(&mut self) -> Vec<String> {
        let area = Rect::new(0, 0, self.size.0, self.size.1);
        let mut buf = Buffer::empty(area);
        self.app.render(&self.model, area, &mut buf);
        let line = |y| (0..area.width).map(|x| buf[(x, y)].symbol()).collect::<String>();
        (0..area.height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn key(&mut self, code: KeyCode) -> Vec<Action> {
        self.app.on_key(KeyEvent::new(code, KeyModifiers::NONE), &self.model, self.now)
    }

    fn keys(&mut self, text: &str) {
        for c in text.chars() {
            self.key(if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) });
        }
    }

    fn click(&mut self, column: u16, row: u16) {
        let kind = MouseEventKind::Down(MouseButton::Left);
        let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        self.app.on_mouse(event, &self.model, self.now);
    }

    fn tick(&mut self, tick: crate::tick::Tick, later: Duration) {
        self.model.apply(tick);
        self.now += later;
        self.app.on_tick(&self.model, self.now);
    }

    /// Commands of the rows that show, and where the cursor is.
    fn commands(&mut self) -> Vec<String> {
        let lines = self.draw();
        let head = lines[4].chars().collect::<Vec<_>>();
        let at = head.windows(7).position(|window| window.iter().collect::<String>() == "COMMAND").unwrap();
        let rows = lines[5..lines.len() - 1].iter().filter(|line| !line.is_empty());
        rows.map(|line| {
            let mark = line.chars().next().filter(|&c| c == '▸').map_or("", |_| ">");
            format!("{mark}{}", line.chars().skip(at).collect::<String>().trim_end())
        })
        .collect()
    }
}

#[test]
fn the_table_at_80x24() {
    let lines = Screen::new(model(), 80, 24).draw();
    assert_eq!(
        lines[..12],
        [
            " 99Hz cpu-clock │ 1s │ live 14:03:23      stacks 100%  lost 0  self 0.6% 38.0M",
            " 1 Processes  2 CPUs  3 NUMA  4 Disks",
            " █user ▓kernel ▒░runnable ▚disk ╳lock ≈net ═pipe ─other ▞fault idle waits blank",
            "── 5 processes, 6 threads, 1 exited ──────────────────────── CPU % of one CPU ──",
            "      PID USER      CPU%▼ where the time goes   rq p99 blocked    COMMAND",
            "▸    4711 postgres    100 ██████████▓▚▚▚▚▚▚▚╳   19.0ms disk 35%   postgres: wri…",
            "     8120 www        38.0 ▓▓▓▓▓▓▓▓≈≈≈≈≈≈≈≈≈≈≈    310µs net 50%    nginx -g daem…",
            "     9904 ci         22.7 █████░░░░░░░░░░░░░░░░      – –          cc1 -O2 main.c",
            " †   9871 ci          9.1 ███████████████████▒▒      – –          sh -c… †0 1.1s",
            "        1 root          0                            – –          init",
            "       15 root          0                            – –          [kworker/0:1]",
            "",
        ]
    );
    assert!(lines[23].starts_with(" Enter look in  \\ filter  > sort"), "{}", lines[23]);
    assert!(lines[23].ends_with("? help  q quit"), "{}", lines[23]);
}

#[test]
fn what_a_discard_covers_is_not_moved() {
    let mut trims = busy(1);
    let io = |tgid, op, bytes| {
        let latency = Hist::of([MS]);
        ProcessIo { process: fixture::key(tgid), op, requests: 1, bytes, latency }
    };
    trims.io = vec![
        io(4711, DiskOp::Write, 13_100_000),
        io(4711, DiskOp::Read, 1_000_000),
        io(8120, DiskOp::Discard, 26_200_000),
    ];
    let mut screen = Screen::new(model_of([trims]), 200, 50);
    let cells: Vec<String> = screen.draw()[5..7].to_vec();
    assert!(cells[0].contains(" 14.1M ") && cells[1].contains("nginx") && !cells[1].contains("26.2M"), "{cells:#?}");
    screen.keys(">b\n");
    assert!(screen.draw()[4].contains("disk…▼"), "{}", screen.draw()[4]);
    assert_eq!(screen.commands()[0], ">postgres: writer");
}

#[test]
fn wide_and_tall_screens_show_more() {
    let lines = Screen::new(model(), 200, 50).draw();
    for head in ["rq p50", "rq p99", "rq max", "disk/s", "dk p99", "cs/s", "majflt", "stacks", "RSS", "thr"] {
        assert!(lines[4].contains(head), "{head} in {}", lines[4]);
    }
    assert!(!lines[4].contains("nodes"), "there is only one node");
    assert!(lines[5].contains("disk 35% lock 5%"), "{}", lines[5]);
    assert!(lines.iter().any(|line| line.contains("run-queue latency, all threads")));
    assert!(lines.iter().any(|line| line.contains("work  100 %")), "the icicle of all");
}

#[test]
fn the_sort_menu_starts_at_the_column_sorted_by_and_jumps_by_letter() {
    let mut screen = Screen::new(model(), 118, 30);
    screen.keys(">\n");
    assert_eq!(screen.commands()[0], ">postgres: writer", "the same again changes nothing");
    screen.keys(">p\n");
    assert_eq!(screen.commands()[0], ">init", "PIDs start with the smallest");
    screen.keys(">");
    assert!(screen.draw().iter().any(|line| line.contains("sort by")));
    screen.key(KeyCode::Esc);
    assert_eq!(screen.commands()[0], ">init");
}

#[test]
fn every_column_sorts_both_ways() {
    for (nth, field) in super::FIELDS.iter().enumerate() {
        let mut screen = Screen::new(model(), 200, 24);
        screen.key(KeyCode::F(6));
        screen.key(KeyCode::Home);
        (0..nth).for_each(|_| drop(screen.key(KeyCode::Down)));
        screen.key(KeyCode::Enter);
        let once = screen.commands();
        screen.keys("I");
        let reversed = screen.commands();
        assert_eq!(once.len(), 6, "{field:?}");
        if *field != super::Field::Nodes {
            assert_ne!(names(&once), names(&reversed), "{field:?} {once:?}");
        }
        assert!(screen.draw()[4].contains(['▲', '▼']), "{field:?}");
    }
}

fn names(commands: &[String]) -> Vec<&str> {
    commands.iter().map(|command| command.trim_start_matches('>')).collect()
}

#[test]
fn sorting_by_a_header_click_and_again() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.click(5, 4);
    assert!(screen.commands()[0].contains("init"), "smallest PID first");
    screen.click(5, 4);
    assert!(screen.commands()[0].contains("cc1"), "largest PID first");
}

#[test]
fn filters_by_text_and_expression() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("\\NGINX");
    assert!(screen.draw()[23].contains("1 of 5 processes"));
    screen.keys("\n");
    assert_eq!(screen.commands(), [">nginx -g daemon off;"]);
    assert!(screen.draw()[3].contains("1 of 5 processes, 6 threads, 1 exited │ filter NGINX"));
    screen.key(KeyCode::Esc);
    assert_eq!(screen.commands().len(), 6, "Esc takes it back");
    screen.keys("\\/^(1|15) /\n");
    assert_eq!(names(&screen.commands()), ["init", "[kworker/0:1]"]);
}

#[test]
fn a_bad_expression_is_explained_and_changes_nothing() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("\\/(");
    let footer = screen.draw().pop().unwrap();
    assert!(footer.contains("not a regular expression: unclosed group"), "{footer}");
    assert_eq!(screen.commands().len(), 6);
    screen.keys("\n");
    assert!(screen.draw()[23].contains("filter"), "Enter does not accept it");
    screen.key(KeyCode::Esc);
    assert_eq!(screen.commands().len(), 6);
}

#[test]
fn nothing_left_says_why() {
    let mut screen = Screen::new(model(), 80, 24);
    screen.keys("\\nosuch\n");
    assert!(screen.draw()[5].contains("no process passes the filter; Esc takes it back"));
}

#[test]
fn search_goes_to_matches_and_hides_nothing() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("/ci\n");
    let at = |screen: &mut Screen| screen.commands().into_iter().find(|line| line.starts_with('>')).unwrap();
    assert_eq!(at(&mut screen), ">cc1 -O2 main.c");
    screen.keys("n");
    assert!(at(&mut screen).contains("sh"));
    screen.keys("n");
    assert_eq!(at(&mut screen), ">cc1 -O2 main.c", "around the end");
    screen.keys("N");
    assert!(at(&mut screen).contains("sh"));
    assert_eq!(screen.commands().len(), 6);
}

#[test]
fn one_user() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("u");
    assert!(screen.draw().iter().any(|line| line.contains("everyone")));
    screen.keys("w\n");
    assert_eq!(screen.commands(), [">nginx -g daemon off;"]);
    screen.keys("ue\n");
    assert_eq!(screen.commands().len(), 6);
}

#[test]
fn kernel_threads_off_and_on() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("K");
    assert!(!screen.commands().iter().any(|line| line.contains("kworker")));
    assert!(screen.draw()[3].contains("kernel threads hidden"));
    screen.keys("K");
    assert!(screen.commands().iter().any(|line| line.contains("kworker")));
}

#[test]
fn the_tree_puts_children_under_their_parents() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("t");
    let drawn = screen.commands();
    assert_eq!(names(&drawn)[..2], ["cc1 -O2 main.c", "init"], "its parent has exited");
    assert_eq!(names(&drawn)[2..4], ["├─postgres: writer", "├─nginx -g daemon of…"]);
    assert!(drawn[4].starts_with("└─sh"), "{drawn:?}");
    assert_eq!(drawn[5], "[kworker/0:1]");
}

#[test]
fn a_cycle_of_parents_is_drawn_once() {
    let mut odd = tick(1);
    odd.processes = vec![facts(10, 11, 0, &["a"]), facts(11, 10, 0, &["b"]), facts(12, 12, 0, &["c"])];
    odd.threads = [10, 11, 12].map(|id| thread(id, id, &[(State::User, MS)])).into();
    let mut screen = Screen::new(model_of([odd]), 118, 24);
    screen.keys("t");
    assert_eq!(screen.commands().len(), 3);
}

#[test]
fn a_chain_of_ten_thousand_does_not_overflow() {
    let mut odd = tick(1);
    odd.processes = (1..10_000).map(|id| facts(id, id - 1, 0, &["a"])).collect();
    odd.threads = (1..10_000).map(|id| thread(id, id, &[(State::User, MS)])).collect();
    let mut screen = Screen::new(model_of([odd]), 118, 24);
    screen.keys("tG");
    assert!(screen.draw()[22].contains('▸'));
}

#[test]
fn threads_stand_under_their_process() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("H");
    let drawn = screen.commands();
    assert_eq!(names(&drawn)[..4], ["postgres: writer", "· t4711", "· t4712", "nginx -g daemon off;"]);
    screen.keys("Hl");
    assert_eq!(screen.commands().len(), 8, "of one process");
    screen.keys("jh");
    assert_eq!(screen.commands().len(), 6);
    assert_eq!(screen.commands()[0], ">postgres: writer", "the cursor does not get lost with its row");
}

/// The same machine with the web server busiest.
fn turned(nth: u64) -> crate::tick::Tick {
    let mut tick = busy(nth);
    tick.events.clear();
    for thread in &mut tick.threads {
        if thread.process.tgid == 8120 {
            thread.ns = crate::tick::StateNs::default();
            thread.ns[State::User] = 3_000 * MS;
        }
    }
    tick
}

#[test]
fn the_cursor_follows_its_process() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("j");
    assert_eq!(screen.commands()[1], ">nginx -g daemon off;");
    screen.tick(turned(2), Duration::from_secs(5));
    assert_eq!(screen.commands()[..2], [">nginx -g daemon off;", "postgres: writer"]);
}

#[test]
fn an_untouched_cursor_stays_at_the_top() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.tick(turned(2), Duration::from_secs(5));
    assert_eq!(screen.commands()[..2], [">nginx -g daemon off;", "postgres: writer"]);
}

#[test]
fn order_is_held_for_a_second_after_a_key() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.keys("j");
    screen.tick(turned(2), Duration::from_millis(900));
    assert_eq!(names(&screen.commands())[..2], ["postgres: writer", "nginx -g daemon off;"]);
    let lines = screen.draw();
    assert!(lines[1].ends_with("order held"), "{}", lines[1]);
    assert!(lines[6].contains(" 300 "), "values are new: {}", lines[6]);
    screen.now += Duration::from_secs(1);
    screen.app.on_tick(&screen.model, screen.now);
    assert_eq!(names(&screen.commands())[..2], ["nginx -g daemon off;", "postgres: writer"]);
    assert!(!screen.draw()[1].contains("order held"));
}

#[test]
fn rows_that_show_are_asked_for_once() {
    let mut ticks = tick(1);
    ticks.processes = (1..=100).map(|id| facts(id, 0, 0, &["a"])).collect();
    ticks.threads = (1..=100).map(|id| thread(id, id, &[(State::Poll, MS)])).collect();
    let model = model_of([ticks]);
    let mut app = App::new(Theme::default(), Options::default());
    let area = Rect::new(0, 0, 80, 24);
    app.render(&model, area, &mut Buffer::empty(area));
    let actions = app.on_tick(&model, LATER);
    let [Action::Visible(keys)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(keys.len(), 24 - 3 - 3);
    assert_eq!(app.on_tick(&model, LATER), []);
    let key = KeyEvent::new(KeyCode::PageDown, KeyModifiers::NONE);
    assert!(matches!(app.on_key(key, &model, LATER).as_slice(), [Action::Visible(_)]));
}

#[test]
fn clicks_select_and_the_wheel_scrolls() {
    let mut screen = Screen::new(model(), 118, 24);
    screen.click(40, 7);
    assert!(screen.commands()[2].starts_with('>'));
    screen.click(40, 20);
    assert!(screen.commands()[2].starts_with('>'), "below the last row nothing happens");
    let wheel = |kind| MouseEvent { kind, column: 40, row: 10, modifiers: KeyModifiers::NONE };
    screen.app.on_mouse(wheel(MouseEventKind::ScrollDown), &screen.model, LATER);
    assert!(screen.commands()[5].starts_with('>'));
    screen.app.on_mouse(wheel(MouseEventKind::ScrollUp), &screen.model, LATER);
    assert!(screen.commands()[2].starts_with('>'));
}

#[test]
fn lenses_that_are_off_show_as_question_marks_and_in_help() {
    let mut session = fixture::session();
    let why = "needs root, or CAP_BPF";
    session.lenses = ["sched", "block"].map(|name| LensStatus { name: name.into(), off: Some(why.into()) }).into();
    let mut model = Model::new(session, crate::model::Limits::default());
    model.apply(busy(1));
    let mut screen = Screen::new(model, 118, 30);
    let line = screen.draw().swap_remove(5);
    assert!(line.matches(" ?").count() >= 2, "{line}");
    screen.keys("?");
    assert!(screen.draw().iter().any(|line| line.contains("sched") && line.contains(why)));
}

#[test]
fn without_bpf_columns_are_dim_and_help_says_why() {
    let refused = Refusal::new("CAP_BPF missing", "run setcap");
    let signal = |kind, standing| {
        let sources = vec![Origin { name: "x".into(), whole: true, standing }];
        Signal { kind, sources, nothing: None }
    };
    let mut session = fixture::session();
    session.basis = Basis::Procfs;
    session.signals = vec![
        signal(SignalKind::StateTime, Standing::InUse { less: Some(Refusal::new("no reasons", "")) }),
        signal(SignalKind::RunqLatency, Standing::Refused(refused.clone())),
        signal(SignalKind::Samples, Standing::Refused(refused)),
        signal(SignalKind::KernelNames, Standing::InUse { less: None }),
    ];
    let mut model = Model::new(session, crate::model::Limits::default());
    model.apply(busy(1));
    let mut screen = Screen::new(model, 130, 30);
    let lines = screen.draw();
    assert!(lines[0].contains("procfs only, ? says why") && !lines[0].contains("stacks"), "{}", lines[0]);
    assert!(lines[5].matches(" ?").count() >= 2, "run-queue latency, blocked: {}", lines[5]);
    screen.keys("?");
    let lines = screen.draw();
    let off = lines.iter().position(|line| line.contains("run-queue latency, on-CPU samples")).unwrap();
    assert!(lines[off + 1].contains("CAP_BPF missing") && lines[off + 2].contains("run setcap"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("time by state (reduced)")));
    assert!(!lines.iter().any(|line| line.contains("kernel names")), "what works is not listed");
}

#[test]
fn shares_of_the_machine_are_half_of_those_of_a_cpu() {
    let mut screen = Screen::new(model(), 80, 24);
    screen.keys("%");
    let lines = screen.draw();
    assert!(lines[3].contains("CPU % of the machine") && lines[4].contains("MACH%"));
    assert!(lines[5].contains(" 50.0 "), "{}", lines[5]);
}

#[test]
fn idle_waits_on_request() {
    let mut screen = Screen::new(model(), 80, 24);
    screen.keys("i");
    let lines = screen.draw();
    assert!(lines[9].contains("---------------------"), "init polls: {}", lines[9]);
    assert!(lines[2].ends_with("idle waits shown"));
}

#[test]
fn hostile_names_stay_in_their_cells() {
    let long = "\u{1b}]0;owned\u{7}".repeat(400);
    let zalgo = format!("z{}", "\u{301}".repeat(2000));
    let wide = "日本語".repeat(1000);
    let mut odd = tick(1);
    odd.names.users.push((66, "ev\u{1b}[31mil\u{202e}".into()));
    let rows = [long.as_str(), zalgo.as_str(), wide.as_str(), "\u{200d}\u{200d}", "", "/", "\u{9b}2J"];
    for (at, name) in rows.iter().enumerate() {
        let id = 100 + at as u32;
        let comm = name.chars().take(15).collect();
        odd.processes.push(ProcessFacts { comm, ..facts(id, 0, 66, &[name, "\n", "\t"]) });
        odd.threads.push(thread(id, id, &[(State::User, MS)]));
        odd.threads.push(crate::tick::ThreadTick { comm: long.clone(), ..thread(id, id + 1000, &[(State::Disk, MS)]) });
    }
    for (width, height) in [(80, 24), (137, 50), (400, 30)] {
        let mut screen = Screen::new(model_of([odd.clone()]), width, height);
        screen.keys("H");
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        screen.app.render(&screen.model, area, &mut buf);
        for cell in &buf.content {
            let symbol = cell.symbol();
            assert!(!symbol.chars().any(char::is_control), "{symbol:?}");
            assert!(symbol.chars().count() <= 5, "{symbol:?}");
        }
        for line in screen.draw() {
            assert!(crate::ui::format::width(&line) <= usize::from(width) * 2);
        }
    }
}

#[test]
fn before_anything_is_measured_who_is_there_is_shown_and_nothing_made_up() {
    let mut seen = tick(100);
    seen.span.end_ns = seen.span.start_ns;
    seen.processes = (1..=60).map(|id| facts(id, 0, 0, &["/usr/bin/worker", "--id"])).collect();
    seen.threads = (1..=60).map(|id| thread(id, id, &[])).collect();
    let glance = Model::glance(fixture::session(), crate::model::Limits::default(), seen);
    let mut screen = Screen::new(glance, 200, 50);
    screen.app.loading("loading BPF programs");
    let lines = screen.draw();
    assert!(lines[1].ends_with("loading BPF programs …"), "{}", lines[1]);
    assert!(lines[2].contains("nothing measured yet"), "{}", lines[2]);
    assert_eq!(lines.iter().filter(|line| line.contains("worker --id")).count(), 44, "all the room is theirs");
    let cells: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(cells[..8], ["▸", "1", "root", "–", "asleep,", "began", "1m39s", "ago"], "{}", lines[5]);
    assert!(cells[8..17].iter().all(|cell| *cell == "–"), "{}", lines[5]);
    screen.keys("2");
    assert!(screen.draw().iter().any(|line| line.contains("loading BPF programs …") && !line.contains("Disks")));
    // The first tick that measures makes everything anew, although it is the first as well.
    screen.keys("1");
    screen.model = Model::new(fixture::session(), crate::model::Limits::default());
    let mut first = tick(101);
    first.processes = vec![facts(7, 0, 0, &["only"])];
    first.threads = vec![thread(7, 7, &[(State::User, 300 * MS)])];
    screen.tick(first, LATER);
    assert_eq!(screen.commands()[0], ">only");
}

#[test]
fn five_thousand_processes_cost_what_is_visible() {
    let mut big = tick(1);
    big.processes = (1..=5000).map(|id| facts(id, id / 2, id % 7, &["/usr/bin/worker", "--id"])).collect();
    big.threads = (1..=5000).map(|id| thread(id, id, &[(State::User, u64::from(id) * 1000)])).collect();
    let mut screen = Screen::new(model_of([big]), 200, 50);
    let started = std::time::Instant::now();
    (0..50).for_each(|_| drop(screen.draw()));
    let frame = started.elapsed() / 50;
    // Far above what it takes, far below what formatting five thousand rows would.
    assert!(frame < Duration::from_millis(60), "{frame:?}");
}

#[test]
fn the_icicle_below_has_a_lens_an_export_and_a_way_out() {
    let mut screen = Screen::new(model(), 200, 50);
    let lens = |screen: &mut Screen| screen.draw().into_iter().find(|line| line.contains("[")).unwrap_or_default();
    assert!(screen.draw().iter().any(|line| line.contains("[on-CPU] blocked")));
    screen.keys("o");
    assert!(screen.draw().iter().any(|line| line.contains("[blocked]")), "{}", lens(&mut screen));
    let actions = screen.key(KeyCode::Char('w'));
    let [Action::ExportFolded { query, file }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!((query.lens, query.process, file.as_str()), (TreeLens::Blocked, None, "sberf-machine-blocked.folded"));
    screen.keys("oo");
    let row = screen.draw().iter().position(|line| line.contains("work  100 %")).expect("the deepest frame") as u16;
    screen.click(120, row);
    screen.click(120, row);
    let zoomed = screen.draw();
    screen.key(KeyCode::Esc);
    assert_ne!(screen.draw(), zoomed, "Esc zooms out again");
}

#[test]
fn the_lens_of_an_icicle_that_is_not_there_says_where_it_is() {
    let mut screen = Screen::new(model(), 80, 24);
    screen.keys("o");
    assert!(screen.draw()[23].contains("taller screen; f opens it alone"));
    screen.keys("f");
    let lines = screen.draw();
    assert!(
        lines[1].contains("Processes › icicle") && lines.iter().any(|line| line.contains("work  100 %")),
        "{lines:?}"
    );
}

#[test]
fn help_says_what_was_lost() {
    let mut tick = busy(1);
    tick.losses = vec![(crate::tick::Loss::StackMapFull, 1_402)];
    let mut screen = Screen::new(model_of([tick]), 100, 30);
    screen.keys("?");
    assert!(screen.draw().iter().any(|line| line.contains("lost 1.4k") && line.contains("map full")));
}

#[test]
fn a_thread_that_exited_shows_in_its_last_tick_only() {
    let threads = |last: Option<State>| {
        let mut tick = tick(1);
        tick.processes = vec![facts(10, 0, 0, &["pool"])];
        tick.threads = [10, 11, 12].map(|id| thread(10, id, &[(State::User, MS)])).into();
        tick.threads[2].now = last;
        tick
    };
    let mut screen = Screen::new(model_of([threads(Some(State::User)), threads(None)]), 118, 24);
    screen.keys("H");
    assert_eq!(screen.commands().len(), 4);
    let mut without = threads(None);
    without.threads.pop();
    screen.tick(without, LATER);
    assert_eq!(screen.commands().len(), 3);
}
