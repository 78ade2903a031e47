/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What differs between processors: what a system call left in the user's registers; and when a user's stack is walked which
 * registers, where a return address lies, and code that compilers at run time are known to make.
 */
#ifndef SBERF_ARCH_BPF_H
#define SBERF_ARCH_BPF_H

struct user_regs {
	__u64 pc;
	__u64 sp;
	__u64 fp;
};

#if defined(__TARGET_ARCH_x86)

#define USER32_CS 0x23
#define RETURN_AT (-8) /* from the CFA */
#define SP_NUMBER 7    /* DWARF's */
#define USER_REGS 16
#define NR_RESTART_SYSCALL 219
#define NR_FUTEX 202

/* What a program of a perf event is given begins with the registers at that moment. */
struct bpf_perf_event_data {
	__u64 regs[21];
};

/* Whether the sample interrupted a program, and not the kernel. */
static __always_inline bool was_in_user(struct bpf_perf_event_data *ctx)
{
	return ctx->regs[17] & 3; /* cs */
}

/*
 * The number of the system call that a task is in, negative if in none, and its first argument. SYSCALLS if its number says nothing to
 * us: in a program of 32 bits they mean other calls, and so they do after `int $0x80` in any program.
 */
static __always_inline long call_of(struct task_struct *task, struct pt_regs *regs, struct user_regs *out, __u32 *argument)
{
	long nr = (long)regs->orig_ax;

	out->pc = regs->ip;
	out->sp = regs->sp;
	out->fp = regs->bp;
	*argument = regs->di;
	if (nr < 0)
		return nr;
	if (bpf_core_field_exists(task->thread_info.status))
		return task->thread_info.status & TS_COMPAT ? SYSCALLS : nr;
	return (regs->cs & 0xffff) == USER32_CS ? SYSCALLS : nr;
}

/* The second and third argument of the system call. */
static __always_inline void more_arguments(struct pt_regs *regs, __u32 *second, __u32 *third)
{
	*second = regs->si;
	*third = regs->dx;
}

/* False if there are none, or they are those of a 32-bit program. */
static __always_inline bool user_regs_of(struct pt_regs *regs, struct user_regs *out)
{
	__u32 cs = regs->cs;

	out->pc = regs->ip;
	out->sp = regs->sp;
	out->fp = regs->bp;
	return (cs & 3) == 3 && (cs & 0xffff) != USER32_CS;
}

static __always_inline __u64 user_pc(__u64 at)
{
	struct pt_regs *regs = (void *)at;

	return BPF_CORE_READ(regs, ip);
}

/* A register by its DWARF number. */
static __always_inline __u64 user_reg(__u64 at, __u32 number)
{
	struct pt_regs *regs = (void *)at;

	switch (number & 15) {
	case 0: return BPF_CORE_READ(regs, ax);
	case 1: return BPF_CORE_READ(regs, dx);
	case 2: return BPF_CORE_READ(regs, cx);
	case 3: return BPF_CORE_READ(regs, bx);
	case 4: return BPF_CORE_READ(regs, si);
	case 5: return BPF_CORE_READ(regs, di);
	case 6: return BPF_CORE_READ(regs, bp);
	case 7: return BPF_CORE_READ(regs, sp);
	case 8: return BPF_CORE_READ(regs, r8);
	case 9: return BPF_CORE_READ(regs, r9);
	case 10: return BPF_CORE_READ(regs, r10);
	case 11: return BPF_CORE_READ(regs, r11);
	case 12: return BPF_CORE_READ(regs, r12);
	case 13: return BPF_CORE_READ(regs, r13);
	case 14: return BPF_CORE_READ(regs, r14);
	default: return BPF_CORE_READ(regs, r15);
	}
}

/* All of them, by DWARF's numbers. */
static __always_inline void user_regs_copy(__u64 at, __u64 *to)
{
	struct pt_regs *regs = (void *)at;

	to[0] = BPF_CORE_READ(regs, ax);
	to[1] = BPF_CORE_READ(regs, dx);
	to[2] = BPF_CORE_READ(regs, cx);
	to[3] = BPF_CORE_READ(regs, bx);
	to[4] = BPF_CORE_READ(regs, si);
	to[5] = BPF_CORE_READ(regs, di);
	to[6] = BPF_CORE_READ(regs, bp);
	to[7] = BPF_CORE_READ(regs, sp);
	to[8] = BPF_CORE_READ(regs, r8);
	to[9] = BPF_CORE_READ(regs, r9);
	to[10] = BPF_CORE_READ(regs, r10);
	to[11] = BPF_CORE_READ(regs, r11);
	to[12] = BPF_CORE_READ(regs, r12);
	to[13] = BPF_CORE_READ(regs, r13);
	to[14] = BPF_CORE_READ(regs, r14);
	to[15] = BPF_CORE_READ(regs, r15);
}

/*
 * `add $8,%rsp; ret`: how CPython's trampolines (-X perf) go on after their call. They have neither a frame pointer nor call
 * frame information. Yields the CFA, 0 if this is something else.
 */
