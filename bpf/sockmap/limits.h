/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where redirecting stops being worth it. Constants of the loaded program: the
 * loader may set them, nothing changes them afterwards.
 */
#ifndef EBPF_FLEET_SOCKMAP_LIMITS_H
#define EBPF_FLEET_SOCKMAP_LIMITS_H

#include <linux/types.h>

/* Bytes that may wait in the receiver's queue before the sender goes to TCP. */
const volatile __u32 backlog_limit = 2 * 1024 * 1024;
/* The receiver's queue is looked at after so many messages or bytes. */
const volatile __u32 check_messages = 64;
const volatile __u32 check_bytes = 128 * 1024;
/*
 * A stream is so many messages with no answer, smaller than this on average,
 * sent faster than that: TCP gathers them, redirection wakes the reader for
 * each.
 */
const volatile __u32 stream_messages = 256;
const volatile __u32 stream_message_bytes = 8 * 1024;
const volatile __u32 stream_message_ns = 50 * 1000;
/* Messages, with about 1 KiB of kernel memory each, that may wait unread. */
const volatile __u32 backlog_messages = 2048;
/*
 * 1: no application asks FIONREAD (SIOCINQ) of its sockets, so that connections
 * are admitted whatever the kernel would answer.
 */
const volatile __u32 without_fionread = 0;

#endif
