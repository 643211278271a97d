// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Sockmap accelerator: TCP between two sockets of one host skips the stack.
 *
 * sockmap_establish (sockops) puts both ends of an admitted connection into a
 * SOCKHASH; sockmap_redirect (sk_msg) hands each message straight to the other
 * end. docs/sockmap.md explains why it is correct; the short form is
 *
 *   - the key is the pair of initial sequence numbers, which only the true
 *     other end has;
 *   - each direction is decided by its first message. A direction that has
 *     sent a byte through TCP never redirects one afterwards, because a reader
 *     takes redirected bytes before those in the TCP queue;
 *   - every failure means TCP; the verdict is always SK_PASS.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"
#include "sockmap.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET	     2
#define AF_INET6     10
#define E2BIG	     7
#define PORT_BITS    16
#define ADDRESS_BITS 128

enum verdict {
	VERDICT_UNDECIDED = 0, /* nothing has been sent yet */
	VERDICT_REDIRECT,
	VERDICT_TCP,
};

/* What is known of one direction: the bytes that one socket sends. */
struct direction {
	struct sequence_pair peer; /* key of the other end */
	__u32 verdict;		   /* enum verdict */
};

/* Sockets by their own pair. Written by sockops, read by sk_msg. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct sequence_pair);
	__type(value, __u64);
} sockets SEC(".maps");

/* Per-socket state. Written by both programs, each under the socket's lock. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct direction);
} directions SEC(".maps");

/* Service ports. Written by user space, read by sockops. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct port_prefix);
	__type(value, __u8);
} policy_ports SEC(".maps");

/* Networks that both ends must be in. Written by user space, read by sockops.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct address_prefix);
	__type(value, __u8);
} policy_cidrs SEC(".maps");

/* Written by user space, read by both programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* Written by both programs, read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* Records of struct event. Written by both programs, read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

static __always_inline struct counters *counters_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct settings *settings_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* Both ends of a socket as the policy and the events see them. */
struct endpoints {
	struct in6_addr local_address;
	struct in6_addr remote_address;
	__be16 local_port;
	__be16 remote_port;
};

static __always_inline void v4_mapped(struct in6_addr *mapped, __be32 address)
{
	mapped->in6_u.u6_addr32[0] = 0;
	mapped->in6_u.u6_addr32[1] = 0;
	mapped->in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	mapped->in6_u.u6_addr32[3] = address;
}

/*
 * Read a context member here, and nowhere else: the verifier refuses a pointer
 * into the context that the compiler has computed to merge two reads, so each
 * is tied to an empty instruction that no other read has.
 */
