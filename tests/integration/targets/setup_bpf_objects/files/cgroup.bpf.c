// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs for control groups that change nothing. Another version makes
 * another program. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 version = 1;

SEC("sockops")
int watch(struct bpf_sock_ops *ctx)
{
	return version + ctx->op > 0;
}

SEC("cgroup/skb")
int filter(struct __sk_buff *ctx)
{
	return version + ctx->len > 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
