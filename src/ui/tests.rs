//! The screen as a whole, on a made-up machine.

mod popups;

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use super::app::{App, MIN_SIZE, Options};
use super::fixture::{MS, SECOND, busy, key, model, model_of, session};
use super::keys::{self, BINDINGS, Context, Key};
use super::signal::Signal;
use super::theme::{Background, Depth};
use super::{Action, Command, Outcome, Pane, Target, Theme, places};
use crate::collect::Source;
use crate::collect::invented::{Invented, Invention};
use crate::model::{Limits, Model};
use crate::tick::{Loss, ProcessFacts, Sampler, ThreadTick, Tick};

const NOW: Duration = Duration::from_secs(9);

fn mono() -> Theme {
    Theme::new(Depth::None, false, Background::Dark)
}

fn app(model: &Model) -> App {
    let mut app = App::new(mono(), Options::default());
    drawn(&mut app, model, 80, 24);
    app.on_tick(model, NOW);
    app
}

fn drawn(app: &mut App, model: &Model, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    app.render(model, area, &mut buf);
    buf
}

fn lines(app: &mut App, model: &Model, width: u16, height: u16) -> Vec<String> {
    let buf = drawn(app, model, width, height);
    let line = |y| (0..width).map(|x| buf[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn event(key: Key) -> Vec<KeyEvent> {
    let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
    match key {
        Key::Char(c) => vec![plain(KeyCode::Char(c))],
        Key::Ctrl(c) => vec![KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)],
        Key::F(number) => vec![plain(KeyCode::F(number))],
        Key::Code(code) => vec![plain(code)],
        Key::Twice(c) => vec![plain(KeyCode::Char(c)); 2],
    }
}

fn press(app: &mut App, model: &Model, key: Key) -> Vec<Action> {
    event(key).into_iter().flat_map(|event| app.on_key(event, model, NOW)).collect()
}

fn click(app: &mut App, model: &Model, column: u16, row: u16) -> Vec<Action> {
    let kind = MouseEventKind::Down(MouseButton::Left);
    app.on_mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }, model, NOW)
}

/// Every pane there is, with data.
fn panes(model: &Model) -> Vec<Box<dyn Pane>> {
    let mut panes: Vec<Box<dyn Pane>> = places::all().into_iter().map(|place| place.pane).collect();
    panes.extend(places::open(Target::Process(key(4711)), model));
    for pane in &mut panes {
        pane.tick(model, false);
        pane.layout(Rect::new(0, 2, 120, 37), model);
    }
    panes
}

#[test]
fn no_size_panics() {
    let model = model();
    for (width, height) in (1..=40).flat_map(|w| (1..=12).map(move |h| (w, h))).chain([(79, 24), (80, 23), (300, 3)]) {
        let mut app = app(&model);
        drawn(&mut app, &model, width, height);
        for command in [Command::Help, Command::Search, Command::Enter, Command::NextTab, Command::NextTab] {
            app.run(command, &model);
            drawn(&mut app, &model, width, height);
        }
    }
}

#[test]
fn no_pane_panics_in_any_area() {
    let model = model();
    let theme = mono();
    for mut pane in panes(&model) {
        for (width, height) in (1..=40).flat_map(|w| (1..=12).map(move |h| (w, h))) {
            let area = Rect::new(3, 2, width, height);
            let mut buf = Buffer::empty(Rect::new(0, 0, 50, 20));
            pane.layout(area, &model);
            pane.render(&model, &theme, area, &mut buf);
            let outside = |x: u16, y: u16| !area.contains((x, y).into());
            for (x, y) in (0..50).flat_map(|x| (0..20).map(move |y| (x, y))).filter(|&(x, y)| outside(x, y)) {
                assert_eq!(buf[(x, y)].symbol(), " ", "{} {area:?} wrote to {x} {y}", pane.title(&model));
            }
        }
    }
}

#[test]
fn too_small_says_so_and_can_be_quit() {
    let model = model();
    let mut app = app(&model);
    assert_eq!(lines(&mut app, &model, 60, 5)[2].trim(), "sberf needs 80x24, this is 60x5");
    assert_eq!(lines(&mut app, &model, 79, 24)[12].trim(), "sberf needs 80x24, this is 79x24");
    assert!(lines(&mut app, &model, MIN_SIZE.0, MIN_SIZE.1)[4].contains("PID"));
    lines(&mut app, &model, 1, 1);
    assert!(press(&mut app, &model, Key::Char('q')).contains(&Action::Quit));
}

