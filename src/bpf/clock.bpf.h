/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The time of a switch and of a wakeup, without a reading of the clock for each.
 *
 * Reading CLOCK_MONOTONIC is up to half of what these hooks cost. Shortly before them the scheduler reads a clock of its own, `rq->clock`.
 * Between that and the hook lie some 300 ns at a wakeup and 500 at a switch, which on a CPU that is busy switching vary by
 * a tenth of a microsecond. So there CLOCK_MONOTONIC is read every CLOCK_EVERY_NS, which tells how far apart the two are; in between
 * that is added to `rq->clock`. Where fewer events come, each reads the clock.
 *
 * If a wakeup is followed by a switch, the scheduler does not read its clock for that one. Where a wakeup preempts, that is the rule, and
 * the way from it to the switch always the same: these switches have a difference of their own.
 *
 * The clock is also read
 * - where a thread blocks after such a wakeup all the same, or is preempted without one, and where a CPU was idle;
 * - at a wakeup for another CPU, to which an interrupt has been sent meanwhile, and at the preemption that may come of it;
 * - at the second of several wakeups that come by one interrupt;
 * - until a reading has found nearly the same difference as the one before it: with cold caches it varies by a microsecond, and a virtual
 *   CPU may have been stopped in between.
 */
#ifndef SBERF_CLOCK_BPF_H
#define SBERF_CLOCK_BPF_H

#define CLOCK_EVERY_NS 100000
#define CLOCK_AGREES_NS 256

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
static __always_inline __u64 in_order(struct cpu *cpu, __u64 now)
{
	if (now < cpu->last)
		return cpu->last;
	cpu->last = now;
	return now;
}

/* That of this CPU; where it lies is remembered, for each step of a walk there is checked. `task`: runs on it. */
static __always_inline struct rq *run_queue_here(struct cpu *cpu, struct task_struct *task)
{
	if (!bpf_ksym_exists(bpf_rdonly_cast))
		return run_queue_of(task);
	if (!cpu->rq)
		cpu->rq = (__u64)run_queue_of(task);
	return cpu->rq ? bpf_core_cast((void *)cpu->rq, struct rq) : NULL;
}

/* `cpu`: this one. */
static __always_inline __u64 time_of_switch(struct task_struct *prev, bool preempt, struct cpu *cpu)
{
	struct rq *rq = run_queue_here(cpu, prev);
	__u64 clock, woken;

	if (!rq)
		return bpf_ktime_get_ns();
	clock = rq->clock;
	woken = clock == cpu->woken_at;
	if (!prev->pid || woken != (preempt || prev->__state == TASK_RUNNING))
		return in_order(cpu, bpf_ktime_get_ns());
	BOUND(woken, 1);
	return in_order(cpu, now_by(&cpu->switched[woken], clock));
}

/* Called under the lock of the run queue for which the thread was woken, unless it runs: then the time is of no interest. */
static __always_inline __u64 time_of_wakeup(struct task_struct *task)
{
	struct rq *rq = run_queue_of(task);
	struct cpu *cpu;
	__u64 clock;
	__u32 id;
	bool again;

	if (!rq)
		return bpf_ktime_get_ns();
	id = rq->cpu;
	cpu = cpu_of(id);
	clock = rq->clock;
	again = clock == cpu->woken_at;
	cpu->woken_at = clock;
	if (id != bpf_get_smp_processor_id()) {
		cpu->switched[1].read_at = 0;
		return bpf_ktime_get_ns();
	}
	return in_order(cpu, again ? bpf_ktime_get_ns() : now_by(&cpu->woken, clock));
}

#endif
