// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * mappings: where code is mapped in a process, and the key under which the unwinder knows the file.
 *
 * Hooks    an iterator over the mappings of one process, run when its tables are to be made.
 * Keeps    nothing.
 * Costs    some 100 ns per mapping, when run.
 */
#include "kernel.h"
#include "sberf.h"
#include "vma.bpf.h"

SEC("iter/task_vma")
int mappings(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	struct unwind_mapping rec = {};

	if (!task || !vma || !(vma->vm_flags & VM_EXEC))
		return 0;
	rec.start = vma->vm_start;
	rec.end = vma->vm_end;
	rec.offset = vma->vm_pgoff << PAGE_SHIFT;
	rec.kind = MAPPED_FILE;
	if (!key_of(vma, &rec.key)) {
		rec.offset = 0;
		rec.kind = is_vdso(BPF_CORE_READ(task, mm), rec.start) ? MAPPED_VDSO : MAPPED_ANONYMOUS;
	} else {
		rec.magic = BPF_CORE_READ(vma, vm_file, f_inode, i_sb, s_magic);
	}
	bpf_seq_write(ctx->meta->seq, &rec, sizeof(rec));
	return 0;
}

/* So that the skeleton knows the types that only travel. */
struct unwind_mapping _unwind_mapping = {};
struct unwind_need _unwind_need = {};
struct unwind_snapshot _unwind_snapshot = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
