//! Code where unwinding is hard: each place must be in the stacks, and every stack must be whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use sberf::tick::{FoundBy, Lens, StackEnd, StackWeight};

use crate::compile::compile;
use crate::machine::{machine, scratch, skipped, sleep_ms};
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

/// Runs `places KIND` for a second and a half; `flags` are the compiler's.
fn at(kind: &str, flags: &[&str]) -> (Recorded, u32) {
    let library = compile("gcc", "library", "libplaces.so", &["-O2", "-shared", "-fPIC", "-Wl,-soname,libplaces.so"])
        .expect("a C compiler");
    let own = scratch(kind);
    std::fs::create_dir_all(&own).expect("a directory");
    let (program, library) =
        (copy(&compiled(kind, flags), own.join("places")), copy(&library, own.join("libplaces.so")));
    let library = library.display().to_string();
    let args = [kind, "1.5", library.as_str()];
    let with_library = matches!(kind, "dlopen" | "replace");
    let recording = Recording::with(|options| options.rate_hz = 997);
    let mut places = Workload::prepare_program(&program, if with_library { &args } else { &args[..2] });
    places.run();
    recording.wait_past(places.number("end_ns"));
    recording.wait_names(places.pid());
    let seen = recording.stop();
    let _ = std::fs::remove_dir_all(own);
    (seen, places.pid())
}

fn compiled(kind: &str, flags: &[&str]) -> PathBuf {
    let base = ["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-ldl"];
    let directory = env!("CARGO_TARGET_TMPDIR");
    let link = [format!("-L{directory}"), "-lplaces".into(), format!("-Wl,-rpath,{directory}")];
    let mut all: Vec<&str> = flags.iter().chain(&base).copied().collect();
    if kind == "plt" {
        all.extend(link.iter().map(String::as_str));
    }
    let name = format!("places{}{}", if kind == "plt" { "-plt" } else { "" }, flags.concat());
    compile("gcc", "places", &name, &all).expect("a C compiler")
}

fn copy(from: &PathBuf, to: PathBuf) -> PathBuf {
    std::fs::copy(from, &to).expect("room for a copy");
    to
}

/// A program that starts is unknown at first. For so long its samples may lack a table, if they say so.
const UNKNOWN_NS: u64 = 500_000_000;

/// On-CPU samples of the process whose stack has `functions` in that order, of all samples; what the others look like.
fn within(seen: &Recorded, tgid: u32, functions: &[&str]) -> (u64, u64, Vec<String>) {
    let (mut there, mut all, mut others) = (0, 0, BTreeMap::new());
    let of_it = |weight: &&StackWeight| weight.process.tgid == tgid && weight.lens == Lens::OnCpu;
    let weights = seen.ticks().flat_map(|tick| tick.stacks.iter().map(move |weight| (tick.span.start_ns, weight)));
    let mut first = None;
    for (at, weight) in weights.filter(|(_, weight)| of_it(weight)) {
        let age = at - *first.get_or_insert(at);
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let names = seen.functions(stack);
        let mut wanted = functions.iter().peekable();
        names.iter().for_each(|name| {
            wanted.next_if(|next| *next == name);
        });
        if stack.end == StackEnd::NoTable && age < UNKNOWN_NS {
            continue;
        }
        all += weight.weight;
        if wanted.peek().is_none() && stack.end == StackEnd::Complete {
            there += weight.weight;
        } else {
            *others.entry(format!("{:?} {}", stack.end, names.join(";"))).or_insert(0) += weight.weight;
        }
    }
    let mut others: Vec<(String, u64)> = others.into_iter().collect();
    others.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    (there, all, others.into_iter().take(6).map(|(stack, weight)| format!("{weight} × {stack}")).collect())
}

/// What a signal's handler returns to on x86-64: `mov $SYS_rt_sigreturn,%rax; syscall`.
const RESTORE: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];

/// Frames that a signal's handler returns to, each as the code that is there, which begins with the first instruction: nobody has
/// called it.
fn returned_to(seen: &Recorded, tgid: u32) -> BTreeMap<[u8; 9], u64> {
    let mut found = BTreeMap::new();
    for weight in seen.ticks().flat_map(|tick| &tick.stacks).filter(|weight| weight.process.tgid == tgid) {
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let by_signal = (0..stack.frames.len()).filter(|at| stack.walk.found(*at) == FoundBy::Signal);
        for id in by_signal.filter_map(|at| stack.frames.get(at + 1)) {
            let (frame, module) = seen.place(*id).expect("every frame is named");
            let mut code = [0; RESTORE.len()];
            let file = File::open(&module.path).expect("the C library");
            file.read_exact_at(&mut code, frame.offset).expect("its code");
            *found.entry(code).or_default() += weight.weight;
        }
    }
    found
}

/// At least 98 % of the samples are in these functions: what is not is the start and end of the program. Whatever is missed, no
/// walk goes astray, but for one or two while the loader maps what the next frame is in.
fn mostly(kind: &str, flags: &[&str], functions: &[&str]) {
    let Some(_machine) = machine() else { return };
    let (seen, tgid) = at(kind, flags);
    let (there, all, others) = within(&seen, tgid, functions);
    assert!(all > 700, "{kind}: {all} samples");
    assert!(there * 100 >= all * 98, "{kind}: {there} of {all} samples\n{}", others.join("\n"));
    let number = |other: &String| other.split(' ').next().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    let astray: u64 = others.iter().filter(|other| other.contains("NotCode")).map(number).sum();
    assert!(astray <= 2, "{kind}:\n{}", others.join("\n"));
}

