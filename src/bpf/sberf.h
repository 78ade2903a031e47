/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every type that crosses from the kernel side to user space. Plain C, naturally aligned, no bool, no pointer.
 * Times are CLOCK_MONOTONIC ns, start times of tasks CLOCK_BOOTTIME ns.
 */
#ifndef SBERF_H
#define SBERF_H

#include "unwind.h"

#define MAX_FRAMES 128 /* of each part, user and kernel */
#define NODE_SLOTS 8   /* of a thread, in one interval */
#define NODE_SHIFT 48  /* a slot: the node above, below ns, of which that is three days */
#define HIST_CELLS 32	/* of the write-combining cache of a thread's histogram */
#define PLACES 4	/* where a thread was seen to block: remembered stacks */
#define STATE_SLOTS 16	/* powers of two: the verifier follows a mask, not a comparison */
#define PLACE_SLOTS 8
#define NO_PLACE PLACES /* index in `place`: the stack was not taken */
#define SYSCALLS 512

/* Windowed histograms of CPUs and disks: buckets of 512 ns (bytes) and up, 27 powers of two. */
#define WINDOW_FIRST 56 /* bucket_of(512) */
#define WINDOW_CELLS 216

/* What a thread does. The first is split into user and kernel by the kernel's own accounting in user space. */
enum state {
	ST_ON_CPU,
	ST_WOKEN,
	ST_PREEMPTED,
	ST_DISK,
	ST_LOCK,
	ST_NET,
	ST_PIPE,
	ST_TIMER,
	ST_POLL,
	ST_FAULT,
	ST_STOPPED,
	ST_OTHER,
	ST_COUNT,
	ST_DEAD = ST_COUNT,
	ST_BY_FD, /* in the table of system calls only: look at what the descriptor is */
};

enum hist_kind {
	HIST_RUNQ,
	HIST_OFF_CPU,
	HIST_SLICE,
	HIST_KINDS,
};

enum loss {		    /* index into the `losses` map */
	LOSS_STACK_MAP,	    /* weight of a stack found no room */
	LOSS_FRAME_RING,    /* frames of a new stack found no room; sent again when seen again */
	LOSS_HIST_MAP,	    /* a histogram count found no room */
	LOSS_LIFE_RING,	    /* a fork, exec or exit found no room */
	LOSS_DEAD_RING,	    /* the last account of a thread found no room */
	LOSS_REQUEST_MAP,   /* a request in flight found no room */
	LOSS_SLOW_RING,	    /* a slow request found no room */
	LOSS_TORN,	    /* a thread's record kept changing while it was read */
	LOSS_UNDERFLOW,	    /* an interval came out negative */
	LOSS_NO_STORAGE,    /* no memory for a thread's storage */
	LOSS_UNSEEN,	    /* a switch or wakeup that no hook told of, found by the thread's next one */
	LOSS_NODE,	    /* a stay on a CPU whose NUMA node was not kept, or a move between nodes */
	LOSS_OTHER_REQUEST, /* a request that is no read, write, flush or discard */
	LOSS_KINDS,
};

/*
 * The interval that is being filled: user space writes when it began, then its number. And what may change while programs run.
 *
 * Each beginning has a place of its own: who read the old number still finds the times that go with it.
 */
struct flip {
	__u64 gen;	     /* number of the interval */
	__u64 passed;	     /* the last one of which all threads have been asked for, or need not be */
	__u64 began[4];	     /* by the two lowest bits of the number: this one and those before it */
	__u32 walks;	     /* of stacks, per CPU and period; 0: none */
	__u32 looks;	     /* closer looks at a place that registers say is known, per CPU and period */
	__u32 sample_weight; /* what a sample counts for, in parts of WEIGHT_ONE: more while fewer are taken than was asked for */
	__u32 pad;	     /* what programs write is no neighbour of what they all read */
	__u32 listed[2];     /* by lowest bit of the interval: ids in its list, also those that found no room in it */
};

#define WEIGHT_ONE 65536

/* Threads with an event in an interval are listed, up to so many. */
#define LIST_BITS 12

/* Programs whose time is kept, and the walk of a blocked thread's stack. Index into the `costs` map. */
enum program {
	PROG_SWITCH,
	PROG_WAKEUP,
	PROG_WALK,
	PROG_SAMPLE,
	PROG_FORK,
	PROG_THREAD, /* the same program: not a process, a thread */
	PROG_EXEC,
	PROG_EXIT,
	PROG_IO_START,
	PROG_RQ_INSERT,
	PROG_RQ_ISSUE,
	PROG_RQ_COMPLETE,
	PROG_NUMA,
	PROG_KINDS,
};

/* Only grows. */
struct program_cost {
	__u64 runs; /* 0 of switches and wakeups: that would cost as much as it tells */
	__u64 timed;
	__u64 ns; /* in those that were timed */
};

struct cell {
	__u16 count;
	__u16 bucket;
};

struct place {
	__u64 ns;    /* blocked there */
	__u64 count; /* waits that ended there */
};

