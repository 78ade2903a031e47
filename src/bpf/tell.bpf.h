/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What user space is told of threads: by the iterators of those that live, through a ring of those that ended.
 *
 * Of every interval one account of each thread that lived in it: `told` is the last of which there was one.
 */
#ifndef SBERF_TELL_BPF_H
#define SBERF_TELL_BPF_H

/* Last accounts of threads that ended, 1.1 kB each: room for some 7 000 of them while user space is kept from its CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} dead SEC(".maps");

/* Where the iterator puts a record together, and how the thread stood at the same moment. */
struct telling {
	struct task_full_rec rec;
	__u64 state;
	__u64 slot;
	__u64 resumed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct telling);
} out SEC(".maps");

/* Who it is. */
static __always_inline void fill_task(struct task_rec *rec, struct task_struct *task, bool brief)
{
	struct task_struct *from = WALK_FROM(task, struct task_struct);
	struct mm_struct *mm;

	rec->task = (__u64)task;
	rec->start_ns = task->start_boottime;
	rec->leader_start_ns = rec->start_ns;
	if (task->pid != task->tgid)
		rec->leader_start_ns = from->group_leader->start_boottime;
	rec->utime_ns = task->utime;
	rec->stime_ns = task->stime;
	rec->minor_faults = task->min_flt;
	rec->major_faults = task->maj_flt;
	rec->rss_pages = 0;
	rec->vm_pages = 0;
	rec->tid = task->pid;
	rec->tgid = task->tgid;
	rec->ppid = 0;
	rec->uid = 0;
	rec->kthread = !!(task->flags & PF_KTHREAD);
	rec->has_mm = 0;
	rec->brief = brief;
	__builtin_memcpy(rec->comm, task->comm, sizeof(rec->comm));
	if (task->pid == task->tgid)
		rec->ppid = from->real_parent->tgid;
	if (task->pid == task->tgid && !brief) {
		rec->uid = from->cred->uid.val;
		mm = from->mm;
		if (mm) {
			rec->has_mm = 1;
			rec->rss_pages = resident_pages(mm);
			rec->vm_pages = mm->total_vm;
		}
	}
}

/* What the thread does, as of now. */
static __always_inline void fill_state(struct task_rec *rec, struct thread *t)
{
	rec->since_ns = t->state_since;
	rec->cpu = t->cpu;
	rec->syscall = is_blocked(t->state) ? t->syscall : 0xFFFF;
	rec->state = t->state;
	rec->sleeps_as = t->parks && t->state == ST_LOCK ? ST_POLL : t->state;
}

/* An account of the thread that runs, for user space to find among the dead: the iterator cannot tell of it, or may not. */
static __always_inline void leave_word(struct task_struct *task, struct thread *t, __u64 gen, bool last)
{
	struct task_full_rec *rec = bpf_ringbuf_reserve(&dead, sizeof(*rec), 0);

	if (!rec) {
		lose(LOSS_DEAD_RING, 1);
		return;
	}
	fill_task(&rec->task, task, false);
	fill_state(&rec->task, t);
	rec->task.gen = gen;
	rec->task.has_acc = 1;
	rec->task.dead = last;
	rec->task.lived_ns = 0;
	rec->task.stack = HASH_NOT_TAKEN;
	__builtin_memcpy(&rec->acc, half(t, gen), sizeof(rec->acc));
	__builtin_memcpy(rec->place, t->place, sizeof(rec->place));
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
}

/* The last account of a thread that just left its CPU for good; also the one before, if nobody has told of it yet. */
__noinline int bury(struct thread *t, struct flip *f)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!t || !f)
		return 0;
	leave_word(task, t, t->gen, true);
	if (is_untold(t, f))
		leave_word(task, t, t->gen - 1, false);
	if (t->settled)
		move_out(number_of(task, f));
	return 0;
}

/* What a task that is not current does now. */
static __always_inline __u32 state_of(struct task_struct *task, __u16 *syscall)
{
	struct wait wait;
	__u32 state = task->__state;

	*syscall = 0xFFFF;
	if (runs_now(task))
		return ST_ON_CPU;
	if (state & TASK_DEAD || task->flags & PF_EXITING)
		return ST_DEAD;
	if (state == TASK_RUNNING)
		return ST_PREEMPTED;
	wait_of(task, state, 0, false, &wait);
	*syscall = wait.syscall;
	return wait.by_fd ? by_descriptor(task, wait.fd) : wait.reason;
}

/*
 * A thread that was there before us: what it does now, since now.
 *
 * It may be switched or woken meanwhile, and its record with it, while we look and even while we are preempted. Those who
 * change its record also change `state_since`: then we look again, for what we wrote may be older than what they did.
 */
static __always_inline void adopt(struct task_struct *task, struct thread *t, struct flip *f, __u64 now)
{
	__u32 state;
	__u16 syscall;
	int i;

	t->slot = NO_PLACE;
	t->ran_ns = task->se.sum_exec_runtime;
	t->charged = began(f, f->gen); /* it was there when the interval began, and that was a moment ago */
	t->gen = f->gen;
	t->born = f->gen;
	t->state_since = now;
	for (i = 0; i < 4; i++) {
		state = state_of(task, &syscall);
		t->syscall = syscall;
		t->state = state;
		barrier();
		if (*(volatile __u64 *)&t->state_since == now)
			break;
		now = *(volatile __u64 *)&t->state_since;
	}
}

