/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Log-linear buckets, eight per power of two: the same arithmetic as src/tick/hist.rs. */
#ifndef SBERF_HIST_BPF_H
#define SBERF_HIST_BPF_H

#define GREATER(v, than) (((than) - (v)) >> 63)

const __u8 log2_of_byte[256] = {
	[2 ... 3] = 1,	 [4 ... 7] = 2,	   [8 ... 15] = 3,    [16 ... 31] = 4,
	[32 ... 63] = 5, [64 ... 127] = 6, [128 ... 255] = 7,
};

/*
 * In arithmetic as far as a byte, not by comparing: that is a branch to BPF, which a CPU may guess wrong, and which doubles what
 * the verifier has to look at behind it. The byte by a table, of which four lines are in use. Values are below 2^63.
 */
static __always_inline __u64 log2_u64(__u64 v)
{
	__u64 r, shift;

	r = GREATER(v, 0xFFFFFFFFull) << 5;
	v >>= r;
	shift = GREATER(v, 0xFFFFull) << 4;
	v >>= shift;
	r |= shift;
	shift = GREATER(v, 0xFFull) << 3;
	v >>= shift;
	r |= shift;
	BOUND(v, 255);
	return r + log2_of_byte[v];
}

/* Below 8 each value has its own. */
static __always_inline __u64 bucket_of(__u64 value)
{
	__u64 shift = log2_u64(value | 8) - 3;

	return (shift << 3) + (value >> shift);
}

/* Index of a bucket in an array of WINDOW_CELLS; what lies outside goes to the first or the last cell. */
static __always_inline __u64 window_cell(__u64 bucket)
{
	if (bucket < WINDOW_FIRST)
		return 0;
	bucket -= WINDOW_FIRST;
	return bucket < WINDOW_CELLS ? bucket : WINDOW_CELLS - 1;
}

#endif
