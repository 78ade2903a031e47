// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * sched: where every thread's wall time goes.
 *
 * Hooks    tp_btf sched_switch, sched_wakeup, sched_wakeup_new; a task iterator reads the result.
 * Keeps    in task storage: the present state and since when, and for two intervals ns by state, histograms, and time by
 *          remembered place; in maps: what overflowed, per-CPU counters, and blocked stacks that lost their place.
 * Costs    per switch: a clock reading, two look-ups of task storage, no map update while histograms hit their cache;
 *          a stack walk only where a thread blocks at a new place, and only within a budget.
 *
 * An interval ends when user space advances `flip`. A thread's first event after that closes its old account at the
 * boundary (`roll`); for threads without an event the iterator does the same on its copy. So every account covers
 * exactly the interval, and time in flight is charged to it.
 */
#include "kernel.h"
#include "sberf.h"
#include "shared.bpf.h"
#include "hist.bpf.h"
#define OF_BLOCKED 1
#include "asleep.bpf.h"

/* Set before load. */
const volatile __u32 self_tgid = 0;	       /* its stacks are not taken */
const volatile __u64 period_ns = 10000000;
const volatile __u32 nodes = 1;
const volatile bool totals_only = false;
const volatile __u8 syscall_class[SYSCALLS] = {}; /* enum state; 0 reads as ST_OTHER */
const volatile bool only_some = false;	       /* take stacks only of processes in `chosen` */

/* Innermost kernel frames in a trace point: this program and what runs it. */
#define OWN_FRAMES 2

struct thread {
	__u32 seq; /* odd while `roll` runs */
	__u32 cpu;
	__u64 gen;
	__u64 born;	   /* interval in which we first saw it */
	__u64 told;	   /* last interval that the iterator told of */
	__u64 state_since; /* when the present state began */
	__u64 charged;	   /* accounted up to here */
	__u64 off_since;   /* when it left the CPU to block; 0: it did not */
	__u64 ran_ns;	   /* the scheduler's own sum when it last left the CPU */
	__u64 looked;	   /* when it was last looked at closely where it blocks */
	__u8 state;
	__u8 slot;   /* index in place: where it is blocked */
	__u8 oldest; /* index in place, any multiple of PLACES added: who makes room */
	__u8 pad;
	__u16 syscall;
	__u8 recent[PLACES]; /* by registers: the slot in place that was last used for them */
	__u8 skip[PLACES];   /* by registers: waits until the next look */
	__u16 trust[PLACES]; /* by registers: share of looks that found what the registers said, of 2^16 */
	__u32 call;	     /* number of the system call in which it blocked last, plus 1; 0: none yet */
	struct place_key place[PLACES];
	struct acc acc[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

struct hist_gen {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct hist_key);
	__type(value, __u64);
} hists_even SEC(".maps"), hists_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct hist_gen);
} hists SEC(".maps") = { .values = { &hists_even, &hists_odd } };

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

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} chosen SEC(".maps");

/* The innermost part of a user's stack. */
struct near_stack {
	__u64 words[NEAR_WORDS + 1];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct near_stack);
} near SEC(".maps");

/* Where the iterator puts a record together. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_full_rec);
} out SEC(".maps");

static __always_inline bool is_blocked(__u32 state)
{
	return state >= ST_DISK && state <= ST_OTHER;
}

static __always_inline struct acc *half(struct thread *t, __u64 gen)
{
	BOUND(gen, 1);
	return &t->acc[gen];
}

/* Time since it was charged last. */
static __always_inline __u64 uncharged(struct thread *t, __u64 until)
{
	__u64 from = t->charged;

	if (until <= from)
		return 0;
	t->charged = until;
	return until - from;
}

static __always_inline void charge_on_cpu(struct thread *t, struct acc *acc, __u64 until)
{
	__u64 ns = uncharged(t, until), node;

	acc->ns[ST_ON_CPU] += ns;
	if (nodes > 1) {
		node = bpf_get_numa_node_id();
		BOUND(node, MAX_NODES - 1);
		acc->node_ns[node] += ns;
	}
}

