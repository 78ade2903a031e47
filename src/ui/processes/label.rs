//! What processes, threads and users are called in a row.

use crate::model::{Model, Process};
use crate::tick::ProcessFacts;
use crate::ui::format;

/// Name of a user, or the number.
pub fn user(model: &Model, uid: u32) -> String {
    model.user(uid).map_or_else(|| uid.to_string(), |name| format::clean(name).into_owned())
}

/// The command of a process, cleaned, about `width` characters of it: its arguments with the program's directory left out
/// if `long`, else its name. Threads of the kernel stand in brackets.
pub fn command(process: &Process, long: bool, width: usize) -> String {
    let facts = &process.facts;
    if facts.kernel {
        return format!("[{}]", format::clean(&facts.comm));
    }
    match &facts.cmdline {
        Some(arguments) if long && !arguments.is_empty() => format::clean(&line(arguments, width)).into_owned(),
        _ => format::clean(&facts.comm).into_owned(),
    }
}

/// [`command`], cut to so many cells. Of a title that a program wrote over its arguments the last words stay: `postgres:
/// …waiting` says what that server does now, and all of them begin alike.
pub fn fitted(process: &Process, long: bool, cells: usize) -> String {
    let whole = command(process, long, cells);
    let is_title = process.facts.cmdline.as_ref().is_some_and(|arguments| arguments.len() == 1);
    let title = whole.split_once(": ").filter(|(name, _)| is_title && !name.contains(' '));
    match title {
        Some((name, rest)) if format::width(&whole) > cells => {
            let end = format::fit_end(rest, cells.saturating_sub(format::width(name) + 2));
            match end.strip_prefix('…').and_then(|end| whole_words(rest, end)) {
                Some(words) => format!("{name}: …{words}"),
                None => format::fit(&whole, cells),
            }
        }
        _ => format::fit(&whole, cells),
    }
}

/// The words of which all is in the end of a text; `None` if that is none of them.
fn whole_words<'a>(text: &str, end: &'a str) -> Option<&'a str> {
    let before = text.strip_suffix(end)?;
    let words = if before.ends_with(' ') { end } else { end.split_once(' ')?.1 };
    Some(words).filter(|words| !words.is_empty())
}

fn line(arguments: &[String], width: usize) -> String {
    // One more than fits, in characters of at least one cell or marks upon one.
    let enough = width.saturating_mul(4) + 64;
    let mut line = String::new();
    for (at, argument) in arguments.iter().enumerate() {
        if line.len() > enough {
            break;
        }
        if at > 0 {
            line.push(' ');
        }
        let argument = if at == 0 { program(argument) } else { argument };
        line.extend(argument.chars().take(enough));
    }
    line
}

/// `/usr/sbin/nginx` is `nginx`; `nginx: worker process /x` is itself.
fn program(path: &str) -> &str {
    let end = path.find(' ').unwrap_or(path.len());
    let directory = if path.starts_with('/') { path[..end].rfind('/').map_or(0, |at| at + 1) } else { 0 };
    if directory == end { path } else { &path[directory..] }
}

/// What became of a process that is gone, and how long it had lived: ` (exited 0, 0.4s)`, ` †0 0.4s`, ` †TERM`, the longest
/// first; empty while it lives.
pub fn ends(process: &Process, boot_offset_ns: u64) -> Vec<String> {
    let Some(exit) = process.exited else { return Vec::new() };
    let (how, short) = match exit.status {
        None => ("gone".into(), "†?".into()),
        Some(status) if status & 0x7f == 0 => {
            let code = status >> 8 & 0xff;
            (format!("exited {code}"), format!("†{code}"))
        }
        Some(status) => {
            let (number, name) = (status & 0x7f, signal_name(status & 0x7f));
            let short = if name.is_empty() { format!("†signal {number}") } else { format!("†{name}") };
            (format!("killed by {}", format!("{number} {name}").trim_end()), short)
        }
    };
    match exit.at_ns.saturating_add(boot_offset_ns).checked_sub(process.key.start_ns).map(format::duration) {
        Some(lived) => vec![format!(" ({how}, {lived})"), format!(" {short} {lived}"), format!(" {short}")],
        None => vec![format!(" ({how})"), format!(" {short}")],
    }
}

/// The name of a process and how it ended share that many cells: the longest way to say the end that leaves the name whole,
/// else the shortest. Empty while it lives.
pub fn end(process: &Process, boot_offset_ns: u64, cells: usize) -> String {
    let mut ways = ends(process, boot_offset_ns);
    let line = command(process, true, cells);
    let name = line.split(' ').next().unwrap_or_default();
    // And a cell for the dots, if that is not all of it.
    let needs = format::width(name) + usize::from(name.len() < line.len());
    let fits = ways.iter().position(|way| needs + format::width(way) <= cells);
    let at = fits.unwrap_or(ways.len().saturating_sub(1));
    if ways.is_empty() { String::new() } else { ways.swap_remove(at) }
}

