// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The accelerator, with one more program that only one version of Linux lets
 * pass: what a stricter verifier, or a helper that is missing, does to a host
 * that comes back from a reboot with another kernel. ONLY_ON is that version,
 * as 0xMMmm (major, minor).
 */
#include "sockmap.bpf.c"

extern int LINUX_KERNEL_VERSION __kconfig;

SEC("sockops")
int only_here(struct bpf_sock_ops *ops)
{
	if (LINUX_KERNEL_VERSION >> 8 != ONLY_ON)
		asm volatile("r0 = *(u64 *)(r10 + 8)" ::
				     : "r0"); /* above the stack */
	return 1;
}
