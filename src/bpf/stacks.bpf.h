/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Stacks: taken into a scratch buffer, named by a 64-bit hash over process and frames, counted in a map of the current
 * generation. Frames travel to user space once, when a hash is first seen.
 *
 * No STACK_TRACE map: it drops the second of two stacks that share a slot, and that is often the hot one.
 */
#ifndef SBERF_STACKS_BPF_H
#define SBERF_STACKS_BPF_H

#include "snapshot.bpf.h"

struct stack_gen {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct stack_key);
	__type(value, struct stack_val);
} stacks_even SEC(".maps"), stacks_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct stack_gen);
} stacks SEC(".maps") = { .values = { &stacks_even, &stacks_odd } };

/* What found no room above, by process: small, so that it fits even then. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct stack_key);
	__type(value, struct stack_val);
} unrecorded SEC(".maps");

/*
 * Hashes of stacks whose frames user space has, 8 to a bucket, which is a line of the cache: an insert into an LRU map costs more than all
 * the rest of sending a stack. Whose hash was pushed out is sent once more. Two CPUs that write at a time may lose one: the same.
 */
#define SENT_BITS 13
#define SENT_WAYS 8

struct sent {
	__u64 hash[SENT_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << SENT_BITS);
	__type(key, __u32);
	__type(value, struct sent);
} sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} frames SEC(".maps");

/* Not shared: an NMI may sample while another program walks. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct frames_rec);
} scratch SEC(".maps");

static __always_inline bool bump(void *map, struct stack_key *key, __u64 weight, __u64 count)
{
	struct stack_val *val = bpf_map_lookup_elem(map, key);

	if (!val) {
		struct stack_val fresh = { .weight = weight, .count = count };

		if (!bpf_map_update_elem(map, key, &fresh, BPF_NOEXIST))
			return true;
		val = bpf_map_lookup_elem(map, key); /* another CPU was first, or there is no room */
		if (!val)
			return false;
	}
	__sync_fetch_and_add(&val->weight, weight);
	__sync_fetch_and_add(&val->count, count);
	return true;
}

static __always_inline void count_stack(struct stack_key *key, __u64 weight, __u64 count, __u64 gen)
{
	__u32 index = gen & 1;
	void *map = bpf_map_lookup_elem(&stacks, &index);

	if (map && bump(map, key, weight, count))
		return;
	lose(LOSS_STACK_MAP, count ? count : 1);
	key->hash = HASH_UNRECORDED;
	bump(&unrecorded, key, weight, count);
}

/* The hash that names a stack of `n` frames in both parts. */
__noinline __u64 name_of(struct frames_rec *rec, __u64 hash, __u64 n)
{
	__u32 i;

	if (!rec)
		return HASH_NOT_TAKEN;
	for (i = 0; i < 2 * MAX_FRAMES; i++) {
		if (i >= n)
			break;
		hash = mix(hash, rec->ips[i]);
	}
	return hash <= HASH_UNRECORDED ? hash + 2 : hash;
}

/* Sends the frames unless user space has them; they count as sent only when they were. */
static __always_inline void ship(struct frames_rec *rec, __u64 n)
{
	__u64 hash = rec->hash, way = hash >> 8 & (SENT_WAYS - 1);
	__u32 at = hash >> (64 - SENT_BITS), i;
	struct sent *bucket = bpf_map_lookup_elem(&sent, &at);

	if (!bucket)
		return;
	for (i = 0; i < SENT_WAYS; i++)
		if (bucket->hash[i] == hash)
			return;
	BOUND(n, 4 * MAX_FRAMES - 1);
	if (n > 2 * MAX_FRAMES)
		return;
	if (bpf_ringbuf_output(&frames, rec, __builtin_offsetof(struct frames_rec, ips) + n * sizeof(__u64),
			       BPF_RB_NO_WAKEUP))
		lose(LOSS_FRAME_RING, 1);
	else
		bucket->hash[way] = hash;
}

/*
 * Programs that take stacks come twice, to be loaded as `how` it can be done: functions that are not static are verified even
 * where nothing calls them, so a kernel that lacks what tables need must not see them.
 */
enum walk_by {
	BY_FRAME_POINTERS,
	BY_TABLES,
};

