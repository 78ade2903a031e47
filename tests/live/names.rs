//! What code is called: of files that are gone, stripped, or in a container; of the kernel's page and its BPF programs; of what
//! compilers make at run time; and what is inlined where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sberf::collect::Request;
use sberf::model::folded::{self, FoldedLens};
use sberf::model::{Hint, Limits, Model, Window};
use sberf::tick::{Batch, Detail, Frame, FrameId, FrameKind, ProcessKey};

use crate::compile::workload as build;
use crate::machine::{machine, skipped};
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

/// All that a recording says, as the screen would know it.
fn model(seen: &Recorded) -> Model {
    let limits = Limits { keep_exited: Duration::MAX, ..Limits::default() };
    let mut model = Model::new(seen.session.clone(), limits);
    for batch in seen.batches.clone() {
        match batch {
            Batch::Tick(tick) => model.apply(*tick),
            Batch::Names(names) => model.learn(*names),
        }
    }
    model
}

fn key(model: &Model, pid: u32) -> ProcessKey {
    model.processes().map(|process| process.key).find(|key| key.tgid == pid).expect("it was seen")
}

/// Samples by stack. Shown, only the heaviest, each cut.
struct Stacks(BTreeMap<String, u64>);

impl fmt::Debug for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heaviest: Vec<_> = self.0.iter().map(|(stack, weight)| (weight, stack)).collect();
        heaviest.sort_by(|a, b| b.cmp(a));
        heaviest.iter().take(10).try_for_each(|(weight, stack)| {
            let cut: String = stack.chars().rev().take(400).collect::<Vec<_>>().into_iter().rev().collect();
            writeln!(f, "\n  {weight} …{cut}")
        })
    }
}

/// On-CPU samples of a process by their frames: `main;work`, the process itself and the kernel's frames left out.
fn stacks(seen: &Recorded, pid: u32) -> Stacks {
    let model = model(seen);
    let mut text = Vec::new();
    let process = Some(key(&model, pid));
    folded::write(&mut text, &model, FoldedLens::OnCpu, process, Window::All).expect("memory takes it");
    let mut stacks = BTreeMap::new();
    for line in String::from_utf8(text).expect("text").lines() {
        let (stack, weight) = line.rsplit_once(' ').expect("a weight");
        let frames: Vec<&str> = stack.split(';').skip(1).filter(|frame| !frame.ends_with("_[k]")).collect();
        *stacks.entry(frames.join(";")).or_default() += weight.parse::<u64>().expect("a number");
    }
    Stacks(stacks)
}

/// Share of the samples whose stack has what is wanted.
#[track_caller]
fn share(stacks: &Stacks, wanted: impl Fn(&str) -> bool) -> f64 {
    let all: u64 = stacks.0.values().sum();
    assert!(all >= 30, "too few samples: {stacks:?}");
    stacks.0.iter().filter(|(stack, _)| wanted(stack)).map(|(_, weight)| weight).sum::<u64>() as f64 / all as f64
}

#[track_caller]
fn assert_most(stacks: &Stacks, wanted: &str) {
    let share = share(stacks, |stack| stack.contains(wanted));
    assert!(share > 0.9, "{share:.3} have {wanted}: {stacks:?}");
}

/// Runs a workload to its end beside a recording.
fn run(workload: &mut Workload) -> Recorded {
    let recording = Recording::start();
    workload.run();
    recording.wait_past(workload.number("end_ns"));
    recording.wait_names(workload.pid());
    recording.stop()
}

