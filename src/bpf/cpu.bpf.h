/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is kept of each CPU. In a variable, not in a map per CPU: it is found by an address, and others may write to it. */
#ifndef SBERF_CPU_BPF_H
#define SBERF_CPU_BPF_H

/* How CLOCK_MONOTONIC follows from the scheduler's clock at one hook on one CPU, see clock.bpf.h. */
struct lag {
	__u64 read_at; /* when CLOCK_MONOTONIC was read last; 0: the difference is not known */
	__u64 ns;      /* CLOCK_MONOTONIC less `rq->clock` */
};

/* Aligned to what processors fetch at once, so that no two CPUs write to it. */
struct cpu {
	struct lag switched[2]; /* by whether a wakeup preempts */
	struct lag woken;
	__u64 woken_at; /* `rq->clock` at the last wakeup of a thread that is to run here */
	__u64 last;	/* the time that was told last */
	__u64 rq;	/* its address; 0: not known yet */
	__u64 pad[7];	/* other CPUs write to what is above, and not to what is below */
	struct cpu_acc acc;
} __attribute__((aligned(128)));

/* By id, as many as there can be, rounded up to a power of two; `cpu_mask` is that less one. Set before load. */
struct cpu cpus[1] SEC(".bss.cpus");
const volatile __u64 cpu_mask = 0;

static __always_inline struct cpu *cpu_of(__u64 id)
{
	struct cpu *first = cpus;

	barrier_var(first); /* to the compiler there is one */
	return first + (id & cpu_mask);
}

#endif
