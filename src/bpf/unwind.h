/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Unwind tables: what user space writes and the unwinder reads. Same rules as sberf.h: plain C, naturally aligned.
 *
 *   inode key -> file -> page entry -> rows of that page -> rule
 *
 * All is keyed by file offset: `pc - vm_start + (vm_pgoff << 12)`, with one subtracted from a return address first.
 * Text is cut into pages of 1 KiB and windows of 64 pages. A window is filled as a whole and lies in one chunk of rows,
 * so windows of a file come in any order (the one that is missed, first) and none needs its neighbours.
 *
 * A window has 65 page entries: 64 pages and where the last one ends, which is in the same chunk. So with `page = (offset - first) >> 10`, the rows
 * of a page are those from entry `i = page_base + page + (page >> 6)` up to entry `i + 1`. The first row of a page has pc
 * offset 0: it says what is in force there. The rule for a pc is that of the last row whose pc offset is not above its.
 */
#ifndef SBERF_UNWIND_H
#define SBERF_UNWIND_H

#define UNWIND_PAGE_SHIFT 10
#define UNWIND_WINDOW_SHIFT 6	  /* pages of a window, as a power of two */
#define UNWIND_CHUNK_SHIFT 18	  /* rows of a chunk, as a power of two: 1 MiB */
#define UNWIND_CHUNKS 64	  /* of all files together */
#define UNWIND_PAGES (1 << 20)	  /* page entries of all files together: 1 GiB of text */
#define UNWIND_RULES 65536	  /* of all files together */
#define UNWIND_FILES 16384
#define UNWIND_PER_VALUE 16	  /* rows or page entries in one map value: an ARRAY rounds values up to 8 bytes */

/*
 * A row: pc offset within the page in the low half, index of the rule in the high half. A page has at most 1 << 10.
 */
#define UNWIND_ROW_RULE_SHIFT 16

/*
 * A page entry: row of its chunk in the low UNWIND_CHUNK_SHIFT bits, chunk above them. Or the page's window is not filled:
 * UNWIND_PAGE_MISSING is set and the rest is 0. Whoever misses it may add UNWIND_PAGE_ASKED by compare and exchange, so as
 * to ask once. Entries of a window are written last to first: one that is valid has a valid successor. Rules and rows are
 * written before the entries that lead to them, a file before its key; what was taken back rests for a second.
 */
#define UNWIND_PAGE_MISSING 0x80000000u
#define UNWIND_PAGE_ASKED 0x40000000u

/* Index of a file: asked for by an insert of UNWIND_FILE_ASKED, which is replaced when there is an answer. */
#define UNWIND_FILE_ASKED 0 /* no table yet */
#define UNWIND_FILE_NONE 1  /* it has no table and never will: UNWIND_CFA_NONE at each pc */

struct unwind_key {
	__u64 ino; /* all 0: the vDSO, with `pc - start` as its file offset */
	__u32 dev;
	__u32 generation;
};

struct unwind_file {
	__u64 first;	  /* file offset of its first page, a multiple of 1 KiB */
	__u32 page_base;  /* its first page entry */
	__u32 pages;	  /* offsets outside of them are UNWIND_CFA_NONE */
	__u32 generation; /* of this slot: an answer to an older question is dropped, and so is what a reader kept; 0: it holds no file */
	__u32 used;	  /* low half of `flip.gen` when a stack last led here; the kernel side writes it, for eviction */
};

/*
 * How to find the caller's registers. CFA is the caller's stack pointer. Its pc lies at CFA - 8, where nothing else is said.
 * Registers have DWARF's numbers: x86-64 rax rdx rcx rbx rsi rdi rbp rsp r8…r15. 16 and up is left for aarch64.
 */
