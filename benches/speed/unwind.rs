//! How fast unwind tables are made: all of a file, the window that is missed, and the answer to one question.

use std::fs::File;
use std::path::Path;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use sberf::collect::unwind::{Rules, Table};

/// A C library, else this program.
fn file() -> File {
    let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6", "/proc/self/exe"];
    let path = paths.iter().find(|path| Path::new(path).exists()).expect("we are a program");
    File::open(path).expect("it exists")
}

fn table() -> Table<File> {
    Table::open(file()).expect("call frame information")
}

/// Opened and made, window by window; counts rows.
#[divan::bench]
fn unwind_table_of_libc(bencher: Bencher) {
    let all = || {
        let (mut table, mut rules) = (table(), Rules::default());
        (0..table.extent().windows()).map(|number| table.window(number, &mut rules).rows.len()).sum::<usize>()
    };
    bencher.counter(ItemsCount::new(all())).bench_local(all);
}

/// One window of 64 KiB of code, from the file being opened on: what a sample waits for that misses it.
#[divan::bench]
fn unwind_window_that_is_missed(bencher: Bencher) {
    let bytes = 64u32 << 10;
    let miss = || {
        let mut table = table();
        let number = table.extent().windows() / 2;
        table.window(number, &mut Rules::default())
    };
    bencher.counter(BytesCount::new(bytes)).bench_local(miss);
}

/// The rule at one address, as for a frame of a snapshot.
#[divan::bench]
fn unwind_rule_at_an_address(bencher: Bencher) {
    let table = table();
    let offsets = table.extent().offsets(table.extent().windows() / 2);
    let mut at = offsets.start;
    bencher.bench_local(|| {
        at = if at + 997 < offsets.end { at + 997 } else { offsets.start };
        table.rule(at)
    });
}

/// Where the function of an address starts, for one that has no name.
#[divan::bench]
fn unwind_function_start(bencher: Bencher) {
    let table = table();
    let offsets = table.extent().offsets(table.extent().windows() / 2);
    let mut at = offsets.start;
    bencher.bench_local(|| {
        at = if at + 997 < offsets.end { at + 997 } else { offsets.start };
        table.function_start(at)
    });
}