/*
 * What it waits for has a stack, too. It may go on meanwhile, see above: then its next wait begins without one, if it was taken
 * for this one.
 */
static __always_inline void find_asleep(struct task_struct *task, struct thread *t)
{
	__u64 since = *(volatile __u64 *)&t->state_since, stack;
	struct place_key *place = &t->place[PLACES - 1];

	if (!is_blocked(t->state) || runs_now(task) || !wants_stacks(task->tgid))
		return;
	stack = take_asleep(task);
	if (stack == HASH_NOT_TAKEN || *(volatile __u64 *)&t->state_since != since)
		return;
	place->stack = stack;
	place->reason = t->state;
	t->slot = PLACES - 1;
	barrier();
	if (*(volatile __u64 *)&t->state_since != since)
		t->slot = NO_PLACE;
}

/*
 * The process of this thread did nothing since it was told of: it has no other thread, and this one slept. Then who it belongs to
 * is what it was, and its memory shrinks at most: both are looked at every fourth time, not of all in the same pass.
 */
static __always_inline bool is_told(struct task_struct *task, struct thread *t, __u64 told)
{
	return t->gen < told && t->told + 1 == told && ((told + (__u32)task->pid) & 3) &&
	       WALK_FROM(task, struct task_struct)->signal->nr_threads == 1;
}

/*
 * Copies what a thread did in the interval `told`, which ended at `end`, and how it stands. False if that was changed meanwhile. Not
 * static, so that the verifier goes through it once.
 */
__noinline int copy_account(struct telling *to, struct thread *t, struct flip *f, __u64 told, __u64 end)
{
	struct task_full_rec *rec;
	__u64 from;
	__u32 seen;

	if (!to || !t || !f)
		return 1;
	rec = &to->rec;
	from = began(f, told);
	seen = *(volatile __u32 *)&t->seq;
	barrier();
	to->state = t->state;
	to->slot = t->slot;
	to->resumed = runs_unseen_since(t);
	fill_state(&rec->task, t);
	rec->task.has_acc = told && t->gen >= told;
	rec->task.lived_ns = 0;
	if (rec->task.has_acc) {
		__builtin_memcpy(&rec->acc, half(t, told), sizeof(rec->acc));
		__builtin_memcpy(rec->place, t->place, sizeof(rec->place));
	}
	if (t->gen <= told) {
		if (t->charged > from)
			from = t->charged;
		if (end > from)
			rec->task.lived_ns = end - from;
	}
	barrier();
	return !(seen & 1) && seen == *(volatile __u32 *)&t->seq;
}

/*
 * Tells of a thread: its account of the interval before `flip`. If it executes a program meanwhile, it may leave word of the same: user
 * space knows both by its task.
 */
static __always_inline void tell(struct task_struct *task, struct thread *t, struct flip *f, struct seq_file *seq)
{
	struct task_full_rec *rec;
	struct telling *to;
	__u32 zero = 0, try;
	__u64 told, end, at, slot, state;
	long full;

	to = bpf_map_lookup_elem(&out, &zero);
	told = f->gen - 1;
	end = began(f, f->gen);
	if (!to || t->state == ST_DEAD)
		return;
	/* In the very first pass there is nothing to tell of but who is there. */
	if (told && (t->born > told || t->told == told))
		return;
	notice(task, t);
	rec = &to->rec;
	fill_task(&rec->task, task, is_told(task, t, told));
	for (try = 0; try < 4; try++)
		if (copy_account(to, t, f, told, end))
			break;
	if (try == 4)
		lose(LOSS_TORN, 1);
	if (t->settled && known_thread(task, f) != t)
		return; /* it ended meanwhile, and its slot may be another's */
	state = to->state;
	slot = to->slot;
	rec->task.gen = told;
	rec->task.dead = 0;
	rec->task.stack = HASH_NOT_TAKEN;
	if (to->resumed)
		add_unseen(rec, end, to->resumed);
	if (is_blocked(state) && slot < PLACES) {
		at = slot;
		BOUND(at, PLACES - 1);
		rec->task.stack = t->place[at].stack;
	}
	if (rec->task.has_acc) {
		BOUND(state, STATE_SLOTS - 1);
		BOUND(slot, PLACE_SLOTS - 1);
		rec->acc.ns[state] += rec->task.lived_ns;
		if (is_blocked(state))
			rec->acc.place[slot].ns += rec->task.lived_ns;
		full = bpf_seq_write(seq, rec, sizeof(*rec));
	} else {
		full = bpf_seq_write(seq, &rec->task, sizeof(rec->task));
	}
	/* Where there was no room, the kernel comes here again. A slot that is another's by now is of one that was told of, too. */
	if (!full)
		t->told = told;
}

#endif
