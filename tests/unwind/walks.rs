//! Stacks of running programs, walked by our rules and by framehop.

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use sberf::collect::unwind::{FoundBy, Frame, Place, Rule, Stack, Stop, Table, walk};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::elf::Elf;
use super::process::{Mapping, Moment, Process};

type Bytes = Arc<[u8]>;

/// Images by path, and their tables. `None`: there is none.
#[derive(Default)]
struct Images(HashMap<String, Option<(Bytes, Table<Bytes>)>>);

impl Images {
    fn get(&mut self, process: &Process, mapping: &Mapping) -> Option<&(Bytes, Table<Bytes>)> {
        let entry = self.0.entry(mapping.path.clone()).or_insert_with(|| {
            let bytes: Bytes = match mapping.path.as_str() {
                "[vdso]" => process.read(mapping.addresses.clone()).ok()?.into(),
                path => fs::read(path).ok()?.into(),
            };
            let table = Table::open(Arc::clone(&bytes)).ok()?;
            Some((bytes, table))
        });
        entry.as_ref()
    }
}

#[derive(Debug, Default)]
struct Counts {
    stacks: u32,
    frames: usize,
    complete: u32,
    equal: u32,
    by_frame_pointer: u32,
    signals: u32,
    further: u32,
    /// Frames of the program itself, of each stack.
    own: Vec<usize>,
}

fn ours(process: &Process, moment: &Moment, images: &mut Images) -> (Vec<Frame>, Stop) {
    let mut place = |address: u64| {
        let found = moment.mappings.iter().find(|mapping| mapping.addresses.contains(&address));
        let Some(mapping) = found.filter(|mapping| mapping.executable) else { return Place::NotCode };
        if mapping.path.is_empty() {
            return Place::Anonymous { thunk: false };
        }
        let offset = address - mapping.addresses.start + mapping.offset;
        Place::File(images.get(process, mapping).map_or(Rule::NONE, |(_, table)| table.rule(offset)))
    };
    let mut frames = Vec::new();
    let stack = Stack::new(moment.stack_start, &moment.stack);
    let stop = walk(&moment.registers, stack, &mut place, 1000, &mut frames);
    (frames, stop)
}

/// Return addresses, leaf first, and whether framehop takes them for all.
fn theirs(process: &Process, moment: &Moment, images: &mut Images) -> (Vec<u64>, bool) {
    let mut unwinder: UnwinderX86_64<Vec<u8>> = UnwinderX86_64::new();
    let mut paths: Vec<&str> = moment.mappings.iter().map(|mapping| mapping.path.as_str()).collect();
    paths.dedup();
    for path in paths.into_iter().filter(|path| !path.is_empty()) {
        let mut of_path = moment.mappings.iter().filter(|mapping| mapping.path == path);
        let Some(code) = of_path.clone().find(|mapping| mapping.executable) else { continue };
        let Some((bytes, _)) = images.get(process, code) else { continue };
        let Some(elf) = Elf::parse(bytes) else { continue };
        let Some((addresses, offset)) = elf.code.iter().find(|(_, offset)| *offset >> 12 == code.offset >> 12) else {
            continue;
        };
        let base = code.addresses.start + (offset - code.offset) - addresses.start;
        let start = of_path.clone().map(|mapping| mapping.addresses.start).min().expect("at least the code");
        let end = of_path.by_ref().map(|mapping| mapping.addresses.end).max().expect("at least the code");
        let range = |(bytes, start): (&[u8], u64)| start..start + bytes.len() as u64;
        let sections = ExplicitModuleSectionInfo {
            eh_frame: Some(elf.eh_frame.0.to_vec()),
            eh_frame_svma: Some(range(elf.eh_frame)),
            eh_frame_hdr: elf.eh_frame_hdr.map(|(bytes, _)| bytes.to_vec()),
            eh_frame_hdr_svma: elf.eh_frame_hdr.map(range),
            ..Default::default()
        };
        unwinder.add_module(Module::new(path.to_owned(), start..end, base, sections));
    }
    let word = |address: u64| {
        let into = address.checked_sub(moment.stack_start).ok_or(())? as usize;
        let bytes = moment.stack.get(into..into + 8).ok_or(())?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| ())?))
    };
    let registers = &moment.registers;
    let at = UnwindRegsX86_64::new(registers.pc, registers.general[7], registers.general[6]);
    let mut cache = CacheX86_64::<_>::new();
    let mut word = word;
    let mut iter = unwinder.iter_frames(registers.pc, at, &mut cache, &mut word);
    let mut frames = Vec::new();
    loop {
        match iter.next() {
            Ok(Some(frame)) => frames.push(frame.address()),
            Ok(None) => return (frames, true),
            Err(_) => return (frames, false),
        }
    }
}

