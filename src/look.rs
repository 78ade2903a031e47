//! `sberf top` before its first frame: checks, colours, and the source.

use std::io::{self, IsTerminal};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::never;
use sberf::collect::capture::Pace;
use sberf::collect::{host, local_time};
use sberf::model::Limits;
use sberf::ui::Theme;
use sberf::ui::app::Options;
use sberf::ui::theme::Depth;

use crate::cli::{Color, Look, Top};
use crate::command::{self, Running};
use crate::feed::{Feed, Open};
use crate::{Failure, glance, source, terminal, top};

/// Palettes that are built in.
const PALETTES: [(&str, &str); 1] = [("okabe-ito", include_str!("../assets/palettes/okabe-ito.toml"))];

/// Shows the screen. What can be known to fail fails before the terminal is touched.
pub fn top(args: Top) -> Result<(), Failure> {
    terminal::check().map_err(Failure::Line)?;
    let theme = theme(&args.look)?;
    let replay = args.read.is_some();
    let command = command::start(&args.command, command::Output::File)?;
    let open = open(&args, command.as_ref().map(Running::pid))?;
    let seen = match replay {
        true => never(),
        false => glance::start(source::glance(&args.observe, command.as_ref().map(Running::pid))?),
    };
    let feed = Feed::start(open, args.write)?;
    let own_pid = (!replay).then(host::own_pid);
    let limits = Limits { history_bytes: (args.history as usize) << 20, ..Limits::default() };
    top::run(feed, seen, command, theme, Options { replay, utc_offset_s: utc_offset_s(), own_pid }, limits)
}

/// The source that the command line means, opened as far as that is quick. `follow`: see [`source::live`].
pub fn open(args: &Top, follow: Option<u32>) -> Result<Open, Failure> {
    match &args.read {
        Some(path) => {
            let pace = if args.json { Pace::Fast } else { Pace::RealTime };
            let source = source::capture(path, pace, &args.observe.pids).map_err(|error| Failure::Line(error.0))?;
            Ok(Box::new(move || Ok(source)))
        }
        None => source::live(&args.observe, follow, args.debuginfod, args.write.is_none()),
    }
}

fn theme(look: &Look) -> Result<Theme, Failure> {
    let mut theme = Theme::detect(&|name| std::env::var(name).ok());
    theme.ascii |= look.ascii;
    theme.depth = match look.color {
        Color::Auto => theme.depth,
        Color::None => Depth::None,
        Color::Ansi16 => Depth::Ansi16,
        Color::Ansi256 => Depth::Ansi256,
        Color::True => Depth::True,
    };
    // The theme has decided; whoever writes escape sequences must not think again.
    crossterm::style::force_color_output(true);
    match &look.palette {
        None => Ok(theme),
        Some(name) => with_palette(theme, name),
    }
}

fn with_palette(theme: Theme, name: &str) -> Result<Theme, Failure> {
    let built_in = PALETTES.iter().find(|(known, _)| *known == name).map(|(_, toml)| String::from(*toml));
    let toml = match built_in {
        Some(toml) => toml,
        None => std::fs::read_to_string(name).map_err(|error| {
            let known = PALETTES.map(|(known, _)| known).join(", ");
            Failure::line(format!("palette {name}: {error}; built in: {known}"))
        })?,
    };
    theme.with_palette(&toml).map_err(|error| Failure::line(format!("palette {name}: {}", error.trim())))
}

fn utc_offset_s() -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    local_time::utc_offset_s(now as i64)
}

/// Standard output is a terminal: a person may be told how it goes.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}
