/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What user space and the program `maglev` agree on. They share nothing with
 * the data plane: a ring is computed here, read back, and written to where the
 * data plane looks.
 */
#ifndef EBPF_FLEET_XDP_LB_MAGLEV_H
#define EBPF_FLEET_XDP_LB_MAGLEV_H

#include <linux/types.h>

#include "layout.h"

#define MAGLEV_MEMBERS 8192

/*
 * A backend, and where in its permutation of the slots it stands: the next
 * slot it wants is `position`, the one after that `skip` further, around the
 * ring. As the number of slots is prime it comes past every one.
 */
struct member {
	__u32 position; /* below RING_SLOTS */
	__u32 skip; /* 1 to RING_SLOTS - 1 */
	__u32 weight;
	__u32 credit; /* weight times rounds, less what its slots have cost */
	__u32 backend; /* id, not 0, at most 65535 */
};

struct members {
	struct member list[MAGLEV_MEMBERS];
};

/* How far the computation has come. User space writes it, then waits for 0. */
struct progress {
	__u32 left; /* slots that nobody has */
	__u32 turn; /* whose: an index of members.list */
	__u32 count; /* of members */
	__u32 price; /* of a slot: the largest weight */
};

/* The result: a backend's id for each slot; 0: nobody's yet. */
struct assignment {
	__u16 backend[RING_SLOTS];
};

#endif
