//! The oldest kernel that will do.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;

use crate::collect::host::Identity;

/// The youngest of what nothing here works without: the registers of a task, from Linux 5.15 on. Task storage in programs that
/// trace came with 5.11, `task_struct.__state` with 5.14.
const NEEDED: &str = "bpf_task_pt_regs";

/// Why nothing loads on this kernel, if that is its age; asked when a load has failed, for it takes some milliseconds.
pub fn too_old() -> Option<String> {
    let btf = Btf::from_vmlinux().ok()?;
    if btf.type_by_name::<Func<'_>>(NEEDED).is_some() {
        return None;
    }
    let kernel = Identity::read().kernel;
    Some(format!(
        "this kernel ({kernel}) is too old: sberf needs Linux 5.15, and unwind tables 6.1 (there is no {NEEDED} here)"
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_kernel_that_has_it_is_not_too_old() {
        // Without types nothing is known; with them, whatever runs these tests is newer than that.
        assert_eq!(super::too_old(), None);
    }
}