/// A copy of a workload in a directory of its own; it goes with it.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::copy(build(name), dir.path().join("copied")).expect("a copy");
        Copy { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("copied")
    }

    fn tool(&self, name: &str, args: &[&str]) {
        let done = Command::new(name).args(args).current_dir(self.dir.path()).output().expect("binutils are installed");
        assert!(done.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn start(&self, args: &[&str]) -> Workload {
        let mut command = Command::new(self.path());
        command.args(args);
        Workload::try_start("copied", command).expect("it starts")
    }
}

#[test]
fn inlined_functions_and_lines_once_they_are_asked_for() {
    let Some(_machine) = machine() else { return };
    let program = build("names");
    let mut work = Workload::prepare("names", &["inline", "1.5"]);
    let recording = Recording::start();
    work.run();
    recording.wait_past(work.number("end_ns"));
    recording.wait_names(work.pid());
    let frames: Vec<(FrameId, Frame)> = recording.frames_of(program.to_str().expect("text"));
    assert!(!frames.is_empty());
    recording.request(Request::Detail(frames.clone()));
    recording.wait_details(&frames);
    let seen = recording.stop();
    assert_most(&stacks(&seen, work.pid()), "main;work;middle_[i];leaf_[i]");

    // Each frame as addr2line tells it.
    for (id, frame) in frames {
        let detail = seen.detail(id).expect("an answer");
        let output = Command::new("addr2line")
            .args(["-f", "-i", "-e"])
            .arg(&program)
            .arg(format!("{:#x}", frame.offset))
            .output()
            .expect("addr2line is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told: Vec<&str> = text.lines().collect();
        let functions = detail.function.iter().chain(detail.inlined.iter().map(|inlined| &inlined.function));
        let mut ours: Vec<String> = Vec::new();
        for (nth, function) in functions.enumerate() {
            let line = detail.line_in(nth).map_or("??:0".into(), |line| format!("{}:{}", line.file, line.number));
            ours.splice(0..0, [function.clone(), line]);
        }
        if detail == &Detail::default() {
            assert!(told.iter().skip(1).step_by(2).all(|line| line.starts_with("??")), "{frame:?}: {told:?}");
            continue;
        }
        let plain: Vec<&str> = told.iter().map(|line| line.split(" (discriminator").next().unwrap_or(line)).collect();
        assert_eq!(ours, plain, "{frame:?}");
    }
}

#[test]
fn an_export_of_the_live_machine_has_inlined_functions() {
    let Some(_machine) = machine() else { return };
    let mut work = Workload::prepare("names", &["inline", "60"]);
    work.go();
    let output = Command::new(env!("CARGO_BIN_EXE_sberf"))
        .args(["export", "--duration", "1.5", "--pid", &work.pid().to_string()])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let weight =
        |line: &str| line.rsplit_once(' ').and_then(|(_, weight)| weight.parse::<u64>().ok()).expect("a weight");
    let (mut all, mut inlined) = (0, 0);
    for line in text.lines() {
        all += weight(line);
        inlined += if line.contains("main;work;middle_[i];leaf_[i]") { weight(line) } else { 0 };
    }
    assert!(
        all >= 30 && inlined * 10 > all * 9,
        "{inlined} of {all}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_deleted_program_that_ended_keeps_its_names() {
    let Some(_machine) = machine() else { return };
    let copy = Copy::of("names");
    let recording = Recording::with(|options| options.interval = Duration::from_secs(2));
    recording.wait_ticks(1);
    let mut work = copy.start(&["inline", "0.7"]);
    std::fs::remove_file(copy.path()).expect("it was there");
    work.run();
    let end_ns = work.number("end_ns");
    assert!(work.finish());
    recording.wait_past(end_ns);
    recording.wait_names(work.pid());
    assert_most(&stacks(&recording.stop(), work.pid()), "main;work");
}

#[test]
fn stripped_programs_have_names_where_their_debug_files_are() {
    let Some(_machine) = machine() else { return };
    let copy = Copy::of("names");
    copy.tool("objcopy", &["--only-keep-debug", "copied", "copied.debug"]);
    copy.tool("objcopy", &["--strip-all", "--add-gnu-debuglink=copied.debug", "copied"]);
    let mut work = copy.start(&["inline", "0.7"]);
    assert_most(&stacks(&run(&mut work), work.pid()), "main;work");

    // Without it, functions are called after where they begin: the one that has nearly all samples is one function.
    std::fs::rename(copy.dir.path().join("copied.debug"), copy.dir.path().join("elsewhere")).expect("it was there");
    let nm = Command::new("nm").arg(build("names")).output().expect("nm is installed");
    let nm = String::from_utf8_lossy(&nm.stdout).into_owned();
    let start = nm.lines().find_map(|line| line.strip_suffix(" t work")).expect("nm lists it").trim_start_matches('0');
    copy.tool("cp", &["copied", "other"]);
    let mut command = Command::new(copy.dir.path().join("other"));
    command.args(["inline", "0.7"]);
    let mut work = Workload::try_start("other", command).expect("it starts");
    assert_most(&stacks(&run(&mut work), work.pid()), &format!("other:fn@0x{start}"));
}

/// A mount and a pid namespace with a root of its own: all of ours below, what is written in memory on top.
const CONTAINER: &str = r#"
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
cp "$2" "$1/root/opt/inside"
[ -z "$3" ] || cp "$3" "$1/root/opt/inside.debug"
shift 3
exec chroot "$TOP/root" "$@"
"#;

fn contained(dir: &Path, program: &Path, debug: Option<&Path>, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh"]);
    command.arg(dir).arg(program).arg(debug.unwrap_or(Path::new(""))).args(args).env("TOP", dir);
    command
}

/// The only child of a process.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children are listed");
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child")
}

#[test]
fn a_container_has_the_names_that_it_has_outside() {
    let Some(_machine) = machine() else { return };
    let mut outside = Workload::prepare("names", &["inline", "2"]);
    let seen = run(&mut outside);
    let (outside_stacks, outside_names) = (stacks(&seen, outside.pid()), functions(&seen, outside.pid()));
    assert_most(&outside_stacks, "main;work");

    // Stripped, with the debug file beside it where only the container sees it; deleted once it runs.
    let copy = Copy::of("names");
    copy.tool("objcopy", &["--only-keep-debug", "copied", "inside.debug"]);
    copy.tool("objcopy", &["--strip-all", "--add-gnu-debuglink=inside.debug", "copied"]);
    let top = tempfile::tempdir().expect("a directory");
    let debug = copy.dir.path().join("inside.debug");
    let command = contained(top.path(), &copy.path(), Some(&debug), &["/opt/inside", "inline", "2"]);
    let mut inside = match Workload::try_start("inside", command) {
        Ok(inside) => inside,
        Err(why) => return skipped(format!("no container can be made here: {why}")),
    };
    let pid = child_of(inside.pid());
    std::fs::remove_file(format!("/proc/{pid}/root/opt/inside")).expect("it was there");
    let recording = Recording::start();
    inside.run();
    recording.wait_past(inside.number("end_ns"));
    recording.wait_names(pid);
    let seen = recording.stop();
    let (inside_stacks, inside_names) = (stacks(&seen, pid), functions(&seen, pid));
    assert_most(&inside_stacks, "main;work");
    assert_eq!(usual(&inside_stacks), usual(&outside_stacks), "{inside_stacks:?} {outside_stacks:?}");
    // The same code in both, byte by byte: whatever was seen of it on either side has the same name.
    let both: Vec<_> = inside_names.iter().filter_map(|(at, name)| Some((at, name, outside_names.get(at)?))).collect();
    assert!(both.len() >= 5, "{inside_names:x?} {outside_names:x?}");
    let unequal: Vec<_> = both.iter().filter(|(_, inside, outside)| inside != outside).collect();
    assert!(unequal.is_empty(), "{unequal:x?}");
}

/// Stacks with at least a twentieth of the samples.
fn usual(stacks: &Stacks) -> BTreeSet<&str> {
    let all: u64 = stacks.0.values().sum();
    stacks.0.iter().filter(|(_, weight)| *weight * 20 >= all).map(|(stack, _)| stack.as_str()).collect()
}

/// What the code of user space is called that a process was seen in: by file (the program itself has no name here) and offset, the
/// function and how far into it.
fn functions(seen: &Recorded, pid: u32) -> BTreeMap<(String, u64), (String, u64)> {
    let weights = seen.ticks().flat_map(|tick| &tick.stacks).filter(|weight| weight.process.tgid == pid);
    let frames: BTreeSet<FrameId> =
        weights.filter_map(|weight| seen.stack(weight.stack)).flat_map(|stack| stack.frames.iter().copied()).collect();
    let named = |id: FrameId| {
        let (frame, module) = seen.place(id).filter(|(frame, _)| frame.kind == FrameKind::User)?;
        let file = module.path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default();
        let file = if ["names", "inside"].contains(&file) { "" } else { file };
        let name = seen.symbol(id).map(|symbol| (symbol.function.clone(), symbol.offset)).unwrap_or_default();
        Some(((file.to_owned(), frame.offset), name))
    };
    frames.into_iter().filter_map(named).collect()
}

#[test]
fn the_vdso_has_names() {
    let Some(_machine) = machine() else { return };
    let mut work = Workload::prepare("names", &["vdso", "1"]);
    let stacks = stacks(&run(&mut work), work.pid());
    let share = share(&stacks, |stack| stack.contains("clock_gettime") && stack.contains("main;"));
    // Where the clock is not one that can be read without the kernel, most of the time is in there.
    assert!(share > 0.5, "{share:.3}: {stacks:?}");
}

/// Interpreters, by name; several places where this machine may have them.
fn program(names: &[&str]) -> Option<PathBuf> {
    let found = names.iter().find_map(|name| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).output().ok()?;
        let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        // A shim that knows no version of it fails when it is run.
        let runs = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        (!path.is_empty() && runs).then(|| PathBuf::from(path))
    });
    if found.is_none() {
        skipped(format!("no {}", names.join(", ")));
    }
    found
}

