/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The Internet checksum, mostly as a difference (RFC 1624, equation 3). */
#ifndef EBPF_FLEET_XDP_LB_CHECKSUM_H
#define EBPF_FLEET_XDP_LB_CHECKSUM_H

#include <linux/types.h>

#include "layout.h"

/*
 * A sum of 16-bit words and of their complements, not yet folded. 32-bit values
 * are added as they are: 2^16 is 1 to this sum.
 */
typedef __u64 sum_t;

static __always_inline __u16 fold(sum_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline sum_t difference16(__be16 from, __be16 to)
{
	return (__u16)~from + (sum_t)to;
}

static __always_inline sum_t difference32(__be32 from, __be32 to)
{
	return (__u32)~from + (sum_t)to;
}

static __always_inline sum_t sum_address(const struct address *address)
{
	return (sum_t)address->word[0] + address->word[1] + address->word[2] +
	       address->word[3];
}

/* IPv4's unused words are zero and cancel each other out. */
static __always_inline sum_t difference_address(const struct address *from,
						const struct address *to)
{
	return difference32(from->word[0], to->word[0]) +
	       difference32(from->word[1], to->word[1]) +
	       difference32(from->word[2], to->word[2]) +
	       difference32(from->word[3], to->word[3]);
}

static __always_inline void checksum_add(__sum16 *checksum, sum_t difference)
{
	*checksum = ~fold((__u16) ~*checksum + difference);
}

/* A UDP checksum of zero says that there is none, so none becomes zero. */
static __always_inline void checksum_add_udp(__sum16 *checksum,
					     sum_t difference)
{
	if (!*checksum)
		return;
	checksum_add(checksum, difference);
	if (!*checksum)
		*checksum = 0xffff;
}

#endif
