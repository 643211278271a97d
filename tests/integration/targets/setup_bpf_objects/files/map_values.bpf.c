// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Maps of many types, with keys and values of every kind that BTF can describe.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

enum policy {
	ROUND_ROBIN,
	LEAST_USED,
	HASHED = 7,
};

struct service_key {
	struct in_addr address;
	__be16 port;
	__u8 protocol;
};

struct backend {
	struct in6_addr address;
	__u8 mac[6];
	__be16 port;
};

struct service {
	char name[16];
	enum policy policy;
	bool enabled;
	__u8 weight;
	__s16 shift;
	__be64 cookie;
	__u32 low : 3;
	__s32 balance : 5;
	__u32 high : 24;
	union {
		__be32 v4;
		__be32 v6[4];
	};
	struct {
		__u16 first;
		__u16 last;
	} range;
	struct backend backends[2];
	__u32 limits[3];
	__u64 total;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4);
	__type(key, __be16);
	__type(value, __u32);
} per_cpu SEC(".maps");

struct port_prefix {
	__u32 prefixlen;
	__be16 port;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8);
	__type(key, struct port_prefix);
	__type(value, __u8);
} ports SEC(".maps");

struct network {
	__u32 prefixlen;
	struct in6_addr address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8);
	__type(key, struct network);
	__type(value, bool);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} recent SEC(".maps");

/* Two names that are one to the kernel, which keeps 15 characters. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} a_name_too_long_1 SEC(".maps"), a_name_too_long_2 SEC(".maps");

const volatile __u32 constant = 5;
__u32 setting;

SEC("xdp")
int use_maps(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct service_key key = {};
	struct port_prefix port = {};
	struct network network = {};
	__be16 index = 0;

	bpf_map_lookup_elem(&services, &key);
	bpf_map_lookup_elem(&slots, &zero);
	bpf_map_lookup_elem(&per_cpu, &index);
	bpf_map_lookup_elem(&ports, &port);
	bpf_map_lookup_elem(&networks, &network);
	bpf_map_lookup_elem(&recent, &zero);
	bpf_map_lookup_elem(&a_name_too_long_1, &zero);
	bpf_map_lookup_elem(&a_name_too_long_2, &zero);
	return constant == 1 && setting ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