#define CONTEXT(member)                                                        \
	({                                                                     \
		__u32 value_ = (member);                                       \
		asm volatile("# " #member : "+r"(value_));                     \
		value_;                                                        \
	})

static __always_inline int endpoints_of_sockops(struct bpf_sock_ops *ops,
						struct endpoints *ends)
{
	/* sockops has the local port in host order, the remote in network order
	 */
	ends->remote_port = bpf_htons(bpf_ntohl(ops->remote_port));
	ends->local_port = bpf_htons(ops->local_port);
	if (ops->family == AF_INET) {
		v4_mapped(&ends->local_address, CONTEXT(ops->local_ip4));
		v4_mapped(&ends->remote_address, CONTEXT(ops->remote_ip4));
		return 0;
	}
	if (ops->family != AF_INET6)
		return -1;
	ends->local_address.in6_u.u6_addr32[0] = CONTEXT(ops->local_ip6[0]);
	ends->local_address.in6_u.u6_addr32[1] = CONTEXT(ops->local_ip6[1]);
	ends->local_address.in6_u.u6_addr32[2] = CONTEXT(ops->local_ip6[2]);
	ends->local_address.in6_u.u6_addr32[3] = CONTEXT(ops->local_ip6[3]);
	ends->remote_address.in6_u.u6_addr32[0] = CONTEXT(ops->remote_ip6[0]);
	ends->remote_address.in6_u.u6_addr32[1] = CONTEXT(ops->remote_ip6[1]);
	ends->remote_address.in6_u.u6_addr32[2] = CONTEXT(ops->remote_ip6[2]);
	ends->remote_address.in6_u.u6_addr32[3] = CONTEXT(ops->remote_ip6[3]);
	return 0;
}

static __always_inline int address_allowed(const struct in6_addr *address)
{
	struct address_prefix key = {
		.prefixlen = ADDRESS_BITS,
		.address = *address,
	};

	return bpf_map_lookup_elem(&policy_cidrs, &key) != NULL;
}

/* Default deny: the service's port and both addresses have to be named. */
static __always_inline int policy_allows(const struct endpoints *ends,
					 int active)
{
	struct port_prefix key = {
		.prefixlen = PORT_BITS,
		.port = active ? ends->remote_port : ends->local_port,
	};

	return bpf_map_lookup_elem(&policy_ports, &key) &&
	       address_allowed(&ends->local_address) &&
	       address_allowed(&ends->remote_address);
}

/*
 * Connections whose first bytes may be under way before both ends are in the
 * map, or whose bytes are not the application's.
 */
static __always_inline int unsuitable(struct bpf_sock_ops *ops, int active)
{
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tcp;

	if (!sk)
		return REASON_NOT_INSERTED;
	tcp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return REASON_NOT_INSERTED;
	if (bpf_core_field_exists(tcp->is_mptcp) && tcp->is_mptcp)
		return REASON_MPTCP;
	if (ops->data_segs_out || tcp->fastopen_rsk)
		return REASON_FAST_OPEN;
	/*
	 * A request socket remembers when its SYN-ACK left, and the handshake
	 * measures a round trip from it; a cookie remembers nothing.
	 */
	if (!active && !ops->srtt_us)
		return REASON_SYN_COOKIE;
	return REASON_NONE;
}

static __always_inline int insert(struct bpf_sock_ops *ops)
{
	struct sequence_pair own = {
		.sent = ops->snd_nxt,
		.received = ops->rcv_nxt,
	};
	struct bpf_sock *sk = ops->sk;
	struct direction *direction;
	long error;

	if (!sk)
		return REASON_NOT_INSERTED;
	/* The key of a socket connected to itself names no other end. */
	if (own.sent == own.received)
		return REASON_NOT_INSERTED;
	direction = bpf_sk_storage_get(&directions, sk, NULL,
				       BPF_SK_STORAGE_GET_F_CREATE);
	if (!direction)
		return REASON_NOT_INSERTED;
	direction->peer.sent = own.received;
	direction->peer.received = own.sent;
	error = bpf_sock_hash_update(ops, &sockets, &own, BPF_NOEXIST);
	if (error == -E2BIG)
		return REASON_MAP_FULL;
	return error ? REASON_NOT_INSERTED : REASON_NONE;
}

static __always_inline void count_left_on_tcp(struct counters *count,
					      int reason)
{
	switch (reason) {
	case REASON_NOT_POLICY:
		count->not_policy++;
		break;
	case REASON_FAST_OPEN:
		count->fast_open++;
		break;
	case REASON_SYN_COOKIE:
		count->syn_cookie++;
		break;
	case REASON_MPTCP:
		count->mptcp++;
		break;
	case REASON_DRAINING:
		count->draining++;
		break;
	case REASON_MAP_FULL:
		count->map_full++;
		break;
	default:
		count->not_inserted++;
		break;
	}
}

static __always_inline void report(struct counters *count,
				   const struct endpoints *ends, __u64 cookie,
				   int active, int kind, int reason)
{
	struct event *event;

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count->events_lost++;
		return;
	}
	event->nanoseconds = bpf_ktime_get_ns();
	event->cookie = cookie;
	event->local_address = ends->local_address;
	event->remote_address = ends->remote_address;
	event->local_port = ends->local_port;
	event->remote_port = ends->remote_port;
	event->kind = kind;
	event->reason = reason;
	event->active = active;
	event->unused = 0;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline int established(struct bpf_sock_ops *ops, int active)
{
	struct counters *count = counters_here();
	struct settings *now = settings_now();
	struct endpoints ends = {};
	int reason = REASON_NONE;

	if (!count || !now || endpoints_of_sockops(ops, &ends))
		return 1;
	count->established++;
	if (now->draining)
		reason = REASON_DRAINING;
	else if (!policy_allows(&ends, active))
		reason = REASON_NOT_POLICY;
	else
		reason = unsuitable(ops, active);
	if (reason == REASON_NONE)
		reason = insert(ops);
	if (reason == REASON_NONE)
		count->admitted++;
	else
		count_left_on_tcp(count, reason);
	if (now->events)
		report(count, &ends, bpf_get_socket_cookie(ops), active,
		       reason ? EVENT_LEFT_ON_TCP : EVENT_ADMITTED, reason);
	return 1;
}

SEC("sockops")
int sockmap_establish(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		return established(ops, 1);
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		return established(ops, 0);
	default:
		return 1;
	}
}

static __always_inline void through_tcp(struct counters *count,
					struct sk_msg_md *msg)
{
	count->tcp_messages++;
	count->tcp_bytes += msg->size;
}

SEC("sk_msg")
int sockmap_redirect(struct sk_msg_md *msg)
{
	struct counters *count = counters_here();
	struct direction *direction;
	struct bpf_sock *sk;
	__u32 size = msg->size;

	sk = msg->sk;
	if (!count || !sk)
		return SK_PASS;
	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	if (!direction || direction->verdict == VERDICT_TCP) {
		through_tcp(count, msg);
		return SK_PASS;
	}
	if (sk->state != BPF_TCP_ESTABLISHED &&
	    sk->state != BPF_TCP_CLOSE_WAIT) {
		direction->verdict = VERDICT_TCP;
		through_tcp(count, msg);
		return SK_PASS;
	}
	if (bpf_msg_redirect_hash(msg, &sockets, &direction->peer,
				  BPF_F_INGRESS) != SK_PASS) {
		if (direction->verdict == VERDICT_UNDECIDED)
			count->no_peer++;
		else
			count->peer_gone++;
		direction->verdict = VERDICT_TCP;
		through_tcp(count, msg);
		return SK_PASS;
	}
	if (direction->verdict == VERDICT_UNDECIDED) {
		direction->verdict = VERDICT_REDIRECT;
		count->paired++;
	}
	count->redirected_messages++;
	count->redirected_bytes += size;
	return SK_PASS;
}
