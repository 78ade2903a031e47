/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The part of the kernel's types that sberf reads, relocated at load time (CO-RE). No vmlinux.h, no kernel headers.
 *
 * Fields that differ between kernels have a flavour (`___suffix`, ignored by libbpf when it matches types) and a
 * helper below that names the change.
 *
 * Pointers in a task that the verifier trusts are read by BPF_CORE_READ, as numbers, or after WALK_FROM, not as `task->mm`: to know
 * whether such a pointer can be trusted too it searches all types by name, four times over, for each load on each path: 1 ms.
 */
#ifndef SBERF_KERNEL_H
#define SBERF_KERNEL_H

#define __VMLINUX_H__ /* bpf_tracing.h: use the kernel's register names */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef _Bool bool;
typedef int pid_t;
#define true 1
#define false 0
#define NULL ((void *)0)

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_USER_STACK = 256,
	BPF_F_MMAPABLE = 1024,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* What aarch64 has in common with user space is `user_pt_regs`, at the beginning of its own. */
struct pt_regs {
#if defined(__TARGET_ARCH_x86)
	unsigned long r15;
	unsigned long r14;
	unsigned long r13;
	unsigned long r12;
	unsigned long bp;
	unsigned long bx;
	unsigned long r11;
	unsigned long r10;
	unsigned long r9;
	unsigned long r8;
	unsigned long ax;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
	unsigned long ip;
	unsigned short cs;
	unsigned long sp;
#else
	__u64 orig_x0;
	__s32 syscallno;
#endif
};

struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	__s64 i_size;
	__u32 i_generation;
};

struct file {
	struct inode *f_inode;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	int nr_threads;
	atomic_t live;
	int group_exit_code;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct percpu_counter {
	__s64 count;
};

/* From 6.1 on: 524e00b36e8c put the mappings of an address space into a maple tree. */
struct maple_tree {
	void *ma_root;
};

struct maple_range_64 {
	unsigned long pivot[15];
	void *slot[16];
};

struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
};

enum maple_type {
	maple_dense,
	maple_leaf_64,
	maple_range_64,
	maple_arange_64,
};

typedef struct {
	void *vdso;
} mm_context_t;

/* From 6.2 on: f1a7941243c1 made rss_stat an array of percpu_counter. */
struct mm_struct {
	struct maple_tree mm_mt;
	mm_context_t context;
	unsigned long total_vm;
	unsigned long start_stack;
	struct percpu_counter rss_stat[4];
};

/* When something is mapped or unmapped: up to 6.12 a number that then rises, since then one that is odd meanwhile. */
struct mm_struct___number {
	int mm_lock_seq;
};

struct seqcount {
	unsigned int sequence;
};

typedef struct seqcount seqcount_t;

struct mm_struct___seqcount {
	seqcount_t mm_lock_seq;
};

struct vm_area_struct___locked { /* from 6.4 on */
	unsigned int vm_lock_seq;
};

struct mm_rss_stat___old {
	struct {
		__s64 counter;
	} count[4];
};

struct mm_struct___old {
	struct mm_rss_stat___old rss_stat;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct mm_struct *vm_mm;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
};

/* A CPU's. `clock`: what the scheduler read when it last worked on it. */
struct rq {
	__u64 clock;
	int cpu; /* with CONFIG_SMP */
};

struct cfs_rq {
	struct rq *rq; /* with CONFIG_FAIR_GROUP_SCHED */
};

struct sched_entity {
	__u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq; /* with CONFIG_FAIR_GROUP_SCHED: of every thread, whatever its policy */
};

struct pid_namespace;

/* A number in one pid namespace; a task has one in its own and in each above that. */
struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

/* What the processor keeps of a thread: the user's thread pointer. */
struct thread_struct {
#if defined(__TARGET_ARCH_x86)
	unsigned long fsbase;
#else
	struct {
		unsigned long tp_value;
	} uw;
#endif
};

#if defined(__TARGET_ARCH_x86)
/* Of x86 alone. TS_COMPAT: the system call that is under way is one of the 32-bit table, whatever the program is. */
struct thread_info {
	unsigned int status;
};
#define TS_COMPAT 0x0002
#endif

struct task_struct {
#if defined(__TARGET_ARCH_x86)
	struct thread_info thread_info;
#endif
	unsigned int __state;
	void *stack;
	unsigned int flags;
	pid_t pid;
	pid_t tgid;
	int exit_code;
	unsigned int in_execve : 1;
	unsigned int in_iowait : 1;
	struct sched_entity se;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	__u64 utime;
	__u64 stime;
	__u64 start_boottime;
	unsigned long min_flt;
	unsigned long maj_flt;
	const struct cred *cred;
	char comm[16];
	struct files_struct *files;
	struct signal_struct *signal;
	struct mm_struct *mm;
	struct thread_struct thread;
};

/* An int up to 6.18, a byte in 7.2, where an access as an int is refused: not for reading but by `runs_now`. */
struct task_struct___of_any_size {
	int on_cpu;
};

struct linux_binprm;

struct gendisk {
	int major;
	int first_minor;
};

struct request_queue {
	struct gendisk *disk;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	__u64 start_time_ns;
};

/* Until 5.16: f3fa33acca9f took rq_disk away in favour of q->disk. */
struct request___old {
	struct gendisk *rq_disk;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *key;
	void *value;
};

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