/// Names of the signals that usually end a program; the numbers are those of x86-64 and aarch64.
fn signal_name(signal: u32) -> &'static str {
    match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => "",
    }
}

/// What a filter looks at: ids, user, name, arguments, cgroup.
pub fn haystack(facts: &ProcessFacts, user: &str, text: &mut String) {
    use std::fmt::Write;
    text.clear();
    let _ = write!(text, "{} {user} {}", facts.key.tgid, facts.comm);
    for argument in facts.cmdline.iter().flatten() {
        text.push(' ');
        text.push_str(argument);
    }
    if let Some(cgroup) = &facts.cgroup {
        text.push(' ');
        text.push_str(cgroup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_programs_are_left_out() {
        assert_eq!(program("/usr/sbin/nginx"), "nginx");
        assert_eq!(program("nginx: worker process /x"), "nginx: worker process /x");
        assert_eq!(program("/opt/a b/c"), "a b/c");
        assert_eq!(program("./run"), "./run");
        assert_eq!(program("/"), "/");
        assert_eq!(program(""), "");
    }

    #[test]
    fn an_end_is_said_in_the_room_the_name_leaves() {
        use crate::model::Exit;
        use crate::tick::ProcessKey;
        let of = |command: &str, status| {
            let facts = ProcessFacts { cmdline: Some(vec![command.into(), "x".into()]), ..ProcessFacts::default() };
            let exited = Some(Exit { at_ns: 2_000_000_000, status });
            Process { key: ProcessKey { tgid: 1, start_ns: 100_000_000 }, facts, exited, ..Process::default() }
        };
        assert_eq!(end(&of("dd", Some(0)), 0, 30), " (exited 0, 1.9s)");
        assert_eq!(end(&of("dd", Some(0)), 0, 19), " †0 1.9s", "dd x is dd… then");
        assert_eq!(end(&of("dd", Some(0)), 0, 14), " †0 1.9s");
        assert_eq!(end(&of("make-dependencies", Some(3 << 8)), 0, 14), " †3");
        assert_eq!(end(&of("sleep", Some(15)), 0, 40), " (killed by 15 TERM, 1.9s)");
        assert_eq!(end(&of("sleep", Some(15)), 0, 14), " †TERM");
        assert_eq!(end(&of("sleep", Some(40)), 0, 18), " †signal 40");
        assert_eq!(end(&of("sleep", None), 0, 14), " †? 1.9s");
        assert_eq!(end(&Process::default(), 0, 14), "");
    }

    fn titled(arguments: &[&str]) -> Process {
        let cmdline = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
        Process { facts: ProcessFacts { cmdline, ..ProcessFacts::default() }, ..Process::default() }
    }

    #[test]
    fn of_a_title_the_last_words_stay() {
        let backend = titled(&["postgres: app shop [local] UPDATE waiting"]);
        assert_eq!(fitted(&backend, true, 60), "postgres: app shop [local] UPDATE waiting");
        assert_eq!(fitted(&backend, true, 22), "postgres: …waiting");
        assert_eq!(fitted(&backend, true, 30), "postgres: …UPDATE waiting");
        assert_eq!(fitted(&backend, true, 14), "postgres: app…", "no word of the end has room");
        assert_eq!(fitted(&titled(&["postgres: checkpointer"]), true, 20), "postgres: checkpoin…", "there is but one");
        assert_eq!(fitted(&titled(&["rustc", "--crate: name", "sberf"]), true, 14), "rustc --crate…", "arguments");
        assert_eq!(fitted(&titled(&["tool with: words that go on"]), true, 14), "tool with: wo…", "no title");
        assert_eq!(
            fitted(&titled(&["x: \u{4e2d} \u{4e2d}\u{4e2d}\u{4e2d}\u{4e2d}\u{4e2d} \u{4e2d}\u{4e2d}"]), true, 9),
            "x: …\u{4e2d}\u{4e2d}"
        );
    }

    #[test]
    fn a_filter_looks_at_the_cgroup_too() {
        let mut text = String::new();
        let facts = ProcessFacts { cgroup: Some("/kubepods/burstable/pod7".into()), ..ProcessFacts::default() };
        haystack(&facts, "root", &mut text);
        assert!(text.ends_with(" /kubepods/burstable/pod7"), "{text}");
    }

    #[test]
    fn long_command_lines_are_not_copied_whole() {
        let arguments = vec!["x".repeat(4096); 100];
        assert!(line(&arguments, 20).len() < 600);
    }
}
