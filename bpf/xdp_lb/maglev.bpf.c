// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4), with weights: the
 * members take turns, and at its turn each gets the first slot of its own
 * permutation that nobody has yet. In a round a member earns its weight, and
 * may take a slot when it has earned as much as the heaviest earns in one
 * round; so every one's slots are in proportion to its weight at any time,
 * and equal weights take one slot a round each.
 *
 * It is run by BPF_PROG_TEST_RUN, attached nowhere. A run makes some steps,
 * as many as every kernel's verifier follows; the rest is for further runs,
 * until no slot is left.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maglev.h"

#define STEPS 256

/* Written by user space before the first run, and by the program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} maglev_progress SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct members);
} maglev_members SEC(".maps");

/* Zeroed by user space, which reads it when no slot is left. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct assignment);
} maglev_slots SEC(".maps");

static __always_inline __u32 next_slot(const struct member *member)
{
	__u32 slot = member->position + member->skip;

	return slot < RING_SLOTS ? slot : slot - RING_SLOTS;
}

/*
 * Not an XDP program: the kernel waits for an RCU grace period at each test
 * run of those with repeat > 1 (bpf_prog_change_xdp in net/bpf/test_run.c).
 */
SEC("socket")
int maglev(struct __sk_buff *ctx)
{
	__u32 zero = 0, slot, turn;
	struct assignment *ring = bpf_map_lookup_elem(&maglev_slots, &zero);
	struct members *members = bpf_map_lookup_elem(&maglev_members, &zero);
	struct progress *progress =
		bpf_map_lookup_elem(&maglev_progress, &zero);
	struct member *member;

	(void)ctx;
	if (!ring || !members || !progress)
		return 0;
#pragma clang loop unroll(disable)
	for (int step = 0; step < STEPS && progress->left; step++) {
		turn = progress->turn;
		if (turn >= MAGLEV_MEMBERS)
			break;
		member = &members->list[turn];
		if (member->credit >= progress->price) {
			slot = member->position;
			if (slot >= RING_SLOTS)
				break;
			member->position = next_slot(member);
			if (ring->backend[slot])
				continue;
			ring->backend[slot] = member->backend;
			member->credit -= progress->price;
			progress->left--;
		}
		turn = turn + 1 < progress->count ? turn + 1 : 0;
		if (turn >= MAGLEV_MEMBERS)
			break;
		members->list[turn].credit += members->list[turn].weight;
		progress->turn = turn;
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
