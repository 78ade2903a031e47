/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * User stacks without frame pointers: walked by tables that user space makes of `.eh_frame`, see unwind.h.
 *
 * Per frame: the mapping of the pc, found in the kernel's own tree of them; the file behind it; a page of rows, a few steps
 * of search in it, a rule; at most two words of the user's stack. Where no table covers the pc (code made at run time) the
 * frame pointer is followed. No process has to be known beforehand, and nothing is locked.
 *
 * A stack says why it ends. What is missing is asked for once, and the stack sent along that could not be walked (snapshot.bpf.h).
 */
#ifndef SBERF_UNWIND_BPF_H
#define SBERF_UNWIND_BPF_H

#include "arch.bpf.h"
#include "mapping.bpf.h"

#define ROWS_NEAR 8 /* half a line of the cache */
#define MAX_FP_STEP (8ull << 20)

static __always_inline __u32 *page_entry(__u32 at)
{
	__u32 index = at / UNWIND_PER_VALUE, word = at;
	struct unwind_words *words = bpf_map_lookup_elem(&unwind_pages, &index);

	BOUND(word, UNWIND_PER_VALUE - 1);
	return words ? &words->word[word] : NULL;
}

static __always_inline __u32 row_at(void *chunk, __u32 at)
{
	__u32 index = at / UNWIND_PER_VALUE, word = at;
	struct unwind_words *words = bpf_map_lookup_elem(chunk, &index);

	BOUND(word, UNWIND_PER_VALUE - 1);
	return words ? words->word[word] : 0;
}

static __always_inline struct unwind_rule rule_number(__u32 at)
{
	struct unwind_rule none = {};
	__u32 index = at / RULES_PER_VALUE, word = at;
	struct unwind_rules *rules = bpf_map_lookup_elem(&unwind_rules, &index);

	BOUND(word, RULES_PER_VALUE - 1);
	return rules ? rules->rule[word] : none;
}

/* Asks for a window, if nobody has. */
static __always_inline void want_window(struct walk *w, struct memo *memo, __u32 *entry)
{
	if (__sync_val_compare_and_swap(entry, UNWIND_PAGE_MISSING, UNWIND_PAGE_MISSING | UNWIND_PAGE_ASKED) !=
	    UNWIND_PAGE_MISSING)
		return;
	w->need.file = memo->index;
	w->need.generation = memo->file.generation;
	w->ask = 1;
}

/* Puts the rule at that offset of a file into `rule`. 0: it is not there yet. */
__noinline int rule_at(struct walk *w, __u32 which, __u64 offset)
{
	struct unwind_rule none = {};
	__u32 page, pc, entry, first, rows, half, index, i;
	__u32 *from, *to;
	struct memo *memo;
	bool below = false;
	__u64 into;
	void *chunk;

	if (!w)
		return 0;
	BOUND(which, MEMOS - 1);
	memo = &w->memo[which];
	into = offset - memo->file.first;
	page = into >> UNWIND_PAGE_SHIFT;
	pc = into & ((1 << UNWIND_PAGE_SHIFT) - 1);
	w->rule = none;
	if (offset < memo->file.first || into >> UNWIND_PAGE_SHIFT >= memo->file.pages)
		return 1;
	entry = memo->file.page_base + page + (page >> UNWIND_WINDOW_SHIFT);
	from = page_entry(entry);
	to = page_entry(entry + 1);
	if (!from || !to)
		return 1;
	first = *from;
	rows = *to;
	if ((first | rows) & UNWIND_PAGE_MISSING) {
		want_window(w, memo, from);
		return 0;
	}
	rows -= first;
	index = first >> UNWIND_CHUNK_SHIFT;
	first &= (1 << UNWIND_CHUNK_SHIFT) - 1;
	chunk = bpf_map_lookup_elem(&unwind_rows, &index);
	if (!chunk)
		return 1;
	/*
	 * The last row whose pc is not above ours. Rows lie about evenly in a page: begin where it should be, go on close to there, and
	 * halve what is left then. That touches fewer lines of the cache than halving from the start.
	 */
	for (i = 0; i < 2 + UNWIND_PAGE_SHIFT; i++) {
		if (rows <= 1)
			break;
		half = i ? rows >> 1 : rows * pc >> UNWIND_PAGE_SHIFT;
		if (i == 1 && half > ROWS_NEAR)
			half = below ? rows - ROWS_NEAR : ROWS_NEAR;
		if (!half)
			half = 1;
		if ((row_at(chunk, first + half) & 0xffff) <= pc) {
			first += half;
			rows -= half;
			below = false;
		} else {
			rows = half;
			below = true;
		}
	}
	w->rule = rule_number(row_at(chunk, first) >> UNWIND_ROW_RULE_SHIFT);
	return 1;
}

static __always_inline bool user_word(__u64 *word, __u64 at)
{
	return !bpf_probe_read_user(word, sizeof(*word), (void *)at);
}

/* Remembers where a return address lay, if that is near. */
static __always_inline void note_return(struct walk *w, __u64 at)
{
	__u64 word = (at - w->start_sp) >> 3;

	if (word < NEAR_WORDS)
		w->returns |= 1ull << word;
}

