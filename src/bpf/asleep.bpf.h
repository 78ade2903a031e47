/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Stacks of threads that were asleep before we came, each taken once, by the iterator that adopts them.
 *
 * The kernel part is where they sleep. Memory of a task that is not current cannot be read here, so the user part is left to
 * user space: registers are sent, and it walks if the thread still waits where it did. Until then, and if it does not, the
 * stack says that its user part could not be read.
 */
#ifndef SBERF_ASLEEP_BPF_H
#define SBERF_ASLEEP_BPF_H

#include "stacks.bpf.h"

const volatile bool by_tables = false; /* user space can walk; set before load */

#define EOPNOTSUPP 95

struct asleep {
	struct frames_rec rec;
	struct unwind_snapshot snapshot;
};

/* One iterator runs at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct asleep);
} asleep SEC(".maps");

/* Has the user part walked. */
static __always_inline void send_registers(struct task_struct *task, struct asleep *a)
{
	struct unwind_snapshot *snap = &a->snapshot;
	struct frames_rec *rec = &a->rec;
	struct user_regs user;
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);

	if (!user_regs_of(regs, &user))
		return;
	snap->hash = mix(rec->hash, task->pid) | 2; /* a name of its own: others may wait at the same place for other reasons */
	snap->start_ns = rec->start_ns;
	snap->image = rec->image;
	snap->pc = user.pc;
	user_regs_copy((__u64)regs, snap->regs);
	snap->tgid = rec->tgid;
	snap->tid = task->pid;
	snap->bytes = 0;
	snap->outer_bytes = 0;
	snap->wide = 0;
	snap->taken = SNAPSHOT_ASLEEP;
	if (bpf_ringbuf_output(&unwind_snapshots, snap, sizeof(*snap), 0))
		return;
	rec->hash = snap->hash;
	rec->pending = 1;
}

/* Takes the stack of a thread that sleeps. Returns the hash that names it; HASH_NOT_TAKEN if it cannot be had. */
static __noinline __u64 take_asleep(struct task_struct *task)
{
	__u32 zero = 0;
	struct asleep *a = bpf_map_lookup_elem(&asleep, &zero);
	struct frames_rec *rec;
	bool user;
	__u64 n;
	long got;

	if (!a)
		return HASH_NOT_TAKEN;
	rec = &a->rec;
	begin_stack(rec, task, task->tgid, BPF_CORE_READ(task, group_leader, start_boottime));
	got = bpf_get_task_stack(task, rec->ips, MAX_FRAMES * sizeof(__u64), 0);
	if (got <= 0)
		return HASH_NOT_TAKEN;
	n = (__u64)got >> 3;
	BOUND(n, 2 * MAX_FRAMES - 1);
	rec->kernel = n;
	user = rec->has_mm && has_user_part(task);
	if (user && by_tables) {
		rec->by_table = 1;
		rec->stop = UNWIND_STOP_READ;
	} else if (user) {
		rec->user = -EOPNOTSUPP;
	}
	name_stack(rec, n);
	if (user && by_tables)
		send_registers(task, a);
	ship(rec, n);
	return rec->hash;
}

#endif
