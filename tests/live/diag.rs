use crate::{machine::*, recording::*, workload::*};
#[test]
fn diag_spans() {
    let Some(_m) = machine() else { return };
    let mut hogs = Workload::prepare("hogs", &["3", &last_cpu().to_string(), "3"]);
    let recording = Recording::start();
    hogs.run();
    recording.wait_past(hogs.number("end_ns"));
    let seen = recording.stop();
    let mut last = 0;
    for b in &seen.batches {
        match b {
            sberf::tick::Batch::Tick(t) => {
                eprintln!(
                    "tick {} {} ms late {} ms threads {} stacks {} cost {:?} losses {:?}",
                    t.span.start_ns,
                    t.span.len_ns() / 1000000,
                    t.cost.late_ns / 1000000,
                    t.threads.len(),
                    t.stacks.len(),
                    t.cost,
                    t.losses
                );
                let _ = last;
                last = t.span.end_ns;
            }
            sberf::tick::Batch::Names(n) => eprintln!("names {} symbols", n.symbols.len()),
        }
    }
}

#[test]
fn diag_mixed() {
    let Some(_m) = machine() else { return };
    let mut mixed = Workload::prepare("mixed", &[]);
    mixed.run();
    let recording = Recording::start();
    sleep_ms(4000);
    recording.wait_past(now_ns());
    let seen = recording.stop();
    for b in &seen.batches {
        match b {
            sberf::tick::Batch::Tick(t) => {
                eprintln!(
                    "tick {} {} ms late {} ms threads {} stacks {} losses {:?}",
                    t.span.start_ns,
                    t.span.len_ns() / 1000000,
                    t.cost.late_ns / 1000000,
                    t.threads.len(),
                    t.stacks.len(),
                    t.losses
                );
            }
            sberf::tick::Batch::Names(n) => eprintln!("names {} symbols", n.symbols.len()),
        }
    }
}
#[test]
fn diag_split() {
    let Some(_m) = machine() else { return };
    let mut w = Workload::prepare("split", &["3"]);
    let recording = Recording::with(|o| {
        o.rate_hz = 997;
    });
    w.run();
    recording.wait_past(now_ns());
    recording.wait_names(w.pid());
    let seen = recording.stop();
    for b in &seen.batches {
        match b {
            sberf::tick::Batch::Tick(t) => {
                eprintln!(
                    "tick {} {} ms late {} ms threads {} stacks {} losses {:?}",
                    t.span.start_ns,
                    t.span.len_ns() / 1000000,
                    t.cost.late_ns / 1000000,
                    t.threads.len(),
                    t.stacks.len(),
                    t.losses
                );
            }
            sberf::tick::Batch::Names(n) => eprintln!("names {} symbols", n.symbols.len()),
        }
    }
    eprintln!("{}", folded_on_cpu(&seen, w.pid()));
}
#[test]
fn diag_misses() {
    let Some(_m) = machine() else { return };
    let mut w = Workload::prepare("stacks", &["20000"]);
    let recording = Recording::with(|o| {
        o.interval = std::time::Duration::from_secs(5);
    });
    w.run();
    for e in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
        let p = e.unwrap().path();
        if let Ok(s) = std::fs::read_to_string(&p) {
            if s.contains("recursion_misses") {
                eprintln!(
                    "{}",
                    s.lines()
                        .filter(|l| !l.starts_with("pos")
                            && !l.starts_with("flags")
                            && !l.starts_with("mnt")
                            && !l.starts_with("ino"))
                        .collect::<Vec<_>>()
                        .join(" ")
                );
            }
        }
    }
    recording.wait_past(now_ns());
    let seen = recording.stop();
    let tid = w.threads()[0].0;
    for (tick, t) in &seen.thread(tid) {
        eprintln!(
            "{} {} {:?} vol {} invol {} wake {} runq {} off {} slice {} mig {} losses {:?} {:?}",
            w.number("waits"),
            tick.span.start_ns,
            t.now,
            t.voluntary,
            t.involuntary,
            t.wakeups,
            t.runq.count(),
            t.off_cpu.count(),
            t.slice.count(),
            t.migrations,
            tick.losses,
            t.ns
        );
    }
}
