/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Log-linear buckets, eight per power of two: the same arithmetic as src/tick/hist.rs. */
#ifndef SBERF_HIST_BPF_H
#define SBERF_HIST_BPF_H

static __always_inline __u32 log2_u64(__u64 v)
{
	__u32 r, shift;

	r = (v > 0xFFFFFFFFull) << 5;
	v >>= r;
	shift = (v > 0xFFFF) << 4;
	v >>= shift;
	r |= shift;
	shift = (v > 0xFF) << 3;
	v >>= shift;
	r |= shift;
	shift = (v > 0xF) << 2;
	v >>= shift;
	r |= shift;
	shift = (v > 0x3) << 1;
	v >>= shift;
	r |= shift;
	return r | (v >> 1);
}

static __always_inline __u32 bucket_of(__u64 value)
{
	__u32 log2;

	if (value < 8)
		return value;
	log2 = log2_u64(value);
	return (log2 - 2) * 8 + ((value >> (log2 - 3)) & 7);
}

/*
 * The same, for programs that can afford a call. Neither static nor inlined: then the verifier looks at it once, for any value.
 * Inlined, each comparison in it doubles what is to be looked at behind it, which is most of the time that loading takes.
 */
__noinline __u32 bucket_by_call(__u64 value)
{
	return bucket_of(value);
}

/* Index of a bucket in an array of WINDOW_CELLS; what lies outside goes to the first or the last cell. */
static __always_inline __u32 window_cell(__u32 bucket)
{
	if (bucket < WINDOW_FIRST)
		return 0;
	bucket -= WINDOW_FIRST;
	return bucket < WINDOW_CELLS ? bucket : WINDOW_CELLS - 1;
}

#endif
