/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef EBPF_FLEET_XDP_LB_CLOCK_H
#define EBPF_FLEET_XDP_LB_CLOCK_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* CLOCK_MONOTONIC in units of 2^30 ns. The coarse clock came with 5.11. */
static __always_inline __u32 seconds_now(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id,
				       BPF_FUNC_ktime_get_coarse_ns))
		return bpf_ktime_get_coarse_ns() >> 30;
	return bpf_ktime_get_ns() >> 30;
}

/*
 * Seconds since then. Who wrote it may have been ahead: another CPU by a tick,
 * user space, which reads the fine clock.
 */
static __always_inline __u32 since(__u32 then, __u32 now)
{
	return (__s32)(now - then) > 0 ? now - then : 0;
}

#endif