#[test]
fn prologues_and_epilogues() {
    mostly("edges", &[], &["main", "on_edges"]);
}

#[test]
fn the_linkage_table() {
    mostly("plt", &["-DPLT", "-fplt", "-Wl,-z,lazy"], &["main", "through_plt"]);
}

#[test]
fn a_signal_handler() {
    mostly("signal", &[], &["main", "interrupted", "handler"]);
}

#[test]
fn a_signal_handler_on_its_own_stack() {
    mostly("altstack", &[], &["main", "interrupted", "handler"]);
}

#[test]
fn what_a_signal_handler_returns_to_was_not_called() {
    if cfg!(not(target_arch = "x86_64")) {
        return skipped("knows the code of x86-64");
    }
    let Some(_machine) = machine() else { return };
    let (seen, tgid) = at("signal", &[]);
    let found = returned_to(&seen, tgid);
    assert!(found.get(&RESTORE).is_some_and(|weight| *weight > 700), "{found:x?}");
    assert_eq!(found.len(), 1, "{found:x?}");
}

#[test]
fn the_vdso() {
    mostly("vdso", &[], &["main", "asks_clock"]);
}

#[test]
fn the_start_of_a_thread() {
    mostly("thread", &[], &["first_function"]);
}

#[test]
fn a_library_loaded_later() {
    mostly("dlopen", &[], &["main", "calls_library", "lib_busy"]);
}

#[test]
fn a_library_replaced_by_another_file() {
    mostly("replace", &[], &["main", "calls_library", "lib_busy"]);
}

/// Where a library was, another one lies, and samples between the two were in neither: what was known of the place is of the first.
#[test]
fn a_library_where_another_one_was() {
    let Some(_machine) = machine() else { return };
    let flags = ["-O2", "-shared", "-fPIC"];
    let library = compile("gcc", "library", "libswap.so", &flags).expect("a C compiler").display().to_string();
    let flags = [&flags[..], &["-DOTHER"]].concat();
    let other = compile("gcc", "library", "libswap-other.so", &flags).expect("a C compiler").display().to_string();
    let recording = Recording::with(|options| options.rate_hz = 997);
    let mut places = Workload::prepare_program(&compiled("swap", &[]), &["swap", "2", &library, &other]);
    places.run();
    recording.wait_past(places.number("end_ns"));
    recording.wait_names(places.pid());
    let seen = recording.stop();
    let of = |functions: &[&str]| within(&seen, places.pid(), functions);
    let (_, all, others) = of(&["main", "swaps", "lib_other"]);
    for (function, least) in [("lib_busy", 28), ("busy", 28), ("lib_other", 28)] {
        let (there, ..) = of(&["main", "swaps", function]);
        assert!(all > 700 && there * 100 >= all * least, "{function}: {there} of {all}\n{}", others.join("\n"));
    }
}

#[test]
fn a_program_that_was_deleted() {
    mostly("delete", &[], &["main", "busy"]);
}

#[test]
fn a_program_that_only_was_in_memory() {
    mostly("memfd", &[], &["main", "busy"]);
}

/// A container, made by hand: its own mounts and pids, an overlay for a root, and the program deleted after it started.
#[test]
fn another_root_and_other_pids() {
    let Some(_machine) = machine() else { return };
    let program = compiled("delete", &[]);
    let script = "set -e; mount -t tmpfs none /mnt; mkdir /mnt/up /mnt/work /mnt/root; \
        mount -t overlay none -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root; \
        cp \"$1\" /mnt/root/places; exec unshare --pid --fork chroot /mnt/root /places delete 1.5";
    let recording = Recording::with(|options| options.rate_hz = 997);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&program);
    let mut places = match Workload::try_start("places", command) {
        Ok(places) => places,
        Err(why) => return skipped(format!("no overlay in a mount namespace here: {why}")),
    };
    places.run();
    recording.wait_past(places.number("end_ns"));
    sleep_ms(1000);
    let seen = recording.stop();
    let inside = seen.ticks().flat_map(|tick| &tick.processes).find(|process| process.comm == "places");
    let tgid = inside.expect("it ran").key.tgid;
    let (there, all, others) = within(&seen, tgid, &["main", "busy"]);
    assert!(all > 700 && there * 100 >= all * 98, "{there} of {all} samples\n{}", others.join("\n"));
}

/// Whole, wherever the program was stopped: prologues of a stripped program have no names, but they unwind.
#[test]
fn a_stripped_program() {
    let Some(_machine) = machine() else { return };
    let program = compiled("edges", &["-s"]);
    let nm = Command::new("nm").arg(&program).output();
    assert!(nm.is_ok_and(|nm| nm.stdout.is_empty()), "it is stripped");
    let (seen, tgid) = at("edges", &["-s"]);
    let (there, all, others) = within(&seen, tgid, &[]);
    assert!(all > 700 && there * 100 >= all * 98, "{there} of {all} samples\n{}", others.join("\n"));
}
