// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * names: what the kernel calls its code.
 *
 * Hooks    nothing; user space runs it.
 * Keeps    what it was asked last.
 * Costs    a microsecond per address. /proc/kallsyms, the list of all names, takes the kernel 50 ms to write and us 8 MB to keep,
 *          for some hundred that are wanted.
 */
#include "kernel.h"
#include "sberf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct name_request);
} asked SEC(".maps");

/* Where the code lies that calls the hooks of a trace point. 6.1 and older look through all names for one. */
static const char hook_name[] = "__traceiter_sched_switch";

SEC("syscall")
int name_code(void *ctx)
{
	__u32 zero = 0, i;
	struct name_request *request = bpf_map_lookup_elem(&asked, &zero);
	__u64 hook = 0;

	if (!request)
		return 0;
	if (request->wants_hook) {
		bpf_kallsyms_lookup_name(hook_name, sizeof(hook_name), 0, &hook);
		request->address[0] = hook;
	}
	for (i = 0; i < NAMES_AT_ONCE; i++) {
		if (!request->address[i])
			break;
		BPF_SNPRINTF(request->name[i], sizeof(request->name[i]), "%pS", request->address[i]);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
