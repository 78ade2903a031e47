//! Whether the kernel's own records are as the unwinder knows them: the tree in which it keeps the mappings of a process.

use libbpf_rs::btf::types::{Array, Struct};
use libbpf_rs::btf::{Btf, BtfType};

/// Nodes of the tree, their arrays, and how many elements the unwinder takes each to have (`vma_at` in `unwind.bpf.h`).
const NODES: [(&str, &str, usize); 2] = [("maple_range_64", "pivot", 15), ("maple_arange_64", "pivot", 9)];

/// Compares this kernel's.
///
/// # Errors
/// Why it cannot be walked here, for people.
pub fn check() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("tables are made for x86-64 only so far".to_owned());
    }
    let btf = Btf::from_vmlinux().map_err(|error| format!("reading the kernel's types failed: {error}"))?;
    for (node, array, expected) in NODES {
        match elements(&btf, node, array) {
            None => {
                let what = "this kernel does not keep mappings in a maple tree, as kernels from 6.1 on do";
                return Err(what.to_owned());
            }
            Some(found) if found != expected => {
                let what = format!("a node of the kernel's tree of mappings has {found} pivots, not {expected}");
                return Err(what);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn elements(btf: &Btf<'_>, node: &str, array: &str) -> Option<usize> {
    let node: Struct<'_> = btf.type_by_name(node)?;
    let member = node.iter().find(|member| member.name.is_some_and(|name| name == array))?;
    let member: BtfType<'_> = btf.type_by_id(member.ty)?;
    Some(Array::try_from(member).ok()?.capacity())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_kernel_has() {
        let Ok(btf) = Btf::from_vmlinux() else {
            eprintln!("skipped: no BTF here");
            return;
        };
        assert_eq!(elements(&btf, "task_struct", "comm"), Some(16));
        assert_eq!(elements(&btf, "task_struct", "pid"), None);
        assert_eq!(elements(&btf, "no_such_struct", "pid"), None);
    }
}
