// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * sched: where every thread's wall time goes.
 *
 * Hooks    tp_btf sched_switch, sched_wakeup, sched_wakeup_new; iterators, over all tasks and over those of a list, read the result.
 * Keeps    of each thread (thread.bpf.h): the present state and since when, and for two intervals ns by state, histograms, and time by
 *          remembered place; in maps: what overflowed, per-CPU counters, and blocked stacks that lost their place.
 * Costs    per switch: no helper is called for threads that switch often, no map updated while histograms hit their cache;
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
#define OF_BLOCKED 1
#include "asleep.bpf.h"
#include "thread.bpf.h"
#include "wait.bpf.h"
#include "place.bpf.h"

/* Last accounts of threads that ended, 1.1 kB each: room for some 7 000 of them while user space is kept from its CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} dead SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_acc);
} cpus SEC(".maps");

/* Where the iterator puts a record together. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_full_rec);
} out SEC(".maps");

static __always_inline void fill_task(struct task_rec *rec, struct task_struct *task, struct thread *t, bool brief)
{
	struct mm_struct *mm;

	rec->task = (__u64)task;
	rec->start_ns = task->start_boottime;
	rec->leader_start_ns = rec->start_ns;
	if (task->pid != task->tgid)
		rec->leader_start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	rec->since_ns = t->state_since;
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
	rec->cpu = t->cpu;
	rec->syscall = is_blocked(t->state) ? t->syscall : 0xFFFF;
	rec->state = t->state;
	rec->kthread = !!(task->flags & PF_KTHREAD);
	rec->has_mm = 0;
	rec->brief = brief;
	__builtin_memcpy(rec->comm, task->comm, sizeof(rec->comm));
	if (task->pid == task->tgid)
		rec->ppid = BPF_CORE_READ(task, real_parent, tgid);
	if (task->pid == task->tgid && !brief) {
		rec->uid = BPF_CORE_READ(task, cred, uid.val);
		mm = BPF_CORE_READ(task, mm);
		if (mm) {
			rec->has_mm = 1;
			rec->rss_pages = resident_pages(mm);
			rec->vm_pages = BPF_CORE_READ(mm, total_vm);
		}
	}
}

/* The last account of a thread that just left its CPU for good; also the one before, if nobody has told of it yet. */
__noinline int bury(struct thread *t, struct flip *f)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_full_rec *rec;
	__u64 gen;
	int i;

	if (!t || !f)
		return 0;
	for (i = 0; i < 2; i++) {
		gen = f->gen - i;
		if (i && (t->told >= gen || t->born > gen))
			break;
		rec = bpf_ringbuf_reserve(&dead, sizeof(*rec), 0);
		if (!rec) {
			lose(LOSS_DEAD_RING, 1);
			break;
		}
		fill_task(&rec->task, task, t, false);
		rec->task.gen = gen;
		rec->task.has_acc = 1;
		rec->task.dead = !i;
		rec->task.lived_ns = 0;
		rec->task.stack = HASH_NOT_TAKEN;
		__builtin_memcpy(&rec->acc, half(t, gen), sizeof(rec->acc));
		__builtin_memcpy(rec->place, t->place, sizeof(rec->place));
		bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
	}
	if (t->settled)
		move_out(number_of(task, f));
	return 0;
}

/*
 * Between the last event of this thread and now there was one that no hook told of: a kernel may exempt a task from tracing,
 * and then all that happens while that task is current is hidden. Time stays where it was; that a wait ended is known.
 */
static __always_inline void unseen(struct thread *t, struct acc *acc)
{
	__u64 slot = t->slot;

	BOUND(slot, PLACE_SLOTS - 1);
	if (is_blocked(t->state) && t->off_since)
		acc->place[slot].count++;
	lose(LOSS_UNSEEN, 1);
}

/*
 * It leaves a CPU and was not seen to get it: the task that it got it from was hidden, see above. For how long it ran is known
 * all the same, from the scheduler's own clock of it; only what was charged to a closed interval meanwhile stays.
 */
