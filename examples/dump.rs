//! Development aid: prints live ticks in short.
use sberf::collect::{
    Source,
    live::{Live, LiveOptions},
};
use sberf::tick::*;
fn main() {
    let t0 = std::time::Instant::now();
    let mut live = Live::start(LiveOptions { include_self: false, ..Default::default() }).unwrap();
    eprintln!("start {:?} {:?}", t0.elapsed(), live.session());
    let (_tx, rx) = crossbeam_channel::unbounded();
    let n: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(3);
    let filter: Option<u32> = std::env::args().nth(2).and_then(|a| a.parse().ok());
    let mut seen = 0;
    let (mut syms, mut frames, mut stacks) =
        (std::collections::HashMap::new(), std::collections::HashMap::new(), std::collections::HashMap::new());
    while seen < n {
        match live.next(&rx).unwrap().unwrap() {
            Batch::Names(n) => {
                for (f, s) in n.symbols {
                    syms.insert(f, s.function);
                }
                for (f, x) in n.frames {
                    frames.insert(f, x);
                }
                for (s, x) in n.stacks {
                    stacks.insert(s, x);
                }
            }
            Batch::Tick(t) => {
                seen += 1;
                let n = t.names;
                for (f, s) in n.symbols {
                    syms.insert(f, s.function);
                }
                for (f, x) in n.frames {
                    frames.insert(f, x);
                }
                for (s, x) in n.stacks {
                    stacks.insert(s, x);
                }
                println!(
                    "== span {} ms, {} threads, {} stacks, {} events, losses {:?} late {} us",
                    t.span.len_ns() as f64 / 1e6,
                    t.threads.len(),
                    t.stacks.len(),
                    t.events.len(),
                    t.losses,
                    t.cost.late_ns / 1000
                );
                let bad = t
                    .threads
                    .iter()
                    .filter(|th| th.now.is_some() && th.ns.total().abs_diff(t.span.len_ns()) > 5000)
                    .count();
                println!("   threads whose states do not sum to the span: {bad}");
                for th in
                    t.threads.iter().filter(|th| filter.map_or(th.ns.on_cpu() > 1_000_000, |p| th.process.tgid == p))
                {
                    println!(
                        "{:6} {:16} {:?} now {:?} sys {:?} vol {} inv {} wk {} runq {} p99 {:?} off {} slice {}",
                        th.key.tid,
                        th.comm,
                        th.ns.0.iter().map(|n| n / 1000).collect::<Vec<_>>(),
                        th.now,
                        th.syscall,
                        th.voluntary,
                        th.involuntary,
                        th.wakeups,
                        th.runq.count(),
                        th.runq.quantile(0.99),
                        th.off_cpu.count(),
                        th.slice.count()
                    );
                }
                for d in &t.disks {
                    println!(
                        "{:?}",
                        (
                            &d.name,
                            d.in_flight,
                            d.ops
                                .iter()
                                .map(|o| (o.requests, o.bytes, o.queued.quantile(0.5), o.device.quantile(0.5)))
                                .collect::<Vec<_>>()
                        )
                    );
                }
                for c in &t.cpus {
                    println!(
                        "cpu {} switches {} runq {} max {} samples {}",
                        c.id,
                        c.switches,
                        c.runq.count(),
                        c.runq.max,
                        c.samples
                    );
                }
                let mut st = t.stacks.clone();
                st.sort_by_key(|w| std::cmp::Reverse(w.weight));
                st.retain(|w| filter.map_or(true, |p| w.process.tgid == p));
                for w in st.iter().take(6) {
                    let s: &Stack = &stacks[&w.stack];
                    println!(
                        "  {} {:?} {} x{} {:?}: {}",
                        w.process.tgid,
                        w.lens,
                        w.weight,
                        w.count,
                        s.end,
                        s.frames
                            .iter()
                            .map(|f| syms.get(f).cloned().unwrap_or_else(|| format!("{:x}", frames[f].offset)))
                            .collect::<Vec<_>>()
                            .join(";")
                    );
                }
            }
        }
    }
}