/// Runs a program for some seconds beside a recording, and until functions of these names (or parts of them) are known;
/// `pid` finds the process that matters from the one started.
fn watch(mut command: Command, seconds: u64, named: &[&str], pid: impl Fn(u32) -> u32) -> (Recorded, u32) {
    let recording = Recording::start();
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(Duration::from_secs(seconds));
    let pid = pid(child.id());
    // Long for a machine that does other work, too.
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !recording.wait_symbol(Duration::from_secs(30), |function| function.contains(**name)))
        .collect();
    recording.wait_names(pid);
    let seen = recording.stop();
    if !missing.is_empty() {
        println!("nothing is called {missing:?}");
    }
    child.kill().expect("it runs");
    child.wait().expect("it was ours");
    (seen, pid)
}

const PYTHON: &str = "
def hot_function():
    total = 0
    for n in range(100000):
        total += n * n
    return total
def caller():
    while True:
        hot_function()
caller()
";

fn python(program: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(flags).args(["-c", PYTHON]);
    command
}

#[test]
fn python_names_its_functions_if_told_to_and_is_hinted_at_if_not() {
    let Some(_machine) = machine() else { return };
    let known = ["python3.12", "python3.13"];
    let Some(program) = program(&known) else { return };
    let (seen, pid) =
        watch(python(&program, &["-X", "perf"]), 3, &["py::hot_function", "_PyEval_EvalFrame"], |pid| pid);
    let named = stacks(&seen, pid);
    let in_order =
        |stack: &str| stack.find("py::caller").zip(stack.find("py::hot_function")).is_some_and(|(a, b)| a < b);
    assert!(share(&named, in_order) > 0.9, "{named:?}");
    let told = model(&seen);
    assert_eq!(told.hints(key(&told, pid)), [], "nothing is missing");

    let (seen, pid) = watch(python(&program, &[]), 2, &["_PyEval_EvalFrameDefault"], |pid| pid);
    let told = model(&seen);
    let hints = told.hints(key(&told, pid));
    assert!(matches!(hints.as_slice(), [Hint::PythonNames(12..)]), "{hints:?}");

    // In a pid namespace the map is called after the pid there.
    let mut contained = Command::new("unshare");
    contained.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    contained.arg(&program).args(["-X", "perf", "-c", PYTHON]);
    let (seen, pid) = watch(contained, 3, &["py::hot_function"], child_of);
    let stacks = stacks(&seen, pid);
    assert!(share(&stacks, in_order) > 0.9, "{stacks:?}");
    let _ = std::fs::remove_file("/tmp/perf-1.map");
}