static __always_inline int stop(struct walk *w, __u32 why)
{
	w->stop = why;
	return 1;
}

/* Where no table covers the pc. */
__noinline int step_by_fp(struct walk *w, __u32 anonymous)
{
	__u64 record[2], cfa;

	if (!w)
		return 1;
	if (anonymous) {
		cfa = w->from == UNWIND_FROM_REGS ? frameless(w->pc, w->sp) : thunk(w->pc, w->sp);
		if (cfa && user_word(&w->pc, cfa + RETURN_AT)) {
			note_return(w, cfa + RETURN_AT);
			w->sp = cfa;
			w->from = UNWIND_FROM_THUNK;
			return 0;
		}
	}
	if (!w->fp_known || w->fp & 7 || w->fp < w->sp || w->fp - w->sp >= MAX_FP_STEP)
		return stop(w, UNWIND_STOP_FP);
	if (bpf_probe_read_user(record, sizeof(record), (void *)w->fp))
		return stop(w, UNWIND_STOP_READ);
	w->sp = w->fp + sizeof(record);
	note_return(w, w->sp + RETURN_AT);
	w->fp = record[0];
	w->pc = return_address(record[1]);
	w->from = UNWIND_FROM_FP;
	return 0;
}

/* To what a signal interrupted: its registers lie in the ucontext. */
static __always_inline int step_over_signal(struct walk *w, __u64 ucontext)
{
	__u64 pc, sp, fp;

	if (!user_word(&pc, ucontext + UNWIND_UC_PC) || !user_word(&sp, ucontext + UNWIND_UC_SP) ||
	    !user_word(&fp, ucontext + UNWIND_UC_FP))
		return stop(w, UNWIND_STOP_READ);
	w->pc = pc;
	w->sp = sp;
	w->fp = fp;
	w->fp_known = 1;
	w->from = UNWIND_FROM_SIGNAL;
	return 0;
}

/* Applies a rule: from one frame to its caller's. */
__noinline int step_by_rule(struct walk *w)
{
	struct unwind_rule *rule;
	__u64 cfa = 0, pc = 0, fp, at;
	bool has_pc = false;
	__s32 offset;

	if (!w)
		return 1;
	rule = &w->rule;
	offset = rule->cfa_off;
	switch (rule->cfa) {
	case UNWIND_CFA_END:
		return stop(w, UNWIND_STOP_END);
	case UNWIND_CFA_SP:
		cfa = w->sp + offset;
		break;
	case UNWIND_CFA_FP:
		if (!w->fp_known)
			return stop(w, UNWIND_STOP_REG_LOST);
		cfa = w->fp + offset;
		break;
	case UNWIND_CFA_PLT:
		cfa = w->sp + ((w->pc & 15) >= (__u32)offset ? 16 : 8);
		break;
	case UNWIND_CFA_SP_DEREF:
	case UNWIND_CFA_FP_DEREF:
		if (rule->cfa == UNWIND_CFA_FP_DEREF && !w->fp_known)
			return stop(w, UNWIND_STOP_REG_LOST);
		at = rule->cfa == UNWIND_CFA_FP_DEREF ? w->fp : w->sp;
		if (!user_word(&cfa, at + (__s16)offset))
			return stop(w, UNWIND_STOP_READ);
		cfa += offset >> 16;
		break;
	case UNWIND_CFA_SIGNAL:
		return step_over_signal(w, w->sp + offset);
	case UNWIND_CFA_REG:
		if (w->frames != 1)
			return stop(w, UNWIND_STOP_REG_LOST);
		cfa = user_reg(w->regs, offset & 0xff) + (offset >> 8);
		break;
	case UNWIND_CFA_SP_INDEX_DEREF:
		if (w->frames != 1)
			return stop(w, UNWIND_STOP_REG_LOST);
		at = w->sp + (offset >> 8 & 0xff) + 8 * user_reg(w->regs, offset & 0xff);
		if (!user_word(&cfa, at))
			return stop(w, UNWIND_STOP_READ);
		cfa += offset >> 16;
		break;
	case UNWIND_CFA_RA_REG:
		if (w->frames != 1)
			return stop(w, UNWIND_STOP_REG_LOST);
		cfa = w->sp + (offset >> 8);
		pc = user_reg(w->regs, offset & 0xff);
		has_pc = true;
		break;
	default:
		return stop(w, UNWIND_STOP_UNSUPPORTED);
	}
	/* A frame that was left takes its stack along; only one that took none itself may stand where its caller stands. */
	if (cfa < w->sp || (cfa == w->sp && !has_pc))
		return stop(w, UNWIND_STOP_STUCK);
	if (!has_pc && !user_word(&pc, cfa + RETURN_AT))
		return stop(w, UNWIND_STOP_READ);
	if (rule->fp == UNWIND_FP_LOST) {
		w->fp_known = 0;
	} else if (rule->fp != UNWIND_FP_SAME) {
		if (rule->fp == UNWIND_FP_AT_FP && !w->fp_known)
			return stop(w, UNWIND_STOP_REG_LOST);
		at = rule->fp == UNWIND_FP_AT_CFA ? cfa : rule->fp == UNWIND_FP_AT_FP ? w->fp : w->sp;
		if (!user_word(&fp, at + rule->fp_off))
			return stop(w, UNWIND_STOP_READ);
		w->fp = fp;
		w->fp_known = 1;
	}
	if (!has_pc)
		note_return(w, cfa + RETURN_AT);
	w->pc = return_address(pc);
	w->sp = cfa;
	w->from = UNWIND_FROM_TABLE;
	return 0;
}

