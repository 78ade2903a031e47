//! Keeps the rule of `ARCHITECTURE.md`: who may know whom, where `unsafe` may stand, and how long a file may get.
//!
//! The sources are read as text, so this needs no kernel, no root and no compiler. The last tests show on made-up text
//! that each rule can be broken and that breaking it is seen.

#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// What needs a live machine, and therefore is `collect`'s.
const MACHINE: &[&str] = &[
    "libbpf_rs",
    "libbpf_sys",
    "procfs",
    "rustix",
    "libc",
    "signal_hook",
    "std::fs",
    "std::process",
    "std::net",
    "std::thread",
    "std::env",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// (part of the crate, what it must not name beside that).
const PARTS: &[(&str, &[&str], bool)] = &[
    ("tick", &["crate::model", "crate::ui", "crate::collect", "crate::cli", "ratatui", "crossterm"], true),
    ("model", &["crate::ui", "crate::collect", "crate::cli", "ratatui", "crossterm"], true),
    ("ui", &["crate::collect", "crate::cli"], true),
    ("collect", &["crate::model", "crate::ui", "crate::cli", "ratatui", "crossterm"], false),
];

/// The only files with `unsafe` in them.
const UNSAFE_FILES: &[&str] = &[
    // The vDSO as it lies in this process; an ioctl that asks for one mapping of another.
    "src/collect/kernel.rs",
    "src/collect/mappings.rs",
    // Maps and rings that are shared with the kernel, perf events, and bytes that become records.
    "src/collect/live/maps.rs",
    "src/collect/live/rings.rs",
    "src/collect/live/sampler.rs",
    "src/collect/live/shared.rs",
    "src/collect/live/wire.rs",
    // `localtime_r(3)`.
    "src/collect/local_time.rs",
    // `mallopt(3)`.
    "src/memory.rs",
    // What a new process does between fork and exec.
    "src/command/spawn.rs",
];

/// Longest a file may be, without its tests; and those that are longer for a reason.
const LONGEST: usize = 600;
const LONG_FILES: &[&str] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `dir` with that ending, as (path from the root of the repository, text), sorted.
fn files(dir: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// `src/ui/table.rs` -> `["ui", "table"]`, `src/ui/mod.rs` -> `["ui"]`, `src/main.rs` -> `[]`.
fn module_of(file: &str) -> Vec<&str> {
    let inner = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    inner.split('/').filter(|name| !matches!(*name, "mod" | "lib" | "main")).collect()
}

/// What a file of the crate does that its part may not do.
fn breaches(file: &str, source: &Source) -> Vec<String> {
    let module = module_of(file);
    let Some((part, strangers, pure)) = PARTS.iter().find(|(part, ..)| module.first() == Some(part)) else {
        return Vec::new();
    };
    let machine: &[&str] = if *pure { MACHINE } else { &[] };
    let mut found = Vec::new();
    for path in source.paths() {
        for forbidden in strangers.iter().chain(machine) {
            if reaches(&path.segments, forbidden) {
                found.push(format!("{file}:{}: {part} names {}", path.line, path.segments.join("::")));
            }
        }
    }
    found
}

/// The path leads into what is forbidden, or imports the module around it, whole.
fn reaches(path: &[String], forbidden: &str) -> bool {
    let forbidden: Vec<&str> = forbidden.split("::").collect();
    let inside = path.len() >= forbidden.len() && path.iter().zip(&forbidden).all(|(a, b)| a == b);
    let glob = path.last().is_some_and(|last| last == "*");
    let parent = &path[..path.len() - usize::from(glob)];
    let around = parent.len() + 1 == forbidden.len()
        && parent.len() > usize::from(!glob)
        && parent.iter().zip(&forbidden).all(|(a, b)| a == b);
    inside || around
}

/// Files that are compiled for tests only, because their parent says so.
fn is_test_file(file: &str, declared: &[(String, Vec<String>)]) -> bool {
    declared.iter().any(|(parent, modules)| {
        let dir = match parent.strip_suffix("/mod.rs") {
            Some(dir) => dir.to_string(),
            None if matches!(parent.as_str(), "src/lib.rs" | "src/main.rs") => "src".to_string(),
            None => parent.trim_end_matches(".rs").to_string(),
        };
        modules.iter().any(|name| file == format!("{dir}/{name}.rs") || file.starts_with(&format!("{dir}/{name}/")))
    })
}

fn crate_sources() -> Vec<(String, Source)> {
    let parsed: Vec<_> = files("src", ".rs")
        .into_iter()
        .map(|(file, text)| {
            let source = Source::parse(&text, &module_of(&file));
            (file, source)
        })
        .collect();
    let declared: Vec<_> = parsed.iter().map(|(file, source)| (file.clone(), source.test_modules.clone())).collect();
    parsed.into_iter().filter(|(file, _)| !is_test_file(file, &declared)).collect()
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_part_knows_only_whom_it_may() {
    let found: Vec<_> = crate_sources().iter().flat_map(|(file, source)| breaches(file, source)).collect();
    assert_none(&found, "data goes one way: bpf, collect, tick, model, ui (ARCHITECTURE.md)");
}

#[test]
fn unsafe_stays_where_it_is_listed() {
    let mut found = Vec::new();
    for (file, source) in crate_sources() {
        let lines = source.lines_of("unsafe");
        if UNSAFE_FILES.contains(&file.as_str()) {
            assert!(!lines.is_empty(), "{file} needs no unsafe any more: take it from the list");
        } else {
            found.extend(lines.iter().map(|line| format!("{file}:{line}")));
        }
    }
    assert_none(&found, "unsafe outside the listed files");
}

#[test]
fn pure_parts_forbid_unsafe() {
    for (part, ..) in PARTS.iter().filter(|(.., pure)| *pure) {
        let text = fs::read_to_string(root().join(format!("src/{part}/mod.rs"))).unwrap();
        let source = Source::parse(&text, &[part]);
        assert!(source.has(&["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"]), "src/{part}/mod.rs");
    }
}

#[test]
fn kernel_side_files_open_with_a_comment() {
    let found: Vec<_> =
        files("src/bpf", ".c").into_iter().filter(|(_, text)| !text.starts_with("/")).map(|(file, _)| file).collect();
    assert_none(&found, "say what it hooks, what it emits and what one event costs");
}

#[test]
fn files_stay_readable() {
    let mut found = Vec::new();
    for (file, text) in files("src", ".rs").into_iter().chain(files("src/bpf", ".c")) {
        let lines = lines_before_tests(&text);
        let listed = LONG_FILES.contains(&file.as_str());
        if lines > LONGEST && !listed {
            found.push(format!("{file}: {lines} lines"));
        }
        assert!(lines > LONGEST || !listed, "{file} is short again: take it from the list");
    }
    assert_none(&found, &format!("longer than {LONGEST} lines without tests; is it still one idea?"));
}

fn lines_before_tests(text: &str) -> usize {
    text.lines().position(|line| line == "#[cfg(test)]").unwrap_or_else(|| text.lines().count())
}

// The checker itself, on made-up text.

fn breaches_in(file: &str, text: &str) -> Vec<String> {
    breaches(file, &Source::parse(text, &module_of(file)))
}

#[test]
fn each_forbidden_neighbour_is_seen() {
    for (file, text) in [
        ("src/model/a.rs", "use std::fs;"),
        ("src/model/a.rs", "use std::{collections::HashMap, fs::File};"),
        ("src/model/a.rs", "use std::{io, time::{Duration, Instant}};"),
        ("src/model/a.rs", "fn f() -> u8 { let t = std::time::SystemTime::now(); 0 }"),
        ("src/model/a.rs", "use std::time; fn f() { time::Instant::now(); }"),
        ("src/model/a.rs", "use std::time::*;"),
        ("src/model/a.rs", "use crate::collect::Source;"),
        ("src/model/a.rs", "use crate::{tick::Tick, collect};"),
        ("src/model/a.rs", "use super::super::collect::Source;"),
        ("src/model/a.rs", "fn f() { super::super::ui::draw() }"),
        ("src/model/a/b.rs", "use ratatui::Frame;"),
        ("src/ui/a.rs", "use libbpf_rs::MapCore as _;"),
        ("src/ui/a.rs", "fn f() { procfs::process::all_processes(); }"),
        ("src/ui/mod.rs", "use super::collect;"),
        ("src/ui/mod.rs", "pub fn f() { ::std::process::exit(1) }"),
        ("src/tick/mod.rs", "use crate::model::Model;"),
        ("src/collect/live/mod.rs", "use crate::model::{self, Model};"),
    ] {
        assert!(!breaches_in(file, text).is_empty(), "{file}: {text}");
    }
}

#[test]
fn what_is_allowed_passes() {
    for (file, text) in [
        ("src/model/a.rs", "use std::time::Duration; use crate::tick::Tick; use super::tree::Tree;"),
        ("src/model/a.rs", "// std::fs is not ours\n/* nor /* crate::collect */ std::process */ fn f<'a>(c: char) {}"),
        (
            "src/model/a.rs",
            r##"const S: &str = "std::fs::File"; const R: &str = r#"use "std::fs;"#; const C: char = '"';"##,
        ),
        (
            "src/model/a.rs",
            "#[cfg(test)]\nmod tests { use crate::collect::invented; fn f() { std::fs::read(\"x\"); } }",
        ),
        ("src/ui/a.rs", "use crate::model::Model; use std::io::Write;"),
        ("src/collect/a.rs", "use std::fs; use crate::tick::Tick;"),
        ("src/main.rs", "use std::process::ExitCode; use sberf::collect;"),
    ] {
        assert_eq!(breaches_in(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn code_after_a_test_module_is_read_again() {
    let text = "#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;";
    assert_eq!(breaches_in("src/model/a.rs", text), ["src/model/a.rs:3: model names std::fs"]);
}

#[test]
fn unsafe_is_seen_in_code_only() {
    let source = Source::parse("// unsafe\nfn f() { \"unsafe\"; unsafe { g() } }\n#![forbid(unsafe_code)]", &[]);
    assert_eq!(source.lines_of("unsafe"), [2]);
}

#[test]
fn test_only_files_are_known_by_their_parent() {
    let source = Source::parse("#[cfg(test)]\nmod fixtures;\nmod table;", &["ui"]);
    assert_eq!(source.test_modules, ["fixtures"]);
    let declared = [("src/ui/mod.rs".to_string(), source.test_modules)];
    assert!(is_test_file("src/ui/fixtures.rs", &declared));
    assert!(!is_test_file("src/ui/table.rs", &declared));
}

#[test]
fn length_is_counted_without_tests() {
    assert_eq!(lines_before_tests("a\nb\n#[cfg(test)]\nmod tests {}\n"), 2);
    assert_eq!(lines_before_tests("a\nb\n"), 2);
}
