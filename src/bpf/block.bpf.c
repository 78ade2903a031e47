// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * block: how long disks take, and for whom.
 *
 * Hooks    tp_btf block_rq_insert, block_rq_issue, block_rq_complete; block_io_start where the kernel has it (6.5).
 * Keeps    requests in flight by address; by disk and operation counts, bytes and histograms of the time queued and on
 *          the device; the same in short by process. Emits requests slower than `slow_ns`.
 * Costs    one hash operation per event, four and a few counters at completion.
 *
 * A request belongs to the process that was running when it entered the queue. For writeback that is a kernel thread.
 * Bio-based devices (dm, brd) make no requests and so do not appear.
 */
#include "kernel.h"
#include "sberf.h"
#include "shared.bpf.h"
#include "hist.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct inflight);
} requests SEC(".maps");

/* Disks and processes of two intervals, `gen` in the key. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct disk_key);
	__type(value, struct disk_val);
} disks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct io_key);
	__type(value, struct io_val);
} ios SEC(".maps");

/* Zeroes to insert: such a value is too big for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct disk_val);
} zero_disk SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct io_val);
} zero_io SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} slow SEC(".maps");

/* Requests that take longer are told of one by one; user space moves it with the load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} slow_ns SEC(".maps");

static __always_inline int op_of(struct request *rq, __u32 bytes)
{
	switch (rq->cmd_flags & 0xff) {
	case 0:
		return OP_READ;
	case 1:
		return bytes ? OP_WRITE : OP_FLUSH;
	case 2:
		return OP_FLUSH;
	case 3: /* discard */
	case 5: /* secure erase */
	case 9: /* write zeroes */
		return OP_DISCARD;
	default: /* zone management and what drivers send for themselves */
		return -1;
	}
}

/* `made`: its life begins here. What is remembered of the address is of a request that was merged and never completed. */
static __always_inline void enter(struct request *rq, bool made, bool issued, __u64 now)
{
	__u64 id = (__u64)rq;
	struct inflight *have, fresh = {};
	struct task_struct *task;
	__u32 bytes = rq->__data_len;
	int op = op_of(rq, bytes);

	if (op < 0) {
		/* What is remembered of the address is of another request, and must not be told as this one. */
		bpf_map_delete_elem(&requests, &id);
		return;
	}
	have = made ? NULL : bpf_map_lookup_elem(&requests, &id);
	if (have) {
		have->bytes = bytes;
		have->sector = rq->__sector;
		have->op = op;
		have->dev = request_dev(rq);
		if (issued)
			have->issued_ns = now;
		return;
	}
	task = bpf_get_current_task_btf();
	/*
	 * Seen first when it is issued (no scheduler, and no block_io_start before 6.5): the block layer's own stamp tells
	 * when it was made. Earlier than that the stamp is still that of the request that used the same memory before.
	 */
	fresh.queued_ns = issued && rq->start_time_ns && rq->start_time_ns < now ? rq->start_time_ns : now;
	fresh.issued_ns = issued ? now : 0;
	fresh.sector = rq->__sector;
	fresh.bytes = bytes;
	fresh.dev = request_dev(rq);
	fresh.op = op;
	fresh.tgid = task->tgid;
	fresh.start_ns = WALK_FROM(task, struct task_struct)->group_leader->start_boottime;
	__builtin_memcpy(fresh.comm, task->comm, sizeof(fresh.comm));
	if (bpf_map_update_elem(&requests, &id, &fresh, BPF_ANY))
		lose(LOSS_REQUEST_MAP, 1);
}

SEC("tp_btf/block_io_start")
int BPF_PROG(io_start, struct request *rq)
{
	__u64 now = bpf_ktime_get_ns();

	enter(rq, true, false, now);
	timed(PROG_IO_START, now, true);
	return 0;
}

