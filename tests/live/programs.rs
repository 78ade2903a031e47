//! Programs as distributions ship them, without frame pointers: how many of their stacks are whole, and whether what the
//! stacks hold are return addresses at all.
//!
//! `SBERF_PROGRAM_SECONDS=60` runs each for that long (10 without it), `SBERF_PROGRAMS=python3,git` only these.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use sberf::tick::{FoundBy, Frame, FrameId, FrameKind, Lens, Life, ModuleKind, StackEnd};

use crate::compile::compile;
use crate::machine::{machine, now_ns, skipped, sleep_ms};
use crate::recording::{Recorded, Recording};

/// One program at work: what to run until it is told to stop, and the names of the processes that do the work.
struct Program {
    name: &'static str,
    comms: &'static [&'static str],
    /// A line for the shell; `$DIR` is a directory to write in. It computes, and blocks now and then.
    script: &'static str,
    /// Least share of whole stacks, %: after the first second, and of all. On-CPU and blocked alike.
    bar: (f64, f64),
    /// Tells the files that are read from the disk: a line for the shell. Most of its waits are for them then, while tables are being made.
    cold: Option<&'static str>,
}

const NATIVE: (f64, f64) = (99.0, 97.0);
const JIT: (f64, f64) = (95.0, 95.0);
/// Fewer samples or waits than that prove nothing.
const FEW: u64 = 50;

const PROGRAMS: &[Program] = &[
    Program {
        name: "python3",
        comms: &["python3", "python"],
        script: "exec python3 -c 'import json,re,time\nwhile True:\n  d=[{\"k\":i,\"v\":str(i)*9} for i in range(999)]\n  re.findall(r\"(\\d+)\",json.dumps(sorted(d,key=lambda e:e[\"v\"])))\n  time.sleep(.002)'",
        bar: NATIVE,
        cold: None,
    },
    Program {
        name: "perl",
        comms: &["perl"],
        script: "exec perl -e 'while(1){my %h;for(1..9999){$h{$_%977}.=\"x$_\";}my $s=join(\",\",map{\"$_=$h{$_}\"}sort keys %h);$s=~s/(\\d)x/$1y/g;select undef,undef,undef,.002;}'",
        bar: NATIVE,
        cold: None,
    },
    Program {
        name: "git",
        comms: &["git"],
        script: "cd $DIR && git init -q . 2>/dev/null; seq 1 60000 >a; git add a; git -c user.name=a -c user.email=a@a commit -qm 1; seq 1 2 60000 >a; git -c user.name=a -c user.email=a@a commit -qam 2; while :; do git log -p --stat | perl -e 'select undef,undef,undef,.002 while sysread STDIN,$_,65536'; git diff HEAD~1 --word-diff >/dev/null; done",
        bar: NATIVE,
        cold: Some("readlink -f $(command -v git); find $(git --exec-path) -type f"),
    },
    Program {
        name: "cc1",
        comms: &["cc1"],
        script: "while :; do awk '{print;if(NR%3==0){fflush();system(\"sleep .002\")}}' $DIR/big.c | gcc -O2 -c -o $DIR/o.o -x c -; done",
        bar: NATIVE,
        cold: Some("gcc -print-prog-name=cc1; gcc -print-file-name=liblto_plugin.so"),
    },
    Program {
        name: "xz",
        comms: &["xz"],
        script: "while :; do seq 1 20000; sleep .04; done | exec xz -9 -c >/dev/null",
        bar: NATIVE,
        cold: None,
    },
    Program {
        name: "sqlite3",
        comms: &["sqlite3"],
        script: "while :; do echo 'with recursive c(x) as (select 1 union all select x+1 from c limit 12000) select sum(length(hex(x))*(x%7)) from c;'; sleep .02; done | exec sqlite3 :memory:",
        bar: NATIVE,
        cold: None,
    },
    Program {
        name: "openssl",
        comms: &["openssl"],
        script: "while :; do head -c 4000000 /dev/zero; sleep .02; done | openssl dgst -sha256 & exec openssl speed -seconds 1 sha256 rsa2048 ecdsap256 aes-128-cbc >/dev/null 2>&1",
        bar: NATIVE,
        cold: None,
    },
    // Code that LLVM makes at run time has no frame pointers: without it.
    Program {
        name: "postgres",
        comms: &["postgres"],
        script: "U='setpriv --reuid 65534 --regid 65534 --clear-groups'; mkdir $DIR/pg && chown 65534 $DIR/pg; cd $DIR/pg; $U initdb -D data; while :; do echo 'select count(distinct md5(i::text)) from generate_series(1,10000) i;'; sleep .02; done | $U postgres --single -c jit=off -D data postgres",
        bar: NATIVE,
        cold: None,
    },
    Program {
        name: "rustc",
        comms: &["rustc", "opt"],
        script: "while :; do rustc -O --crate-type lib --out-dir $DIR $DIR/big.rs; done",
        bar: NATIVE,
        cold: Some("find $(rustc --print sysroot)/bin $(rustc --print sysroot)/lib -type f"),
    },
    Program {
        name: "node",
        comms: &["node", "MainThread"],
        script: "exec node -e 'function f(n){return n<2?n:f(n-1)+f(n-2)};const w=new Int32Array(new SharedArrayBuffer(4));for(;;){Atomics.wait(w,0,0,2);f(25);JSON.stringify(Array.from({length:999},(_, i)=>({i})))}'",
        bar: JIT,
        cold: None,
    },
    Program {
        name: "java",
        comms: &["java", "main"],
        script: "exec java -XX:+PreserveFramePointer $DIR/Work.java",
        bar: JIT,
        cold: None,
    },
];

