/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel structures the programs look into, each cut down to the
 * members that are read. The loader finds the real offsets in the running
 * kernel's BTF (CO-RE), so one object serves every kernel that has the
 * members; a member that only some kernels have is asked for with
 * bpf_core_field_exists().
 */
#ifndef EBPF_FLEET_KERNEL_H
#define EBPF_FLEET_KERNEL_H

#include <linux/types.h>

#include <bpf/bpf_core_read.h>

#ifndef __KERNEL_CORE
#define __KERNEL_CORE __attribute__((preserve_access_index))
#endif

typedef struct {
	int counter;
} __KERNEL_CORE atomic_t;

typedef struct {
	__s64 counter;
} __KERNEL_CORE atomic64_t;

typedef struct refcount_struct {
	atomic_t refs;
} __KERNEL_CORE refcount_t;

struct list_head {
	struct list_head *next;
} __KERNEL_CORE;

struct net;

typedef struct {
	struct net *net;
} __KERNEL_CORE possible_net_t;

struct sock_common {
	possible_net_t skc_net;
	atomic64_t skc_cookie;
} __KERNEL_CORE;

struct wait_queue_entry {
	void *private;
	struct list_head entry;
} __KERNEL_CORE;

struct wait_queue_head {
	struct list_head head;
} __KERNEL_CORE;

typedef struct wait_queue_head wait_queue_head_t;

struct socket_wq {
	wait_queue_head_t wait;
} __KERNEL_CORE;

struct task_struct {
	void *stack;
} __KERNEL_CORE;

typedef struct {
	int owned;
} __KERNEL_CORE socket_lock_t;

struct file {
	unsigned int f_flags;
} __KERNEL_CORE;

struct socket {
	struct file *file;
} __KERNEL_CORE;

struct sock {
	struct sock_common __sk_common;
	/* sk_backlog.rmem_alloc; "sk_rmem_alloc" is a macro of the kernel */
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	int sk_rcvbuf;
	void *sk_user_data;
	struct socket *sk_socket;
	struct socket_wq *sk_wq;
	socket_lock_t sk_lock;
} __KERNEL_CORE;

struct tcp_ulp_ops;

struct inet_connection_sock {
	const struct tcp_ulp_ops *icsk_ulp_ops;
} __KERNEL_CORE;

struct request_sock;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	_Bool is_mptcp;
	struct request_sock *fastopen_rsk;
} __KERNEL_CORE;

struct sk_psock {
	struct list_head ingress_msg;
	refcount_t refcnt;
	/* kernels with tcp_bpf_ioctl(), see receiver.h */
	__u32 msg_tot_len;
} __KERNEL_CORE;

#endif
