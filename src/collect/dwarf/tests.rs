//! Against what addr2line and llvm-symbolizer say of programs that are compiled for it, at every address of their code.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::collect::symbols::oracle::{self, Built, Place, addr2line};
use crate::tick::Line;

const LIMIT: usize = 64 << 20;

/// Functions inlined into each other, into several places, from a header, with loops and blocks around.
const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int leaf(int n) { return n * 7 + rand(); }
static inline __attribute__((always_inline)) int middle(int n) {
	int sum = 0;
	for (int i = 0; i < n; i++) { int add = leaf(i); if (add & 1) { sum += leaf(add); } }
	return sum;
}
static int partial(int n) { if (__builtin_expect(n > 1000, 0)) { puts("large"); abort(); } return n + 1; }
__attribute__((noinline)) int outer(int n) { return middle(n) + partial(n); }
__attribute__((noinline, cold)) void rare(void) { puts("rare"); }
int main(int argc, char **argv) {
	int total = 0;
	for (int i = 0; i < argc * 10; i++) total += outer(i) + middle(i) - leaf(total);
	if (total == 3) rare();
	printf("%d %s\n", total, argv[0]);
	return 0;
}
"#;

const CPP: &str = r#"
#include <algorithm>
#include <map>
#include <string>
#include <vector>
#include <cstdio>
namespace shop {
struct Item { std::string name; int price; };
template <typename T> T cheapest(const std::vector<T> &items) {
	return *std::min_element(items.begin(), items.end(), [](const T &a, const T &b) { return a.price < b.price; });
}
struct Cart {
	std::vector<Item> items;
	void add(std::string name, int price) { items.push_back({std::move(name), price}); }
	int sum() const { int s = 0; for (auto &i : items) s += i.price; return s; }
};
}
int main(int argc, char **argv) {
	shop::Cart cart;
	std::map<std::string, int> seen;
	for (int i = 0; i < argc * 3; i++) { cart.add(argv[0], i); seen[argv[0]] += i; }
	std::sort(cart.items.begin(), cart.items.end(), [](auto &a, auto &b) { return a.price > b.price; });
	printf("%s %d %zu\n", shop::cheapest(cart.items).name.c_str(), cart.sum(), seen.size());
	return 0;
}
"#;

const RUST: &str = r#"
use std::collections::BTreeMap;
#[inline(never)]
fn words(text: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for word in text.split_whitespace().filter(|word| !word.is_empty()) { *found.entry(word.to_uppercase()).or_default() += 1; }
    found
}
fn main() {
    let text: Vec<String> = std::env::args().collect();
    println!("{:?}", words(&text.join(" ")).into_iter().max_by_key(|(_, count)| *count));
}
"#;

fn open(path: &Path) -> Object {
    Object::open(Arc::new(File::open(path).unwrap())).unwrap()
}

/// Innermost first, as the oracles tell it.
fn places(detail: &Detail) -> Vec<Place> {
    let line = |nth: usize| detail.line_in(nth).map(|line: &Line| (line.file.clone(), line.number));
    let functions = detail.function.iter().chain(detail.inlined.iter().map(|inlined| &inlined.function));
    let mut places: Vec<Place> =
        functions.enumerate().map(|(nth, function)| Place { function: function.clone(), line: line(nth) }).collect();
    places.reverse();
    places
}

/// The same path whatever way it is written.
fn normal(place: &Place) -> Place {
    let path = |path: &str| {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            match part {
                ".." => parts.truncate(parts.len().saturating_sub(1)),
                part => parts.push(part),
            }
        }
        parts.join("/")
    };
    let line = place.line.as_ref().map(|(file, number)| (path(file), *number));
    // Symbols have parts of functions apart, debug information has not.
    let parts = [".cold", ".part.", ".isra.", ".constprop."].iter().filter_map(|part| place.function.find(part));
    let function = place.function.get(..parts.min().unwrap_or(place.function.len())).unwrap_or_default();
    Place { function: demangle(function), line }
}

