// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Reports each open(), openat() and openat2() with its result. BCC dialect.
 *
 * The path is read when the call returns: at its beginning it may lie in memory
 * that is not there yet, and could not be read.
 *
 * Set by the playbook: ONLY_PID, ONLY_USER (-1: any), ONLY_COMM (a string, "":
 * any), ONLY_FAILED (1: only calls that fail).
 */
#define COMM_SIZE 16
#define PATH_SIZE 4096 /* a power of two */

struct call {
	u64 path; /* in user space */
	u64 flags;
};

struct opened {
	u64 at; /* ns, CLOCK_MONOTONIC */
	u64 flags;
	u32 pid;
	u32 user;
	int result; /* a descriptor, or a negative errno */
	char process[COMM_SIZE];
	char path[PATH_SIZE]; /* sent as far as it is used */
};

/* A process's name, filled up with zeros, to be compared at once. */
union comm {
	char text[COMM_SIZE];
	u64 words[2];
};

/* Calls that have not returned, by thread. */
BPF_HASH(calls, u64, struct call, 10240);
/* Too large for the stack. */
BPF_PERCPU_ARRAY(scratch, struct opened, 1);
BPF_PERF_OUTPUT(opens);
BPF_ARRAY(opens_lost, u64, 1);

static inline void lose(void)
{
	int first = 0;
	u64 *lost = opens_lost.lookup(&first);

	if (lost)
		lock_xadd(lost, 1);
}

static inline int is_wanted(void)
{
	union comm wanted = {.text = ONLY_COMM};
	union comm process = {};

	if (ONLY_PID != -1 && bpf_get_current_pid_tgid() >> 32 != ONLY_PID)
		return 0;
	if (ONLY_USER != -1 && (u32)bpf_get_current_uid_gid() != ONLY_USER)
		return 0;
	if (sizeof(ONLY_COMM) == 1)
		return 1;
	bpf_get_current_comm(&process, sizeof(process));
	return process.words[0] == wanted.words[0] &&
	       process.words[1] == wanted.words[1];
}

static inline int begin(u64 path, u64 flags)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct call call = {.path = path, .flags = flags};

	if (is_wanted() && calls.update(&thread, &call))
		lose();
	return 0;
}

static inline int end(void *context, long result)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct call *call = calls.lookup(&thread);
	int first = 0;
	struct opened *opened = scratch.lookup(&first);
	long size;

	if (!call || !opened)
		return 0;
	if (ONLY_FAILED && result >= 0)
		goto out;
	opened->at = bpf_ktime_get_ns();
	opened->flags = call->flags;
	opened->pid = thread >> 32;
	opened->user = bpf_get_current_uid_gid();
	opened->result = result;
	bpf_get_current_comm(opened->process, sizeof(opened->process));
	size = bpf_probe_read_user_str(opened->path, PATH_SIZE,
				       (void *)call->path);
	if (size < 1) {
		opened->path[0] = 0;
		size = 1;
	}
	/* It is from 1 to PATH_SIZE, which older verifiers see only so. */
	size = ((size - 1) & (PATH_SIZE - 1)) + 1;
	if (opens.perf_submit(context, opened,
			      sizeof(*opened) - PATH_SIZE + size))
		lose();
out:
	calls.delete(&thread);
	return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_openat)
{
	return begin((u64)args->filename, args->flags);
}

TRACEPOINT_PROBE(syscalls, sys_exit_openat)
{
	return end(args, args->ret);
}

TRACEPOINT_PROBE(syscalls, sys_enter_openat2)
{
	u64 flags = 0; /* the first member of struct open_how */

	bpf_probe_read_user(&flags, sizeof(flags), (void *)args->how);
	return begin((u64)args->filename, flags);
}

TRACEPOINT_PROBE(syscalls, sys_exit_openat2)
{
	return end(args, args->ret);
}

#ifdef __x86_64__
TRACEPOINT_PROBE(syscalls, sys_enter_open)
{
	return begin((u64)args->filename, args->flags);
}

TRACEPOINT_PROBE(syscalls, sys_exit_open)
{
	return end(args, args->ret);
}
#endif
