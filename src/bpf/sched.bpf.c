// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * sched: where every thread's wall time goes.
 *
 * Hooks    tp_btf sched_switch, sched_wakeup, sched_wakeup_new, sched_process_exec; iterators, over all tasks and over those of a list,
 *          read the result.
 * Keeps    of each thread (thread.bpf.h): the present state and since when, and for two intervals ns by state, histograms, and time by
 *          remembered place; in maps: what overflowed, per-CPU counters, and blocked stacks that lost their place.
 * Costs    per switch: for threads that switch often no helper but the clock, and on a busy CPU seldom that (clock.bpf.h); no map is
 *          updated while histograms hit their cache;
 *          a stack walk only where a thread blocks at a new place, and only within a budget.
 *
 * An interval ends when user space advances `flip`. A thread's first event after that closes its old account at the
 * boundary (`roll`); for threads without an event the iterator does the same on its copy. So every account covers
 * exactly the interval, and time in flight is charged to it. Its first event also puts a thread on the list of the new
 * interval (`enlist`): where most threads sleep, user space asks for those, and for the others every few seconds.
 */
#include "kernel.h"
#include "sberf.h"
#include "shared.bpf.h"
#include "hist.bpf.h"
#include "cpu.bpf.h"
#include "clock.bpf.h"
#define OF_BLOCKED 1
#include "asleep.bpf.h"
#include "thread.bpf.h"
#include "wait.bpf.h"
#include "place.bpf.h"
#include "unseen.bpf.h"
#include "tell.bpf.h"

/* True if it has yet to be looked at where it blocks. */
static __always_inline bool leave_cpu(struct task_struct *task, struct flip *f, struct cpu_acc *cpu, __u64 now, bool preempt)
{
	struct thread *t = thread_of(task, f, now, ST_ON_CPU);
	__u32 state = task->__state;
	struct wait wait;
	struct acc *acc;

	if (!t)
		return false;
	if (t->state != ST_ON_CPU)
		catch_up(t, f, now);
	acc = half(t, t->gen);
	charge_on_cpu(t, acc, now);
	hist_add(acc, task, t->gen, HIST_SLICE, elapsed(t->state_since, now));
	t->state_since = now;
	t->ran_ns = task->se.sum_exec_runtime;
	if (state & TASK_DEAD) {
		t->state = ST_DEAD;
		bury(t, f);
		return false;
	}
	if (preempt || state == TASK_RUNNING) {
		t->state = ST_PREEMPTED;
		acc->involuntary++;
		return false;
	}
	acc->voluntary++;
	t->off_since = now;
	wait_of(task, state, t->call, t->brisk, &wait);
	t->syscall = wait.syscall;
	t->parks = wait.parks;
	if (wait.syscall != 0xFFFF)
		t->call = wait.syscall + 1;
	renew(cpu, f, now);
	if (is_believed(t, cpu, &wait, now, &t->slot)) {
		t->state = wait.reason;
		return false;
	}
	t->state = wait.by_fd ? ST_OTHER : wait.reason;
	t->slot = NO_PLACE;
	return true;
}

static __always_inline void take_cpu(struct task_struct *task, struct flip *f, struct cpu_acc *cpu, __u32 here, __u64 now)
{
	struct thread *t = thread_of(task, f, now, ST_PREEMPTED);
	__u64 waited, bucket;
	struct acc *acc;

	if (!t)
		return;
	acc = half(t, t->gen);
	if (t->state == ST_WOKEN || t->state == ST_PREEMPTED) {
		if (t->state_since > now + CLOCK_AGREES_NS)
			lose(LOSS_UNDERFLOW, 1);
		waited = uncharged(t, now);
		if (t->state == ST_WOKEN)
			acc->ns[ST_WOKEN] += waited;
		else
			acc->ns[ST_PREEMPTED] += waited;
		waited = elapsed(t->state_since, now);
		bucket = hist_add(acc, task, t->gen, HIST_RUNQ, waited);
		cpu->runnable_ns += waited;
		cpu->runq[window_cell(bucket)]++;
		if (cpu->max_gen != f->gen) {
			cpu->max_gen = f->gen;
			cpu->runq_max_ns = 0;
		}
		if (waited > cpu->runq_max_ns)
			cpu->runq_max_ns = waited;
	} else {
		/* Its wakeup was not seen: the time since is not known to be either, so it stays where it was. */
		charge(t, acc, now);
		unseen(t, acc);
	}
	if (t->off_since) {
		hist_add(acc, task, t->gen, HIST_OFF_CPU, elapsed(t->off_since, now));
		t->off_since = 0;
	}
	if (t->cpu != here) {
		if (t->state_since)
			acc->migrations++;
		t->cpu = here;
	}
	t->state = ST_ON_CPU;
	t->state_since = now;
	/* No iterator looks at it now, nor will in this interval. */
	if (!t->settled && acc->voluntary + acc->involuntary == SETTLES_AFTER && !is_untold(t, f))
		settle(task, t, f);
}