/* Adds [t->charged, until) to the present state. */
static __always_inline void charge(struct thread *t, struct acc *acc, __u64 until)
{
	__u64 ns, state = t->state, slot = t->slot;

	if (state == ST_ON_CPU) {
		charge_on_cpu(t, acc, until);
		return;
	}
	ns = uncharged(t, until);
	if (state >= ST_COUNT)
		return;
	BOUND(state, STATE_SLOTS - 1);
	acc->ns[state] += ns;
	if (is_blocked(state)) {
		BOUND(slot, PLACE_SLOTS - 1);
		acc->place[slot].ns += ns;
	}
}

/* Closes the interval before `f->gen` and opens a new account. */
static __noinline int roll(struct thread *t, struct flip *f)
{
	struct acc *old, *new;
	__u64 gen;

	if (!t || !f)
		return 0;
	gen = f->gen;
	old = half(t, gen - 1);
	new = half(t, gen);
	t->seq++;
	barrier();
	if (t->gen + 1 != gen) {
		__builtin_memset(old, 0, sizeof(*old));
		if (t->charged < f->prev_ns)
			t->charged = f->prev_ns;
	}
	charge(t, old, f->ns);
	__builtin_memset(new, 0, sizeof(*new));
	t->gen = gen;
	barrier();
	t->seq++;
	return 0;
}

/* Counts a value and yields its bucket. */
static __always_inline __u32 hist_add(struct acc *acc, struct task_struct *task, __u64 gen, __u32 kind, __u64 value)
{
	__u32 bucket = bucket_of(value);
	__u64 at = bucket;
	struct cell *cell;

	BOUND(at, HIST_CELLS - 1);
	cell = &acc->hist[kind][at];
	if (value > acc->max_ns[kind])
		acc->max_ns[kind] = value;
	acc->sum_ns[kind] += value;
	if (cell->count && (cell->bucket != bucket || cell->count == 0xFFFF)) {
		struct hist_key key = {
			.start_ns = task->start_boottime, .tid = task->pid, .kind = kind, .bucket = cell->bucket,
		};
		__u64 count = cell->count, *have;
		__u32 index = gen & 1;
		void *map = bpf_map_lookup_elem(&hists, &index);

		have = map ? bpf_map_lookup_elem(map, &key) : NULL;
		if (have)
			__sync_fetch_and_add(have, count);
		else if (!map || bpf_map_update_elem(map, &key, &count, BPF_NOEXIST))
			lose(LOSS_HIST_MAP, count);
		cell->count = 0;
	}
	cell->bucket = bucket;
	cell->count++;
	return bucket;
}

/* Its storage, with the account of the present interval open. `state`: what it is known to do if it is new to us. */
static __always_inline struct thread *thread_of(struct task_struct *task, struct flip *f, __u64 now, __u32 state)
{
	struct thread *t = bpf_task_storage_get(&threads, task, NULL, 0);

	if (!t) {
		t = bpf_task_storage_get(&threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!t) {
			lose(LOSS_NO_STORAGE, 1);
			return NULL;
		}
		t->state = state;
		t->slot = NO_PLACE;
		t->state_since = now;
		t->charged = now;
		t->gen = f->gen;
		t->born = f->gen;
	} else if (t->gen != f->gen) {
		roll(t, f);
	}
	return t;
}

static __always_inline __u32 by_descriptor(struct task_struct *task, __u32 fd)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **slots, *file = NULL;
	__u16 mode = 0;

	if (!fdt || fd >= BPF_CORE_READ(fdt, max_fds))
		return ST_OTHER;
	slots = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]) || !file)
		return ST_OTHER;
	mode = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	return mode == S_IFSOCK ? ST_NET : mode == S_IFIFO ? ST_PIPE : ST_OTHER;
}

/* How a thread came to wait, from its saved user registers. */
struct wait {
	__u64 place; /* hash of what says "the same place" when it blocks there again; never 0 */
	__u32 reason;
	__u16 syscall;
	__u8 by_fd; /* the reason is what descriptor `fd` is */
	__u32 fd;
	__u64 sp, fp; /* of the user's stack; 0 without one */
};

/*
 * Why a task that is not on a CPU and not runnable waits. A page fault saves -1 in place of the system call's number.
 */
