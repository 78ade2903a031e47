// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * life: processes that begin, become another program, and end.
 *
 * Hooks    tp_btf sched_process_fork, sched_process_exec, sched_process_exit.
 * Emits    one record each, on a ring of its own that bulk data cannot fill.
 * Costs    a ring reservation per event.
 */
#include "kernel.h"
#include "sberf.h"
#include "shared.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} life SEC(".maps");

static __always_inline void tell(struct task_struct *task, __u32 kind, __u32 parent, __u32 status)
{
	struct life_rec *rec = bpf_ringbuf_reserve(&life, sizeof(*rec), 0);

	if (!rec) {
		lose(LOSS_LIFE_RING, 1);
		return;
	}
	rec->at_ns = bpf_ktime_get_ns();
	rec->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	rec->tgid = task->tgid;
	rec->kind = kind;
	rec->parent = parent;
	rec->status = status;
	__builtin_memcpy(rec->comm, task->comm, sizeof(rec->comm));
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	__u64 began = bpf_ktime_get_ns();

	if (child->pid == child->tgid)
		tell(child, LIFE_FORK, parent->tgid, 0);
	timed(child->pid == child->tgid ? PROG_FORK : PROG_THREAD, began, true);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	__u64 began = bpf_ktime_get_ns();

	tell(task, LIFE_EXEC, 0, 0);
	timed(PROG_EXEC, began, true);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	__u64 began = bpf_ktime_get_ns();
	__u32 status;

	if (!signal || signal->live.counter)
		return 0;
	status = signal->group_exit_code;
	if (!status)
		status = BPF_CORE_READ(task, group_leader, exit_code);
	tell(task, LIFE_EXIT, 0, status);
	timed(PROG_EXIT, began, true);
	return 0;
}

struct life_rec _life_rec = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
