// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * oncpu: what code runs.
 *
 * Hooks    one perf event per CPU: hardware cycles where a PMU answers, the cpu-clock timer otherwise; idle excluded.
 * Keeps    samples by process and stack; the frames of a stack travel once.
 * Costs    two stack walks and one or two map operations per sample.
 */
#include "kernel.h"
#include "sberf.h"
#include "shared.bpf.h"
#include "stacks.bpf.h"

/* Set before load. */
const volatile __u32 self_tgid = 0;
const volatile bool only_some = false; /* sample only processes in `chosen` */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} chosen SEC(".maps");

/* Samples on each CPU; only grows. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sampled SEC(".maps");

/* What earlier samples of each CPU counted for and was less than one, in parts of WEIGHT_ONE. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} parts SEC(".maps");

/* A stack counts for whole samples; what is left over goes to the next one, so that their sum is what was asked for. */
static __always_inline __u64 weight_of(__u32 weight)
{
	__u32 zero = 0;
	__u64 *part = bpf_map_lookup_elem(&parts, &zero), sum;

	if (!part)
		return weight / WEIGHT_ONE;
	sum = *part + weight;
	*part = sum % WEIGHT_ONE;
	return sum / WEIGHT_ONE;
}

static __always_inline int sampled_here(struct bpf_perf_event_data *ctx, enum walk_by how)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct flip *f = current_flip();
	__u32 tgid = task->tgid, zero = 0;
	__u64 *count, began = bpf_ktime_get_ns();

	if (!f->gen || !task->pid || tgid == self_tgid)
		return 0;
	if (only_some && !bpf_map_lookup_elem(&chosen, &tgid))
		return 0;
	count = bpf_map_lookup_elem(&sampled, &zero);
	if (count)
		(*count)++;
	struct stack_key key = {
		.start_ns = BPF_CORE_READ(task, group_leader, start_boottime), .tgid = tgid, .lens = ST_ON_CPU,
	};
	key.hash = take_stack(ctx, task, tgid, key.start_ns, !was_in_user(ctx), 0, f->gen, how);
	count_stack(&key, weight_of(f->sample_weight), 1, f->gen);
	timed(PROG_SAMPLE, began, true);
	return 0;
}

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	return sampled_here(ctx, BY_TABLES);
}

SEC("perf_event")
int sample_fp(struct bpf_perf_event_data *ctx)
{
	return sampled_here(ctx, BY_FRAME_POINTERS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
