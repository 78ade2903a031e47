/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The time of a switch and of a wakeup, without a reading of the clock for each.
 *
 * Reading CLOCK_MONOTONIC is up to half of what these hooks cost. Shortly before them the scheduler reads a clock of its own, `rq->clock`.
 * Between that and the hook lie some 300 ns at a wakeup and 500 at a switch, which on a CPU that is busy switching vary by
 * a tenth of a microsecond. So there CLOCK_MONOTONIC is read every CLOCK_EVERY_NS, which tells how far apart the two are; in between
 * that is added to `rq->clock`. Where fewer events come, each reads the clock.
 *
 * The clock is also read
 * - at a switch for which the scheduler did not read its own, for it had just done so at a wakeup that is followed by a switch;
 * - where a thread is preempted or a CPU was idle: that is nearly always such a switch;
 * - at a wakeup for another CPU, to which an interrupt has been sent meanwhile, and at the second of several that come by one interrupt;
 * - until a reading has found nearly the same difference as the one before it: with cold caches it varies by a microsecond, and a virtual
 *   CPU may have been stopped in between.
 */
#ifndef SBERF_CLOCK_BPF_H
#define SBERF_CLOCK_BPF_H

#define CLOCK_EVERY_NS 50000
#define CLOCK_AGREES_NS 256

/* At one hook on one CPU. */
struct lag {
	__u64 read_at; /* when CLOCK_MONOTONIC was read last; 0: the difference is not known */
	__u64 ns;      /* CLOCK_MONOTONIC less `rq->clock` */
};

/* Larger than what is used, so that no two CPUs write to one cache line. */
struct pace {
	struct lag switched;
	struct lag woken;
	__u64 woken_at; /* `rq->clock` at the last wakeup of a thread that is to run here */
	__u64 last;	/* what was told last */
	__u64 pad[10];
};

/* By CPU; as many as there can be: set before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pace);
} paces SEC(".maps");

static __always_inline __u64 now_by(struct lag *lag, __u64 clock)
{
	__u64 now = clock + lag->ns, off;

	if (now - lag->read_at < CLOCK_EVERY_NS)
		return now;
	now = bpf_ktime_get_ns();
	off = now - clock - lag->ns;
	if (off + CLOCK_AGREES_NS < 2 * CLOCK_AGREES_NS) {
		lag->ns += (__s64)off >> 2;
		lag->read_at = now;
	} else {
		lag->ns += off;
		lag->read_at = 0;
	}
	return now;
}

/* What happens on one CPU happens in order. */
static __always_inline __u64 in_order(struct pace *pace, __u64 now)
{
	if (now < pace->last)
		return pace->last;
	pace->last = now;
	return now;
}

/* `here`: this CPU. */
static __always_inline __u64 time_of_switch(struct task_struct *prev, bool preempt, __u32 here)
{
	struct pace *pace = bpf_map_lookup_elem(&paces, &here);
	struct rq *rq = run_queue_of(prev);
	__u64 clock;

	if (!pace || !rq)
		return bpf_ktime_get_ns();
	clock = rq->clock;
	if (clock == pace->woken_at || preempt || !prev->pid || prev->__state == TASK_RUNNING)
		return in_order(pace, bpf_ktime_get_ns());
	return in_order(pace, now_by(&pace->switched, clock));
}

/* Called under the lock of the run queue for which the thread was woken, unless it runs: then the time is of no interest. */
static __always_inline __u64 time_of_wakeup(struct task_struct *task)
{
	struct rq *rq = run_queue_of(task);
	struct pace *pace;
	__u64 clock;
	__u32 cpu;
	bool again;

	if (!rq)
		return bpf_ktime_get_ns();
	cpu = rq->cpu;
	pace = bpf_map_lookup_elem(&paces, &cpu);
	if (!pace)
		return bpf_ktime_get_ns();
	clock = rq->clock;
	again = clock == pace->woken_at;
	pace->woken_at = clock;
	if (cpu != bpf_get_smp_processor_id())
		return bpf_ktime_get_ns();
	return in_order(pace, again ? bpf_ktime_get_ns() : now_by(&pace->woken, clock));
}

#endif
