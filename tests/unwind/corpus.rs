//! The fuzzer's corpus, and mutations of it: what `cargo fuzz` does for hours, for a few seconds each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::alloc::taken;
use super::check::check;
use super::made::{Cie, Found, Made, RA, RBP, around, cfa, function, image};

/// Set to write the corpus from the images below.
const WRITE: &str = "SBERF_WRITE_CORPUS";
/// For one input, without optimization; and beside the input itself.
const MOST_TIME: Duration = Duration::from_secs(5);
const MOST_BYTES: usize = 24 << 20;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Images that differ in kind.
fn seeds() -> Vec<(&'static str, Made)> {
    let frame =
        [cfa::advance(1), cfa::def_offset(16), cfa::saved(RBP as u8, 2), cfa::advance(3), cfa::def_register(RBP)];
    let plain = [function(0x10, 0x100, &frame), function(0x110, 0x40, &[]), function(0x1000, 0x700, &frame)];
    let states = [cfa::remember(), cfa::advance(70), cfa::def_offset(32), cfa::restore_state(), cfa::advance(2)];
    let odd = [
        function(0, 0x40, &[cfa::undefined(RA)]),
        function(0x40, 0x40, &[cfa::def_expression(&[0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22])]),
        function(0x80, 0x40, &[cfa::def_expression(&[0x76, 0x78, 0x06]), cfa::expression(RBP, &[0x76, 0])]),
        function(0xc0, 0x40, &[cfa::def_offset(0), cfa::in_register(RA, 5)]),
        function(0x100, 0x400, &states),
        function(0x120, 0x10, &[cfa::def(10, 0)]),
        function(0x600, 0, &[cfa::nonsense()]),
    ];
    let small = |functions: &[_]| Made { code_offset: 0x600, ..image(0x1800, functions) };
    let signal = Made { cies: vec![Cie { augmentation: "zRS", ..Cie::default() }, Cie::default()], ..small(&plain) };
    vec![
        ("plain", small(&plain)),
        ("odd", small(&odd)),
        ("signal", signal),
        ("program", Made { program: true, entry: Some(0x900), ..small(&plain) }),
        ("unsorted", Made { found: Found::Unsorted, ..small(&odd) }),
        ("section", Made { found: Found::Section, ..small(&plain) }),
    ]
}

fn bounded(name: &str, input: &[u8], run: impl Fn(&[u8]) -> u32) -> u32 {
    let (windows, taken) = taken(|| run(input));
    assert!(taken.time < MOST_TIME, "{name}: {taken:?}");
    assert!(taken.bytes < MOST_BYTES + 4 * input.len(), "{name}: {taken:?}");
    windows
}

/// Small numbers from a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    /// A few changes of the kinds that fuzzers make.
    fn mutate(&mut self, input: &mut Vec<u8>) {
        for _ in 0..1 + self.below(6) {
            // Headers and call frame information come first; what follows is code, which means nothing.
            let room = if self.below(4) > 0 { input.len().min(0x500) } else { input.len() };
            let at = self.below(room);
            let length = self.below(16).min(input.len() - at);
            match self.below(7) {
                0 => input.truncate(at),
                1 => drop(input.drain(at..at + length)),
                2 => drop(input.splice(at..at, input[at..at + length].to_vec())),
                3 => input[at..at + length].fill([0, 0xff, 0x7f, 0x80][self.below(4)]),
                4 if at < input.len() => input[at] ^= 1 << self.below(8),
                5 if at < input.len() => input[at] = self.below(256) as u8,
                _ => {
                    let from = self.below(room);
                    let length = length.min(input.len() - from);
                    let copy = input[from..from + length].to_vec();
                    input[at..at + length].copy_from_slice(&copy);
                }
            }
        }
    }
}

fn run_all(target: &str, run: impl Fn(&[u8]) -> u32) {
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(corpus(target))
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} inputs", inputs.len());
    let windows: u32 = inputs.iter().map(|(path, input)| bounded(&path.to_string_lossy(), input, &run)).sum();
    assert!(windows >= 5, "most of the corpus has a table");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (begun, mut runs, mut with) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(4) {
        for (path, input) in &inputs {
            let mut input = input.clone();
            let seed = random.0;
            random.mutate(&mut input);
            runs += 1;
            with += u32::from(bounded(&format!("{} with {seed:#x}", path.display()), &input, &run) > 0);
        }
    }
    println!("{target}: {runs} mutations, {with} with a table");
    assert!(with * 10 > runs, "mutations that leave nothing show nothing: {with} of {runs}");
}

#[test]
fn any_file() {
    if std::env::var_os(WRITE).is_some() {
        for (name, made) in seeds() {
            fs::write(corpus("unwind_table").join(name), made.build()).expect("room");
            fs::write(corpus("unwind_cfi").join(name), made.frames_alone()).expect("room");
        }
    }
    run_all("unwind_table", |input| check(input, false));
}

#[test]
fn any_call_frame_information() {
    run_all("unwind_cfi", |input| around(input).map_or(0, |image| check(&image, true)));
}
