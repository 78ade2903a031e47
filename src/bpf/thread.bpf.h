/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What is kept of each thread, and where.
 *
 * At first in task storage, which needs no room set aside and ends with the thread. Finding it there is a call, and a call is a fourth of
 * what a switch costs us: threads that switch often move into an array, whose elements are found without one. Each thread is in one
 * of the two at any time. It moves while it gets a CPU: that, leaving one and being woken all happen under the lock of one run
 * queue, and the iterator has been there before or does not tell of it yet.
 */
#ifndef SBERF_THREAD_BPF_H
#define SBERF_THREAD_BPF_H

const volatile __u32 nodes = 1; /* set before load */

/* Whoever waits longer than this for another thread to say so has nothing to do. Python's threads wait 5 ms for their turn. */
#define PARKED_LONG_NS 10000000

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
	__u64 resumed;	   /* got a CPU then, and no hook told of it; not after `state_since`: of a wait before */
	__u64 looked;	   /* when it was last looked at closely where it blocks */
	__u8 state;
	__u8 slot;   /* index in place: where it is blocked */
	__u8 oldest; /* index in place, any multiple of PLACES added: who makes room */
	__u8 settled; /* it has a slot */
	__u16 syscall;
	__u8 recent[PLACES]; /* by registers: the slot in place that was last used for them */
	__u8 skip[PLACES];   /* by registers: waits until the next look */
	__u8 parks; /* it is blocked in a futex that nobody holds, see `wait_of` */
	__u8 brisk; /* the last time that took less than PARKED_LONG_NS */
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

#define SLOT_BITS 11 /* one value of a map, which before 6.1 is 4 MB at the most */
#define SLOT_MOVING 1 /* no number: somebody is about to move in */

struct slot {
	__u64 number; /* of the thread that is in it, see number_of; 0: nobody is */
	struct thread thread;
};

struct slot slots[1 << SLOT_BITS] SEC(".bss.slots");

/* In so many switches of one interval a thread has shown that it is worth a slot. */
#define SETTLES_AFTER 16

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

/* A machine may have more nodes than a thread has slots. A thread that runs on two of one slot in one interval is rare, and told of. */
static __always_inline void charge_node(struct acc *acc, __u64 node, __u64 ns)
{
	__u64 at = node, slot;

	BOUND(at, NODE_SLOTS - 1);
	slot = acc->node_ns[at];
	if (!(slot << (64 - NODE_SHIFT)))
		slot = node << NODE_SHIFT;
	if (slot >> NODE_SHIFT == node)
		acc->node_ns[at] = slot + ns;
	else
		lose(LOSS_NODE, 1);
}

static __always_inline void charge_on_cpu(struct thread *t, struct acc *acc, __u64 until)
{
	__u64 ns = uncharged(t, until);

	acc->ns[ST_ON_CPU] += ns;
	if (nodes > 1)
		charge_node(acc, (__u32)bpf_get_numa_node_id(), ns);
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

/* Since when it runs although its last event says otherwise; 0: that is not known of it. */
static __always_inline __u64 runs_unseen_since(struct thread *t)
{
	return t->state != ST_ON_CPU && t->resumed > t->state_since ? t->resumed : 0;
}

/* The same as `charge`, for a thread that may run unseen. */
static __always_inline void charge_all(struct thread *t, struct acc *acc, __u64 until)
{
	__u64 resumed = runs_unseen_since(t);

	if (resumed && resumed < until) {
		charge(t, acc, resumed);
		charge_on_cpu(t, acc, until);
	} else {
		charge(t, acc, until);
	}
}

/* When an interval began: the present one or one of the two before it. */
static __always_inline __u64 began(struct flip *f, __u64 gen)
{
	BOUND(gen, 3);
	return f->began[gen];
}

/* Nobody has told yet of what it did in the interval before its present one, in which it lived, and somebody has to. */
static __always_inline bool is_untold(struct thread *t, struct flip *f)
{
	return t->told + 1 < t->gen && t->born < t->gen && f->passed + 1 < t->gen;
}

/* Closes the interval before `f->gen` and opens a new account. Not static, so that the verifier goes through it once. */
__noinline int roll(struct thread *t, struct flip *f)
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
		if (t->charged < began(f, gen - 1))
			t->charged = began(f, gen - 1);
	}
	charge_all(t, old, began(f, gen));
	__builtin_memset(new, 0, sizeof(*new));
	t->gen = gen;
	barrier();
	t->seq++;
	return 0;
}

