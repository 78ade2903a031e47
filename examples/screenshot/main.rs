//! Draws the screen that a capture gives, after some keys, as an SVG: the pictures in the README. `make screenshot` runs it.
//!
//! ```text
//! screenshot CAPTURE OUT.svg [--size 120x36] [--ticks N] [--keys "Down Enter Tab o"]
//! ```

mod svg;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use sberf::collect::capture::Reader;
use sberf::model::{Limits, Model};
use sberf::tick::Batch;
use sberf::ui::Theme;
use sberf::ui::app::{App, Options};

struct Args {
    capture: PathBuf,
    out: PathBuf,
    size: (u16, u16),
    /// Where to stop; all of the capture without.
    ticks: u64,
    keys: Vec<KeyCode>,
}

fn main() -> Result<()> {
    let args = parse(std::env::args().skip(1))?;
    let mut reader = Reader::open(&args.capture)?;
    let mut model = Model::new(reader.session().clone(), Limits::default());
    let mut app = App::new(Theme::default(), Options { replay: true, ..Options::default() });
    let area = Rect::new(0, 0, args.size.0, args.size.1);
    let mut buffer = Buffer::empty(area);
    while model.ticks() < args.ticks {
        match reader.next_batch()? {
            Some(Batch::Tick(tick)) => model.apply(*tick),
            Some(Batch::Names(names)) => model.learn(*names),
            None => break,
        }
    }
    // Keys are pressed as a person would: on a screen that was drawn, and more than a second apart.
    let mut now = Duration::ZERO;
    let mut show = |app: &mut App, now| {
        app.on_tick(&model, now);
        buffer.reset();
        app.render(&model, area, &mut buffer);
    };
    show(&mut app, now);
    for key in args.keys {
        now += Duration::from_secs(2);
        app.on_key(KeyEvent::new(key, KeyModifiers::NONE), &model, now);
        show(&mut app, now + Duration::from_secs(2));
    }
    std::fs::write(&args.out, svg::of(&buffer)).with_context(|| format!("writing {}", args.out.display()))?;
    println!("{}: {} ticks of {}", args.out.display(), model.ticks(), args.capture.display());
    Ok(())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args> {
    let capture = args.next().context("which capture?")?.into();
    let out = args.next().context("where to?")?.into();
    let mut parsed = Args { capture, out, size: (120, 36), ticks: u64::MAX, keys: Vec::new() };
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("{arg} wants a value"))?;
        match arg.as_str() {
            "--size" => {
                let (width, height) = value.split_once('x').context("a size is WIDTHxHEIGHT")?;
                parsed.size = (width.parse()?, height.parse()?);
            }
            "--ticks" => parsed.ticks = value.parse()?,
            "--keys" => parsed.keys = value.split_whitespace().map(key).collect::<Result<_>>()?,
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(parsed)
}

fn key(name: &str) -> Result<KeyCode> {
    let mut chars = name.chars();
    Ok(match (name, chars.next(), chars.next()) {
        ("Up", ..) => KeyCode::Up,
        ("Down", ..) => KeyCode::Down,
        ("Left", ..) => KeyCode::Left,
        ("Right", ..) => KeyCode::Right,
        ("Enter", ..) => KeyCode::Enter,
        ("Tab", ..) => KeyCode::Tab,
        ("Esc", ..) => KeyCode::Esc,
        ("Space", ..) => KeyCode::Char(' '),
        (_, Some(c), None) => KeyCode::Char(c),
        _ => bail!("unknown key {name}"),
    })
}