/// What share of the addresses of a program's code both tell the same of; prints where they differ first.
fn agreement(program: &str, step: usize, debug: &Path) -> Option<(f64, usize)> {
    // Between functions there is only padding.
    let functions = oracle::nm(debug)?;
    let addresses: Vec<u64> =
        functions.iter().flat_map(|(start, bytes, _)| *start..start + bytes).step_by(step).collect();
    let theirs = addr2line(program, debug, &addresses)?;
    let mut info = DebugInfo::open(&open(debug), LIMIT).unwrap();
    let ours: Vec<Detail> = addresses.chunks(1000).flat_map(|chunk| info.find(chunk, LIMIT)).collect();
    let (mut same, mut told, mut shown) = (0, 0, 0);
    for ((address, detail), theirs) in addresses.iter().zip(&ours).zip(&theirs) {
        let mut ours: Vec<Place> = places(detail).iter().map(normal).collect();
        let theirs: Vec<Place> = theirs.iter().map(normal).filter(|place| place.function != "??").collect();
        if let (true, Some(own), Some(other)) = (program.starts_with("llvm"), ours.last_mut(), theirs.last()) {
            // It takes the name of the outermost function from the symbol table; so do we, later.
            own.function.clone_from(&other.function);
        }
        // Without debug information they tell names of symbols.
        if theirs.iter().all(|place| place.line.is_none()) && ours.is_empty() {
            continue;
        }
        told += 1;
        if ours == theirs {
            same += 1;
        } else if shown < 3 {
            shown += 1;
            println!("{program} {address:#x}:\n  ours {ours:?}\n  theirs {theirs:?}");
        }
    }
    println!("{program} {}: {same} of {told} of {} addresses", debug.display(), addresses.len());
    Some((f64::from(same) / f64::from(told.max(1)), told as usize))
}

/// Both of them, where they can be had.
const ORACLES: [&str; 2] = ["addr2line", "llvm-addr2line"];

fn check(built: &Built, step: usize, oracles: &[&str]) {
    for program in oracles {
        if let Some((share, told)) = agreement(program, step, &built.path) {
            assert!(share > 0.999 && told > 100, "{program}: {share} of {told}");
        }
    }
}

#[test]
fn c_of_two_compilers() {
    for compiler in ["gcc", "clang"] {
        for flags in [["-g", "-O2", "-gdwarf-5"], ["-g", "-O2", "-gdwarf-4"], ["-g", "-O0", "-gdwarf-5"]] {
            let Some(built) = Built::c(compiler, C, &flags) else { continue };
            check(&built, 1, &ORACLES);
        }
    }
}

#[test]
fn cpp_and_rust() {
    if let Some(built) = Built::with("g++", "cpp", CPP, &["-g", "-O2", "-std=c++17"]) {
        // The other one tells the name of the symbol for the innermost function where that has no linkage name.
        check(&built, 3, &["llvm-addr2line"]);
    }
    if let Some(built) = Built::with("rustc", "rs", RUST, &["-g", "-O"]) {
        check(&built, 97, &["llvm-addr2line"]);
    }
}

#[test]
fn compressed_sections() {
    for flags in [["-g", "-O2", "-gz=zlib"], ["-g", "-O2", "-gz=zstd"]] {
        let flags: Vec<&str> = flags.to_vec();
        if flags.contains(&"-gz=zstd") {
            // What this compiler cannot do, objcopy may.
            let Some(built) = Built::c("cc", C, &["-g", "-O2"]) else { return };
            let done = std::process::Command::new("objcopy")
                .args(["--compress-debug-sections=zstd", "fixture"])
                .current_dir(built.dir())
                .output();
            match done {
                Ok(done) if done.status.success() => check(&built, 1, &["addr2line"]),
                _ => eprintln!("skipped in part: objcopy knows no zstd"),
            }
        } else if let Some(built) = Built::c("cc", C, &flags) {
            // LLVM is often built without what unpacks them.
            check(&built, 1, &["addr2line"]);
            assert!(matches!(DebugInfo::open(&open(&built.path), 100), Err(NoDetails::TooLarge)));
        }
    }
}

