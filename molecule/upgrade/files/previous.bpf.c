// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The accelerator as another release had it: the same work and the same maps,
 * other programs.
 */
#include "sockmap.bpf.c"

const volatile char previous_release[] = "previous";

SEC("sk_msg")
int of_the_previous_release(struct sk_msg_md *msg)
{
	return previous_release[msg->size & 7] ? SK_PASS : SK_DROP;
}
