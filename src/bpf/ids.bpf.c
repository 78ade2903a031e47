// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ids: which tasks are in sberf's own pid namespace, and by which ids they are known there. Loaded only where that is not the
 * first one: everything else on the kernel side knows tasks by their ids in the first.
 *
 * Hooks    tp_btf sched_process_fork; an iterator over all tasks, run now and then; `who` is run once by user space.
 * Emits    a record of each task that is born in there, before any other program can tell of it.
 * Costs    a ring reservation per birth in there, four reads per birth elsewhere.
 */
#include "kernel.h"
#include "sberf.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} born SEC(".maps");

struct home home = {};

/* The number of a task at that level, which must not be below its own. */
static __always_inline struct upid *number_at(struct pid *pid, __u32 level)
{
	return (void *)&pid->numbers[0] + level * bpf_core_type_size(struct upid);
}

/* False if it is elsewhere. */
static __always_inline bool fill(struct id_rec *rec, struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = home.level;
	struct upid *own;

	if (!pid || BPF_CORE_READ(pid, level) < level)
		return false;
	own = number_at(pid, level);
	if ((__u64)BPF_CORE_READ(own, ns) != home.space)
		return false;
	rec->start_ns = BPF_CORE_READ(task, start_boottime);
	rec->tid = BPF_CORE_READ(task, pid);
	rec->own = BPF_CORE_READ(own, nr);
	own = number_at(pid, home.shown);
	rec->shown = BPF_CORE_READ(own, nr);
	rec->pad = 0;
	return true;
}

/* Attached nowhere: user space runs it, on its own thread. */
SEC("raw_tp")
int who(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid *own;

	home.tgid = BPF_CORE_READ(task, tgid);
	home.level = BPF_CORE_READ(pid, level);
	own = number_at(pid, home.level);
	home.space = (__u64)BPF_CORE_READ(own, ns);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_birth, struct task_struct *parent, struct task_struct *child)
{
	struct id_rec found, *rec;

	if (!fill(&found, child))
		return 0;
	rec = bpf_ringbuf_reserve(&born, sizeof(*rec), 0);
	if (!rec) {
		__sync_fetch_and_add(&home.lost, 1);
		return 0;
	}
	*rec = found;
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("iter/task")
int ids(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct id_rec rec;

	if (task && fill(&rec, task))
		bpf_seq_write(ctx->meta->seq, &rec, sizeof(rec));
	return 0;
}

struct id_rec _id_rec = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