#[test]
fn a_file_without_any() {
    let Some(built) = Built::c("cc", C, &["-g0"]) else { return };
    assert!(matches!(DebugInfo::open(&open(&built.path), LIMIT), Err(NoDetails::None)));
}

#[test]
fn what_was_let_go_is_read_again() {
    let Some(built) = Built::c("cc", C, &["-g", "-O2"]) else { return };
    let mut info = DebugInfo::open(&open(&built.path), LIMIT).unwrap();
    let address = built.address("outer").unwrap() + 20;
    let first = info.find(&[address, 0, u64::MAX], LIMIT);
    assert!(first[0].function.is_some() && first[1] == Detail::default() && first[2] == Detail::default());
    let (full, empty) = (info.bytes(), DebugInfo::open(&open(&built.path), LIMIT).unwrap().bytes());
    info.shrink(0);
    assert!(info.bytes() < full && info.bytes() <= empty + 64, "{full} {empty} {}", info.bytes());
    assert_eq!(info.find(&[address], LIMIT)[0], first[0]);
}

#[test]
fn mutated_debug_information_costs_bounded_time() {
    let Some(built) = Built::c("cc", C, &["-g", "-O2"]) else { return };
    let bytes = std::fs::read(&built.path).unwrap();
    let object = open(&built.path);
    let code = object.section(".text").unwrap().clone();
    let parts: Vec<(u64, u64)> = [".debug_info", ".debug_abbrev", ".debug_line", ".debug_rnglists", ".debug_str"]
        .iter()
        .filter_map(|name| object.section(name).map(|section| (section.offset, section.bytes)))
        .collect();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let begun = std::time::Instant::now();
    for _ in 0..1500 {
        let mut bytes = bytes.clone();
        (0..1 + next() % 6).for_each(|_| {
            let (offset, length) = parts[(next() % parts.len() as u64) as usize];
            bytes[(offset + next() % length) as usize] = next() as u8;
        });
        let Some(object) = Object::open(Arc::new(oracle::file_of(&bytes))) else { continue };
        let Ok(mut info) = DebugInfo::open(&object, LIMIT) else { continue };
        let addresses: Vec<u64> = (code.address..code.address + code.bytes).step_by(37).collect();
        info.find(&addresses, LIMIT);
        assert!(info.bytes() < LIMIT);
    }
    assert!(begun.elapsed().as_secs() < 120, "{:?}", begun.elapsed());
}

/// A large program: this one. A unit is read for the addresses that are asked for, and no other.
#[test]
fn of_a_large_program_only_what_is_asked_for_is_read() {
    let object = open(Path::new("/proc/self/exe"));
    let code = object.section(".text").unwrap().clone();
    let mut info = DebugInfo::open(&object, LIMIT).unwrap();
    let (units, without) = (info.offsets.len(), info.bytes());
    let addresses: Vec<u64> = (0..40).map(|n| code.address + n * code.bytes / 40).collect();
    let find =
        |info: &mut DebugInfo| info.find(&addresses, LIMIT).iter().filter(|detail| detail.line.is_some()).count();
    let lines = find(&mut info);
    let (read, bytes) = (info.units.len(), info.bytes());
    println!("{units} units, {lines} of 40 addresses have lines in {read}; {without} and {bytes} bytes");
    assert!(lines > 10 && (1..=40).contains(&read) && read * 4 < units, "{lines} lines in {read} of {units} units");
    assert!(bytes > without && bytes < LIMIT);
    assert_eq!((find(&mut info), info.units.len(), info.bytes()), (lines, read, bytes), "known by now");
}