static __always_inline void wait_of(struct task_struct *task, __u32 state, __u32 call, struct wait *wait)
{
	bool iowait = BPF_CORE_READ_BITFIELD(task, in_iowait);
	struct user_regs user;
	struct pt_regs *regs;
	long nr;

	wait->place = 0;
	wait->fd = 0;
	wait->syscall = 0xFFFF;
	wait->by_fd = 0;
	wait->sp = 0;
	wait->fp = 0;
	wait->reason = ST_OTHER;
	if (state & (TASK_STOPPED | TASK_TRACED)) {
		wait->reason = ST_STOPPED;
		wait->place = ST_STOPPED;
		return;
	}
	if (task->flags & PF_KTHREAD) {
		if (iowait)
			wait->reason = ST_DISK;
		wait->place = wait->reason;
		return;
	}
	regs = (void *)bpf_task_pt_regs(task);
	nr = call_of(regs, &user, &wait->fd);
	wait->sp = user.sp;
	wait->fp = user.fp;
	wait->place = mix(mix(user.pc ^ (user.fp << 24), user.sp), (__u64)nr << 32 | wait->fd);
	/* A call that a signal or a stop interrupted goes on as another one: it waits for what it waited for. */
	if (nr == NR_RESTART_SYSCALL && call)
		nr = call - 1;
	if (nr < 0) {
		wait->reason = ST_FAULT;
	} else {
		if (nr < SYSCALLS) {
			wait->syscall = nr;
			BOUND(nr, SYSCALLS - 1);
			wait->reason = syscall_class[nr];
			if (!wait->reason)
				wait->reason = ST_OTHER;
		}
		if (iowait)
			wait->reason = ST_DISK;
		else if (wait->reason == ST_BY_FD)
			wait->by_fd = 1;
	}
	wait->place = (wait->place ^ wait->reason) | 1;
}

/* Renews what this CPU may spend when its period is over. */
static __always_inline void renew(struct cpu_acc *cpu, struct flip *f, __u64 now)
{
	if (now - cpu->period < period_ns)
		return;
	cpu->period = now;
	cpu->walks = f->walks;
	cpu->looks = f->looks;
}

static __always_inline bool wants_stacks(__u32 tgid)
{
	return !totals_only && tgid != self_tgid && (!only_some || bpf_map_lookup_elem(&chosen, &tgid));
}

/* The time at a remembered place goes to the map when another place takes its slot. */
static __always_inline void forget_place(struct thread *t, struct acc *acc, struct task_struct *task, __u64 gen, __u64 slot)
{
	struct place_key *place = &t->place[slot];
	struct place *spent = &acc->place[slot];

	if (!spent->ns && !spent->count)
		return;
	struct stack_key key = {
		.start_ns = BPF_CORE_READ(task, group_leader, start_boottime), .hash = place->stack, .tgid = task->tgid,
		.lens = place->reason,
	};
	count_stack(&key, spent->ns, spent->count, gen);
	spent->ns = 0;
	spent->count = 0;
}

/* Copies the innermost part of the current task's stack; NULL if it cannot be read. */
static __always_inline struct near_stack *near_of(__u64 sp)
{
	__u32 zero = 0;
	struct near_stack *near_stack = bpf_map_lookup_elem(&near, &zero);

	if (!near_stack || bpf_probe_read_user(near_stack->words, NEAR_WORDS * sizeof(__u64), (void *)sp))
		return NULL;
	return near_stack;
}

/*
 * Hash of the return addresses that frame pointers lead to within the innermost 512 bytes of the current task's stack. Functions
 * with frames of one size leave the same registers behind, whoever called them: only these tell their callers apart. What
 * lies deeper is not looked at; a walk would cost ten times as much.
 */
static __noinline __u64 callers(__u64 sp, __u64 fp)
{
	struct near_stack *near_stack = near_of(sp);
	__u64 hash = 0, at, next;
	int i;

	if (!near_stack)
		return 0;
	for (i = 0; i < NEAR_WORDS / 2; i++) {
		at = fp - sp;
		if (at > (NEAR_WORDS - 2) * sizeof(__u64))
			break;
		at >>= 3;
		BOUND(at, NEAR_WORDS - 1);
		next = near_stack->words[at];
		hash = mix(hash, near_stack->words[at + 1]);
		if (next <= fp)
			break;
		fp = next;
	}
	return hash;
}

