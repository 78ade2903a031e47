//! Which kernels will not do, and why.

use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::btf::{Btf, BtfKind, BtfType};

use crate::collect::host::Identity;

/// The youngest of what nothing here works without: the registers of a task, from Linux 5.15 on. Task storage in programs that
/// trace came with 5.11, `task_struct.__state` with 5.14.
const NEEDED: &str = "bpf_task_pt_regs";

/// Why nothing loads on this kernel, if that is its age; asked when a load has failed, for it takes some milliseconds.
pub fn why_not() -> Option<String> {
    let btf = Btf::from_vmlinux().ok()?;
    let kernel = Identity::read().kernel;
    if btf.type_by_name::<Func<'_>>(NEEDED).is_some() {
        return switch_is_odd(&btf).then(|| {
            format!(
                "this kernel ({kernel}) has the arguments of sched_switch in an order that only the first of Linux 5.18 had: a later \
                 one will do"
            )
        });
    }
    Some(format!(
        "this kernel ({kernel}) is too old: sberf needs Linux 5.15, and unwind tables 6.1 (there is no {NEEDED} here)"
    ))
}

/// Commit fa2c3254d7cf put the state of the task that leaves before the tasks, 9c2136be0878 put it behind them.
fn switch_is_odd(btf: &Btf<'_>) -> bool {
    // Of (context, preempt, prev, next, …).
    argument(btf, "btf_trace_sched_switch", 2) == Some(BtfKind::Int)
}

/// What kind of thing an argument of a trace point is, by its type of that name.
fn argument(btf: &Btf<'_>, hook: &str, number: usize) -> Option<BtfKind> {
    let pointer: BtfType<'_> = btf.type_by_name(hook)?;
    let proto = FuncProto::try_from(pointer.skip_mods_and_typedefs().next_type()?).ok()?;
    let argument: BtfType<'_> = btf.type_by_id(proto.iter().nth(number)?.ty)?;
    Some(argument.skip_mods_and_typedefs().kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_has_it_is_not_too_old() {
        // Without types nothing is known; with them, whatever runs these tests is newer than that.
        assert_eq!(why_not(), None);
    }

    #[test]
    fn arguments_are_told_by_their_kind() {
        let Ok(btf) = Btf::from_vmlinux() else {
            eprintln!("skipped: no BTF here");
            return;
        };
        assert_eq!(argument(&btf, "btf_trace_sched_switch", 1), Some(BtfKind::Int), "preempt");
        assert_eq!(argument(&btf, "btf_trace_sched_switch", 2), Some(BtfKind::Ptr), "prev");
        assert_eq!(argument(&btf, "btf_trace_sched_switch", 9), None);
        assert_eq!(argument(&btf, "btf_trace_of_nothing", 1), None);
    }
}