/* What a thread did in one interval. */
struct acc {
	__u64 ns[STATE_SLOTS];
	__u64 max_ns[HIST_KINDS];
	__u64 sum_ns[HIST_KINDS];
	__u64 node_ns[NODE_SLOTS]; /* by the low bits of the node, see NODE_SHIFT */
	struct place place[PLACE_SLOTS];
	struct cell hist[HIST_KINDS][HIST_CELLS];
	__u32 voluntary;
	__u32 involuntary;
	__u32 wakeups;
	__u32 migrations;
};

struct place_key {
	__u64 regs;    /* hash of the registers that say "same place"; 0: none */
	__u64 whole;   /* the same with the reason and the nearest callers */
	__u64 stack;   /* hash of the stack taken there */
	__u64 returns; /* which of the NEAR_WORDS innermost words of the stack are return addresses, a bit each */
	__u64 reason;
};

#define NEAR_WORDS 64

/* Of every thread, in both kinds of record. */
struct task_rec {
	__u64 gen;	 /* the interval that is told of */
	__u64 start_ns;
	__u64 leader_start_ns;
	__u64 since_ns;	 /* when the present state began */
	__u64 utime_ns;
	__u64 stime_ns;
	__u64 minor_faults;
	__u64 major_faults;
	__u64 rss_pages; /* of leaders only */
	__u64 vm_pages;	 /* of leaders only */
	__u64 lived_ns;	 /* time in `state` up to the end of the interval; included in an `acc` that follows */
	__u64 stack;	 /* hash of the stack where it is blocked, HASH_NOT_TAKEN if not known */
	__u64 task;	 /* the same for as long as it lives, which its ids are not: exec gives a thread those of the first */
	__u32 tid;
	__u32 tgid;
	__u32 ppid;
	__u32 uid;
	__u32 cpu;
	__u16 syscall;
	__u8 state;
	__u8 has_acc;	 /* a `struct acc` and PLACES `struct place_key` follow */
	__u8 kthread;
	__u8 dead;
	__u8 has_mm;
	__u8 brief; /* of a leader: user and memory were told a moment ago, and are not told again */
	__u8 sleeps_as; /* what `state` is called of who has slept through the interval, or goes on to sleep through the next */
	__u8 pad[3];
	char comm[16];
};

struct task_full_rec {
	struct task_rec task;
	struct acc acc;
	struct place_key place[PLACES];
};

struct stack_key {
	__u64 start_ns; /* of the process */
	__u64 hash;	/* HASH_* below for what has no frames */
	__u32 tgid;
	__u32 lens;	/* ST_ON_CPU: samples; ST_DISK…ST_OTHER: ns blocked */
};

#define HASH_NOT_TAKEN 0
#define HASH_UNRECORDED 1

struct stack_val {
	__u64 weight;
	__u64 count;
};

/*
 * `ips`: the user part, then the kernel part, both leaf first. A user part that was walked by tables (`by_table`) has words of
 * its own: how the frame was found (enum unwind_from) from FROM_SHIFT on, and where it is: within a file that has a table
 * (FRAME_IN_FILE: its index, low bits of its generation, the offset), or an address. Of a return address it is the byte before
 * it, which lies within the call.
 */
struct frames_rec {
	__u64 hash;
	__u64 start_ns;
	__u32 tgid;
	__s32 user; /* frames; negative: -errno */
	__s32 kernel;
	__u8 has_mm;
	__u8 by_table;
	__u8 stop;    /* of a walk by tables: enum unwind_stop */
	__u8 pending; /* a snapshot of the same hash follows, that can complete it */
	__u64 seed;   /* what the hash began with: of process, address space, program and stop */
	__u64 image;  /* where the stack of its program began, which tells it from what the process executes next; 0: none */
	__u64 ips[2 * MAX_FRAMES];
};

#define FROM_SHIFT 60
#define FRAME_IN_FILE (1ull << 59)
#define FRAME_GENERATION_SHIFT 54
#define FRAME_FILE_SHIFT 40
#define FRAME_FILE_BITS 14
#define FRAME_GENERATION_MASK 31

/* Wanted: the table of a file, or one window of it. */
struct unwind_need {
	struct unwind_key key;
	__u64 start_ns; /* of a process that has it mapped */
	__u64 vm_start;
	__u64 vm_end;
	__u64 offset; /* in the file: where a rule was wanted */
	__u32 tgid;
	__u32 file; /* 0: the whole is wanted, else a window of this one */
	__u32 generation; /* of that */
	__u32 pad;
};

#define SNAPSHOT_BYTES 65536

enum snapshot_taken {
	SNAPSHOT_SAMPLED,
	SNAPSHOT_BLOCKS, /* the thread is about to block, and stays where it is for a while */
	SNAPSHOT_ASLEEP, /* it was blocked already: nothing of its stack follows */
};

/*
 * What is needed to walk a stack when its tables are there. SNAPSHOT_BYTES follow, of which `bytes` are of it, from SP up. If it is
 * `wide`, as many follow again, of which the last `outer_bytes` are what lies below `outer_end`: a thread's first functions.
 */
