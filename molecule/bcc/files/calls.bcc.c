// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Calls of do_sys_openat2 with paths of the provoker's, by process: a ring
 * buffer, tables and stacks. BCC dialect. */
#include <uapi/linux/ptrace.h>

#define PREFIX "/tmp/fleet-opens" /* 16 characters */

union prefix {
	char text[16];
	u64 words[2];
};

struct opened {
	u32 pid;
	int stack;
	char process[16];
};

BPF_RINGBUF_OUTPUT(opened, 64);
BPF_ARRAY(opened_lost, u64, 1);
BPF_STACK_TRACE(stacks, 256);
BPF_HASH(calls, u32, u64);
BPF_PERCPU_HASH(returns, u32, u64);

int kretprobe__do_sys_openat2(struct pt_regs *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	u64 zero = 0;
	u64 *count = returns.lookup_or_try_init(&pid, &zero);

	if (count)
		(*count)++;
	return 0;
}

int kprobe__do_sys_openat2(struct pt_regs *ctx, int directory, const char *path)
{
	struct opened event = {};
	union prefix wanted = {.text = PREFIX}, prefix = {};
	int first = 0;
	u64 *lost;

	bpf_probe_read_user(&prefix, sizeof(prefix), (void *)path);
	if (prefix.words[0] != wanted.words[0] ||
	    prefix.words[1] != wanted.words[1])
		return 0;
	event.pid = bpf_get_current_pid_tgid() >> 32;
	event.stack = stacks.get_stackid(ctx, 0);
	bpf_get_current_comm(event.process, sizeof(event.process));
	calls.increment(event.pid);
	if (opened.ringbuf_output(&event, sizeof(event), 0)) {
		lost = opened_lost.lookup(&first);
		if (lost)
			lock_xadd(lost, 1);
	}
	return 0;
}
