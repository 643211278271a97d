/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Bob Jenkins' lookup3, as far as it is needed here: three words in, one out.
 * The seed is fixed, because every balancer of a fleet has to agree.
 */
#ifndef EBPF_FLEET_XDP_LB_HASH_H
#define EBPF_FLEET_XDP_LB_HASH_H

#include <linux/types.h>

#include "layout.h"

#define HASH_SEED 0x6662656c /* any */

static __always_inline __u32 rotate(__u32 word, int bits)
{
	return (word << bits) | (word >> (32 - bits));
}

static __always_inline __u32 hash_words(__u32 a, __u32 b, __u32 c)
{
	a += HASH_SEED;
	b += HASH_SEED;
	c += HASH_SEED;
	c = (c ^ b) - rotate(b, 14);
	a = (a ^ c) - rotate(c, 11);
	b = (b ^ a) - rotate(a, 25);
	c = (c ^ b) - rotate(b, 16);
	a = (a ^ c) - rotate(c, 4);
	b = (b ^ a) - rotate(a, 14);
	c = (c ^ b) - rotate(b, 24);
	return c;
}

/* An address and a port; IPv4's unused words are not worth a round. */
static __always_inline __u32 hash_address(const struct address *address,
					  __be16 port, int is_ipv6)
{
	__u32 first = address->word[0];

	if (is_ipv6)
		first = hash_words(first, address->word[1], address->word[2]);
	return hash_words(first, address->word[3], port);
}

#endif
