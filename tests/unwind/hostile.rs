//! Files that want to be a burden: each costs bounded time and memory, and its windows are windows all the same.

use sberf::collect::unwind::{Cfa, Rule, Rules, Table};
use std::sync::Arc;
use std::time::Duration;

use super::alloc::taken;
use super::check::check;
use super::made::{Cie, Found, Function, Made, cfa, function, image};

/// For all of a file that is as hostile as we can think of, without optimization.
const MOST_TIME: Duration = Duration::from_secs(6);
/// Beside the file itself, of which the check holds a copy.
const MOST_BYTES: usize = 24 << 20;

fn bounded(name: &str, bytes: &[u8]) {
    let (windows, taken) = taken(|| check(bytes, false));
    println!("{name}: {windows} windows, {taken:?}");
    assert!(taken.time < MOST_TIME, "{name}: {taken:?}");
    assert!(taken.bytes < MOST_BYTES + bytes.len(), "{name}: {taken:?}");
}

/// Functions side by side.
fn many(count: u64, bytes: u32, instructions: &[Vec<u8>]) -> Vec<Function> {
    (0..count).map(|number| function(number * u64::from(bytes), bytes, instructions)).collect()
}

fn made(code: usize, functions: &[Function]) -> Made {
    Made { code_offset: 0x20_0000, ..image(code, functions) }
}

#[test]
fn one_endless_prologue_that_all_share() {
    let mut all = made(0x10_0000, &many(10_000, 64, &[]));
    // Each round keeps and drops 32 rules: the most that one byte can cost.
    let rules: Vec<u8> = (0..31u8).flat_map(|number| [0x05, number, 1]).collect();
    let rounds = [cfa::remember(), cfa::restore_state()].concat().repeat(100_000);
    all.cies = vec![Cie { instructions: [rules, rounds].concat(), ..Cie::default() }];
    let bytes = all.build();
    bounded("prologue", &bytes);
    let mut table = Table::open(Arc::<[u8]>::from(bytes)).expect("a table");
    let window = table.window(0, &mut Rules::default());
    assert!(window.rows.len() < 200, "{} rows: none of them can be known", window.rows.len());
}

#[test]
fn who_is_read_too_often_is_left() {
    let mut all = made(0x10_0000, &many(16_000, 64, &[]));
    all.cies = vec![Cie { instructions: vec![0; 100_000], ..Cie::default() }];
    let mut table = Table::open(Arc::<[u8]>::from(all.build())).expect("a table");
    let mut rules = Rules::default();
    let before = table.rule(all.offset(0));
    let windows = table.extent().windows();
    let made = (0..windows).take_while(|&number| {
        table.window(number, &mut rules);
        !table.is_spent()
    });
    assert!(made.count() < 10, "of {windows}");
    assert_eq!((before, table.rule(all.offset(0))), (Rule { cfa: Cfa::Unsupported, ..Rule::END }, Rule::UNSUPPORTED));
    assert_eq!(table.function_start(all.offset(0)), None);
}

#[test]
fn who_is_let_go_may_come_again() {
    let all = made(0x1_0000, &many(1000, 64, &[cfa::advance(8), cfa::def_offset(16)]));
    let mut table = Table::open(Arc::<[u8]>::from(all.build())).expect("a table");
    let mut rules = Rules::default();
    let first = table.window(0, &mut rules);
    for _ in 0..200 {
        assert_eq!(table.window(0, &mut rules), first);
    }
    assert!(!table.is_spent());
}

#[test]
fn rows_for_each_byte_and_none() {
    let row = [cfa::advance(1), cfa::def_offset(8)].concat();
    let other = [cfa::advance(1), cfa::def_offset(16)].concat();
    let dense = [row, other].concat().repeat(0x8000);
    bounded("dense", &made(0x4_0000, &[function(0, 0x4_0000, &[dense])]).build());
    let nowhere = [cfa::advance(0), cfa::def_offset(8)].concat().repeat(0x8_0000);
    bounded("nowhere", &made(0x4_0000, &[function(0, 0x4_0000, &[nowhere])]).build());
}

