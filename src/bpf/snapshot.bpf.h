/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Stacks whose tables are not there yet: kept as they are, so that user space can walk them when it has made the tables. So many a
 * second at most, on each CPU.
 */
#ifndef SBERF_SNAPSHOT_BPF_H
#define SBERF_SNAPSHOT_BPF_H

#include "unwind.bpf.h"

/* Set before load. */
const volatile __u32 snapshots_per_period = 6; /* and CPU */

/* Whether the stacks of an object are those of threads that block. */
#ifndef OF_BLOCKED
#define OF_BLOCKED 0
#endif

#define SNAPSHOT_PERIOD_NS 100000000ull
/*
 * Of so many at the most they are saved: a compiler that is read from the disk waits a hundred times at as many places while its tables
 * are being made, and all at once.
 */
#define SNAPSHOT_PERIODS 8
#define SNAPSHOT_PART 4096 /* bytes copied at once */
#define SNAPSHOT_SMALL 128

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} unwind_snapshots SEC(".maps");

static __always_inline void budget(struct walk *w)
{
	__u64 now = bpf_ktime_get_ns(), since = now - w->period;

	if (since < SNAPSHOT_PERIOD_NS)
		return;
	w->snapshots = refill(w->snapshots, snapshots_per_period, SNAPSHOT_PERIODS, since, SNAPSHOT_PERIOD_NS);
	w->period = now;
}

/*
 * Up to where the stack of the current thread reaches: that of the first one lies below its arguments, and of any other one C
 * libraries have the thread pointer point to what they keep of it, above its stack. 0: not known.
 *
 * Not where the mapping of SP ends: that may be a signal's stack, and what is mapped above may have become one with it.
 */
static __always_inline __u64 end_of_stack(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 end;

	if (BPF_CORE_READ(task, pid) == BPF_CORE_READ(task, tgid))
		end = BPF_CORE_READ(task, mm, start_stack);
	else
		end = thread_pointer(task);
	return (end + SNAPSHOT_PART - 1) & -(__u64)SNAPSHOT_PART;
}

/* Copies what lies from SP on, up to where it can be read; in parts, and the last in small ones, for it ends somewhere. */
static __always_inline void copy_inner(struct unwind_snapshot_rec *all)
{
	struct unwind_snapshot *snap = &all->snapshot;
	__u64 at = snap->regs[SP_NUMBER], i, bytes, into;

	for (i = 0; i < SNAPSHOT_BYTES / SNAPSHOT_PART; i++)
		if (bpf_probe_read_user(&all->stack[i * SNAPSHOT_PART], SNAPSHOT_PART, (void *)(at + i * SNAPSHOT_PART)))
			break;
	/* By way of memory: the verifier need not look at the rest once for each number of parts. */
	snap->bytes = i * SNAPSHOT_PART;
	barrier();
	bytes = *(volatile __u32 *)&snap->bytes;
	for (i = 0; i < SNAPSHOT_PART / SNAPSHOT_SMALL; i++) {
		if (bytes > SNAPSHOT_BYTES - SNAPSHOT_SMALL)
			break;
		into = bytes;
		BOUND(into, SNAPSHOT_BYTES - SNAPSHOT_SMALL); /* a mask: it counts small parts, and 6.1 forgets what was compared */
		if (bpf_probe_read_user(&all->stack[into], SNAPSHOT_SMALL, (void *)(at + bytes)))
			break;
		bytes += SNAPSHOT_SMALL;
	}
	snap->bytes = bytes;
}

/* Copies what lies below `end`, downwards as far as it was ever touched. */
static __always_inline void copy_outer(struct unwind_wide_rec *both, __u64 end)
{
	struct unwind_snapshot *snap = &both->rec.snapshot;
	__u64 i;

	snap->wide = 1;
	snap->outer_end = end;
	for (i = 1; i <= SNAPSHOT_BYTES / SNAPSHOT_PART; i++)
		if (bpf_probe_read_user(&both->outer[SNAPSHOT_BYTES - i * SNAPSHOT_PART], SNAPSHOT_PART,
					(void *)(end - i * SNAPSHOT_PART)))
			break;
	snap->outer_bytes = (i - 1) * SNAPSHOT_PART;
}

/* The stack gets a name of its own, by which it is completed. */
static __always_inline void describe(struct walk *w, struct frames_rec *rec, struct unwind_snapshot *snap)
{
	w->snapshots--;
	rec->hash = mix(rec->hash, w->period + w->snapshots) | 2;
	rec->pending = 1;
	snap->hash = rec->hash;
	snap->start_ns = rec->start_ns;
	snap->image = rec->image;
	snap->tgid = rec->tgid;
	snap->tid = w->tid;
	snap->taken = OF_BLOCKED ? SNAPSHOT_BLOCKS : SNAPSHOT_SAMPLED;
	snap->pc = user_pc(w->regs);
	user_regs_copy(w->regs, snap->regs);
	snap->outer_end = 0;
	snap->outer_bytes = 0;
	snap->wide = 0;
}

/*
 * Keeps what is needed to walk this stack when its tables are there: registers and what lies above the stack pointer. Where that
 * does not reach the end, what lies there as well: rustc spends its time above one frame of 527 KiB, and 50 KiB below its end.
 */
__noinline int snapshot(struct walk *w, struct frames_rec *rec)
{
	struct unwind_snapshot_rec *all;
	struct unwind_wide_rec *both;
	__u64 end;

	if (!w || !rec)
		return 0;
	budget(w);
	if (!w->snapshots)
		return 0;
	end = end_of_stack();
	if (end > SNAPSHOT_BYTES && (end < w->start_sp || end - w->start_sp > SNAPSHOT_BYTES)) {
		both = bpf_ringbuf_reserve(&unwind_snapshots, sizeof(*both), 0);
		if (!both)
			return 0;
		describe(w, rec, &both->rec.snapshot);
		copy_inner(&both->rec);
		copy_outer(both, end);
		bpf_ringbuf_submit(both, BPF_RB_FORCE_WAKEUP);
		return 1;
	}
	all = bpf_ringbuf_reserve(&unwind_snapshots, sizeof(*all), 0);
	if (!all)
		return 0;
	describe(w, rec, &all->snapshot);
	copy_inner(all);
	bpf_ringbuf_submit(all, BPF_RB_FORCE_WAKEUP);
	return 1;
}

#endif