#[test]
fn the_first_frame_says_what_is_loading() {
    let model = Model::new(session(), Limits::default());
    let mut app = App::new(mono(), Options::default());
    app.loading("loading BPF programs");
    let lines = lines(&mut app, &model, 80, 24);
    assert!(lines[12].trim().starts_with("loading BPF programs"), "{lines:?}");
    assert!(lines[0].contains("99Hz cpu-clock"));
}

#[test]
fn every_binding_does_something_where_it_holds() {
    let model = model();
    for at in 0..panes(&model).len() {
        let context = panes(&model)[at].context();
        for binding in keys::in_reach(context).filter(|binding| binding.when != Context::Anywhere) {
            let mut pane = panes(&model).swap_remove(at);
            let outcome = pane.command(binding.command, &model);
            assert!(!matches!(outcome, Outcome::Ignored), "{context:?} ignores {:?}", binding.command);
        }
    }
}

#[test]
fn every_context_with_bindings_is_one_that_a_pane_can_be_in() {
    let model = model();
    let mut reached = Vec::new();
    for mut pane in panes(&model) {
        for _ in 0..6 {
            reached.extend_from_slice(pane.context().chain());
            pane.command(Command::NextTab, &model);
        }
    }
    for context in Context::ALL {
        let bound = BINDINGS.iter().any(|binding| binding.when == context);
        assert!(!bound || reached.contains(&context), "{context:?} has keys and no pane");
    }
}

#[test]
fn every_key_can_be_pressed_everywhere() {
    let model = model_of([busy(1), busy(2)]);
    for first in BINDINGS.iter().flat_map(|binding| binding.keys) {
        let mut app = app(&model);
        press(&mut app, &model, *first);
        for key in BINDINGS.iter().flat_map(|binding| binding.keys) {
            press(&mut app, &model, *key);
        }
        app.on_tick(&model, NOW);
        drawn(&mut app, &model, 118, 40);
    }
}

#[test]
fn help_lists_every_binding() {
    let model = model();
    let mut app = app(&model);
    press(&mut app, &model, Key::Char('?'));
    let text = lines(&mut app, &model, 118, 250).join("\n");
    for binding in BINDINGS {
        assert!(text.contains(binding.help), "{}", binding.help);
    }
    press(&mut app, &model, Key::Code(KeyCode::Esc));
    assert!(!lines(&mut app, &model, 118, 40).join("\n").contains("any other key closes"));
}

