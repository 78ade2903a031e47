/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Maps that every object shares: user space loads `sched` first and gives its descriptors to the others.
 *
 * Maps with two generations are indexed by the lowest bit of `flip.gen`, read once per event. After a flip user space
 * waits for running programs to leave (the update of a map-in-map does), then drains the retired one.
 */
#ifndef SBERF_SHARED_BPF_H
#define SBERF_SHARED_BPF_H

/* A variable, not the value of a map that is looked up: every event asks for it. It is one map to all objects as well. */
struct flip flip SEC(".data.flip") = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSS_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROG_KINDS);
	__type(key, __u32);
	__type(value, struct program_cost);
} costs SEC(".maps");

/* Keeps an index within a power of two where the compiler would drop the mask as proven, and the verifier could not. */
#define BOUND(index, mask) asm volatile("%0 &= %1" : "+r"(index) : "i"(mask))

static __always_inline void lose(__u32 why, __u64 n)
{
	__u64 *count = bpf_map_lookup_elem(&losses, &why);

	if (count)
		*count += n;
}

/* One of 64, whatever the rhythm of events and the grain of the clock. */
static __always_inline bool by_chance(__u64 now)
{
	return !(now * 0x9E3779B97F4A7C15ull >> 58);
}

/* Since `began` this program ran, and now it ends. */
static __always_inline void timed(__u32 program, __u64 began, bool count)
{
	struct program_cost *cost = bpf_map_lookup_elem(&costs, &program);

	if (!cost)
		return;
	if (count)
		cost->runs++;
	cost->timed++;
	cost->ns += bpf_ktime_get_ns() - began;
}

/*
 * What may be spent from here on, when a period is over: what is due in one, and what is left of those before, of so many at the most. Who
 * begins needs much at once, and then little.
 */
static __always_inline __u32 refill(__u32 left, __u32 due, __u32 periods, __u64 since, __u64 period)
{
	__u32 most = due * periods;

	if (since >= periods * period || left + due > most)
		return most;
	return left + due;
}

static __always_inline struct flip *current_flip(void)
{
	return &flip;
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash ^= word;
	hash *= 0x9E3779B97F4A7C15ull;
	return hash ^ (hash >> 29);
}

#endif