/*
 * The same where a walk by tables has told where the return addresses lie: the same registers, and the same words there, are
 * the same callers.
 */
__noinline __u64 returns_of(struct place_key *place, struct near_stack *near_stack, __u64 hash)
{
	__u64 left;
	__u32 i;

	if (!place || !near_stack)
		return hash | 1;
	left = place->returns;
	for (i = 0; i < NEAR_WORDS && left; i++) {
		if (left & 1)
			hash = mix(hash, near_stack->words[i]);
		left >>= 1;
	}
	return hash | 1;
}

/* A walk that stopped for want of a table is not worth remembering: it may have been finished since, but found no callers. */
static __always_inline bool worth_remembering(enum walk_by how)
{
	__u32 zero = 0;
	struct frames_rec *rec = bpf_map_lookup_elem(&scratch, &zero);

	return how != BY_TABLES || !rec || rec->stop != UNWIND_STOP_NO_TABLE;
}

static __always_inline __u64 last_returns(void)
{
	__u32 zero = 0;
	struct walk *w = bpf_map_lookup_elem(&walks, &zero);

	return w ? w->returns : 0;
}

/*
 * How many of the waits to come are believed by their registers alone: the more looks found what the registers said, the more. The
 * number is random, and what it is drawn from follows slowly: then each place is found as often as it comes, whatever the
 * rhythm. A length that followed the last few looks would favour the places that come in long runs.
 */
static __always_inline void trust(struct thread *t, __u64 at, bool same, __u64 now)
{
	__u32 trust = t->trust[at], doubt, most;

	trust = same ? trust + ((0xFFFF - trust) >> 6) : trust - (trust >> 6);
	doubt = 0xFFFF - trust;
	most = doubt < 0x400 ? 127 : doubt < 0x800 ? 31 : doubt < 0x1000 ? 15 : doubt < 0x2000 ? 7 : doubt < 0x4000 ? 3 : 0;
	t->trust[at] = trust;
	t->skip[at] = (__u32)(now * 0x9E3779B97F4A7C15ull >> 40) & most;
	t->looked = now;
}

/*
 * Which slot the wait that begins now belongs to.
 *
 * The same registers mean the same place nearly always. Not always: the number of a descriptor, even its `struct file`, may
 * have been given to another kind of file, and functions with frames of one size leave the same registers behind. Looking at
 * both costs as much as all the rest of a switch. So a thread that blocks often is looked at now and then, and all looks
 * together have a budget; without a look the registers are believed, for 10 ms at the most.
 */
static __always_inline __u64 place_of(void *ctx, struct thread *t, struct acc *acc, struct task_struct *task,
				      struct cpu_acc *cpu, struct wait *wait, __u64 now, enum walk_by how)
{
	__u64 at = wait->place >> 20, slot, whole, stack, began;
	struct near_stack *near_stack = NULL;
	struct place_key *place;
	bool same, by_returns;

	BOUND(at, PLACES - 1);
	if (!cpu->looks || (t->skip[at] && now - t->looked < period_ns)) {
		slot = t->recent[at];
		BOUND(slot, PLACES - 1);
		if (t->place[slot].regs == wait->place) {
			if (t->skip[at])
				t->skip[at]--;
			wait->reason = t->place[slot].reason;
			return t->place[slot].whole ? slot : NO_PLACE;
		}
	}
	if (wait->by_fd)
		wait->reason = by_descriptor(task, wait->fd);
	if (cpu->looks)
		cpu->looks--;
	if (!wants_stacks(task->tgid)) { /* remember the reason alone */
		trust(t, at, t->place[at].regs == wait->place && t->place[at].reason == wait->reason, now);
		t->place[at].regs = wait->place;
		t->place[at].reason = wait->reason;
		t->recent[at] = at;
		return NO_PLACE;
	}
	whole = mix(wait->place, wait->reason);
	by_returns = how == BY_TABLES && wait->sp;
	if (by_returns)
		near_stack = near_of(wait->sp);
	else
		whole = (wait->fp ? mix(whole, callers(wait->sp, wait->fp)) : whole) | 1;
	for (slot = 0; slot < PLACES; slot++) {
		place = &t->place[slot];
		if (!by_returns && place->whole == whole)
			break;
		if (by_returns && place->regs == wait->place && place->reason == wait->reason &&
		    place->whole == returns_of(place, near_stack, whole))
			break;
	}
	same = slot == t->recent[at];
	if (slot == PLACES) {
		if (!cpu->walks)
			return NO_PLACE;
		cpu->walks--;
		began = bpf_ktime_get_ns();
		stack = take_stack(ctx, task, task->tgid, BPF_CORE_READ(task, group_leader, start_boottime), true,
				   OWN_FRAMES, t->gen, how);
		timed(PROG_WALK, began, true);
		if (stack == HASH_NOT_TAKEN)
			return NO_PLACE;
		slot = t->oldest++;
		BOUND(slot, PLACES - 1);
		forget_place(t, acc, task, t->gen, slot);
		place = &t->place[slot];
		place->stack = stack;
		place->reason = wait->reason;
		place->whole = 0;
		place->regs = 0;
		if (!worth_remembering(how))
			return slot;
		if (by_returns) {
			place->returns = last_returns();
			whole = returns_of(place, near_stack, whole);
		}
		place->whole = whole;
	}
	trust(t, at, same, now);
	t->place[slot].regs = wait->place;
	t->recent[at] = slot;
	return slot;
}

