//! The resolver against real processes: what is asked is what a C program says of its own addresses.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::mappings::{ns_per_clock_tick, start_ticks};
use super::modules::Resolver;
use super::symbols::SymbolWorker;
use super::taken::{Taken, Walked};
use crate::tick::{FrameId, FrameKind, Names, ProcessKey, Stack, StackEnd, StackId};

/// How long a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a resolver said, by id.
struct Session {
    resolver: Resolver,
    names: Names,
}

impl Session {
    fn start() -> Self {
        Session { resolver: Resolver::new(SymbolWorker::start(None, None).unwrap()), names: Names::default() }
    }

    /// Interned, and judged even if its files were read late.
    fn stack(&mut self, process: ProcessKey, ips: &[u64]) -> StackId {
        let stack = self.resolver.stack(process, walked(ips, false), &mut self.names);
        let until = Instant::now() + PATIENCE;
        while !self.resolver.has_judged_all() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
            self.resolver.found(&mut self.names);
        }
        stack
    }

    fn end(&self, id: StackId) -> StackEnd {
        self.latest(id).end
    }

    fn frames(&self, id: StackId) -> Vec<FrameId> {
        self.latest(id).frames.clone()
    }

    /// A later one replaces an earlier one.
    fn latest(&self, id: StackId) -> &Stack {
        &self.names.stacks.iter().rev().find(|(stack, _)| *stack == id).unwrap().1
    }

    fn path(&self, id: FrameId) -> String {
        let frame = self.names.frames.iter().find(|(frame, _)| *frame == id).unwrap().1;
        self.names.modules.iter().find(|(module, _)| *module == frame.module).unwrap().1.path.clone()
    }

    fn kind(&self, id: FrameId) -> FrameKind {
        self.names.frames.iter().find(|(frame, _)| *frame == id).unwrap().1.kind
    }

    /// Names of a stack, root first, when all that will come have come.
    fn functions(&mut self, id: StackId) -> Vec<String> {
        let frames = self.frames(id);
        let until = Instant::now() + PATIENCE;
        loop {
            self.resolver.found(&mut self.names);
            let name = |id: &FrameId| self.names.symbols.iter().find(|(frame, _)| frame == id);
            let found: Vec<_> = frames.iter().map(|id| name(id).map(|(_, symbol)| symbol.function.clone())).collect();
            if found.iter().all(Option::is_some) || Instant::now() > until {
                return found.into_iter().map(Option::unwrap_or_default).collect();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A user part that was walked by frame pointers.
fn walked(user: &[u64], truncated: bool) -> Taken<'_> {
    Taken { user, kernel: &[], walked: Walked::FramePointers { error: 0, truncated }, image: 0 }
}

fn key(pid: u32) -> ProcessKey {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
    ProcessKey { tgid: pid, start_ns: start_ticks(&stat).unwrap() * ns_per_clock_tick() }
}

/// A C program that prints lines and ends when its standard input does.
struct Fixture {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn start(source: &str, flags: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (code, program) = (dir.path().join("fixture.c"), dir.path().join("fixture"));
        std::fs::write(&code, source).unwrap();
        let built = Command::new("cc").args(flags).arg(&code).arg("-o").arg(&program).status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("skipped: cc cannot build this here");
            return None;
        }
        let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Fixture { child, lines, dir })
    }

    fn key(&self) -> ProcessKey {
        key(self.child.id())
    }

    /// The next line, as hexadecimal numbers.
    fn addresses(&mut self) -> Vec<u64> {
        let line = self.lines.next().unwrap().unwrap();
        line.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap()).collect()
    }

    fn say(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints its own frame-pointer walk, leaf first, from a known chain of calls, in the main thread and in another.
const WALKS: &str = r#"
#include <stdio.h>
#include <pthread.h>
#include <unistd.h>
#define NOINLINE __attribute__((noinline))
NOINLINE void walk(void) {
	void **fp = __builtin_frame_address(0), **last = 0;
	printf("%p", (void *)((char *)walk + 1));
	for (int i = 0; i < 32 && fp > last && ((unsigned long)fp & 7) == 0 && (!last || fp - last < 100000); i++) {
		if (!fp[1]) break;
		printf(" %p", fp[1]);
		last = fp;
		fp = fp[0];
	}
	printf("\n");
	fflush(stdout);
}
NOINLINE void inner(int n) { walk(); __asm__ volatile("" :: "r"(n)); }
NOINLINE void outer(int n) { inner(n + 1); __asm__ volatile("" :: "r"(n)); }
static void *thread(void *arg) { outer(2); return arg; }
int main(void) {
	pthread_t t;
	outer(1);
	pthread_create(&t, 0, thread, 0);
	pthread_join(t, 0);
	char c;
	while (read(0, &c, 1) > 0) ;
	return 0;
}
"#;
const WITH_FRAME_POINTERS: &[&str] =
    &["-O1", "-g0", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"];

#[test]
fn walks_to_the_first_function_are_complete() {
    let Some(mut fixture) = Fixture::start(WALKS, WITH_FRAME_POINTERS) else { return };
    let mut session = Session::start();
    let process = fixture.key();
    for begins in ["main", "thread"] {
        let walk = fixture.addresses();
        let stack = session.stack(process, &walk);
        assert_eq!(session.end(stack), StackEnd::Complete, "{begins}: {walk:x?}");
        let functions = session.functions(stack);
        // One frame of the C library, named even where it is stripped, and nothing beyond it.
        let first = if begins == "main" { "__libc_start_call_main" } else { "start_thread" };
        assert_eq!(functions, [first, begins, "outer", "inner", "walk"]);

        // The same walk, gone astray one frame early, or at its beginning.
        let broken = session.stack(process, &walk[..3]);
        assert_eq!(session.end(broken), StackEnd::Broken);
        assert_eq!(session.functions(broken), ["outer", "inner", "walk"]);
        let cut = session.resolver.stack(process, walked(&walk[..3], true), &mut session.names);
        assert_eq!(session.end(cut), StackEnd::Truncated);
    }
}

#[test]
fn a_stack_whose_files_are_read_late_is_sent_again() {
    let Some(mut fixture) = Fixture::start(WALKS, WITH_FRAME_POINTERS) else { return };
    let mut session = Session::start();
    session.resolver.be_impatient();
    let (process, walk) = (fixture.key(), fixture.addresses());
    let stack = session.resolver.stack(process, walked(&walk, false), &mut session.names);
    assert_eq!(session.end(stack), StackEnd::Broken);
    assert!(!session.resolver.has_judged_all());
    assert_eq!(session.stack(process, &walk[..2]), StackId(1));
    assert_eq!(session.end(stack), StackEnd::Complete);
    assert_eq!(session.functions(stack), ["__libc_start_call_main", "main", "outer", "inner", "walk"]);
    assert_eq!(session.stack(process, &walk), stack);
}

#[test]
fn static_programs_are_complete_too() {
    let flags = [WITH_FRAME_POINTERS, &["-static"]].concat();
    let Some(mut fixture) = Fixture::start(WALKS, &flags) else { return };
    let mut session = Session::start();
    for _ in 0..2 {
        let stack = session.stack(fixture.key(), &fixture.addresses());
        assert_eq!(session.end(stack), StackEnd::Complete, "{:?}", session.functions(stack));
    }
}

#[test]
fn names_outlive_the_file_and_the_process() {
    let Some(mut fixture) = Fixture::start(WALKS, WITH_FRAME_POINTERS) else { return };
    let mut session = Session::start();
    let (process, walk) = (fixture.key(), fixture.addresses());
    std::fs::remove_file(fixture.dir.path().join("fixture")).unwrap();
    let stack = session.stack(process, &walk);
    fixture.end();
    session.resolver.forget(process);
    let late = session.stack(process, &walk[..2]);
    assert_eq!(session.functions(stack)[2..], ["outer", "inner", "walk"]);
    let frames = session.frames(stack);
    assert!(session.path(frames[3]).ends_with("/fixture"), "no (deleted) in {}", session.path(frames[3]));
    // It was drained after the exit.
    assert_eq!(session.functions(late), ["inner", "walk"]);
}

#[test]
fn a_file_that_was_cut_since_harms_nobody() {
    let Some(mut fixture) = Fixture::start(WALKS, WITH_FRAME_POINTERS) else { return };
    let mut session = Session::start();
    let (process, walk) = (fixture.key(), fixture.addresses());
    let stack = session.stack(process, &walk);
    assert_eq!(session.functions(stack)[1], "main");
    // While a program runs nobody may write to it, so it is ended first; the worker has it mapped still.
    fixture.end();
    let program = std::fs::File::options().write(true).open(fixture.dir.path().join("fixture")).unwrap();
    program.set_len(100).unwrap();
    let inner = walk[1] & !0xfff;
    let stacks: Vec<StackId> = (0..64).map(|at| session.stack(process, &[inner + 64 * at])).collect();
    for _ in 0..20 {
        session.resolver.found(&mut session.names);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(stacks.len(), 64);
    let note = session.resolver.note("[unrecorded]", &mut session.names);
    assert_eq!(session.functions(note), ["[unrecorded]"], "the worker's names still arrive");
}

#[test]
fn a_process_that_is_gone_keeps_its_addresses() {
    let mut session = Session::start();
    let mut child = Command::new("true").spawn().unwrap();
    let process = ProcessKey { tgid: child.id(), start_ns: 1 };
    child.wait().unwrap();
    let stack = session.stack(process, &[0x40_1000, 0x40_2001]);
    let frames = session.frames(stack);
    assert_eq!(session.end(stack), StackEnd::Broken);
    assert_eq!(frames.iter().map(|&id| session.path(id)).collect::<Vec<_>>(), ["[exited]", "[exited]"]);
    // Someone else with its pid must not lend it his names.
    let mut other = key(std::process::id());
    other.start_ns += 10 * ns_per_clock_tick();
    let here = a_process_that_is_gone_keeps_its_addresses as *const () as u64;
    let stack = session.stack(other, &[here]);
    let frames = session.frames(stack);
    assert_eq!(session.path(frames[0]), "[exited]");
}

#[test]
fn a_child_that_is_gone_had_its_parents_code() {
    let Some(mut fixture) = Fixture::start(WALKS, WITH_FRAME_POINTERS) else { return };
    let mut session = Session::start();
    let (parent, walk) = (fixture.key(), fixture.addresses());
    let child = |start_ns| ProcessKey { tgid: u32::MAX >> 8, start_ns };
    let born = child(parent.start_ns + 3 * ns_per_clock_tick());
    session.resolver.fork(born, parent.tgid);
    let stack = session.stack(born, &walk[..2]);
    assert_eq!(session.functions(stack), ["inner", "walk"]);
    // It had become another program; its parent has since; its parent's pid went to one that is younger.
    let (changed, orphan) = (child(born.start_ns + 1), child(born.start_ns + 2));
    let elder = child(parent.start_ns.saturating_sub(ns_per_clock_tick()));
    session.resolver.fork(changed, parent.tgid);
    session.resolver.exec(changed);
    session.resolver.fork(elder, parent.tgid);
    let stacks = [changed, elder].map(|key| session.stack(key, &walk[..2]));
    session.resolver.fork(orphan, parent.tgid);
    session.resolver.exec(parent);
    for stack in [stacks[0], stacks[1], session.stack(orphan, &walk[..2])] {
        let frames = session.frames(stack);
        assert_eq!(session.path(frames[0]), "[exited]");
    }
}

#[test]
fn addresses_that_are_not_code_end_a_stack() {
    let mut session = Session::start();
    let (on_stack, process) = (0u64, key(std::process::id()));
    let here = addresses_that_are_not_code_end_a_stack as *const () as u64 + 1;
    // What comes behind the first address without code is no better than that.
    let stack = session.stack(process, &[here, here, &raw const on_stack as u64, here, 8]);
    assert_eq!(session.end(stack), StackEnd::Broken);
    let functions = session.functions(stack);
    assert_eq!(functions.len(), 2, "{functions:?}");
    assert!(functions.iter().all(|name| name.ends_with("addresses_that_are_not_code_end_a_stack")), "{functions:?}");
}

#[test]
fn kernel_notes_and_empty_stacks() {
    let mut session = Session::start();
    let kallsyms = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let schedule = kallsyms.lines().find(|line| line.ends_with(" T schedule")).map(|line| &line[..16]);
    let schedule = u64::from_str_radix(schedule.unwrap_or("0"), 16).unwrap();
    let process = ProcessKey { tgid: 2, start_ns: 0 };
    if schedule != 0 {
        let names = &mut session.names;
        let stack = {
            let kernel = &[schedule + 8, schedule + 9, 0, 7];
            session.resolver.stack(process, Taken { kernel, ..walked(&[], false) }, names)
        };
        assert_eq!(session.end(stack), StackEnd::KernelOnly);
        assert_eq!(session.functions(stack), ["schedule", "schedule"]);
        let frames = session.frames(stack);
        assert_eq!((session.path(frames[0]).as_str(), session.kind(frames[0])), ("[kernel]", FrameKind::Kernel));
    } else {
        eprintln!("skipped in part: addresses of the kernel are hidden");
    }
    let unreadable = {
        let unread = Walked::FramePointers { error: -14, truncated: false };
        session.resolver.stack(process, Taken { walked: unread, ..walked(&[], false) }, &mut session.names)
    };
    assert_eq!(session.end(unreadable), StackEnd::Unreadable(14));
    let note = session.resolver.note("[stack not taken]", &mut session.names);
    assert_eq!(session.end(note), StackEnd::NotTaken);
    assert_eq!(session.functions(note), ["[stack not taken]"]);
    let again = session.resolver.note("[stack not taken]", &mut session.names);
    assert_eq!(note, again);
}

#[test]
fn the_vdso_has_names() {
    let mut session = Session::start();
    let maps = super::mappings::parse(&std::fs::read("/proc/self/maps").unwrap());
    let Some(vdso) = maps.iter().find(|mapping| mapping.path == "[vdso]") else {
        eprintln!("skipped: no vDSO here");
        return;
    };
    let process = key(std::process::id());
    let frames: Vec<u64> = (vdso.start..vdso.end).step_by(64).collect();
    let stacks: Vec<StackId> = frames.iter().map(|&ip| session.stack(process, &[ip])).collect();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && session.names.symbols.is_empty() {
        session.resolver.found(&mut session.names);
        std::thread::sleep(Duration::from_millis(5));
    }
    let named = session.names.symbols.iter().any(|(_, symbol)| symbol.function.contains("clock_gettime"));
    assert!(named, "{:?}", session.names.symbols);
    assert_eq!(stacks.len(), frames.len());
}

/// Makes code at run time and, when told so, a map of it.
const JIT: &str = r#"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
	void *code = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char c;
	printf("%p\n", code);
	fflush(stdout);
	while (read(0, &c, 1) > 0) ;
	return 0;
}
"#;

#[test]
fn maps_of_jit_code_are_read_if_they_are_the_processs_own() {
    let Some(mut fixture) = Fixture::start(JIT, &[]) else { return };
    let mut session = Session::start();
    let (process, code) = (fixture.key(), fixture.addresses()[0]);
    let map = format!("/tmp/perf-{}.map", fixture.child.id());
    let early = session.stack(process, &[code + 0x18]);
    session.resolver.found(&mut session.names);
    std::thread::sleep(Duration::from_millis(50));

    // Not a file, and a link to one that others own.
    std::fs::create_dir(&map).unwrap();
    session.stack(process, &[code + 0x1]);
    session.resolver.found(&mut session.names);
    std::thread::sleep(Duration::from_millis(50));
    std::fs::remove_dir(&map).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &map).unwrap();
    session.stack(process, &[code + 0x2]);
    session.resolver.found(&mut session.names);
    std::thread::sleep(Duration::from_millis(50));
    std::fs::remove_file(&map).unwrap();

    let text =
        format!("garbage\n{code:x} 10 first\n{:x} 40 hostile \x1b[2Jname;x 1\n{:x} 10 torn", code + 0x10, code + 0x50);
    std::fs::write(&map, text).unwrap();
    // Nothing new is asked for: the worker looks again by itself.
    let earlier = session.functions(early);
    let stack = session.stack(process, &[code + 0x20, code + 0x9]);
    let functions = session.functions(stack);
    std::fs::remove_file(&map).unwrap();
    assert_eq!(functions, ["first", "hostile \x1b[2Jname;x 1"]);
    assert_eq!(earlier, ["hostile \x1b[2Jname;x 1"], "asked for before the map was there");
    assert!(session.names.symbols.iter().all(|(_, symbol)| symbol.function != "stranger"));
    let frames = session.frames(stack);
    assert_eq!((session.path(frames[0]).as_str(), session.kind(frames[0])), ("[anon]", FrameKind::Jit));
    fixture.say("x");
}