static __always_inline __u64 thunk(__u64 pc, __u64 sp)
{
	__u64 code = 0;

	if (bpf_probe_read_user(&code, 5, (void *)pc))
		return 0;
	return code == 0xc308c48348ull ? sp + 16 : 0;
}

/*
 * Where code made at run time was interrupted that has no frame at that moment: at its first instructions, before it returns, or
 * in such a trampoline. Following the frame pointer there would pass over its caller. Yields the CFA, 0 if this is something else.
 */
static __always_inline __u64 frameless(__u64 pc, __u64 sp)
{
	__u64 code = 0, before;

	/* From the byte before on, for what has just run. */
	if (bpf_probe_read_user(&code, sizeof(code), (void *)(pc - 1)))
		return 0;
	before = code & 0xff;
	code >>= 8;
	if ((code & 0xff) == 0xc3) /* ret */
		return sp + 8;
	if ((code & 0xffffffff) == 0xe5894855 || (code & 0xffffffff) == 0xec8b4855) /* push %rbp; mov %rsp,%rbp */
		return sp + 8;
	if (before == 0x55 && ((code & 0xffffff) == 0xe58948 || (code & 0xffffff) == 0xec8b48)) /* mov %rsp,%rbp */
		return sp + 16;
	if ((code & 0xffffffffff) == 0xff08ec8348ull) /* sub $8,%rsp; call */
		return sp + 8;
	if ((code & 0xffffffffff) == 0xc308c48348ull) /* add $8,%rsp; ret */
		return sp + 16;
	if ((code & 0xff) == 0xff && (code & 0xffffffff0000) == 0x08c483480000ull) /* call; add $8,%rsp */
		return sp + 16;
	return 0;
}

static __always_inline __u64 return_address(__u64 word)
{
	return word;
}

/* As it was when the thread last got a CPU. */
static __always_inline __u64 thread_pointer(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread.fsbase);
}

#else /* aarch64 */

#define RETURN_AT (-8) /* of a frame record { x29, x30 } that ends at the CFA */
#define SP_NUMBER 31
#define USER_REGS 32
#define PSR_MODE32 0x10
#define PSR_MODE_MASK 0xf
#define NR_RESTART_SYSCALL 128
#define NR_FUTEX 98

struct bpf_perf_event_data {
	__u64 regs[34];
};

static __always_inline bool was_in_user(struct bpf_perf_event_data *ctx)
{
	return !(ctx->regs[33] & PSR_MODE_MASK); /* pstate */
}

/* `x0` becomes the result and `x8` may hold anything when no call was made: the kernel keeps both beside the registers. */
static __always_inline long call_of(struct task_struct *task, struct pt_regs *regs, struct user_regs *out, __u32 *argument)
{
	struct user_pt_regs *user = (void *)regs;

	out->pc = BPF_CORE_READ(user, pc);
	out->sp = BPF_CORE_READ(user, sp);
	out->fp = BPF_CORE_READ(user, regs[29]);
	*argument = BPF_CORE_READ(regs, orig_x0);
	return BPF_CORE_READ(regs, syscallno);
}

static __always_inline void more_arguments(struct pt_regs *regs, __u32 *second, __u32 *third)
{
	struct user_pt_regs *user = (void *)regs;

	*second = BPF_CORE_READ(user, regs[1]);
	*third = BPF_CORE_READ(user, regs[2]);
}

static __always_inline bool user_regs_of(struct pt_regs *regs, struct user_regs *out)
{
	struct user_pt_regs *user = (void *)regs;
	__u64 pstate = BPF_CORE_READ(user, pstate);

	out->pc = BPF_CORE_READ(user, pc);
	out->sp = BPF_CORE_READ(user, sp);
	out->fp = BPF_CORE_READ(user, regs[29]);
	return !(pstate & (PSR_MODE32 | PSR_MODE_MASK));
}

static __always_inline __u64 user_pc(__u64 at)
{
	struct user_pt_regs *user = (void *)at;

	return BPF_CORE_READ(user, pc);
}

static __always_inline __u64 user_reg(__u64 at, __u32 number)
{
	__u64 value = 0;

	/* They come first: an interface to user space. */
	if (number < 31)
		bpf_probe_read_kernel(&value, sizeof(value), (void *)(at + number * sizeof(value)));
	return value;
}

static __always_inline void user_regs_copy(__u64 at, __u64 *to)
{
	bpf_probe_read_kernel(to, USER_REGS * sizeof(*to), (void *)at);
}

static __always_inline __u64 thunk(__u64 pc, __u64 sp)
{
	return 0;
}

static __always_inline __u64 frameless(__u64 pc, __u64 sp)
{
	return 0;
}

/* Without the authentication code that a signed one carries above the 48 bits of an address. */
static __always_inline __u64 return_address(__u64 word)
{
	return word & 0xffffffffffffull;
}

static __always_inline __u64 thread_pointer(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread.uw.tp_value);
}

#endif
#endif
