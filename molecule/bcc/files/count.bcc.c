// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Counts frames, drops those of one type, and says which kernel's headers it
 * saw. BCC dialect. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <linux/version.h>

BPF_ARRAY(seen, u64, 2); /* frames; LINUX_VERSION_CODE */

int count(struct xdp_md *ctx)
{
	struct ethhdr *frame = (void *)(long)ctx->data;
	int first = 0, second = 1;
	u64 version = LINUX_VERSION_CODE;
	u64 *frames;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	frames = seen.lookup(&first);
	if (frames)
		lock_xadd(frames, 1);
	seen.update(&second, &version);
	return frame->h_proto == bpf_htons(DROPPED) ? XDP_DROP : XDP_PASS;
}