struct unwind_snapshot {
	__u64 hash; /* of the stack that it completes */
	__u64 start_ns;
	__u64 image; /* as in frames_rec */
	__u64 pc;
	__u64 regs[32]; /* DWARF's numbers; x86-64 has 16 */
	__u32 tgid;
	__u32 tid;
	__u32 bytes;
	__u32 taken; /* enum snapshot_taken */
	__u64 outer_end;
	__u32 outer_bytes;
	__u32 wide;
};

struct unwind_snapshot_rec {
	struct unwind_snapshot snapshot;
	__u8 stack[SNAPSHOT_BYTES];
};

struct unwind_wide_rec {
	struct unwind_snapshot_rec rec;
	__u8 outer[SNAPSHOT_BYTES];
};

enum mapped {
	MAPPED_FILE,
	MAPPED_VDSO,
	MAPPED_ANONYMOUS,
};

/* An executable mapping of a process. */
struct unwind_mapping {
	struct unwind_key key; /* of a file */
	__u64 start;
	__u64 end;
	__u64 offset; /* in the file, of `start` */
	__u32 kind;
	__u32 magic; /* of the file system, see statfs(2) */
};

struct hist_key {
	__u64 start_ns; /* of the thread */
	__u32 tid;
	__u16 kind;
	__u16 bucket;
};

/* Only grows; one per CPU. */
struct cpu_acc {
	__u64 switches;
	__u64 runnable_ns; /* waited for before running here */
	__u64 runq_max_ns; /* of the interval `max_gen` */
	__u64 max_gen;
	__u64 period;	   /* when the present period of the two budgets began */
	__u64 began;	   /* when the switch began that `look` ends; 0: it is not timed */
	__u32 walks;	   /* left in it */
	__u32 looks;	   /* left in it */
	__u32 running_tid; /* who runs; 0: idle */
	__u32 pad;
	__u32 runq[WINDOW_CELLS];
};

enum life_kind {
	LIFE_FORK,
	LIFE_EXEC,
	LIFE_EXIT,
};

struct life_rec {
	__u64 at_ns;
	__u64 start_ns;
	__u32 tgid;
	__u32 kind;
	__u32 parent; /* tgid, of a fork */
	__u32 status; /* of an exit */
	char comm[16];
};

enum disk_op {
	OP_READ,
	OP_WRITE,
	OP_FLUSH,
	OP_DISCARD,
	OP_COUNT,
};

struct disk_key {
	__u32 dev;
	__u16 op;
	__u16 gen; /* its lowest bit */
};

struct disk_val {
	__u64 requests;
	__u64 bytes;
	__u64 errors;
	__u64 queued_sum;
	__u64 device_sum;
	__u64 size_sum;
	__u64 queued_max;
	__u64 device_max;
	__u64 size_max;
	__u32 queued[WINDOW_CELLS];
	__u32 device[WINDOW_CELLS];
	__u32 size[WINDOW_CELLS];
};

struct io_key {
	__u64 start_ns; /* of the process */
	__u32 tgid;
	__u16 op;
	__u16 gen;
};

struct io_val {
	__u64 requests;
	__u64 bytes;
	__u64 sum;
	__u64 max;
	__u32 latency[WINDOW_CELLS];
};

struct inflight {
	__u64 queued_ns;
	__u64 issued_ns; /* 0: still queued */
	__u64 sector;
	__u64 start_ns;	 /* of the process that asked */
	__u64 bytes;
	__u32 tgid;
	__u32 dev;
	__u32 op;
	__u32 done_bytes;
	char comm[16];
};

struct slow_rec {
	__u64 end_ns;
	__u64 sector;
	__u64 bytes;
	__u64 queued_ns;
	__u64 device_ns;
	__u64 start_ns;
	__u32 tgid;
	__u32 dev;
	__u32 op;
	__u32 pad;
	char comm[16];
};

/* Where sberf itself lives: its pid namespace, and by which ids it knows the tasks in there. */
struct home {
	__u64 space; /* the namespace */
	__u32 level; /* namespaces above it; 0: the first one, of which all the others are part */
	__u32 shown; /* those above the one by whose ids tasks are known: that of /proc, the same or one above */
	__u32 tgid;  /* of sberf, in the first one, as everything else on the kernel side */
	__u32 lost;  /* births that found no room in the ring */
};

/* A task in there. */
struct id_rec {
	__u64 start_ns;
	__u32 tid;   /* in the first namespace */
	__u32 shown; /* in that of /proc */
	__u32 own;   /* in ours */
	__u32 pad;
};

#define NAMES_AT_ONCE 64
#define NAME_BYTES 576 /* the kernel's longest symbol has 511, "+0x…/0x… [module]" follows */

/* Addresses of the kernel's code, and what is there. */
struct name_request {
	__u32 wants_hook; /* the first address is that of what calls hooks */
	__u32 pad;
	__u64 address[NAMES_AT_ONCE]; /* 0: none from here on */
	char name[NAMES_AT_ONCE][NAME_BYTES];
};

#endif
