/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What nobody can do without who hooks where sberf does. No header: nothing is used of any but the number of a helper.
 *
 * empty_*  do nothing. What the kernel's statistics charge to these is the cost of being measured, and is taken off what they
 *          charge to others; what they take from the work is the way into a program.
 * clock_*  read the clock, as whoever tells how long something takes has to.
 */
char LICENSE[] __attribute__((section("license"), used)) = "Dual BSD/GPL";

static unsigned long long (*const bpf_ktime_get_ns)(void) = (void *)5;

__attribute__((section("tp_btf/sched_switch"), used)) int empty_switch(void *ctx)
{
	return 0;
}

__attribute__((section("tp_btf/sched_wakeup"), used)) int empty_wakeup(void *ctx)
{
	return 0;
}

__attribute__((section("tp_btf/block_rq_complete"), used)) int empty_block(void *ctx)
{
	return 0;
}

__attribute__((section("tp_btf/sched_switch"), used)) int clock_switch(void *ctx)
{
	bpf_ktime_get_ns();
	return 0;
}

__attribute__((section("tp_btf/sched_wakeup"), used)) int clock_wakeup(void *ctx)
{
	bpf_ktime_get_ns();
	return 0;
}

__attribute__((section("tp_btf/block_rq_complete"), used)) int clock_block(void *ctx)
{
	bpf_ktime_get_ns();
	return 0;
}