#[test]
fn node_names_its_functions_if_told_to_and_is_hinted_at_if_not() {
    let Some(_machine) = machine() else { return };
    let Some(program) = program(&["node"]) else { return };
    let script = "function hotFunction(n) { let s = 0; for (let i = 0; i < 1e6; i++) s = (s + i * n) % 97; return s; }\n\
        let x = 0; for (;;) x += hotFunction(x);";
    let node = |flags: &[&str]| {
        let mut command = Command::new(&program);
        // It leaves a log where it runs.
        command.args(flags).args(["-e", script]).current_dir(env!("CARGO_TARGET_TMPDIR"));
        command
    };
    let (seen, pid) = watch(node(&["--perf-basic-prof"]), 3, &["hotFunction"], |pid| pid);
    let named = stacks(&seen, pid);
    assert!(share(&named, |stack| stack.contains("hotFunction")) > 0.8, "{named:?}");
    let told = model(&seen);
    assert_eq!(told.hints(key(&told, pid)), []);
    let (seen, pid) = watch(node(&[]), 2, &[], |pid| pid);
    let told = model(&seen);
    assert_eq!(told.hints(key(&told, pid)), [Hint::NodeNames]);
}

#[test]
fn java_is_told_what_its_stacks_lack() {
    let Some(_machine) = machine() else { return };
    let Some(program) = program(&["java"]) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("Hot.java");
    let text = "public class Hot { static long hot(long n) { long s = n; for (int i = 0; i < 1000000; i++) s = s * 31 + i; return s; }\n\
        public static void main(String[] a) { long x = 0; for (;;) x += hot(x); } }";
    std::fs::write(&source, text).expect("written");
    let java = |flags: &[&str]| {
        let mut command = Command::new(&program);
        command.args(flags).arg(&source);
        command
    };
    let hints = |flags: &[&str]| {
        let (seen, pid) = watch(java(flags), 6, &["JavaCalls::call_helper"], |pid| pid);
        let told = model(&seen);
        (told.hints(key(&told, pid)), stacks(&seen, pid))
    };
    // Whether its callers are lost depends on what the compiler did with the register: that is told only if they are.
    let (plain, stacks) = hints(&[]);
    assert!(plain.contains(&Hint::JavaNames), "{plain:?} {stacks:?}");
    let (with_frames, stacks) = hints(&["-XX:+PreserveFramePointer"]);
    assert_eq!(with_frames, [Hint::JavaNames], "{stacks:?}");
}