SEC("tp_btf/block_rq_insert")
int BPF_PROG(rq_insert, struct request *rq)
{
	__u64 now = bpf_ktime_get_ns();

	enter(rq, false, false, now);
	timed(PROG_RQ_INSERT, now, true);
	return 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(rq_issue, struct request *rq)
{
	__u64 now = bpf_ktime_get_ns();

	enter(rq, false, true, now);
	timed(PROG_RQ_ISSUE, now, true);
	return 0;
}

static __always_inline void count_disk(struct inflight *r, __u64 gen, __u64 queued, __u64 device, __u64 bytes, bool failed)
{
	struct disk_key key = { .dev = r->dev, .op = r->op, .gen = gen & 1 };
	struct disk_val *val = bpf_map_lookup_elem(&disks, &key);
	__u32 zero = 0;
	void *zeroes;

	if (!val) {
		zeroes = bpf_map_lookup_elem(&zero_disk, &zero);
		if (zeroes)
			bpf_map_update_elem(&disks, &key, zeroes, BPF_NOEXIST);
		val = bpf_map_lookup_elem(&disks, &key);
		if (!val) {
			lose(LOSS_REQUEST_MAP, 1);
			return;
		}
	}
	__sync_fetch_and_add(&val->requests, 1);
	__sync_fetch_and_add(&val->bytes, bytes);
	if (failed)
		__sync_fetch_and_add(&val->errors, 1);
	__sync_fetch_and_add(&val->queued_sum, queued);
	__sync_fetch_and_add(&val->device_sum, device);
	__sync_fetch_and_add(&val->size_sum, bytes);
	if (queued > val->queued_max)
		val->queued_max = queued;
	if (device > val->device_max)
		val->device_max = device;
	if (bytes > val->size_max)
		val->size_max = bytes;
	__sync_fetch_and_add(&val->queued[window_cell(bucket_of(queued))], 1);
	__sync_fetch_and_add(&val->device[window_cell(bucket_of(device))], 1);
	__sync_fetch_and_add(&val->size[window_cell(bucket_of(bytes))], 1);
}

static __always_inline void count_io(struct inflight *r, __u64 gen, __u64 whole, __u64 bytes)
{
	struct io_key key = { .start_ns = r->start_ns, .tgid = r->tgid, .op = r->op, .gen = gen & 1 };
	struct io_val *val = bpf_map_lookup_elem(&ios, &key);
	__u32 zero = 0;
	void *zeroes;

	if (!val) {
		zeroes = bpf_map_lookup_elem(&zero_io, &zero);
		if (zeroes)
			bpf_map_update_elem(&ios, &key, zeroes, BPF_NOEXIST);
		val = bpf_map_lookup_elem(&ios, &key);
		if (!val) {
			lose(LOSS_REQUEST_MAP, 1);
			return;
		}
	}
	__sync_fetch_and_add(&val->requests, 1);
	__sync_fetch_and_add(&val->bytes, bytes);
	__sync_fetch_and_add(&val->sum, whole);
	if (whole > val->max)
		val->max = whole;
	__sync_fetch_and_add(&val->latency[window_cell(bucket_of(whole))], 1);
}

static __always_inline void tell_slow(struct inflight *r, __u64 now, __u64 queued, __u64 device, __u64 bytes)
{
	__u32 zero = 0;
	__u64 *limit = bpf_map_lookup_elem(&slow_ns, &zero);
	struct slow_rec *rec;

	if (!limit || queued + device < *limit)
		return;
	rec = bpf_ringbuf_reserve(&slow, sizeof(*rec), 0);
	if (!rec) {
		lose(LOSS_SLOW_RING, 1);
		return;
	}
	rec->end_ns = now;
	rec->sector = r->sector;
	rec->bytes = bytes;
	rec->queued_ns = queued;
	rec->device_ns = device;
	rec->start_ns = r->start_ns;
	rec->tgid = r->tgid;
	rec->dev = r->dev;
	rec->op = r->op;
	rec->pad = 0;
	__builtin_memcpy(rec->comm, r->comm, sizeof(rec->comm));
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
}

/* `error`: an errno on old kernels, a blk_status_t since 5.16; zero is good in both. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(rq_complete, struct request *rq, int error, unsigned int nr_bytes)
{
	__u64 id = (__u64)rq, now = bpf_ktime_get_ns(), queued, device, bytes;
	struct inflight *r = bpf_map_lookup_elem(&requests, &id), done;
	struct flip *f = current_flip();

	if (!f->gen)
		return 0;
	if (!r) { /* of a kind that is not kept; others are older than we are, or found no room, which was counted */
		if (nr_bytes >= rq->__data_len && op_of(rq, nr_bytes) < 0)
			lose(LOSS_OTHER_REQUEST, 1);
		return 0;
	}
	r->done_bytes += nr_bytes;
	if (nr_bytes < rq->__data_len) /* a part: the rest follows */
		return 0;
	done = *r;
	bpf_map_delete_elem(&requests, &id);
	/* No device saw it: a flush without data ends with the request that the block layer made to flush, and that one is told of. */
	if (!done.issued_ns)
		return 0;
	if (now < done.issued_ns || done.issued_ns < done.queued_ns) {
		lose(LOSS_UNDERFLOW, 1);
		return 0;
	}
	queued = done.issued_ns - done.queued_ns;
	device = now - done.issued_ns;
	bytes = done.op == OP_FLUSH ? 0 : done.done_bytes;
	count_disk(&done, f->gen, queued, device, bytes, error != 0);
	count_io(&done, f->gen, queued + device, bytes);
	tell_slow(&done, now, queued, device, bytes);
	timed(PROG_RQ_COMPLETE, now, true);
	return 0;
}

struct inflight _inflight = {};
struct slow_rec _slow_rec = {};

char LICENSE[] SEC("license") = "Dual BSD/GPL";
