/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What walks read, the tables of unwind.h, and what is kept of one from a frame to the next. */
#ifndef SBERF_WALK_BPF_H
#define SBERF_WALK_BPF_H

#define RULES_PER_VALUE 8 /* rules in one map value */
#define MEMOS 4 /* mappings that are remembered */

struct unwind_words {
	__u32 word[UNWIND_PER_VALUE];
};

struct unwind_rules {
	struct unwind_rule rule[RULES_PER_VALUE];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, UNWIND_FILES);
	__type(key, struct unwind_key);
	__type(value, __u32);
} unwind_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UNWIND_FILES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_file);
} unwind_files SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UNWIND_PAGES / UNWIND_PER_VALUE);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_words);
} unwind_pages SEC(".maps");

struct unwind_chunk {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, (1 << UNWIND_CHUNK_SHIFT) / UNWIND_PER_VALUE);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct unwind_words)); /* clang 14 does not describe a type that only a map in a map has */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, UNWIND_CHUNKS);
	__type(key, __u32);
	__array(values, struct unwind_chunk);
} unwind_rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UNWIND_RULES / RULES_PER_VALUE);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_rules);
} unwind_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} unwind_needs SEC(".maps");

enum covered {
	COVERED,	  /* the file has a table */
	COVERED_NOT_YET,
	COVERED_NEVER,	  /* a file without one */
	COVERED_ANONYMOUS, /* code made at run time */
};

/* How a memo stands to the present walk. */
enum kept {
	KEPT_NOT,	 /* made in it, or found to hold */
	KEPT_AS_IT_IS,	 /* of one before, and nothing was mapped or unmapped since */
	KEPT_TO_COMPARE, /* of one before: with the mapping that is there now */
};

/* An executable mapping of the process. */
struct memo {
	__u64 vma;
	__u64 start;
	__u64 end;	 /* 0: none */
	__u64 bias;	 /* from an address to the offset in the file */
	struct unwind_file file;
	__u32 index;	 /* of the file */
	__u32 number;	 /* see mapping_number */
	__u16 covered;	 /* enum covered */
	__u16 kept;	 /* enum kept */
};

struct walk {
	__u64 pc;
	__u64 sp;
	__u64 fp;
	__u64 mm;
	__u64 regs; /* where the user's registers are kept */
	__u64 gen;
	__u32 frames;
	__u32 from;
	__u32 fp_known;
	__u32 next_memo;
	__u32 stop;
	__u32 ask; /* `need` is to be sent */
	__u32 tid;
	__u32 pad;
	__u64 start_sp;
	__u64 returns; /* where return addresses lay, as in place_key */
	struct memo memo[MEMOS];
	__u64 memos_of; /* which address space they are of */
	__u32 memos_at; /* its number of mappings_number when they were looked up */
	__u32 memos_hold; /* that was known */
	struct unwind_rule rule;
	struct unwind_need need;
	__u64 period; /* when the present one of the budget for snapshots began */
	__u64 snapshots; /* left in it */
	__u64 pivot[15]; /* of the node that `vma_at` looks at: here, for up to 6.1 functions that call each other share 512 bytes */
};

/* Not shared: a sample may interrupt another program's walk. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

#endif
