// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts what skb:kfree_skb drops, by place, reason and, where BY_FLOW or
 * BY_PROCESS say so, by flow or process. BCC dialect.
 *
 * The offsets of struct sk_buff are those of the running kernel. Set by the
 * playbook: BY_FLOW, BY_PROCESS (0 or 1), ONLY_PROTOCOL, ONLY_PORT, ONLY_PID
 * (0: any), ONLY_COMM (a string, "": any).
 */
#define ETHERTYPE_IPV4	0x0800
#define ETHERTYPE_IPV6	0x86DD
#define FRAGMENT_OFFSET 0x1FFF
#define COMM_SIZE	16

/* The tracepoint's field needs the type; linux/skbuff.h compiles for a minute.
 */
enum skb_drop_reason {
	REASON_OF_THE_KERNEL,
};

/* A process's name, filled up with zeros, to be compared at once. */
union comm {
	char text[COMM_SIZE];
	u64 words[2];
};

struct drop {
	u64 location;
	u32 reason;
	int stack;
	u8 source[16];
	u8 destination[16];
	u16 source_port; /* network byte order */
	u16 destination_port;
	u16 ethertype;
	u16 protocol;
	u32 pid;
	union comm process;
};

/* The first words of an IPv4 header; those of an IPv6 header. */
struct ipv4 {
	u8 version_and_words;
	u8 service;
	u16 length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6 {
	u32 version_and_flow;
	u16 length;
	u8 protocol;
	u8 hops;
	u8 source[16];
	u8 destination[16];
};

BPF_HASH(drops, struct drop, u64, 10240);
BPF_STACK_TRACE(stacks, 4096);
/* Drops that found no room in the table. */
BPF_ARRAY(unkept, u64, 1);

static inline void read_ports(struct drop *drop, char *transport)
{
	u16 ports[2] = {};

	if (drop->protocol != 6 && drop->protocol != 17)
		return;
	if (bpf_probe_read_kernel(ports, sizeof(ports), transport))
		return;
	drop->source_port = ports[0];
	drop->destination_port = ports[1];
}

static inline void read_ipv4(struct drop *drop, char *network)
{
	struct ipv4 header = {};

	if (bpf_probe_read_kernel(&header, sizeof(header), network) ||
	    header.version_and_words >> 4 != 4)
		return;
	drop->protocol = header.protocol;
	/* IPv4 in IPv6, ::ffff:a.b.c.d */
	drop->source[10] = drop->source[11] = 0xFF;
	drop->destination[10] = drop->destination[11] = 0xFF;
	__builtin_memcpy(drop->source + 12, &header.source, 4);
	__builtin_memcpy(drop->destination + 12, &header.destination, 4);
	if (!(bpf_ntohs(header.fragment) & FRAGMENT_OFFSET))
		read_ports(drop,
			   network + 4 * (header.version_and_words & 0xF));
}

static inline void read_ipv6(struct drop *drop, char *network)
{
	struct ipv6 header = {};

	if (bpf_probe_read_kernel(&header, sizeof(header), network) ||
	    bpf_ntohl(header.version_and_flow) >> 28 != 6)
		return;
	drop->protocol = header.protocol;
	__builtin_memcpy(drop->source, header.source, 16);
	__builtin_memcpy(drop->destination, header.destination, 16);
	read_ports(drop, network + sizeof(header));
}

static inline void read_flow(struct drop *drop, char *skb)
{
	char *head = NULL;
	u16 network = 0;

	if (bpf_probe_read_kernel(&head, sizeof(head),
				  skb + OFFSET_sk_buff_head) ||
	    bpf_probe_read_kernel(&network, sizeof(network),
				  skb + OFFSET_sk_buff_network_header))
		return;
	if (drop->ethertype == ETHERTYPE_IPV4)
		read_ipv4(drop, head + network);
	else if (drop->ethertype == ETHERTYPE_IPV6)
		read_ipv6(drop, head + network);
}

static inline int is_wanted(struct drop *drop)
{
	union comm wanted = {.text = ONLY_COMM};

	if (ONLY_PROTOCOL && drop->protocol != ONLY_PROTOCOL)
		return 0;
	if (ONLY_PORT && bpf_ntohs(drop->source_port) != ONLY_PORT &&
	    bpf_ntohs(drop->destination_port) != ONLY_PORT)
		return 0;
	if (ONLY_PID && drop->pid != ONLY_PID)
		return 0;
	return sizeof(ONLY_COMM) == 1 ||
	       (drop->process.words[0] == wanted.words[0] &&
		drop->process.words[1] == wanted.words[1]);
}

TRACEPOINT_PROBE(skb, kfree_skb)
{
	struct drop drop = {};
	u64 zero = 0;
	u64 *count;
	int first = 0;

	drop.location = (u64)args->location;
	drop.reason = args->reason;
	drop.ethertype = args->protocol;
	drop.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&drop.process, sizeof(drop.process));
	read_flow(&drop, (char *)args->skbaddr);
	if (!is_wanted(&drop))
		return 0;
	if (!BY_FLOW) {
		__builtin_memset(drop.source, 0, sizeof(drop.source));
		__builtin_memset(drop.destination, 0, sizeof(drop.destination));
		drop.source_port = drop.destination_port = 0;
	}
	if (!BY_PROCESS) {
		drop.pid = 0;
		__builtin_memset(&drop.process, 0, sizeof(drop.process));
	}
	drop.stack = stacks.get_stackid(args, 0);
	count = drops.lookup_or_try_init(&drop, &zero);
	if (!count)
		count = unkept.lookup(&first);
	if (count)
		lock_xadd(count, 1);
	return 0;
}
