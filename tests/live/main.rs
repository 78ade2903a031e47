//! The live collector against the truth: workloads whose answer is known, procfs where it keeps the same counter, and
//! libbpf-tools over the same interval.
//!
//! The workloads are C programs under `tests/fixtures`, each saying at its head what must be seen. The tests share one machine,
//! so they run one at a time (see [`machine`]); they need root. Where that, or a tool or a device, is missing, a test says
//! `skipped:` and why on stderr. That BPF works and sberf does not is a failure, never a skip.
//!
//! Other work on the machine must not fail a test. So what is compared is counts and ratios, a workload's own clock, or a counter
//! of the kernel read before and after; where a tolerance is wider than the table asks, a comment says why.

mod asleep;
mod badday;
mod checks;
mod clock;
mod compile;
mod confined;
mod cost;
mod cpu;
mod crowd;
mod depth;
mod disk;
mod dwarf;
mod exec;
mod fallback;
mod governor;
mod hooks;
mod life;
mod machine;
mod names;
mod namespaces;
mod places;
mod pressure;
mod privileges;
mod procfs;
mod programs;
mod recording;
mod reused;
mod sleepers;
mod stacks;
mod tools;
mod unprivileged;
mod verifier;
mod waits;
mod wide;
mod workload;