__noinline int catch_up(struct thread *t, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 ran, since, state;
	struct acc *acc;

	if (!t)
		return 0;
	acc = half(t, t->gen);
	state = t->state;
	since = t->state_since;
	ran = task->se.sum_exec_runtime - t->ran_ns;
	if (now < since)
		return 0;
	if (ran > now - since)
		ran = now - since;
	now -= ran;
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
		catch_up(t, now);
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
	wait_of(task, state, t->call, &wait);
	t->syscall = wait.syscall;
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

static __always_inline void take_cpu(struct task_struct *task, struct flip *f, struct cpu_acc *cpu, __u64 now)
{
	struct thread *t = thread_of(task, f, now, ST_PREEMPTED);
	__u32 here = bpf_get_smp_processor_id(), bucket;
	struct acc *acc;
	__u64 waited;

	if (!t)
		return;
	acc = half(t, t->gen);
	if (t->state == ST_WOKEN || t->state == ST_PREEMPTED) {
		if (t->state_since > now)
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
	/* The iterator has told of it already in this interval, or will not: it does not look at it now. */
	if (!t->settled && acc->voluntary + acc->involuntary == SETTLES_AFTER && (t->told + 1 == t->gen || t->born == t->gen))
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
	__u32 zero = 0;
	struct cpu_acc *cpu = bpf_map_lookup_elem(&cpus, &zero);
	struct thread *t = f ? known_thread(task, f) : NULL;
	struct wait wait;

	if (!f || !cpu || !t)
		return 0;
	wait_of(task, task->__state, t->call, &wait);
	t->slot = place_of(ctx, t, half(t, t->gen), task, cpu, &wait, t->off_since, how);
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
	__u64 now = bpf_ktime_get_ns();
	struct flip *f = current_flip();
	__u32 zero = 0;
	struct cpu_acc *cpu = bpf_map_lookup_elem(&cpus, &zero);
	bool chosen = by_chance(now);

	if (!f || !f->gen || !cpu)
		return 0;
	cpu->switches++;
	cpu->running_tid = next->pid;
	if (next->pid)
		take_cpu(next, f, cpu, now);
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
	__u64 now = bpf_ktime_get_ns();
	struct flip *f = current_flip();

	if (!f || !f->gen)
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

/* Attached nowhere. User space has it run on each CPU after a flip: once it has, whatever ran there before is over. */
SEC("raw_tp")
int nothing(void *ctx)
{
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
	wait_of(task, state, 0, &wait);
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
	t->charged = f->ns; /* it was there when the interval began, and that was a moment ago */
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
	       BPF_CORE_READ(task, signal, nr_threads) == 1;
}

/* Tells of a thread: its account of the interval before `flip`. */
static __always_inline void tell(struct task_struct *task, struct thread *t, struct flip *f, struct seq_file *seq)
{
	struct task_full_rec *rec;
	struct acc *acc;
	__u32 zero = 0, try, seen;
	__u64 told, from, charged, slot = NO_PLACE, state = ST_COUNT;
	bool brief;
	long full;

	rec = bpf_map_lookup_elem(&out, &zero);
	told = f->gen - 1;
	if (!rec || t->state == ST_DEAD || t->born > told)
		return;
	acc = &rec->acc;
	brief = is_told(task, t, told);
	for (try = 0; try < 4; try++) {
		seen = *(volatile __u32 *)&t->seq;
		barrier();
		rec->task.has_acc = 0;
		rec->task.lived_ns = 0;
		if (t->gen >= told)
			__builtin_memcpy(acc, half(t, told), sizeof(*acc));
		state = t->state;
		slot = t->slot;
		charged = t->charged;
		fill_task(&rec->task, task, t, brief);
		if (t->gen > told) {
			rec->task.has_acc = 1;
		} else {
			from = charged > f->prev_ns ? charged : f->prev_ns;
			if (f->ns > from)
				rec->task.lived_ns = f->ns - from;
			rec->task.has_acc = t->gen == told;
		}
		barrier();
		if (!(seen & 1) && seen == *(volatile __u32 *)&t->seq)
			break;
	}
	if (try == 4)
		lose(LOSS_TORN, 1);
	if (t->settled && known_thread(task, f) != t)
		return; /* it ended meanwhile, and its slot may be another's */
	rec->task.gen = told;
	rec->task.dead = 0;
	rec->task.stack = HASH_NOT_TAKEN;
	if (is_blocked(state) && slot < PLACES) {
		from = slot;
		BOUND(from, PLACES - 1);
		rec->task.stack = t->place[from].stack;
	}
	if (rec->task.has_acc) {
		BOUND(state, STATE_SLOTS - 1);
		BOUND(slot, PLACE_SLOTS - 1);
		acc->ns[state] += rec->task.lived_ns;
		if (is_blocked(state))
			acc->place[slot].ns += rec->task.lived_ns;
		__builtin_memcpy(rec->place, t->place, sizeof(rec->place));
		full = bpf_seq_write(seq, rec, sizeof(*rec));
	} else {
		full = bpf_seq_write(seq, &rec->task, sizeof(rec->task));
	}
	/* Where there was no room, the kernel comes here again. */
	if (!full)
		t->told = told;
}

/* A record of every thread. */
SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct flip *f = current_flip();
	struct thread *t;

	if (!task || !f)
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

	if (!at || !id || !f || !bpf_ksym_exists(bpf_task_from_pid))
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