/// Debian keeps a server where no PATH leads.
const PATH: &str = "for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done";

const WORK_JAVA: &str = "public class Work { static long f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); } \
    public static void main(String[] a) { long s = 0; while (s >= 0) { s += f(30); s %= 999; java.util.concurrent.locks.LockSupport.parkNanos(2000000); \
    java.util.List<String> l = new java.util.ArrayList<>(); for (int i = 0; i < 9999; i++) l.add(\"\" + i * 7919 % 9973); \
    java.util.Collections.sort(l); } } }";

impl Program {
    fn is_installed(&self) -> bool {
        let tool = if self.name == "cc1" { "gcc" } else { self.name };
        let found =
            Command::new("sh").arg("-c").arg(format!("{PATH}; command -v {tool}")).stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    }

    /// Has what is not in use of its files read from the disk again.
    fn cool(&self) {
        let Some(files) = self.cold else { return };
        let told = Command::new("sh").arg("-c").arg(files).stderr(Stdio::null()).output().expect("a shell").stdout;
        for file in String::from_utf8_lossy(&told).lines().filter_map(|path| File::open(path).ok()) {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
        }
    }

    /// Starts it in a session of its own, so that all it starts ends with it.
    fn start(&self, dir: &std::path::Path) -> Running {
        let child = Command::new("setsid")
            .args(["sh", "-c", &format!("{PATH}; {}", self.script)])
            .env("DIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        Running(child)
    }
}

pub struct Running(Child);

/// Starts one of the programs on the list; `None` if it is not installed.
pub fn start(name: &str, dir: &std::path::Path) -> Option<Running> {
    prepare(dir);
    PROGRAMS.iter().find(|program| program.name == name && program.is_installed()).map(|program| program.start(dir))
}

/// Names of the processes that do the work of a program on the list.
pub fn comms(name: &str) -> &'static [&'static str] {
    PROGRAMS.iter().find(|program| program.name == name).map_or(&[], |program| program.comms)
}

impl Running {
    /// Ends it and all that it started. Its PID.
    fn stop(self) -> u32 {
        self.0.id()
    }
}

/// A process, all that it started, and they: somebody else may run programs of the same names meanwhile.
fn family(seen: &Recorded, first: u32) -> HashSet<u32> {
    let mut family = HashSet::from([first]);
    for event in seen.events() {
        if let Life::Fork { parent } = event.what
            && family.contains(&parent)
        {
            family.insert(event.process.tgid);
        }
    }
    family
}