#[test]
fn without_colours_no_cell_has_one() {
    let model = model();
    let mut app = app(&model);
    for key in ['?', ' ', 'i', '>', ' '] {
        press(&mut app, &model, Key::Char(key));
        let buf = drawn(&mut app, &model, 200, 50);
        assert!(buf.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }
    for pane in panes(&model) {
        let mut buf = Buffer::empty(Rect::new(0, 0, 120, 40));
        pane.render(&model, &mono(), buf.area, &mut buf);
        let coloured = buf.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert!(!coloured, "{}", pane.title(&model));
    }
}

#[test]
fn with_ascii_only_nothing_else_is_written() {
    let model = model();
    let mut app = App::new(Theme::new(Depth::Ansi16, true, Background::Dark), Options::default());
    app.on_tick(&model, NOW);
    for key in ['i', '?', 't'] {
        press(&mut app, &model, Key::Char(key));
        let buf = drawn(&mut app, &model, 200, 50);
        assert!(buf.content.iter().all(|cell| cell.symbol().is_ascii()));
    }
}

#[test]
fn q_goes_back_and_at_the_top_quits() {
    let model = model();
    let mut app = app(&model);
    let actions = press(&mut app, &model, Key::Code(KeyCode::Enter));
    assert!(actions.contains(&Action::Focus(Some(key(4711)))), "{actions:?}");
    assert!(lines(&mut app, &model, 100, 30)[1].contains("Processes › 4711 postgres"));
    let actions = press(&mut app, &model, Key::Char('q'));
    assert!(actions.contains(&Action::Focus(None)) && !actions.contains(&Action::Quit), "{actions:?}");
    assert_eq!(press(&mut app, &model, Key::Code(KeyCode::Esc)), [], "Esc never quits");
    assert!(press(&mut app, &model, Key::Char('q')).contains(&Action::Quit));
}

#[test]
fn control_c_quits_from_under_a_popup() {
    let model = model();
    for popup in ['?', '>', 'u'] {
        let mut app = app(&model);
        press(&mut app, &model, Key::Char(popup));
        assert_eq!(press(&mut app, &model, Key::Ctrl('c')), [Action::Quit]);
    }
}

#[test]
fn pausing_holds_and_shows_it() {
    let model = model();
    let mut app = app(&model);
    assert_eq!(press(&mut app, &model, Key::Char(' ')), [Action::Hold(true)]);
    app.behind(7);
    assert!(lines(&mut app, &model, 120, 24)[0].contains("paused 14:03:23 +7"));
    assert_eq!(press(&mut app, &model, Key::Char('z')), [Action::Look(None), Action::Hold(false)]);
    assert!(lines(&mut app, &model, 120, 24)[0].contains("live 14:03:23"));
}

/// Does what the program does for the keys that move in time.
fn travel(app: &mut App, model: &mut Model, key: Key) -> Vec<Action> {
    let actions = press(app, model, key);
    for action in &actions {
        match action {
            Action::Look(Some(tick)) => assert!(model.look_at(*tick)),
            Action::Look(None) => model.look_live(),
            _ => continue,
        }
        app.looked(model);
    }
    actions
}

#[test]
fn the_keys_of_time() {
    let mut model = model_of((1..=4).map(busy));
    let mut app = app(&model);
    let status = |app: &mut App, model: &Model| lines(app, model, 120, 24).swap_remove(0);
    assert_eq!(travel(&mut app, &mut model, Key::Char(']')), [], "there is nothing newer");
    let actions = travel(&mut app, &mut model, Key::Char('['));
    assert_eq!(actions, [Action::Hold(true), Action::Look(Some(3))]);
    let drawn = lines(&mut app, &model, 120, 24);
    assert!(drawn[0].contains("past 14:03:25 -1.0s"), "{}", drawn[0]);
    assert!(drawn[23].contains("4 ticks are kept"), "{}", drawn[23]);
    (0..5).for_each(|_| drop(travel(&mut app, &mut model, Key::Char('['))));
    let drawn = lines(&mut app, &model, 120, 24);
    assert!(drawn[0].contains("past 14:03:23 -3.0s"), "the oldest: {}", drawn[0]);
    assert!(drawn[23].contains("nothing before this is kept"), "{}", drawn[23]);
    assert_eq!(travel(&mut app, &mut model, Key::Char(']')), [Action::Look(Some(2))]);
    assert!(status(&mut app, &model).contains("past 14:03:24 -2.0s"));
    let narrow = lines(&mut app, &model, 80, 24).swap_remove(0);
    for piece in ["1s", "past 14:03:24 -2.0s", "stacks", "lost", "self"] {
        assert!(narrow.contains(piece), "{piece}: {narrow}");
    }
    assert_eq!(
        app.run(Command::Save, &model),
        [Action::SaveCapture { file: "sberf-web-17-20261121-140326.sberf".into() }]
    );
    travel(&mut app, &mut model, Key::Char(']'));
    assert_eq!(travel(&mut app, &mut model, Key::Char(']')), [Action::Look(None)], "the newest, still held");
    assert!(status(&mut app, &model).contains("paused 14:03:26"));
    assert_eq!(travel(&mut app, &mut model, Key::Char(']')), [Action::Step]);
    travel(&mut app, &mut model, Key::Char('['));
    let live = [Action::Look(None), Action::Hold(false)];
    assert_eq!(travel(&mut app, &mut model, Key::Code(KeyCode::Home)), live);
    assert!(status(&mut app, &model).contains("live 14:03:26"));
    press(&mut app, &model, Key::Char('G'));
    assert_eq!(travel(&mut app, &mut model, Key::Code(KeyCode::Home)), [], "live already: to the first row");
    assert!(lines(&mut app, &model, 120, 24)[5].starts_with("▸"));
    travel(&mut app, &mut model, Key::Char('['));
    assert_eq!(travel(&mut app, &mut model, Key::Char(' ')), live, "no pause, no past");
}

/// What stands on the screen after these keys, but for the status line and the last one.
fn walk(model: &Model, keys: &[Key], (width, height): (u16, u16)) -> Vec<String> {
    let mut app = app(model);
    drawn(&mut app, model, width, height);
    app.on_tick(model, NOW);
    for &key in keys {
        press(&mut app, model, key);
        drawn(&mut app, model, width, height);
    }
    app.on_tick(model, NOW + Duration::from_secs(9));
    let lines = lines(&mut app, model, width, height);
    lines[1..usize::from(height) - 1].to_vec()
}

#[test]
fn a_past_second_fills_the_whole_screen_as_it_did_then() {
    const TICKS: usize = 40;
    let (enter, tab, window) = (Key::Code(KeyCode::Enter), Key::Code(KeyCode::Tab), Key::Char('a'));
    let ways: [&[Key]; 12] = [
        &[],
        &[Key::Char('H'), Key::Char('t')],
        &[Key::Char('2')],
        &[Key::Char('2'), enter],
        &[Key::Char('3')],
        &[Key::Char('4')],
        &[Key::Char('f'), Key::Char('o'), window],
        &[Key::Char('f'), window, window],
        &[enter, Key::Char('o'), window],
        &[enter, tab],
        &[enter, tab, tab],
        &[enter, tab, tab, tab],
    ];
    let sizes = [(80, 24), (200, 50)];
    let mut source = Invented::new(Invention { nodes: 2, cpus: 4, hostile: true, ..Invention::default() });
    let mut model = Model::new(source.session(), Limits::default());
    let mut then = Vec::new();
    let shows = |model: &Model| -> Vec<Vec<String>> {
        ways.iter().flat_map(|keys| sizes.map(|size| walk(model, keys, size))).collect()
    };
    for nth in 1..=TICKS {
        model.apply(source.tick());
        if nth % 9 == 0 {
            then.push((nth as u64, shows(&model)));
        }
    }
    for (tick, then) in then.into_iter().rev() {
        assert!(model.look_at(tick));
        for (nth, (then, now)) in then.into_iter().zip(shows(&model)).enumerate() {
            assert_eq!(then, now, "tick {tick}, way {}, size {:?}", nth / 2, sizes[nth % 2]);
        }
    }
}

#[test]
fn what_is_not_kept_of_a_past_second_is_said() {
    let mut source = Invented::new(Invention { sleepers: 50, ..Invention::default() });
    let mut model = Model::new(source.session(), Limits::default());
    (0..180).for_each(|_| model.apply(source.tick()));
    let way = [Key::Code(KeyCode::Enter), Key::Code(KeyCode::Tab), Key::Code(KeyCode::Tab)];
    assert!(!walk(&model, &way, (120, 40)).join("\n").contains("no more are kept"));
    model.look_at(175);
    let drawn = walk(&model, &way, (120, 40)).join("\n");
    assert!(drawn.contains(" ticks, no more are kept of it"), "{drawn}");
}

#[test]
fn a_process_that_was_not_there_yet_says_so() {
    let mut young = busy(2);
    young.processes.push(ProcessFacts { key: key(5), comm: "young".into(), ..ProcessFacts::default() });
    let thread = young.threads[0].clone();
    young.threads.push(ThreadTick { key: crate::tick::ThreadKey { tid: 5, start_ns: 0 }, process: key(5), ..thread });
    let mut model = model_of([busy(1), young]);
    let mut app = app(&model);
    select(&mut app, &model, 5);
    press(&mut app, &model, Key::Code(KeyCode::Enter));
    let here = lines(&mut app, &model, 100, 30);
    travel(&mut app, &mut model, Key::Char('['));
    let drawn = lines(&mut app, &model, 100, 30);
    assert!(drawn.join("\n").contains("there was no process 5 young at that time"), "{drawn:?}");
    press(&mut app, &model, Key::Char('o'));
    assert!(lines(&mut app, &model, 100, 30)[29].contains("there was no process"));
    travel(&mut app, &mut model, Key::Code(KeyCode::Home));
    assert_eq!(lines(&mut app, &model, 100, 30)[1..29], here[1..29]);
}

#[test]
fn a_capture_is_named_by_place_and_time() {
    let model = model();
    let mut app = App::new(mono(), Options { utc_offset_s: 3600, ..Options::default() });
    let file = "sberf-web-17-20261121-150323.sberf".into();
    assert_eq!(press(&mut app, &model, Key::Char('W')), [Action::SaveCapture { file }]);
}

#[test]
fn plus_and_minus_step_the_interval() {
    let model = model();
    let mut app = app(&model);
    assert_eq!(press(&mut app, &model, Key::Char('+')), [Action::Interval(Duration::from_secs(2))]);
    assert!(lines(&mut app, &model, 120, 24)[0].contains("│ 2s │"));
    for ms in [1000, 500, 200, 100] {
        assert_eq!(press(&mut app, &model, Key::Char('-')), [Action::Interval(Duration::from_millis(ms))]);
    }
    assert_eq!(press(&mut app, &model, Key::Char('-')), []);
    assert!(lines(&mut app, &model, 120, 24)[0].contains("│ 100ms │"));
}

#[test]
fn a_replay_says_so_and_keeps_its_interval() {
    let model = model();
    let mut app = App::new(mono(), Options { replay: true, utc_offset_s: 3600, ..Options::default() });
    assert!(lines(&mut app, &model, 120, 24)[0].contains("replay 15:03:23"));
    assert_eq!(press(&mut app, &model, Key::Char('+')), []);
    assert!(lines(&mut app, &model, 120, 24)[23].contains("keeps the interval it was recorded with"));
    app.ended();
    assert!(lines(&mut app, &model, 120, 24)[0].contains("replay over"));
}

#[test]
fn the_status_owns_up_to_losses() {
    let colour = |losses: &[(Loss, u64)], said: &str| {
        let model = model_of([Tick { losses: losses.to_vec(), ..busy(1) }]);
        let mut app = App::new(Theme::default(), Options::default());
        app.on_tick(&model, NOW);
        let buf = drawn(&mut app, &model, 80, 24);
        let line: String = (0..80).map(|x| buf[(x, 0)].symbol()).collect();
        let at = line.find(said).unwrap_or_else(|| panic!("no {said:?} in {line}"));
        Some(buf[(line[..at].chars().count() as u16, 0)].fg)
    };
    let alert = Theme::default().alert().fg;
    assert_eq!(colour(&[(Loss::StackMapFull, 1_402), (Loss::Torn, 1)], "lost 1.4k (1.4k)"), alert);
    // In no number of a disk, so that none is less true for it.
    assert_ne!(colour(&[(Loss::OtherRequest, 3)], "lost 3 (3)"), alert);
}

#[test]
fn the_status_says_how_it_samples_and_what_it_costs() {
    let mut app = app(&model());
    let first = |app: &mut App, sampler| {
        let mut session = session();
        session.sampler = sampler;
        let mut model = Model::new(session, Limits::default());
        model.apply(busy(1));
        app.on_tick(&model, NOW);
        lines(app, &model, 140, 24).swap_remove(0)
    };
    let line = first(&mut app, Sampler::Cycles(997));
    assert!(line.contains("web-17 │ 6.18.0 │ 2 CPU 1 node │ 997Hz cycles │ 1s │ live"), "{line}");
    assert!(line.contains("stacks complete 100%  lost 0  self 0.6% 38.0M"), "{line}");
    assert!(first(&mut app, Sampler::Off).contains("sampling off"));
}

#[test]
fn messages_stand_until_the_next_key() {
    let model = model();
    let mut app = app(&model);
    app.notify("wrote 1 234 stacks to x.folded");
    assert_eq!(lines(&mut app, &model, 80, 24)[23], " wrote 1 234 stacks to x.folded");
    press(&mut app, &model, Key::Char('j'));
    assert!(lines(&mut app, &model, 80, 24)[23].contains("quit"));
}

/// What `y` hands out.
fn copied(app: &mut App, model: &Model) -> String {
    match press(app, model, Key::Char('y')).as_slice() {
        [Action::Copy(text)] => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_row_or_a_stack_can_be_copied() {
    let model = model();
    let mut app = app(&model);
    let row = copied(&mut app, &model);
    let (heads, cells) = row.split_once('\n').expect("heads, and the row");
    assert!(heads.starts_with("PID\tUSER\tCPU%") && heads.ends_with("COMMAND"), "{row}");
    assert!(cells.starts_with("4711\tpostgres\t100\tuser 45.0% "), "{row}");
    assert_eq!(heads.split('\t').count(), cells.split('\t').count(), "{row}");
    assert!(lines(&mut app, &model, 80, 24)[23].contains("clipboard"));
    press(&mut app, &model, Key::Code(KeyCode::Enter));
    lines(&mut app, &model, 80, 24);
    assert_eq!(copied(&mut app, &model), "postgres: write 7");
    (0..2).for_each(|_| drop(press(&mut app, &model, Key::Char('j'))));
    assert_eq!(copied(&mut app, &model), "postgres: write;main;work 7");
}

#[test]
fn every_pane_has_something_to_copy() {
    let model = model();
    for mut pane in panes(&model).into_iter().filter(|pane| pane.context() != Context::Numa) {
        for _ in 0..5 {
            let text = pane.copy(&model);
            assert!(text.as_ref().is_some_and(|text| text.len() > 5), "{:?}: {text:?}", pane.context());
            pane.command(Command::NextTab, &model);
            pane.tick(&model, false);
        }
    }
}

/// The cursor on a process.
fn select(app: &mut App, model: &Model, pid: u32) {
    press(app, model, Key::Char('/'));
    pid.to_string().chars().for_each(|c| drop(press(app, model, Key::Char(c))));
    press(app, model, Key::Code(KeyCode::Enter));
}

#[test]
fn a_signal_is_asked_for_and_then_sent() {
    let model = model();
    let mut app = app(&model);
    assert_eq!(press(&mut app, &model, Key::F(9)), []);
    let drawn = lines(&mut app, &model, 80, 24).join("\n");
    assert!(drawn.contains("signal to 4711 postgres: writer"), "{drawn}");
    let sent = |signal| Action::Signal { process: key(4711), signal, label: "4711 postgres: writer".into() };
    assert_eq!(press(&mut app, &model, Key::Code(KeyCode::Enter)), [sent(Signal::Term)]);
    assert!(!lines(&mut app, &model, 80, 24).join("\n").contains("signal to"));
    press(&mut app, &model, Key::F(9));
    press(&mut app, &model, Key::Char('K'));
    assert_eq!(press(&mut app, &model, Key::Code(KeyCode::Enter)), [sent(Signal::Kill)]);
    press(&mut app, &model, Key::F(9));
    assert_eq!(press(&mut app, &model, Key::Code(KeyCode::Esc)), []);
    assert_eq!(press(&mut app, &model, Key::Code(KeyCode::Esc)), [], "nothing is left to be chosen");
    press(&mut app, &model, Key::Code(KeyCode::Enter));
    press(&mut app, &model, Key::F(9));
    assert!(lines(&mut app, &model, 80, 24).join("\n").contains("signal to 4711"), "inside the process as well");
}

#[test]
fn what_takes_no_signal_says_so() {
    let model = model();
    let mut app = App::new(mono(), Options { own_pid: Some(8120), ..Options::default() });
    app.on_tick(&model, NOW);
    for (pid, why) in [(8120, "is sberf itself"), (15, "threads of the kernel"), (9871, "has exited")] {
        select(&mut app, &model, pid);
        assert_eq!(press(&mut app, &model, Key::F(9)), []);
        let drawn = lines(&mut app, &model, 80, 24);
        assert!(drawn[23].contains(why), "{pid}: {}", drawn[23]);
        press(&mut app, &model, Key::Code(KeyCode::Esc));
    }
    let mut app = App::new(mono(), Options { replay: true, ..Options::default() });
    app.on_tick(&model, NOW);
    press(&mut app, &model, Key::F(9));
    assert!(lines(&mut app, &model, 80, 24)[23].contains("recorded"));
    app.run(Command::Cpus, &model);
    let mut app = App::new(mono(), Options::default());
    app.on_tick(&model, NOW);
    app.run(Command::Cpus, &model);
    press(&mut app, &model, Key::F(9));
    assert!(lines(&mut app, &model, 80, 24)[23].contains("no process is selected"));
}

#[test]
fn the_footer_can_be_clicked() {
    let model = model();
    let mut app = app(&model);
    let footer = lines(&mut app, &model, 80, 24).swap_remove(23);
    let column = footer.find("? help").expect("help is offered") as u16;
    click(&mut app, &model, column + 2, 23);
    assert!(lines(&mut app, &model, 80, 24).join("").contains("any other key closes"));
}

#[test]
fn tabs_lead_to_places_and_back() {
    let model = model();
    let mut app = app(&model);
    let places: Vec<_> = places::all().iter().map(|place| (place.command, place.name)).collect();
    let tabs = lines(&mut app, &model, 100, 30).swap_remove(1);
    for (command, name) in places {
        let column = tabs.find(name).expect("every place has a tab") as u16;
        click(&mut app, &model, column, 1);
        let clicked = (app.context(), lines(&mut app, &model, 100, 30));
        app.run(Command::Processes, &model);
        app.run(command, &model);
        assert_eq!((app.context(), lines(&mut app, &model, 100, 30)), clicked, "{name}");
    }
}

#[test]
fn a_message_of_the_interval_is_not_of_the_tick() {
    let mut tick = busy(1);
    tick.span.end_ns = tick.span.start_ns + SECOND + 20 * MS;
    let model = model_of([tick]);
    let mut app = app(&model);
    assert!(lines(&mut app, &model, 160, 24)[2].contains("last 1.0s"), "what was measured, not what was asked for");
}
