// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A program type that kernels without infrared remote controls do not have. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lirc_mode2")
int missing(unsigned int *sample)
{
	return 0;
}