/// Stops a program that often and compares.
fn watch(program: &str, arguments: &[&str], times: u32) -> Option<Counts> {
    let mut process = Process::start(program, arguments)?;
    let mut images = Images::default();
    let mut counts = Counts::default();
    for number in 0..times {
        std::thread::sleep(Duration::from_micros(u64::from(number * 7919 % 3000)));
        let Ok(moment) = process.look() else { break };
        let (frames, stop) = ours(&process, &moment, &mut images);
        counts.stacks += 1;
        counts.frames += frames.len();
        let of_program = |frame: &&Frame| {
            let inside = |mapping: &&Mapping| mapping.addresses.contains(&frame.pc);
            moment.mappings.iter().find(inside).is_some_and(|mapping| mapping.path == program)
        };
        counts.own.push(frames.iter().filter(of_program).count());
        counts.complete += u32::from(stop == Stop::End);
        counts.signals += u32::from(frames.iter().any(|frame| frame.found_by == FoundBy::Signal));
        if frames.iter().any(|frame| frame.found_by == FoundBy::FramePointer) {
            counts.by_frame_pointer += 1;
            continue;
        }
        let (mut others, mut all) = theirs(&process, &moment, &mut images);
        // In code by hand (openssl's), where the stack was is kept in a place that it reads as another: then it is lost.
        let is_code = |pc: &u64| moment.mappings.iter().any(|mapping| mapping.addresses.contains(pc));
        if let Some(lost) = others.iter().position(|pc| !is_code(pc)) {
            others.truncate(lost);
            all = false;
        }
        let addresses: Vec<u64> = frames.iter().map(|frame| frame.pc).collect();
        // It gives up behind a signal, and at a rule that it does not know takes what looks like the end for one.
        assert_eq!(addresses.get(..others.len()), Some(&others[..]), "{program}: {frames:x?} {stop:?}");
        if all && addresses.len() == others.len() {
            assert_eq!(stop, Stop::End, "{program}: {frames:x?}");
            counts.equal += 1;
        } else {
            counts.further += 1;
        }
    }
    let own = std::mem::take(&mut counts.own);
    println!("{program} {}: {counts:?}", arguments.first().copied().unwrap_or_default());
    Some(Counts { own, ..counts })
}

#[test]
fn stacks_of_real_programs_are_those_that_framehop_finds() {
    let python =
        "import json\ndef f(n):\n  return f(n-1) if n else json.dumps([{'a': list(range(200))}]*20)\nwhile 1: f(30)";
    let perl = "sub f { my $n = shift; $n ? f($n-1) : join(',', sort map { $_*7%13 } 1..500) } while (1) { f(30) }";
    let programs: [(&str, &[&str]); 6] = [
        ("/usr/bin/python3", &["-c", python]),
        ("perl", &["-e", perl]),
        ("bash", &["-c", "while :; do x=${x:0:5}$(( 5 * 7 )); done"]),
        ("openssl", &["speed", "-seconds", "60", "rsa2048"]),
        (
            "sqlite3",
            &[":memory:", "with recursive c(x) as (select 1 union all select x+1 from c) select max(x*x) from c"],
        ),
        ("awk", &["BEGIN { while (1) x = x * 3 % 7919 }"]),
    ];
    let mut watched = 0;
    for (program, arguments) in programs {
        if let Some(Counts { stacks, complete, equal, .. }) = watch(program, arguments, 60) {
            watched += 1;
            assert!(stacks >= 50, "{program} ended: {stacks}");
            assert!(complete * 100 >= stacks * 95, "{program}: {complete} of {stacks} complete");
            assert!(equal * 2 > stacks, "{program}: {equal} of {stacks} compared");
        }
    }
    if watched == 0 {
        eprintln!("skipped: none of the programs is here, or none can be traced");
    }
}

#[test]
fn signals_realigned_and_deep_stacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unwind.c");
    for flags in ["-O2", "-O0", "-Os"] {
        let program = dir.path().join(format!("unwind{flags}"));
        let built = Command::new("cc")
            .args([flags, "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-o"])
            .arg(&program)
            .arg(&source)
            .status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no C compiler");
            return;
        }
        let program = program.to_str().expect("text");
        // With main and _start.
        for (mode, own, signals) in [("signal", 8, 5), ("altstack", 8, 5), ("align", 5, 0), ("recurse", 54, 0)] {
            let Some(counts) = watch(program, &[mode], 5) else { return };
            assert_eq!((counts.stacks, counts.complete, counts.signals), (5, 5, signals), "{mode} {flags}: {counts:?}");
            assert_eq!(counts.own, [own; 5], "{mode} {flags}");
        }
    }
}