#[test]
fn functions_on_top_of_each_other() {
    let over: Vec<_> =
        (0..30_000).map(|number| function(number, 0x4_0000, &[cfa::advance(1), cfa::def_offset(16)])).collect();
    for found in [Found::Sorted, Found::Section] {
        bounded("over", &Made { found, ..made(0x4_0000, &over) }.build());
    }
    let same: Vec<_> = (0..30_000).map(|_| function(0x100, 0x4_0000, &[cfa::def_offset(16)])).collect();
    for found in [Found::Sorted, Found::Section] {
        bounded("same", &Made { found, ..made(0x4_0000, &same) }.build());
    }
}

#[test]
fn a_table_that_lies() {
    let whole = made(0x8_0000, &many(5000, 64, &[cfa::advance(8), cfa::def_offset(16)])).build();
    let table = 0x20c;
    let with = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bounded(name, &bytes);
    };
    with("count", &|bytes| bytes[0x208..0x20c].fill(0xff));
    with("reversed", &|bytes| {
        let mut pairs: Vec<[u8; 8]> =
            bytes[table..table + 40_000].chunks(8).map(|pair| pair.try_into().expect("8")).collect();
        pairs.reverse();
        bytes[table..table + 40_000].copy_from_slice(&pairs.concat());
    });
    with("nowhere", &|bytes| bytes[table..table + 40_000].iter_mut().skip(4).step_by(8).for_each(|byte| *byte ^= 0x55));
    with("zeroes", &|bytes| bytes[table..table + 40_000].fill(0));
    with("frames", &|bytes| bytes[0x204..0x208].fill(0x7f));
    // The segment claims to be longer than the file; so does the code.
    with("segment", &|bytes| bytes[64 + 32..64 + 40].fill(0xff));
    with("code", &|bytes| bytes[64 + 56 + 32..64 + 56 + 40].fill(0xff));
    with("addresses", &|bytes| bytes[64 + 56 + 16..64 + 56 + 24].fill(0xff));
    with("headers", &|bytes| bytes[56..58].fill(0xff));
}

#[test]
fn entries_that_never_end() {
    let one = made(0x1_0000, &[function(0, 0x100, &[])]);
    let frames = |bytes: Vec<u8>| Made { eh_frame: Some(bytes), found: Found::Unsorted, ..one.clone() }.build();
    // A CIE whose augmentation has no end, and FDEs that lead to places in it.
    let mut endless = vec![0xff, 0xff, 0x0f, 0, 0, 0, 0, 0, 1];
    endless.resize(0x10_0000, b'z');
    bounded("augmentation", &frames(endless));
    let mut to_itself = Vec::new();
    for _ in 0..50_000 {
        to_itself.extend([12u8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    bounded("itself", &frames(to_itself));
    let long = [[0xff; 4].as_slice(), &u64::MAX.to_le_bytes()].concat().repeat(1000);
    bounded("long", &frames(long));
    bounded("empty", &frames(vec![]));
    bounded("short", &frames([4, 0, 0, 0, 0, 0, 0, 0].repeat(100_000)));
}

#[test]
fn files_that_are_mostly_nothing() {
    // 3 GiB, of which the disk holds one page: too much code, or much more than there is.
    let mut bytes = image(0x1000, &[function(0, 0x100, &[])]).build();
    bytes[64 + 56 + 32..64 + 56 + 40].copy_from_slice(&(3u64 << 30).to_le_bytes());
    let file = tempfile::tempfile().expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("room");
    file.set_len(3 << 30).expect("room for nothing");
    let (opened, taken) = taken(|| Table::open(file));
    assert!(opened.is_err_and(|why| why.to_string() == "too much code in it"));
    assert!(taken.bytes < 1 << 20, "{taken:?}");
}
