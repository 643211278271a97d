// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What bpf_prog has to see through: maps that the kernel or libbpf shapes
 * anew, one that asks to be pinned by name, several sections of constants and
 * of variables, and names that the kernel cuts to the same one. */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 first_limit = 1;
const volatile __u32 second_limit SEC(".rodata.second_section") = 2;
const volatile __u32 third_limit SEC(".rodata.3") = 3;
volatile __u32 changing SEC(".data.custom") = 10;
volatile __u32 misleading SEC(".data.rodata") = 100;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} by_name SEC(".maps");

/* The kernel adds a flag. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/* Sizes that are no powers of two. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);
} events SEC(".maps");

/* One for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} samples SEC(".maps");

SEC("xdp")
int a_name_longer_than_the_kernel_keeps_1(struct xdp_md *ctx)
{
	__u32 key = 0;

	if (bpf_map_lookup_elem(&by_name, &key))
		return XDP_ABORTED;
	return first_limit + second_limit + third_limit + changing + misleading;
}

SEC("xdp")
int a_name_longer_than_the_kernel_keeps_2(struct xdp_md *ctx)
{
	return bpf_redirect_map(&devices, 0, XDP_PASS);
}
