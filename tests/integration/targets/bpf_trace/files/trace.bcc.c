// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Something of everything that a trace can return, for each close() of one
 * descriptor. BCC dialect. */
struct closed {
	u64 at;
	u64 text;
	u32 pid;
	int stack;
	int result;
	u16 port;
	u8 address[4];
	u8 raw[3];
	char process[16];
	s16 numbers[3];
};

struct of {
	u32 pid;
	char process[16];
};

BPF_PERF_OUTPUT(perf);
BPF_RINGBUF_OUTPUT(ring, 16);
BPF_ARRAY(ring_lost, u64, 1);
BPF_HASH(table_of, struct of, u64);
BPF_PERCPU_ARRAY(each, u64, 3);
BPF_HISTOGRAM(sizes);
BPF_STACK_TRACE(stacks, 256);
/* Written, and not asked for. */
BPF_HASH(hidden, u32, u64);

static inline int report(void *context, int descriptor)
{
	struct closed closed = {};
	struct of of = {};
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	int second = 1, first = 0;
	u64 *count;

	if (descriptor != ONLY_DESCRIPTOR)
		return 0;
	closed.at = bpf_ktime_get_ns();
	closed.pid = pid;
	closed.stack = stacks.get_stackid(context, 0);
	closed.result = -2;
	closed.port = bpf_htons(8080);
	closed.address[0] = 192;
	closed.address[2] = 2;
	closed.address[3] = 1;
	closed.raw[0] = 0xAB;
	closed.numbers[1] = -5;
	bpf_get_current_comm(closed.process, sizeof(closed.process));
	of.pid = pid;
	bpf_get_current_comm(of.process, sizeof(of.process));
	perf.perf_submit(context, &closed, sizeof(closed));
	if (ring.ringbuf_output(&closed, sizeof(closed), 0)) {
		count = ring_lost.lookup(&first);
		if (count)
			lock_xadd(count, 1);
	}
	table_of.increment(of);
	hidden.increment(pid);
	count = each.lookup(&second);
	if (count)
		*count += 1;
	sizes.increment(bpf_log2l(4096));
	return 0;
}

int on_close(struct tracepoint__syscalls__sys_enter_close *args)
{
	return report(args, args->fd);
}
