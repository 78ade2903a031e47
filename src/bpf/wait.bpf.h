/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Why a thread waits: from its state and the system call in its saved registers, without a hook on system calls. */
#ifndef SBERF_WAIT_BPF_H
#define SBERF_WAIT_BPF_H

const volatile __u8 syscall_class[SYSCALLS] = {}; /* enum state; 0 reads as ST_OTHER; set before load */

static __always_inline __u32 by_descriptor(struct task_struct *task, __u32 fd)
{
	struct fdtable *fdt = WALK_FROM(task, struct task_struct)->files->fdt;
	struct file *file = NULL;
	__u16 mode;

	if (!fdt || fd >= fdt->max_fds)
		return ST_OTHER;
	if (bpf_probe_read_kernel(&file, sizeof(file), &fdt->fd[fd]) || !file)
		return ST_OTHER;
	/* What a helper has read is no pointer to the verifier, unless there is a cast. */
	if (bpf_ksym_exists(bpf_rdonly_cast))
		mode = bpf_core_cast(file, struct file)->f_inode->i_mode & S_IFMT;
	else
		mode = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	return mode == S_IFSOCK ? ST_NET : mode == S_IFIFO ? ST_PIPE : ST_OTHER;
}

/* How a thread came to wait, from its saved user registers. */
struct wait {
	__u64 place; /* hash of what says "the same place" when it blocks there again; never 0 */
	__u32 reason;
	__u16 syscall;
	__u8 by_fd; /* the reason is what descriptor `fd` is */
	__u8 parks; /* in a futex that is not held by somebody */
	__u32 fd;
	__u64 sp, fp; /* of the user's stack; 0 without one */
};

#define FUTEX_COMMAND 0x7f
#define FUTEX_LOCK_PI 6
#define FUTEX_LOCK_PI2 13

/*
 * Whether a wait in futex(2) is for a word that says that a lock is held. What lies in the word is up to who waits, but mutexes of
 * glibc, Rust and Go and the locks below glibc's rwlock and musl's agree: 2 or 3 is "held, and somebody waits", and so is the
 * highest bit beside an owner. Anything else is a condition, a semaphore, a barrier, the end of a thread or a parked thread: -1 is
 * Rust's word for that.
 */
static __always_inline bool waits_for_owner(struct pt_regs *regs)
{
	__u32 command, word;

	more_arguments(regs, &command, &word);
	command &= FUTEX_COMMAND;
	return command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2 || word == 2 || word == 3 || (word >> 31 && word + 1);
}

/*
 * Why a task that is not on a CPU and not runnable waits. A page fault saves -1 in place of the system call's number.
 *
 * `call`: that it blocked in before, plus 1. `brisk`: the last time that it was parked did not take long.
 */
static __always_inline void wait_of(struct task_struct *task, __u32 state, __u32 call, bool brisk, struct wait *wait)
{
	bool iowait = BPF_CORE_READ_BITFIELD(task, in_iowait);
	struct user_regs user;
	struct pt_regs *regs;
	long nr;

	wait->place = 0;
	wait->fd = 0;
	wait->syscall = 0xFFFF;
	wait->by_fd = 0;
	wait->parks = 0;
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
	regs = user_regs_in(task);
	nr = call_of(task, regs, &user, &wait->fd);
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
		else if (nr == NR_FUTEX && !waits_for_owner(regs))
			wait->parks = 1;
		/* Who waits for work is idle, who waits for others to get on is held up: how long it takes tells them apart. */
		if (wait->parks && !brisk)
			wait->reason = ST_POLL;
	}
	wait->place = (wait->place ^ wait->reason) | 1;
}

#endif