impl Drop for Running {
    fn drop(&mut self) {
        // `setsid` called by a process that leads no group becomes what it starts: the child leads the session.
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Samples by how their stack ends.
pub type Ends = BTreeMap<String, u64>;

pub fn complete(ends: &Ends) -> (f64, u64) {
    let all: u64 = ends.values().sum();
    let whole = ends.get(StackEnd::Complete.name()).copied().unwrap_or_default();
    (100.0 * whole as f64 / all.max(1) as f64, all)
}

/// Processes whose samples count: those of these names. All of their life, that is also before they got the name.
pub fn processes(seen: &Recorded, comms: &[&str]) -> HashSet<u32> {
    let all = seen.ticks().flat_map(|tick| &tick.processes);
    all.filter(|process| comms.iter().any(|comm| *comm == process.comm)).map(|process| process.key.tgid).collect()
}

pub fn ends(seen: &Recorded, tgids: &HashSet<u32>, on_cpu: bool, from_ns: u64) -> Ends {
    let mut ends = Ends::new();
    for tick in seen.ticks().filter(|tick| tick.span.start_ns >= from_ns) {
        for weight in tick.stacks.iter().filter(|weight| tgids.contains(&weight.process.tgid)) {
            if (weight.lens == Lens::OnCpu) == on_cpu {
                let end = seen.stack(weight.stack).map_or(StackEnd::NotTaken, |stack| stack.end);
                // A sample may fall on the process while it is still, or already, without user memory.
                if end != StackEnd::KernelOnly {
                    *ends.entry(end.name().to_string()).or_default() +=
                        if on_cpu { weight.weight } else { weight.count };
                }
            }
        }
    }
    ends
}

/// Whether `code` may end with a call: direct, or through a register or memory.
fn ends_with_call(code: &[u8]) -> bool {
    let at = |back: usize| code.len().checked_sub(back).and_then(|index| code.get(index)).copied();
    let indirect = |back: usize| at(back) == Some(0xFF) && at(back - 1).is_some_and(|modrm| modrm & 0x38 == 0x10);
    at(5) == Some(0xE8) || (2..=7).any(indirect)
}

/// Return addresses in files, and those that do not follow a call: each of the latter as `file+0xoffset`, its function, how it was
/// found, and the frame that it called.
///
/// Two places are none that a call left behind, and both are known exactly. Where a signal interrupted somebody is the instruction
/// itself, whatever stands before it. And what its handler returns to, `__restore_rt`, was put there by the kernel.
pub fn return_addresses(seen: &Recorded, tgids: &HashSet<u32>) -> (usize, Vec<String>) {
    let (mut checked, mut wrong, mut files) = (HashSet::new(), Vec::new(), HashMap::new());
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        let Some(stack) = seen.stack(weight.stack).filter(|_| tgids.contains(&weight.process.tgid)) else { continue };
        let places: Vec<_> = stack.frames.iter().map(|id| seen.place(*id)).collect();
        let is_code = |frame: Frame| matches!(frame.kind, FrameKind::User | FrameKind::Jit);
        let inner = places.iter().rposition(|place| place.is_some_and(|(frame, _)| is_code(frame)));
        let by_signal = |at: usize| stack.walk.found(at) == FoundBy::Signal;
        // The innermost is where it was, not where it returns to.
        for (at, place) in places.iter().enumerate().take(inner.unwrap_or(0)) {
            let Some((frame, module)) = place else { continue };
            if by_signal(at)
                || at.checked_sub(1).is_some_and(by_signal)
                || frame.kind != FrameKind::User
                || module.kind != ModuleKind::File
                || !checked.insert((frame.module, frame.offset))
            {
                continue;
            }
            let file = files.entry(frame.module).or_insert_with(|| File::open(&module.path).ok());
            let (Some(file), end) = (file, frame.offset + 1) else { continue };
            let mut code = [0; 8];
            if file.read_exact_at(&mut code, end.saturating_sub(8)).is_ok() && !ends_with_call(&code) {
                let (functions, found) = (seen.functions(stack), stack.walk.found(at));
                wrong.push(format!(
                    "{}+{end:#x} ({} by {found:?}, above {})",
                    module.path,
                    functions[at],
                    functions[at + 1]
                ));
            }
        }
    }
    (checked.len(), wrong)
}

fn prepare(dir: &std::path::Path) {
    let _ = std::fs::create_dir_all(dir);
    let function = |n: u32| {
        format!(
            "int g{n}(int*a,int b){{int s=0;for(int i=0;i<b;i++)for(int j=0;j<{n};j++)s+=a[i*j%{n}]*(i^j);return s?s*{n}:b;}}\n"
        )
    };
    std::fs::write(dir.join("big.c"), (9..400).map(function).collect::<String>()).expect("room");
    let function = |n: u32| {
        format!(
            "pub fn g{n}(a:&[u64])->Vec<String>{{let mut v:Vec<_>=a.iter().map(|x|x.wrapping_mul({n})).collect();v.sort();v.iter().map(|x|format!(\"{{x}}\")).collect()}}\n"
        )
    };
    std::fs::write(dir.join("big.rs"), (1..300).map(function).collect::<String>()).expect("room");
    std::fs::write(dir.join("Work.java"), WORK_JAVA).expect("room");
}

#[test]
fn stacks_of_real_programs_are_whole() {
    let Some(_machine) = machine() else { return };
    let seconds: u64 = std::env::var("SBERF_PROGRAM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let only = std::env::var("SBERF_PROGRAMS").unwrap_or_default();
    // Where everybody may go: postgres will not run as root.
    let dir = std::env::temp_dir().join(format!("sberf-programs-{}", std::process::id()));
    prepare(&dir);
    let (mut table, mut missed) = (String::new(), Vec::new());
    for program in PROGRAMS.iter().filter(|program| only.is_empty() || only.split(',').any(|name| name == program.name))
    {
        if !program.is_installed() {
            skipped(format!("{} is not installed", program.name));
            continue;
        }
        // Cold: nothing is known of the program when it starts.
        let recording = Recording::with(|options| options.interval = std::time::Duration::from_millis(250));
        program.cool();
        let began = now_ns();
        let running = program.start(&dir);
        sleep_ms(seconds * 1000);
        let stopped = running.stop();
        recording.wait_past(now_ns());
        let seen = recording.stop();
        let family = family(&seen, stopped);
        let tgids = processes(&seen, program.comms).intersection(&family).copied().collect();
        let after_1_s = began + 1_000_000_000;
        let (checked, wrong) = return_addresses(&seen, &tgids);
        for (on_cpu, what) in [(true, "on-CPU"), (false, "blocked")] {
            let all = ends(&seen, &tgids, on_cpu, 0);
            let ((later, _), (whole, count)) = (complete(&ends(&seen, &tgids, on_cpu, after_1_s)), complete(&all));
            table += &format!(
                "{:8} {what}: {whole:6.2} % of {count:5} whole, after 1 s {later:6.2} %; {all:?}\n",
                program.name
            );
            let (after, from_the_first) = program.bar;
            if count < FEW || later < after || whole < from_the_first {
                missed.push(format!("{} {what}", program.name));
            }
        }
        table += &format!("{:8} {} of {checked} return addresses wrong\n", program.name, wrong.len());
        if !wrong.is_empty() {
            missed.push(format!("{}: {:?}", program.name, &wrong[..wrong.len().min(5)]));
        }
    }
    let _ = std::fs::remove_dir_all(dir);
    println!("{table}");
    assert!(missed.is_empty(), "{missed:?}\n{table}");
}

/// Short lives: a thousand processes of 20 ms each. No warm-up of any of them, and they are gone when they are looked at.
///
/// `SBERF_BRIEF=300` makes them fewer.
#[test]
fn short_lived_processes_have_whole_stacks() {
    let Some(_machine) = machine() else { return };
    let program = compile("gcc", "brief", "brief", &["-O2", "-fomit-frame-pointer"]).expect("a C compiler");
    let count: u32 = std::env::var("SBERF_BRIEF").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let recording = Recording::with(|options| options.rate_hz = 499);
    for _ in 0..count {
        let status = Command::new(&program).status().expect("it runs");
        assert!(status.success());
    }
    recording.wait_past(now_ns());
    sleep_ms(1000);
    let seen = recording.stop();
    let tgids = processes(&seen, &["brief"]);
    let (mut all, mut whole, mut named, mut busy, mut others) = (0, 0, 0, 0, BTreeMap::new());
    for weight in seen.ticks().flat_map(|tick| &tick.stacks).filter(|weight| weight.lens == Lens::OnCpu) {
        let Some(stack) = seen.stack(weight.stack).filter(|_| tgids.contains(&weight.process.tgid)) else { continue };
        // Without user memory: before it became this program, or when it ends.
        if stack.end == StackEnd::KernelOnly {
            continue;
        }
        let (functions, is_whole) = (seen.functions(stack), stack.end == StackEnd::Complete);
        let has_names = is_whole && stack.frames.iter().all(|id| has_name(&seen, *id));
        all += weight.weight;
        whole += u64::from(is_whole) * weight.weight;
        named += u64::from(has_names) * weight.weight;
        // The rest is in the loader, which takes milliseconds where a virtual machine has to say what CPU that is, and in what asks
        // for the time.
        busy += u64::from(functions.contains(&"main") && functions.contains(&"busy")) * weight.weight;
        if !has_names {
            *others.entry(format!("{:?} {}", stack.end, functions.join(";"))).or_insert(0) += weight.weight;
        }
    }
    let mut others: Vec<(String, u64)> = others.into_iter().collect();
    others.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    others.truncate(8);
    let told = format!(
        "{} processes seen of {count}; {all} samples, {whole} whole, {named} of them named throughout, {busy} busy; others: {others:#?}",
        tgids.len()
    );
    println!("{told}");
    assert_eq!(tgids.len() as u32, count, "{told}");
    // As many as there are in 20 ms of each, by the clock that ends it.
    let due = f64::from(count) * 0.020 * 499.0;
    assert!((0.9..1.1).contains(&(all as f64 / due)), "{due} due: {told}");
    assert!(named * 100 >= all * 95, "{told}");
    assert!(busy * 100 >= all * 90, "{told}");
}

/// Whether a frame has the name of its function, if it is of user space.
fn has_name(seen: &Recorded, id: FrameId) -> bool {
    seen.place(id).is_some_and(|(frame, _)| frame.kind == FrameKind::Kernel)
        || seen.symbol(id).is_some_and(|symbol| !symbol.nameless)
}