static __always_inline void fill_task(struct task_rec *rec, struct task_struct *task, struct thread *t)
{
	struct mm_struct *mm;

	rec->task = (__u64)task;
	rec->start_ns = task->start_boottime;
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
	__builtin_memcpy(rec->comm, task->comm, sizeof(rec->comm));
	if (task->pid == task->tgid) {
		rec->ppid = BPF_CORE_READ(task, real_parent, tgid);
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
static __noinline int bury(struct thread *t, struct flip *f)
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
		fill_task(&rec->task, task, t);
		rec->task.gen = gen;
		rec->task.has_acc = 1;
		rec->task.dead = !i;
		rec->task.lived_ns = 0;
		rec->task.stack = HASH_NOT_TAKEN;
		__builtin_memcpy(&rec->acc, half(t, gen), sizeof(rec->acc));
		__builtin_memcpy(rec->place, t->place, sizeof(rec->place));
		bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
	}
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
static __noinline int catch_up(struct thread *t, struct task_struct *task, __u64 now)
{
	__u64 ran, since, state;
	struct acc *acc;

	if (!t || !task)
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

static __always_inline void leave_cpu(void *ctx, struct task_struct *task, struct flip *f, struct cpu_acc *cpu, __u64 now,
				      bool preempt, enum walk_by how)
{
	struct thread *t = thread_of(task, f, now, ST_ON_CPU);
	__u32 state = task->__state;
	struct wait wait;
	struct acc *acc;

	if (!t)
		return;
	if (t->state != ST_ON_CPU)
		catch_up(t, task, now);
	acc = half(t, t->gen);
	charge_on_cpu(t, acc, now);
	if (now >= t->state_since)
		hist_add(acc, task, t->gen, HIST_SLICE, now - t->state_since);
	t->state_since = now;
	t->ran_ns = task->se.sum_exec_runtime;
	if (state & TASK_DEAD) {
		t->state = ST_DEAD;
		bury(t, f);
		return;
	}
	if (preempt || state == TASK_RUNNING) {
		t->state = ST_PREEMPTED;
		acc->involuntary++;
		return;
	}
	acc->voluntary++;
	wait_of(task, state, t->call, &wait);
	if (wait.syscall != 0xFFFF)
		t->call = wait.syscall + 1;
	renew(cpu, f, now);
	t->slot = place_of(ctx, t, acc, task, cpu, &wait, now, how);
	t->syscall = wait.syscall;
	t->state = wait.reason;
	t->off_since = now;
}

/* Not inlined: the verifier would look at it once for each way in which the other thread can leave. */
static __noinline int take_cpu(struct task_struct *task, struct flip *f, struct cpu_acc *cpu, __u64 now)
{
	struct thread *t = thread_of(task, f, now, ST_PREEMPTED);
	__u32 here = bpf_get_smp_processor_id(), bucket;
	struct acc *acc;
	__u64 waited;

	if (!t)
		return 0;
	acc = half(t, t->gen);
	if (t->state == ST_WOKEN || t->state == ST_PREEMPTED) {
		waited = uncharged(t, now);
		if (t->state == ST_WOKEN)
			acc->ns[ST_WOKEN] += waited;
		else
			acc->ns[ST_PREEMPTED] += waited;
		if (now >= t->state_since) {
			waited = now - t->state_since;
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
			lose(LOSS_UNDERFLOW, 1);
		}
	} else {
		/* Its wakeup was not seen: the time since is not known to be either, so it stays where it was. */
		charge(t, acc, now);
		unseen(t, acc);
	}
	if (t->off_since) {
		if (now >= t->off_since)
			hist_add(acc, task, t->gen, HIST_OFF_CPU, now - t->off_since);
		t->off_since = 0;
	}
	if (t->cpu != here) {
		if (t->state_since)
			acc->migrations++;
		t->cpu = here;
	}
	t->state = ST_ON_CPU;
	t->state_since = now;
	return 0;
}

static __always_inline void woken(struct task_struct *task, bool fresh, __u64 now)
{
	struct flip *f = current_flip();
	struct thread *t;
	struct acc *acc;
	__u64 slot;

	if (!f || !f->gen)
		return;
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

static __always_inline int switched(void *ctx, bool preempt, struct task_struct *prev, struct task_struct *next,
				    enum walk_by how)
{
	struct flip *f = current_flip();
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct cpu_acc *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (!f || !f->gen || !cpu)
		return 0;
	if (prev->pid)
		leave_cpu(ctx, prev, f, cpu, now, preempt, how);
	if (next->pid)
		take_cpu(next, f, cpu, now);
	cpu->switches++;
	cpu->running_tid = next->pid;
	if (by_chance(now))
		timed(PROG_SWITCH, now, false);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return switched(ctx, preempt, prev, next, BY_TABLES);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch_fp, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return switched(ctx, preempt, prev, next, BY_FRAME_POINTERS);
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *task)
{
	__u64 now = bpf_ktime_get_ns();

	woken(task, false, now);
	if (by_chance(now))
		timed(PROG_WAKEUP, now, false);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	__u64 now = bpf_ktime_get_ns();

	woken(task, true, now);
	if (by_chance(now))
		timed(PROG_WAKEUP, now, false);
	return 0;
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

/* One record for each thread: its account of the interval before `flip`. */
SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct flip *f = current_flip();
	struct task_full_rec *rec;
	struct thread *t;
	struct acc *acc;
	__u32 zero = 0, try, seq;
	__u64 told, from, charged, slot = NO_PLACE, state = ST_COUNT;

	if (!task || !f)
		return 0;
	t = bpf_task_storage_get(&threads, task, NULL, 0);
	if (!t) {
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
	rec = bpf_map_lookup_elem(&out, &zero);
	told = f->gen - 1;
	if (!rec || t->state == ST_DEAD || t->born > told)
		return 0;
	acc = &rec->acc;
	for (try = 0; try < 4; try++) {
		seq = *(volatile __u32 *)&t->seq;
		barrier();
		rec->task.has_acc = 0;
		rec->task.lived_ns = 0;
		if (t->gen >= told)
			__builtin_memcpy(acc, half(t, told), sizeof(*acc));
		state = t->state;
		slot = t->slot;
		charged = t->charged;
		fill_task(&rec->task, task, t);
		if (t->gen > told) {
			rec->task.has_acc = 1;
		} else {
			from = charged > f->prev_ns ? charged : f->prev_ns;
			if (f->ns > from)
				rec->task.lived_ns = f->ns - from;
			rec->task.has_acc = t->gen == told;
		}
		barrier();
		if (!(seq & 1) && seq == *(volatile __u32 *)&t->seq)
			break;
	}
	if (try == 4)
		lose(LOSS_TORN, 1);
	rec->task.gen = told;
	rec->task.dead = 0;
	t->told = told;
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
		bpf_seq_write(ctx->meta->seq, rec, sizeof(*rec));
	} else {
		bpf_seq_write(ctx->meta->seq, &rec->task, sizeof(rec->task));
	}
	return 0;
}

/* So that the skeleton knows the types that only travel. */
struct task_rec _task_rec = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
