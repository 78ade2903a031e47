/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The least a program can do at the places sberf hooks: nothing. What the kernel's statistics charge to these is the
 * cost of being measured, and is taken off what they charge to others. No header: nothing is used of any.
 */
char LICENSE[] __attribute__((section("license"), used)) = "Dual BSD/GPL";

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