/// A socket filter of many additions, as bytes of BPF.
fn long_program() -> Option<OwnedFd> {
    let insn = |code: u8, dst: u8, imm: i32| libbpf_sys::bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: libbpf_sys::bpf_insn::new_bitfield_1(dst, 0),
        off: 0,
        imm,
    };
    // r0 = 0; r0 += 1, many times; exit
    let mut insns = vec![insn(0xb7, 0, 0)];
    insns.extend((0..4000).map(|_| insn(0x07, 0, 1)));
    insns.push(insn(0x95, 0, 0));
    // SAFETY: name and licence are C strings, the instructions are as many as is said, and null options mean none.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SOCKET_FILTER,
            c"sberf_long".as_ptr(),
            c"GPL".as_ptr(),
            insns.as_ptr(),
            insns.len() as _,
            std::ptr::null_mut(),
        )
    };
    // SAFETY: a descriptor that was just made and is nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel's list: names by address, as many as there are for one.
fn kernel_list() -> BTreeMap<u64, Vec<String>> {
    let text = std::fs::read_to_string("/proc/kallsyms").expect("it can be read");
    let mut list: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (address, name) = (fields.next().expect("an address"), fields.nth(1).expect("a name"));
        list.entry(u64::from_str_radix(address, 16).expect("a number")).or_default().push(name.to_owned());
    }
    list
}

#[test]
fn functions_of_the_kernel_are_called_as_in_its_list() {
    let Some(_machine) = machine() else { return };
    let recording = Recording::start();
    Command::new("sh").args(["-c", "for i in $(seq 300); do cat /proc/self/stat; done"]).output().expect("a shell");
    recording.wait_past(crate::machine::now_ns());
    recording.wait_ticks(2);
    let seen = recording.stop();
    let list = kernel_list();
    let (mut frames, mut named) = (0, 0);
    for (frame, symbol) in seen.frames_of_kind(FrameKind::Kernel) {
        frames += 1;
        // Programs of BPF come and go.
        let Some(symbol) = symbol.filter(|symbol| !symbol.function.starts_with("bpf_prog_")) else { continue };
        let (start, names) = list.range(..=frame.offset).next_back().expect("the list begins before");
        assert!(names.contains(&symbol.function), "{symbol:?} for {frame:x?}, but {names:?}");
        assert_eq!(symbol.offset, frame.offset - start, "{symbol:?} for {frame:x?}");
        named += 1;
    }
    assert!(frames > 100 && named * 100 >= frames * 98, "{named} of {frames}");
}

#[test]
fn bpf_programs_have_names_also_those_that_came_later() {
    use std::os::fd::AsRawFd;
    let Some(_machine) = machine() else { return };
    // We run it ourselves.
    let recording = Recording::with(|options| options.include_self = true);
    recording.wait_ticks(2);
    // It comes when the kernel's list has been read.
    let Some(program) = long_program() else { return skipped("the program is refused") };
    let begun = Instant::now();
    let mut data = [0u8; 64];
    while begun.elapsed() < Duration::from_secs(2) {
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
            data_in: data.as_mut_ptr().cast(),
            data_size_in: data.len() as _,
            repeat: 100_000,
            ..Default::default()
        };
        // SAFETY: the options are whole and what they point at outlives the call.
        let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
        assert_eq!(result, 0, "the kernel runs it");
    }
    recording.wait_past(crate::machine::now_ns());
    let named = recording.wait_symbol(Duration::from_secs(25), |function| {
        function.starts_with("bpf_prog_") && function.ends_with("_sberf_long")
    });
    let seen = recording.stop();
    assert!(named, "nameless: {:x?}", seen.nameless_of_kind(FrameKind::Kernel));
}
