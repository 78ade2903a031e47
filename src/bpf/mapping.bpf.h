/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where a walk stands: the executable mapping around an address, and what is known of the file behind it. Found in the kernel's own tree of
 * mappings, and kept from walk to walk.
 */
#ifndef SBERF_MAPPING_BPF_H
#define SBERF_MAPPING_BPF_H

#include "walk.bpf.h"
#include "vma.bpf.h"

#define MAPLE_LEVELS 8

/*
 * Functions that are not static are verified once, for any argument; inlined into the loop, they would be for each of their
 * callers' states.
 */

/*
 * The mapping at that address, from the maple tree of the address space, which changes under our eyes: what is found is
 * looked at again by its own fields. The layout of a node is known: user space has compared it with the kernel's.
 */
__noinline __u64 vma_at(struct walk *w, __u64 at)
{
	struct mm_struct *space;
	__u64 entry, node;
	__u32 level, i, type, pivots, slots;

	if (!w)
		return 0;
	space = (void *)w->mm;
	entry = (__u64)BPF_CORE_READ(space, mm_mt.ma_root);
	if ((entry & 3) != 2 || entry <= 4096) /* the only mapping, or none */
		return 0;
	/* Unrolled: clang may lay this loop out so that it falls through into its own head, which 6.1's verifier takes for endless. */
#pragma unroll
	for (level = 0; level < MAPLE_LEVELS; level++) {
		type = entry >> 3 & 15;
		node = entry & ~255ull;
		if (type == bpf_core_enum_value(enum maple_type, maple_arange_64)) {
			pivots = 9;
			slots = bpf_core_field_offset(struct maple_arange_64, slot);
		} else {
			pivots = 15;
			slots = bpf_core_field_offset(struct maple_range_64, slot);
		}
		if (bpf_probe_read_kernel(w->pivot, sizeof(w->pivot), &((struct maple_range_64 *)node)->pivot))
			return 0;
		for (i = 0; i < 15; i++)
			if (i >= pivots || w->pivot[i] >= at)
				break;
		if (bpf_probe_read_kernel(&entry, sizeof(entry), (void *)(node + slots + i * sizeof(entry))))
			return 0;
		if (type <= bpf_core_enum_value(enum maple_type, maple_leaf_64))
			return entry;
	}
	return 0;
}

/* Asks for the table of a file, if nobody has. */
static __always_inline void want_file(struct walk *w, struct unwind_key *key)
{
	__u32 asked = UNWIND_FILE_ASKED;

	if (bpf_map_update_elem(&unwind_keys, key, &asked, BPF_NOEXIST))
		return;
	w->need.key = *key;
	w->need.file = UNWIND_FILE_ASKED;
	w->ask = 1;
}

/* What is known of the file behind a mapping. */
static __always_inline void cover(struct walk *w, struct memo *memo, struct vm_area_struct *vma)
{
	struct mm_struct *space = (void *)w->mm;
	struct unwind_key key = {};
	struct unwind_file *file;
	__u32 *index, at;

	memo->index = 0;
	memo->covered = COVERED_ANONYMOUS;
	if (!key_of(vma, &key)) {
		if (!is_vdso(space, memo->start))
			return;
		memo->bias = -memo->start;
	}
	index = bpf_map_lookup_elem(&unwind_keys, &key);
	if (!index || *index == UNWIND_FILE_ASKED) {
		memo->covered = COVERED_NOT_YET;
		if (!index)
			want_file(w, &key);
		return;
	}
	at = *index;
	memo->covered = COVERED_NEVER;
	file = bpf_map_lookup_elem(&unwind_files, &at);
	if (at == UNWIND_FILE_NONE || !file)
		return;
	memo->file = *file;
	memo->index = at;
	memo->covered = COVERED;
	if (file->used != (__u32)w->gen)
		file->used = w->gen;
}

/*
 * Whether what is remembered of a mapping from a walk before is still all there is to know: the mapping is the same, but a table may have
 * come or gone.
 */
static __always_inline bool holds(struct walk *w, struct memo *memo)
{
	struct unwind_file *file;
	__u32 index = memo->index;

	if (memo->covered == COVERED_ANONYMOUS)
		return true;
	if (memo->covered != COVERED)
		return false;
	file = bpf_map_lookup_elem(&unwind_files, &index);
	if (!file || file->generation != memo->file.generation)
		return false;
	if (file->used != (__u32)w->gen)
		file->used = w->gen;
	return true;
}

/*
 * Finding a mapping and the file behind it is a third of what a walk costs: most of it lies where nobody else has been for a while.
 * Programs seldom map anything from one sample to the next, and their code less often than anything else.
 */
static __always_inline void keep_memos(struct walk *w, __u64 space)
{
	__u32 number = 0, known = mappings_number((void *)w->mm, &number), i;
	bool same = known && w->memos_hold && w->memos_at == number;
	struct memo *memo;

	for (i = 0; i < MEMOS; i++) {
		memo = &w->memo[i];
		/* One that the last walk did not come to is as old as it was: what was to be compared still is. */
		if (!same)
			memo->kept = KEPT_TO_COMPARE;
		else if (memo->kept == KEPT_NOT)
			memo->kept = KEPT_AS_IT_IS;
		if (w->memos_of != space)
			memo->end = 0;
	}
	w->memos_of = space;
	w->memos_at = number;
	w->memos_hold = known;
}

/* The memo of an executable mapping around that address; MEMOS if there is none. */
static __always_inline __u32 memo_at(struct walk *w, __u64 at)
{
	__u32 i;

	for (i = 0; i < MEMOS; i++)
		if (at >= w->memo[i].start && at < w->memo[i].end)
			break;
	return i;
}

/* Which memo is that of the executable mapping at that address; -1 if none is there. */
__noinline int mapping_at(struct walk *w, __u64 at)
{
	struct vm_area_struct *vma;
	__u64 range[2] = {}, i;
	struct memo *memo;
	__u32 number;

	if (!w)
		return -1;
	i = memo_at(w, at);
	if (i < MEMOS) {
		memo = &w->memo[i];
		if (memo->kept == KEPT_NOT)
			return i;
		if (memo->kept == KEPT_AS_IT_IS && holds(w, memo)) {
			memo->kept = KEPT_NOT;
			return i;
		}
	} else {
		i = w->next_memo++;
	}
	BOUND(i, MEMOS - 1);
	memo = &w->memo[i];
	vma = (void *)vma_at(w, at);
	if (!vma)
		return -1;
	/* Neighbours: vm_start, vm_end. */
	bpf_probe_read_kernel(range, sizeof(range), &vma->vm_start);
	if (at < range[0] || at >= range[1] || (__u64)BPF_CORE_READ(vma, vm_mm) != w->mm ||
	    !(BPF_CORE_READ(vma, vm_flags) & VM_EXEC))
		return -1;
	number = mapping_number(vma);
	if (memo->vma == (__u64)vma && memo->start == range[0] && memo->end == range[1] && memo->number == number &&
	    number != NO_NUMBER && holds(w, memo)) {
		memo->kept = KEPT_NOT;
		return i;
	}
	memo->vma = (__u64)vma;
	memo->start = range[0];
	memo->end = range[1];
	memo->number = number;
	memo->kept = KEPT_NOT;
	memo->bias = (BPF_CORE_READ(vma, vm_pgoff) << PAGE_SHIFT) - range[0];
	cover(w, memo, vma);
	return i;
}

#endif