/* The ids of threads that had an event in an interval, of even ones and of odd ones, as far as there is room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 << LIST_BITS);
	__type(key, __u32);
	__type(value, __u32);
} listed SEC(".maps");

static __always_inline void list_id(struct flip *f, __u64 gen, __u32 id)
{
	__u32 at, *place;

	BOUND(gen, 1);
	at = __sync_fetch_and_add(&f->listed[gen], 1);
	if (at >= 1 << LIST_BITS)
		return;
	at |= gen << LIST_BITS;
	place = bpf_map_lookup_elem(&listed, &at);
	if (place)
		*place = id;
}

/*
 * The first event of a thread in the interval `gen`: of a machine where most sleep, the rest need not be looked at. With the first of
 * its process, which tells of their memory. Not static, so that the verifier goes through it once.
 */
__noinline int enlist(struct flip *f, __u64 gen, __u32 tid, __u32 tgid)
{
	if (!f)
		return 0;
	list_id(f, gen, tid);
	if (tid != tgid)
		list_id(f, gen, tgid);
	return 0;
}

/* From then to now. */
static __always_inline __u64 elapsed(__u64 then, __u64 now)
{
	__u64 ns = now - then;

	return ns & ~(__u64)((__s64)ns >> 63); /* no branch, see hist.bpf.h */
}

/* Counts a value and yields its bucket. */
static __always_inline __u64 hist_add(struct acc *acc, struct task_struct *task, __u64 gen, __u32 kind, __u64 value)
{
	__u64 bucket = bucket_of(value), at = bucket;
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

/* Where a task lies, as a number: that is what the difference of two pointers is to the verifier, and a pointer is not. */
static __always_inline __u64 number_of(struct task_struct *task, struct flip *f)
{
	return (__u64)task - (__u64)f;
}

/* One of the two slots that a thread may have: `other` is 0 or 1. */
static __always_inline struct slot *slot_of(__u64 number, __u32 other)
{
	__u64 at = (number * 0x9E3779B97F4A7C15ull >> (64 - SLOT_BITS)) ^ other;

	BOUND(at, (1 << SLOT_BITS) - 1);
	return &slots[at];
}

/* NULL if nothing is kept of it yet. */
static __always_inline struct thread *known_thread(struct task_struct *task, struct flip *f)
{
	__u64 number = number_of(task, f);
	struct slot *slot = slot_of(number, 0);

	if (slot->number == number)
		return &slot->thread;
	slot = slot_of(number, 1);
	if (slot->number == number)
		return &slot->thread;
	return bpf_task_storage_get(&threads, task, NULL, 0);
}

/* False if the slot is another's. */
static __always_inline bool move_in(struct slot *slot, struct task_struct *task, struct thread *t, __u64 number)
{
	if (slot->number || __sync_val_compare_and_swap(&slot->number, 0, SLOT_MOVING))
		return false;
	if (bpf_probe_read_kernel(&slot->thread, sizeof(slot->thread), t) || bpf_task_storage_delete(&threads, task)) {
		slot->number = 0;
		return true; /* the other slot would fare no better */
	}
	slot->thread.settled = 1;
	__sync_val_compare_and_swap(&slot->number, SLOT_MOVING, number);
	return true;
}

/* Gives the thread that has just got this CPU a slot, if one is free. */
static __noinline int settle(struct task_struct *task, struct thread *t, struct flip *f)
{
	__u64 number;

	if (!task || !t || !f)
		return 0;
	number = number_of(task, f);
	if (!move_in(slot_of(number, 0), task, t, number))
		move_in(slot_of(number, 1), task, t, number);
	return 0;
}

/* The thread has ended. */
static __always_inline void move_out(__u64 number)
{
	struct slot *slot = slot_of(number, 0);

	if (slot->number != number)
		slot = slot_of(number, 1);
	if (slot->number == number)
		slot->number = 0;
}

/* Its storage, with the account of the present interval open. `state`: what it is known to do if it is new to us. */
static __always_inline struct thread *thread_of(struct task_struct *task, struct flip *f, __u64 now, __u32 state)
{
	struct thread *t = known_thread(task, f);

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
		enlist(f, t->gen, task->pid, task->tgid);
	} else if (t->gen != f->gen) {
		roll(t, f);
		enlist(f, t->gen, task->pid, task->tgid);
	}
	return t;
}

#endif