/* Half way through execve(2) the registers are of a program that is there no more. */
static __always_inline bool has_user_part(struct task_struct *task)
{
	return !(task->flags & (PF_KTHREAD | PF_IO_WORKER)) && !BPF_CORE_READ_BITFIELD(task, in_execve);
}

/* Whose stack this is. */
static __always_inline void begin_stack(struct frames_rec *rec, struct task_struct *task, __u32 tgid, __u64 start_ns)
{
	struct mm_struct *mm = NULL;

	rec->start_ns = start_ns;
	rec->tgid = tgid;
	bpf_probe_read_kernel(&mm, sizeof(mm), &task->mm); /* as a number, which a typed pointer is not */
	rec->has_mm = mm != NULL;
	rec->image = 0;
	if (mm)
		bpf_probe_read_kernel(&rec->image, sizeof(rec->image), &mm->start_stack);
	rec->seed = mix(start_ns ^ ((__u64)tgid << 32), (__u64)mm ^ rec->image << 12);
	rec->user = 0;
	rec->kernel = 0;
	rec->by_table = 0;
	rec->stop = 0;
	rec->pending = 0;
}

/* Addresses belong to an address space: the same ones mean other code after exec. */
static __always_inline void name_stack(struct frames_rec *rec, __u64 n)
{
	rec->seed = mix(rec->seed, rec->stop);
	rec->hash = name_of(rec, rec->seed, n);
}

/* The user part: how many frames. */
static __always_inline __u64 take_user(void *ctx, struct task_struct *task, struct frames_rec *rec, struct walk *w, __u64 gen,
				       enum walk_by how)
{
	long got;

	if (!has_user_part(task))
		return 0;
	if (how == BY_TABLES && unwind_user(task, rec, w, gen))
		return rec->user;
	got = bpf_get_stack(ctx, rec->ips, MAX_FRAMES * sizeof(__u64), BPF_F_USER_STACK);
	rec->user = got < 0 ? got : got >> 3;
	return got > 0 ? (__u64)got >> 3 : 0;
}

/*
 * The kernel part, behind `n` frames of the user's. The helper fills with zeros what it does not need, so that room for the deepest
 * stack costs more than a usual stack does: little room first.
 */
#define USUAL_KERNEL_FRAMES 32

static __always_inline __u64 take_kernel(void *ctx, struct frames_rec *rec, __u64 n, __u64 skip)
{
	long got = bpf_get_stack(ctx, &rec->ips[n], USUAL_KERNEL_FRAMES * sizeof(__u64), skip);

	if (got == USUAL_KERNEL_FRAMES * sizeof(__u64))
		got = bpf_get_stack(ctx, &rec->ips[n], MAX_FRAMES * sizeof(__u64), skip);
	rec->kernel = got < 0 ? got : got >> 3;
	return got > 0 ? (__u64)got >> 3 : 0;
}

/*
 * Takes user and kernel stack of the current task. Returns the hash that names it, HASH_NOT_TAKEN if there is no
 * scratch. `skip`: innermost kernel frames that are our own.
 */
static __always_inline __u64 take_stack(void *ctx, struct task_struct *task, __u32 tgid, __u64 start_ns, bool kernel,
					__u64 skip, __u64 gen, enum walk_by how)
{
	__u32 zero = 0;
	__u64 n, k;
	struct frames_rec *rec = bpf_map_lookup_elem(&scratch, &zero);
	struct walk *w = NULL;

	if (how == BY_TABLES)
		w = bpf_map_lookup_elem(&walks, &zero);
	if (!rec || (how == BY_TABLES && !w))
		return HASH_NOT_TAKEN;
	begin_stack(rec, task, tgid, start_ns);
	n = rec->has_mm ? take_user(ctx, task, rec, w, gen, how) : 0;
	BOUND(n, 2 * MAX_FRAMES - 1); /* a mask */
	if (n > MAX_FRAMES)
		n = MAX_FRAMES;
	if (kernel) {
		k = take_kernel(ctx, rec, n, skip);
		BOUND(k, 2 * MAX_FRAMES - 1);
		n += k;
	}
	name_stack(rec, n);
	if (how == BY_TABLES && rec->stop == UNWIND_STOP_NO_TABLE)
		snapshot(w, rec);
	ship(rec, n);
	return rec->hash;
}

#endif
