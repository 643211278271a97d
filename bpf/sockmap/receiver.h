/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A look into the other end's socket. Its address was written down when it was
 * established; it may have been freed since. bpf_probe_read_kernel reads
 * whatever is there without harm, and the cookie says whether to believe it.
 */
#ifndef EBPF_FLEET_SOCKMAP_RECEIVER_H
#define EBPF_FLEET_SOCKMAP_RECEIVER_H

#include <linux/types.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

/* sk_user_data keeps flags in the low bits of the pointer (net/sock.h). */
#define SK_USER_DATA_FLAGS 7ULL
#define MAX_SLEEPERS	   8
#define MAX_STACK	   (16 * 1024)
#define MAX_LOCK_READS	   128
#define O_NONBLOCK	   04000

static __always_inline int is_still(__u64 sk, __u64 cookie)
{
	struct sock *sock = (struct sock *)sk;

	return BPF_CORE_READ(sock, __sk_common.skc_cookie.counter) ==
	       (__s64)cookie;
}

static __always_inline __u64 net_of(__u64 sk)
{
	struct sock *sock = (struct sock *)sk;

	return (__u64)BPF_CORE_READ(sock, __sk_common.skc_net.net);
}

static __always_inline int is_nonblocking(__u64 sk)
{
	struct sock *sock = (struct sock *)sk;

	return !!(BPF_CORE_READ(sock, sk_socket, file, f_flags) & O_NONBLOCK);
}

/* 0 once the socket has left every sockmap and its last call has returned. */
static __always_inline __u64 psock_of(__u64 sk)
{
	struct sock *sock = (struct sock *)sk;

	return (__u64)BPF_CORE_READ(sock, sk_user_data) & ~SK_USER_DATA_FLAGS;
}

/* Has the application taken every redirected byte? True without a psock. */
static __always_inline int queue_is_empty(__u64 psock)
{
	struct sk_psock *queue = (struct sk_psock *)psock;
	__u64 head = psock + bpf_core_field_offset(queue->ingress_msg);

	return !psock || (__u64)BPF_CORE_READ(queue, ingress_msg.next) == head;
}

/*
 * Does FIONREAD count redirected bytes? Kernels that keep their sum have an
 * ioctl of their own for sockets in a sockmap ("bpf, sockmap: Fix FIONREAD for
 * sockmap", 2026). Others answer with the TCP queue alone: 0, while redirected
 * bytes wait.
 */
static __always_inline int fionread_counts_redirected(void)
{
	struct sk_psock *queue = NULL;

	return bpf_core_field_exists(queue->msg_tot_len);
}

/*
 * Is a call on the socket under way that could still redirect? The map holds
 * one reference to the psock, each call in sendmsg or recvmsg another.
 */
static __always_inline int is_in_call(__u64 psock)
{
	struct sk_psock *queue = (struct sk_psock *)psock;

	return psock && BPF_CORE_READ(queue, refcnt.refs.counter) > 1;
}

/* The same, asked from within a call on the socket: is there another? */
static __always_inline int is_only_call(__u64 psock)
{
	struct sk_psock *queue = (struct sk_psock *)psock;

	return psock && BPF_CORE_READ(queue, refcnt.refs.counter) == 2;
}

/*
 * How many threads sleep in a call on the socket, those in poll() not counted?
 * A wait entry names its task and lies on that task's kernel stack; poll() and
 * epoll put something else where the task would be.
 */
static __always_inline int sleepers(__u64 sk)
{
	struct sock *sock = (struct sock *)sk;
	struct socket_wq *queue = BPF_CORE_READ(sock, sk_wq);
	__u64 head, at;
	int found = 0;

	if (!queue)
		return 0;
	head = (__u64)queue + bpf_core_field_offset(queue->wait) +
	       bpf_core_field_offset(queue->wait.head);
	at = (__u64)BPF_CORE_READ(queue, wait.head.next);
	for (int i = 0; i < MAX_SLEEPERS && at && at != head; i++) {
		struct wait_queue_entry *waits;
		struct task_struct *task;
		__u64 stack;

		waits = (void *)(at - bpf_core_field_offset(
					      struct wait_queue_entry, entry));
		task = BPF_CORE_READ(waits, private);
		stack = task ? (__u64)BPF_CORE_READ(task, stack) : 0;
		if (at >= stack && at < stack + MAX_STACK)
			found++;
		at = (__u64)BPF_CORE_READ(waits, entry.next);
	}
	return found;
}

static __always_inline int is_locked(__u64 sk)
{
	struct sock *sock = (struct sock *)sk;

	return BPF_CORE_READ(sock, sk_lock.owned);
}

/*
 * Did a thread fall asleep in recv() before the socket was in the map? It waits
 * inside plain TCP, where redirected bytes do not wake it. A thread that came
 * later holds a reference to the psock. One that owns the lock is awake, unless
 * it lies down this very moment: then it is in the queue and has the lock for
 * some nanoseconds more.
 */
static __always_inline int has_early_reader(__u64 sk, __u64 psock)
{
	struct sk_psock *queue = (struct sk_psock *)psock;
	int asleep, later;

	if (!psock || is_nonblocking(sk))
		return 0;
	for (int i = 0; i < MAX_LOCK_READS; i++)
		if (!is_locked(sk))
			break;
	/* in this order: who sleeps has a reference by then */
	asleep = sleepers(sk);
	later = BPF_CORE_READ(queue, refcnt.refs.counter) - 1;
	if (is_locked(sk))
		later--;
	return asleep > (later > 0 ? later : 0);
}

static __always_inline __u64 receive_memory(__u64 sk)
{
	struct sock *sock = (struct sock *)sk;

	return BPF_CORE_READ(sock, sk_backlog.rmem_alloc.counter);
}

/* Bytes in the TCP queue that the application has not taken? */
static __always_inline int has_unread_tcp(const struct tcp_sock *tcp)
{
	return tcp->rcv_nxt != tcp->copied_seq;
}

static __always_inline int has_ulp(__u64 sk)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	return BPF_CORE_READ(tcp, inet_conn.icsk_ulp_ops) != NULL;
}

#endif
