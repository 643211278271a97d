// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include <uapi/linux/bpf.h>

BPF_HASH(seen, u32, u64, 16);

int pass(struct xdp_md *ctx)
{
	u32 key = 1;
	u64 value = LIMIT;

	seen.update(&key, &value);
	return XDP_PASS;
}
