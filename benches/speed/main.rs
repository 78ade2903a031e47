//! How fast the parts above the kernel are: what runs once per tick, and what runs once per frame;
//! and unwind tables.
//!
//! The goals: a frame of 200×50 with an icicle of 100 000 nodes within 16 ms, and a tick of 5 000 threads within a few.

mod inputs;
mod unwind;

use std::cell::RefCell;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use sberf::collect::capture::{Reader, Writer};
use sberf::model::{Limits, Model, TreeQuery};
use sberf::tick::{Batch, Tick};
use sberf::ui::Theme;
use sberf::ui::app::{App, Options};
use sberf::ui::icicle::layout::layout;

const SCREEN: Rect = Rect { x: 0, y: 0, width: 200, height: 50 };
/// Nodes of the large icicle.
const NODES: u32 = 100_000;

fn main() {
    divan::main();
}

fn model(ticks: impl IntoIterator<Item = Tick>) -> Model {
    let mut model = Model::new(inputs::session(), Limits::default());
    ticks.into_iter().for_each(|tick| model.apply(tick));
    model
}

fn query() -> TreeQuery {
    TreeQuery { process: Some(inputs::process(0)), ..TreeQuery::default() }
}

/// A tick taken in, by number of threads.
#[divan::bench(args = [100, 5_000])]
fn apply_tick(bencher: Bencher, threads: u32) {
    let mut model = model([inputs::tick(0, threads)]);
    let mut number = 0;
    let next = || {
        number += 1;
        inputs::tick(number, threads)
    };
    bencher.counter(ItemsCount::new(threads)).with_inputs(next).bench_local_values(|tick| model.apply(tick));
}

/// One step back in time, by number of threads: the second before is rebuilt.
#[divan::bench(args = [100, 5_000], sample_count = 100, sample_size = 1)]
fn look_back(bencher: Bencher, threads: u32) {
    const TICKS: u64 = 200;
    let mut model = model((0..TICKS).map(|number| inputs::tick(number, threads)));
    let kept = model.kept().expect("there are ticks");
    let mut at = *kept.end();
    bencher.bench_local(|| {
        at = if at == *kept.start() { *kept.end() } else { at } - 1;
        assert!(model.look_at(at));
    });
}

/// Stacks merged to a tree: once per tick, for what is looked at.
#[divan::bench(args = [NODES])]
fn build_tree(bencher: Bencher, nodes: u32) {
    let model = model([inputs::deep(nodes)]);
    let made = model.tree(&query()).nodes.len();
    assert!(made.abs_diff(nodes as usize) < nodes as usize / 20, "{made} nodes");
    bencher.bench_local(|| model.tree(&query()));
}

/// Places of the frames of an icicle: once per tick, and after each zoom or resize.
#[divan::bench(args = [NODES])]
fn lay_out_icicle(bencher: Bencher, nodes: u32) {
    let tree = model([inputs::deep(nodes)]).tree(&query());
    bencher.bench_local(|| layout(&tree, 0, SCREEN.width, usize::from(SCREEN.height)));
}

/// A screen that stands at the end of these keys.
fn app(model: &Model, keys: &[KeyCode]) -> App {
    let mut app = App::new(Theme::default(), Options::default());
    let mut buffer = Buffer::empty(SCREEN);
    app.on_tick(model, Duration::ZERO);
    app.render(model, SCREEN, &mut buffer);
    for &key in keys {
        app.on_key(KeyEvent::new(key, KeyModifiers::NONE), model, Duration::from_secs(1));
        app.render(model, SCREEN, &mut buffer);
    }
    app
}

/// The screen inside the process that works most: its icicle.
fn icicle(model: &Model) -> App {
    let mut app = app(model, &[KeyCode::Enter]);
    let mut buffer = Buffer::empty(SCREEN);
    app.render(model, SCREEN, &mut buffer);
    let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
    assert!(text.contains("module_"), "no frame of the icicle is on the screen");
    app
}

/// A frame of one process's icicle, nothing having changed: what a key or a resize costs.
#[divan::bench(args = [NODES])]
fn frame_of_icicle(bencher: Bencher, nodes: u32) {
    let model = model([inputs::deep(nodes)]);
    let mut app = icicle(&model);
    draw(bencher, &model, &mut app);
}

/// The same right after a tick: tree, layout and drawing.
#[divan::bench(args = [NODES], sample_count = 30)]
fn tick_and_frame_of_icicle(bencher: Bencher, nodes: u32) {
    let mut model = model([inputs::deep(nodes)]);
    let mut app = icicle(&model);
    let mut buffer = Buffer::empty(SCREEN);
    let mut number = 0;
    let next = || {
        number += 1;
        let deep = inputs::deep(nodes);
        Tick { span: inputs::span(number), names: Default::default(), ..deep }
    };
    bencher.with_inputs(next).bench_local_values(|tick| {
        model.apply(tick);
        app.on_tick(&model, Duration::from_secs(60));
        app.render(&model, SCREEN, &mut buffer);
    });
}

/// A frame of the table of processes, nothing having changed, by number of processes.
#[divan::bench(args = [100, 5_000])]
fn frame_of_processes(bencher: Bencher, processes: u32) {
    let model = model([inputs::tick(0, 4 * processes)]);
    let mut app = app(&model, &[]);
    draw(bencher, &model, &mut app);
}

/// What the table does once per tick: rows made, filtered and sorted.
#[divan::bench(args = [100, 5_000])]
fn rows_of_processes(bencher: Bencher, processes: u32) {
    let model = RefCell::new(model([inputs::tick(0, 4 * processes)]));
    let mut app = app(&model.borrow(), &[]);
    let mut number = 0;
    // Without a new tick there is nothing to do.
    let tick = || {
        number += 1;
        model.borrow_mut().apply(inputs::tick(number, 4 * processes));
    };
    bencher.with_inputs(tick).bench_local_values(|()| app.on_tick(&model.borrow(), Duration::from_secs(60)));
}

fn draw(bencher: Bencher, model: &Model, app: &mut App) {
    let mut buffer = Buffer::empty(SCREEN);
    bencher.bench_local(|| {
        buffer.reset();
        app.render(model, SCREEN, &mut buffer);
    });
}

fn capture(ticks: u64, threads: u32) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &inputs::session()).expect("memory can be written");
    for number in 0..ticks {
        writer.write(&Batch::Tick(Box::new(inputs::tick(number, threads)))).expect("memory can be written");
    }
    writer.finish().expect("memory can be written")
}

/// One tick written to a capture: packed, compressed, checksummed. Bytes are those of the file.
#[divan::bench(args = [100, 5_000])]
fn write_capture(bencher: Bencher, threads: u32) {
    let batch = Batch::Tick(Box::new(inputs::tick(1, threads)));
    let bytes = (capture(11, threads).len() - capture(1, threads).len()) / 10;
    let mut writer = Writer::new(Vec::new(), &inputs::session()).expect("memory can be written");
    bencher.counter(BytesCount::new(bytes)).bench_local(|| writer.write(&batch));
}

/// Ten ticks read back.
#[divan::bench(args = [100, 5_000])]
fn read_capture_of_10_ticks(bencher: Bencher, threads: u32) {
    let bytes = capture(10, threads);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let mut reader = Reader::new(bytes.as_slice()).expect("just written");
        let mut ticks = 0;
        while let Some(batch) = reader.next_batch().expect("just written") {
            ticks += usize::from(matches!(batch, Batch::Tick(_)));
        }
        assert_eq!(ticks, 10);
    });
}
