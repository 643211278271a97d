// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Maps whose keys are prefixes of ports and of addresses, used by a program
 * that changes nothing. */
#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>

struct port_prefix {
	__u32 prefixlen;
	__be16 port;
} __attribute__((packed));

struct address_prefix {
	__u32 prefixlen;
	struct in6_addr address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, struct port_prefix);
	__type(value, __u8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, struct address_prefix);
	__type(value, __u8);
} cidrs SEC(".maps");

SEC("sockops")
int uses_prefixes(struct bpf_sock_ops *ctx)
{
	struct port_prefix port = {.prefixlen = 16};
	struct address_prefix address = {.prefixlen = 128};

	return bpf_map_lookup_elem(&ports, &port) &&
	       bpf_map_lookup_elem(&cidrs, &address);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
