// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Lets every packet pass. On the far end of a balancer's cable, because what
 * native XDP sends out of a veth is dropped unless the peer runs XDP, too.
 */
__attribute__((section("xdp"), used)) int pass(void *ctx)
{
	(void)ctx;
	return 2; /* XDP_PASS */
}

__attribute__((section("license"), used)) char LICENSE[] = "Dual BSD/GPL";