enum unwind_cfa {
	UNWIND_CFA_NONE = 0,	    /* no table here: try the frame pointer */
	UNWIND_CFA_END = 1,	    /* nothing called this: the stack is complete */
	UNWIND_CFA_SP = 2,	    /* SP + cfa_off */
	UNWIND_CFA_FP = 3,	    /* FP + cfa_off */
	UNWIND_CFA_PLT = 4,	    /* SP + 8, and 8 more if (pc & 15) >= cfa_off */
	UNWIND_CFA_SP_DEREF = 5,    /* *(SP + (s16)cfa_off) + (cfa_off >> 16) */
	UNWIND_CFA_FP_DEREF = 6,    /* *(FP + (s16)cfa_off) + (cfa_off >> 16) */
	UNWIND_CFA_SIGNAL = 7,	    /* pc, SP, FP lie in the ucontext at SP + cfa_off; that pc is no return address */
	UNWIND_CFA_REG = 8,	    /* register (cfa_off & 0xff) + (cfa_off >> 8); of the innermost frame only */
	UNWIND_CFA_RA_REG = 9,	    /* SP + (cfa_off >> 8), pc is in register (cfa_off & 0xff); of the innermost frame only */
	UNWIND_CFA_UNSUPPORTED = 10, /* a rule that none of these can say: stop */
	UNWIND_CFA_SP_INDEX_DEREF = 11, /* *(SP + (cfa_off >> 8 & 0xff) + 8 * register (cfa_off & 0xff)) + (cfa_off >> 16); of the
					 * innermost frame only (big-number arithmetic of libcrypto) */
	UNWIND_CFA_KINDS = 12,
};

/* Where the caller's frame pointer is. */
enum unwind_fp {
	UNWIND_FP_SAME = 0,   /* not saved: it is the present one */
	UNWIND_FP_AT_CFA = 1, /* *(CFA + fp_off) */
	UNWIND_FP_AT_SP = 2,  /* *(SP + fp_off), SP before this step */
	UNWIND_FP_AT_FP = 3,  /* *(FP + fp_off) */
	UNWIND_FP_LOST = 4,   /* nowhere: stop at the first rule that needs it */
	UNWIND_FP_KINDS = 5,
};

struct unwind_rule { /* all 0: UNWIND_CFA_NONE */
	__u8 cfa;
	__u8 fp;
	__s16 fp_off;
	__s32 cfa_off;
};

/* x86-64: of `struct ucontext` */
#define UNWIND_UC_FP 120
#define UNWIND_UC_SP 160
#define UNWIND_UC_PC 168

/* How a frame was found. */
enum unwind_from {
	UNWIND_FROM_REGS = 0,	/* the innermost: the pc itself */
	UNWIND_FROM_TABLE = 1,
	UNWIND_FROM_SIGNAL = 2, /* what a signal interrupted: an exact pc, no return address */
	UNWIND_FROM_FP = 3,	/* the frame pointer, where no table covers the pc */
	UNWIND_FROM_THUNK = 4,	/* a known instruction sequence in code made at run time */
	UNWIND_FROM_GUESS = 5,	/* looks like a return address */
};

/* Why a stack ends where it ends. */
enum unwind_stop {
	UNWIND_STOP_END = 0,	     /* complete */
	UNWIND_STOP_TRUNCATED = 1,   /* deeper than can be kept */
	UNWIND_STOP_NO_TABLE = 2,    /* the table of a file, or a window of it, is not there yet */
	UNWIND_STOP_FP = 3,	     /* no table covers the pc, and the frame pointer is none */
	UNWIND_STOP_NOT_CODE = 4,    /* the return address is not in an executable mapping */
	UNWIND_STOP_UNSUPPORTED = 5, /* UNWIND_CFA_UNSUPPORTED */
	UNWIND_STOP_REG_LOST = 6,    /* the rule needs a register that is not known here */
	UNWIND_STOP_READ = 7,	     /* the stack could not be read there */
	UNWIND_STOP_STUCK = 8,	     /* the caller's frame would not lie above this one */
	UNWIND_STOP_KINDS = 9,
};

#endif
