/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a mapping of a process is of. */
#ifndef SBERF_VMA_BPF_H
#define SBERF_VMA_BPF_H

#define PAGE_SHIFT 12 /* unit of vm_pgoff */

/* Names the file behind a mapping. False: there is none. */
static __always_inline bool key_of(struct vm_area_struct *vma, struct unwind_key *key)
{
	struct file *file = BPF_CORE_READ(vma, vm_file);
	struct inode *inode;
	__u64 bytes;

	if (!file)
		return false;
	inode = BPF_CORE_READ(file, f_inode);
	bytes = BPF_CORE_READ(inode, i_size);
	key->ino = BPF_CORE_READ(inode, i_ino);
	key->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	/* Its length, too: a number of an inode may be given again, and not every file system counts how often. */
	key->generation = BPF_CORE_READ(inode, i_generation) ^ bytes ^ bytes >> 32;
	return true;
}

static __always_inline bool is_vdso(struct mm_struct *mm, __u64 start)
{
	return start == (__u64)BPF_CORE_READ(mm, context.vdso);
}

#endif
