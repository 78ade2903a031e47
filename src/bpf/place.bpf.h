/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where a thread blocks: the few places that it blocked at before are remembered with their stacks, and found again by what its
 * registers, and the innermost words of its stack, say. A stack is walked only at a place that is new, and within a budget.
 */
#ifndef SBERF_PLACE_BPF_H
#define SBERF_PLACE_BPF_H

/* Set before load. */
const volatile __u32 self_tgid = 0;  /* its stacks are not taken */
const volatile __u64 period_ns = 10000000;
const volatile bool totals_only = false;
const volatile bool only_some = false; /* take stacks only of processes in `chosen` */

/* Innermost kernel frames in a trace point: this program and what runs it. */
#define OWN_FRAMES 2

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

#define WALK_PERIODS 16 /* of so many at the most walks are saved */

/* Renews what this CPU may spend when its period is over. */
static __always_inline void renew(struct cpu_acc *cpu, struct flip *f, __u64 now)
{
	__u64 since = now - cpu->period;

	if (since < period_ns)
		return;
	cpu->walks = refill(cpu->walks, f->walks, WALK_PERIODS, since, period_ns);
	cpu->period = now;
	cpu->looks = f->looks;
}

static __always_inline bool wants_stacks(__u32 tgid)
{
	return !totals_only && tgid != self_tgid && (!only_some || bpf_map_lookup_elem(&chosen, &tgid));
}

/* The time that was spent at a remembered place in an interval goes to that one's map. */
static __always_inline void forget_place(struct thread *t, struct task_struct *task, __u64 gen, __u64 slot)
{
	struct place_key *place = &t->place[slot];
	struct place *spent = &half(t, gen)->place[slot];

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

/* Another place takes a slot: what is accounted under it and not yet told of must not go to the newcomer. */
static __always_inline struct place_key *replace(struct thread *t, struct flip *f, struct task_struct *task, __u64 slot,
						 __u64 stack, __u64 reason)
{
	struct place_key *place = &t->place[slot];

	t->seq++;
	barrier();
	forget_place(t, task, t->gen, slot);
	if (is_untold(t, f))
		forget_place(t, task, t->gen - 1, slot);
	place->stack = stack;
	place->reason = reason;
	place->whole = 0;
	place->regs = 0;
	barrier();
	t->seq++;
	return place;
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
__noinline __u64 callers(__u64 sp, __u64 fp)
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
 * Whether the registers are believed to say where the wait begins: then `wait` gets its reason, and `slot` its index in place.
 *
 * The same registers mean the same place nearly always. Not always: the number of a descriptor, even its `struct file`, may
 * have been given to another kind of file, and functions with frames of one size leave the same registers behind. Looking at
 * both costs as much as all the rest of a switch. So a thread that blocks often is looked at now and then, and all looks
 * together have a budget; without a look the registers are believed, for 10 ms at the most.
 */
static __always_inline bool is_believed(struct thread *t, struct cpu_acc *cpu, struct wait *wait, __u64 now, __u8 *slot)
{
	__u64 by_regs = wait->place >> 20, at;
	struct place_key *place;

	BOUND(by_regs, PLACES - 1);
	if (cpu->looks && (!t->skip[by_regs] || now - t->looked >= period_ns))
		return false;
	at = t->recent[by_regs];
	BOUND(at, PLACES - 1);
	place = &t->place[at];
	if (place->regs != wait->place)
		return false;
	if (t->skip[by_regs])
		t->skip[by_regs]--;
	wait->reason = place->reason;
	*slot = place->whole ? at : NO_PLACE;
	return true;
}

/* Looks closely: which slot the wait that begins now belongs to. */
static __always_inline __u64 place_of(void *ctx, struct thread *t, struct flip *f, struct task_struct *task,
				      struct cpu_acc *cpu, struct wait *wait, __u64 now, enum walk_by how)
{
	__u64 at = wait->place >> 20, slot, whole, stack, began;
	struct near_stack *near_stack = NULL;
	struct place_key *place;
	bool same, by_returns;

	BOUND(at, PLACES - 1);
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
		place = replace(t, f, task, slot, stack, wait->reason);
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

#endif