struct bpf_perf_event_data; /* of the interface to user space: not relocated */

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* From 6.2 on. */
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

#define PF_EXITING 0x00000004
#define PF_IO_WORKER 0x00000010
#define PF_KTHREAD 0x00200000
#define TASK_RUNNING 0
#define TASK_UNINTERRUPTIBLE 0x02
#define TASK_STOPPED 0x04
#define TASK_TRACED 0x08
#define TASK_DEAD 0x80
#define VM_EXEC 0x00000004
#define S_IFMT 0170000
#define S_IFIFO 0010000
#define S_IFSOCK 0140000

/*
 * A pointer to walk from without a helper's call for each step, which takes longer than most of what is done at a request: to the verifier
 * a cast from 6.2 on, so that it does not search for what can be trusted; before that nothing had to be.
 */
#define WALK_FROM(pointer, type) (bpf_ksym_exists(bpf_rdonly_cast) ? bpf_core_cast(pointer, type) : (pointer))

/* Resident pages: files, anonymous and shared memory (MM_FILEPAGES 0, MM_ANONPAGES 1, MM_SHMEMPAGES 3). */
static __always_inline __s64 resident_pages(struct mm_struct *mm)
{
	struct mm_struct___old *old = (void *)mm;
	__s64 pages = 0;

	if (bpf_core_field_exists(old->rss_stat.count)) { /* of atomic_long_t, which the verifier of 6.1 does not go into */
		pages += BPF_CORE_READ(old, rss_stat.count[0].counter);
		pages += BPF_CORE_READ(old, rss_stat.count[1].counter);
		pages += BPF_CORE_READ(old, rss_stat.count[3].counter);
	} else {
		pages += mm->rss_stat[0].count;
		pages += mm->rss_stat[1].count;
		pages += mm->rss_stat[3].count;
	}
	return pages < 0 ? 0 : pages;
}

/*
 * A number that is another one whenever something was mapped or unmapped since. False: it is not kept (before 6.4, or without
 * CONFIG_PER_VMA_LOCK), or that goes on just now. 6.4 brought the number (5e31275cc997), 6.13 made it a seqcount (03a001b156d2).
 */
static __always_inline bool mappings_number(struct mm_struct *mm, __u32 *number)
{
	struct mm_struct___seqcount *counted = (void *)mm;
	struct mm_struct___number *numbered = (void *)mm;

	if (bpf_core_field_exists(counted->mm_lock_seq)) {
		*number = BPF_CORE_READ(counted, mm_lock_seq.sequence);
		return !(*number & 1);
	}
	if (!bpf_core_field_exists(numbered->mm_lock_seq))
		return false;
	*number = BPF_CORE_READ(numbered, mm_lock_seq);
	return true;
}

#define NO_NUMBER (~0u)

/* The number above when this mapping was made or changed last; NO_NUMBER: not known. */
static __always_inline __u32 mapping_number(struct vm_area_struct *vma)
{
	struct vm_area_struct___locked *locked = (void *)vma;

	return bpf_core_field_exists(locked->vm_lock_seq) ? BPF_CORE_READ(locked, vm_lock_seq) : NO_NUMBER;
}

/* Where the user's registers lie within a kernel stack: the same distance in each, learnt from the first. */
static __u64 user_regs_at = 0;

extern int LINUX_KERNEL_VERSION __kconfig;

/*
 * What bpf_task_pt_regs gives, for a path on which no helper can be afforded: a call and its safe return take longer than all that
 * is read. From 6.2 on a program may cast a number (a35b9af4ec2c); but to 6.12 `stack` is a number and what the helper gives is
 * not, so nothing can be learnt from their difference, and to 6.18 both are pointers. No field or function tells which.
 */
static __always_inline struct pt_regs *user_regs_in(struct task_struct *task)
{
	if (LINUX_KERNEL_VERSION < (6 << 16 | 18 << 8) || !bpf_ksym_exists(bpf_rdonly_cast))
		return (void *)bpf_task_pt_regs(task);
	if (!user_regs_at)
		user_regs_at = (__u64)bpf_task_pt_regs(task) - (__u64)task->stack;
	return bpf_core_cast((void *)((__u64)task->stack + user_regs_at), struct pt_regs);
}

/* Whether it runs now: read at the size that this kernel states. */
static __always_inline bool runs_now(struct task_struct *task)
{
	struct task_struct___of_any_size *sized = (void *)task;

	return BPF_CORE_READ_BITFIELD(sized, on_cpu) != 0;
}

/* Of the CPU that it runs on or waits for; NULL: this kernel's threads do not lead to it. */
static __always_inline struct rq *run_queue_of(struct task_struct *task)
{
	if (!bpf_core_field_exists(struct sched_entity, cfs_rq) || !bpf_core_field_exists(struct cfs_rq, rq) ||
	    !bpf_core_field_exists(struct rq, cpu))
		return NULL;
	return task->se.cfs_rq->rq;
}

static __always_inline __u32 request_dev(struct request *rq)
{
	struct request *from = WALK_FROM(rq, struct request);
	struct request___old *old = (void *)from;
	struct gendisk *disk;

	if (bpf_core_field_exists(old->rq_disk))
		disk = old->rq_disk;
	else
		disk = from->q->disk;
	if (!disk)
		return 0;
	return (__u32)disk->major << 20 | (__u32)disk->first_minor;
}

#endif