struct walking {
	struct walk *walk;
	struct frames_rec *rec;
};

/* Where a frame is, see frames_rec. */
static __always_inline __u64 frame_word(struct walk *w, __u64 at, struct memo *memo)
{
	__u64 where = at & (FRAME_IN_FILE - 1), offset = at + memo->bias;

	if (memo->covered == COVERED && !(offset >> FRAME_FILE_SHIFT))
		where = FRAME_IN_FILE | offset | (__u64)memo->index << FRAME_FILE_SHIFT |
			(__u64)(memo->file.generation & FRAME_GENERATION_MASK) << FRAME_GENERATION_SHIFT;
	return where | (__u64)w->from << FROM_SHIFT;
}

/* Keeps the frame at which the walk stands and goes to its caller's. 1: there is none. */
static long step(__u32 nth, struct walking *walking)
{
	struct walk *w = walking->walk;
	struct frames_rec *rec = walking->rec;
	__u64 at = w->pc, slot = nth;
	struct memo *memo;
	int which, over;

	/* A return address may already belong to the next function. */
	if (w->from != UNWIND_FROM_REGS && w->from != UNWIND_FROM_SIGNAL)
		at--;
	which = mapping_at(w, at);
	if (which < 0 && nth)
		return stop(w, w->from == UNWIND_FROM_FP ? UNWIND_STOP_FP : UNWIND_STOP_NOT_CODE);
	BOUND(slot, MAX_FRAMES - 1);
	w->frames = nth + 1;
	if (which < 0) {
		rec->ips[slot] = at & (FRAME_IN_FILE - 1);
		return stop(w, UNWIND_STOP_NOT_CODE);
	}
	BOUND(which, MEMOS - 1);
	memo = &w->memo[which];
	rec->ips[slot] = frame_word(w, at, memo);
	if (memo->covered == COVERED_NOT_YET || (memo->covered == COVERED && !rule_at(w, which, at + memo->bias))) {
		w->need.vm_start = memo->start;
		w->need.vm_end = memo->end;
		w->need.offset = at + memo->bias;
		return stop(w, UNWIND_STOP_NO_TABLE);
	}
	/* The kernel has put there what a signal's handler returns to: nobody called it. */
	if (memo->covered == COVERED && w->rule.cfa == UNWIND_CFA_SIGNAL)
		rec->ips[slot] = frame_word(w, w->pc, memo);
	if (memo->covered != COVERED || w->rule.cfa == UNWIND_CFA_NONE)
		over = step_by_fp(w, memo->covered == COVERED_ANONYMOUS);
	else
		over = step_by_rule(w);
	BOUND(over, 1); /* for the verifier, which does not look into them from here */
	return over;
}

/* Sends what was missing; not sent, it will be missed again. */
static __always_inline void ask(struct walk *w, struct frames_rec *rec)
{
	/* On our stack: a key in memory that a function was handed is refused up to 6.1. */
	struct unwind_key key = w->need.key;

	w->need.start_ns = rec->start_ns;
	w->need.tgid = rec->tgid;
	if (!bpf_ringbuf_output(&unwind_needs, &w->need, sizeof(w->need), BPF_RB_FORCE_WAKEUP))
		return;
	if (!w->need.file)
		bpf_map_delete_elem(&unwind_keys, &key);
}

/* Walks from where `w` stands. */
__noinline int walk_on(struct walk *w, struct frames_rec *rec)
{
	struct walking walking = { .walk = w, .rec = rec };

	if (!w || !rec)
		return 0;
	w->frames = 0;
	w->from = UNWIND_FROM_REGS;
	w->fp_known = 1;
	w->ask = 0;
	w->stop = UNWIND_STOP_TRUNCATED;
	w->start_sp = w->sp;
	w->returns = 0;
	keep_memos(w, rec->seed);
	bpf_loop(MAX_FRAMES, step, &walking, 0);
	rec->by_table = 1;
	rec->stop = w->stop;
	rec->user = w->frames;
	if (w->ask)
		ask(w, rec);
	return 0;
}

/* Walks the user's stack of the current task into `rec`. False if it cannot: a 32-bit program. */
static __always_inline bool unwind_user(struct task_struct *task, struct frames_rec *rec, struct walk *w, __u64 gen)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	struct user_regs user;

	if (!user_regs_of(regs, &user))
		return false;
	bpf_probe_read_kernel(&w->mm, sizeof(w->mm), &task->mm);
	w->regs = (__u64)regs;
	w->pc = user.pc;
	w->sp = user.sp;
	w->fp = user.fp;
	w->gen = gen;
	w->tid = task->pid;
	walk_on(w, rec);
	return true;
}

#endif
