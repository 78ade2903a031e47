// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * numa: threads that the kernel's NUMA balancing moves between nodes.
 *
 * Hooks    tp_btf sched_move_numa, sched_swap_numa.
 * Keeps    a count per pair of nodes, only growing.
 * Costs    nothing to speak of: such moves are rare.
 */
#include "kernel.h"
#include "sberf.h"
#include "shared.bpf.h"

#define MAX_CPUS 1024

/* Set before load. */
const volatile __u16 node_of_cpu[MAX_CPUS] = {}; /* its place among the nodes */
const volatile __u32 nodes = 1;

/* From × to: `nodes` times `nodes`, set before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} moves SEC(".maps");

static __always_inline void moved(__u64 from_cpu, __u64 to_cpu)
{
	__u64 began = bpf_ktime_get_ns();
	__u32 from, to, index;
	__u64 *count;

	if (from_cpu >= MAX_CPUS || to_cpu >= MAX_CPUS) {
		lose(LOSS_NODE, 1);
		return;
	}
	BOUND(from_cpu, MAX_CPUS - 1);
	BOUND(to_cpu, MAX_CPUS - 1);
	from = node_of_cpu[from_cpu];
	to = node_of_cpu[to_cpu];
	index = from * nodes + to;
	count = bpf_map_lookup_elem(&moves, &index);
	if (count)
		__sync_fetch_and_add(count, 1);
	timed(PROG_NUMA, began, true);
}

SEC("tp_btf/sched_move_numa")
int BPF_PROG(move_numa, struct task_struct *task, int from_cpu, int to_cpu)
{
	moved(from_cpu, to_cpu);
	return 0;
}

SEC("tp_btf/sched_swap_numa")
int BPF_PROG(swap_numa, struct task_struct *from, int from_cpu, struct task_struct *to, int to_cpu)
{
	moved(from_cpu, to_cpu);
	moved(to_cpu, from_cpu);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
