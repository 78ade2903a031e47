/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Switches and wakeups that no hook told of.
 *
 * A kernel may exempt a task from tracing, and then all that happens while that task is current is hidden: whom it wakes, and who gets
 * the CPU after it. The latter can run for seconds before its next event. That it runs is visible, and for how long from the
 * scheduler's own clock of it.
 */
#ifndef SBERF_UNSEEN_BPF_H
#define SBERF_UNSEEN_BPF_H

/* Between the last event of this thread and now there was one that no hook told of. At least that a wait ended is known. */
static __always_inline void unseen(struct thread *t, struct acc *acc)
{
	__u64 slot = t->slot;

	BOUND(slot, PLACE_SLOTS - 1);
	if (is_blocked(t->state) && t->off_since)
		acc->place[slot].count++;
	lose(LOSS_UNSEEN, 1);
}

/*
 * When a thread that runs got its CPU, if nobody saw that. The scheduler's own clock of it goes on at the kernel's ticks and when it
 * leaves. 0: it has not run since its last event, as far as that clock says.
 */
static __always_inline __u64 got_unseen(struct task_struct *task, struct thread *t, __u64 now)
{
	__u64 since = t->state_since, ran = task->se.sum_exec_runtime - t->ran_ns;

	if (!ran || now <= since)
		return 0;
	return now - since > ran ? now - ran : since + 1;
}

/* Of the interval that was closed a moment ago, and that nobody has told of yet, it ran through the part after `got`. */
static __always_inline void amend(struct thread *t, struct flip *f, __u64 got)
{
	__u64 from = began(f, t->gen - 1), to = began(f, t->gen), state = t->state, slot = t->slot, ns;
	struct acc *acc = half(t, t->gen - 1);
	struct place *place;

	if (got > from)
		from = got;
	if (from >= to || !is_untold(t, f) || state >= ST_COUNT)
		return;
	ns = to - from;
	BOUND(state, STATE_SLOTS - 1);
	if (ns > acc->ns[state])
		ns = acc->ns[state];
	t->seq++;
	barrier();
	acc->ns[state] -= ns;
	acc->ns[ST_ON_CPU] += ns;
	if (is_blocked(state)) {
		BOUND(slot, PLACE_SLOTS - 1);
		place = &acc->place[slot];
		place->ns -= ns < place->ns ? ns : place->ns;
	}
	barrier();
	t->seq++;
}

/* It leaves a CPU and was not seen to get it. What was told of an interval meanwhile stays. */
__noinline int catch_up(struct thread *t, struct flip *f, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 since, state, got;
	struct acc *acc;

	if (!t || !f)
		return 0;
	acc = half(t, t->gen);
	state = t->state;
	since = t->state_since;
	if (now < since)
		return 0;
	got = runs_unseen_since(t);
	if (!got) {
		got = got_unseen(task, t, now);
		if (got)
			amend(t, f, got);
		else
			got = now;
	}
	now = got;
	charge(t, acc, now);
	unseen(t, acc);
	if (state == ST_WOKEN || state == ST_PREEMPTED)
		hist_add(acc, task, t->gen, HIST_RUNQ, now - since);
	if (t->off_since && now >= t->off_since)
		hist_add(acc, task, t->gen, HIST_OFF_CPU, now - t->off_since);
	t->off_since = 0;
	t->state = ST_ON_CPU;
	t->state_since = now;
	return 0;
}

/* Nothing tells that it got its CPU, but it can be seen to run. A thread that just leaves one can, too: it has not run since. */
static __always_inline void notice(struct task_struct *task, struct thread *t)
{
	if (t->state == ST_ON_CPU || runs_unseen_since(t) || !runs_now(task))
		return;
	t->resumed = got_unseen(task, t, bpf_ktime_get_ns());
}

/* The part of `rec->task.lived_ns` in which it ran unseen goes to its place. */
static __always_inline void add_unseen(struct task_full_rec *rec, __u64 end, __u64 resumed)
{
	__u64 ns = end > resumed ? end - resumed : 0;

	if (ns > rec->task.lived_ns)
		ns = rec->task.lived_ns;
	if (!rec->task.has_acc)
		__builtin_memset(&rec->acc, 0, sizeof(rec->acc));
	rec->task.has_acc = 1;
	rec->task.lived_ns -= ns;
	rec->acc.ns[ST_ON_CPU] += ns;
	rec->task.state = ST_ON_CPU;
	rec->task.sleeps_as = ST_ON_CPU;
	rec->task.since_ns = resumed;
	rec->task.syscall = 0xFFFF;
}

#endif