static __always_inline void woken(struct task_struct *task, bool fresh, struct flip *f, __u64 now)
{
	struct thread *t;
	struct acc *acc;
	__u64 slot;

	t = thread_of(task, f, now, ST_OTHER);
	if (!t)
		return;
	/* Woken before it left its CPU, or while it waits for one already: nothing changes. */
	if (!fresh && !is_blocked(t->state))
		return;
	acc = half(t, t->gen);
	charge(t, acc, now);
	slot = t->slot;
	BOUND(slot, PLACE_SLOTS - 1);
	if (is_blocked(t->state) && t->off_since)
		acc->place[slot].count++;
	if (t->parks)
		t->brisk = elapsed(t->state_since, now) < PARKED_LONG_NS;
	acc->wakeups++;
	t->slot = NO_PLACE;
	t->state = ST_WOKEN;
	t->state_since = now;
}

/*
 * What a switch has yet to do when a thread blocks where it has to be looked at closely: at most LOOKS_PER_S times a second and CPU. In
 * a program of its own, for the verifier: this is where the walks are, and it comes here by one way only.
 */
static __always_inline int look(void *ctx, struct task_struct *task, enum walk_by how)
{
	struct flip *f = current_flip();
	struct cpu_acc *cpu = &cpu_of(bpf_get_smp_processor_id())->acc;
	struct thread *t = known_thread(task, f);
	struct wait wait;

	if (!t)
		return 0;
	wait_of(task, task->__state, t->call, t->brisk, &wait);
	t->slot = place_of(ctx, t, f, task, cpu, &wait, t->off_since, how);
	t->state = wait.reason;
	if (cpu->began)
		timed(PROG_SWITCH, cpu->began, false);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(look_tables, bool preempt, struct task_struct *prev)
{
	return look(ctx, prev, BY_TABLES);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(look_fp, bool preempt, struct task_struct *prev)
{
	return look(ctx, prev, BY_FRAME_POINTERS);
}

/* One of the two, put there by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} looks SEC(".maps");

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	__u32 here = bpf_get_smp_processor_id();
	struct cpu *this = cpu_of(here);
	__u64 now = time_of_switch(prev, preempt, this);
	struct flip *f = current_flip();
	struct cpu_acc *cpu = &this->acc;
	bool chosen = by_chance(now);

	if (!f->gen)
		return 0;
	cpu->switches++;
	cpu->running_tid = next->pid;
	if (next->pid)
		take_cpu(next, f, cpu, here, now);
	if (prev->pid && leave_cpu(prev, f, cpu, now, preempt)) {
		cpu->began = chosen ? now : 0;
		bpf_tail_call(ctx, &looks, 0);
	}
	if (chosen)
		timed(PROG_SWITCH, now, false);
	return 0;
}

static __always_inline int wakes(struct task_struct *task, bool fresh)
{
	__u64 now = time_of_wakeup(task);
	struct flip *f = current_flip();

	if (!f->gen)
		return 0;
	if (fresh)
		move_out(number_of(task, f)); /* of a task that lay here before, and whose end was hidden */
	woken(task, fresh, f, now);
	if (by_chance(now))
		timed(PROG_WAKEUP, now, false);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *task)
{
	return wakes(task, false);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	return wakes(task, true);
}

/*
 * A thread that executes a program goes on under the id of the first of its process. If the iterator has been there in this interval,
 * and has not yet been at the id that it had, it finds it at neither.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_exec, struct task_struct *task, pid_t old_pid)
{
	__u64 now = bpf_ktime_get_ns();
	struct flip *f = current_flip();
	struct thread *t;

	if (!f->gen || old_pid == task->pid)
		return 0;
	t = thread_of(task, f, now, ST_ON_CPU);
	if (!t || !is_untold(t, f))
		return 0;
	t->told = t->gen - 1;
	leave_word(task, t, t->gen - 1, false);
	return 0;
}

/* Attached nowhere. User space has it run on each CPU after a flip: once it has, whatever ran there before is over. */
SEC("raw_tp")
int nothing(void *ctx)
{
	return 0;
}

/* A record of every thread. */
SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct flip *f = current_flip();
	struct thread *t;

	if (!task)
		return 0;
	t = known_thread(task, f);
	if (!t) {
		if (task->__state & TASK_DEAD)
			return 0; /* what there was to tell of it has been told by `bury` */
		t = bpf_task_storage_get(&threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!t) {
			lose(LOSS_NO_STORAGE, 1);
			return 0;
		}
		if (!t->state_since) {
			adopt(task, t, f, bpf_ktime_get_ns());
			find_asleep(task, t);
		}
	}
	tell(task, t, f, ctx->meta->seq);
	return 0;
}

/* A record of every thread in the list of the interval before `flip`, once. One has no record if its id is another's by now. */
SEC("iter/bpf_map_elem")
int some_tasks(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *at = ctx->key, *id = ctx->value;
	struct flip *f = current_flip();
	struct task_struct *task;
	struct thread *t;
	__u64 half;

	if (!at || !id || !bpf_ksym_exists(bpf_task_from_pid))
		return 0;
	half = f->gen - 1;
	BOUND(half, 1);
	if (*at >> LIST_BITS != half || (*at & ((1 << LIST_BITS) - 1)) >= f->listed[half])
		return 0;
	task = bpf_task_from_pid(*id);
	if (!task)
		return 0;
	t = known_thread(task, f);
	if (t && t->told + 1 != f->gen)
		tell(task, t, f, ctx->meta->seq);
	bpf_task_release(task);
	return 0;
}

/* So that the skeleton knows the types that only travel. */
struct task_rec _task_rec = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
