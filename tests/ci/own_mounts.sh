#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# own_mounts.sh COMMAND...: runs the command with an empty bpffs, with network namespace names of its own and with nothing
# that releases keep on a host. Call it in a mount namespace of its own.
set -eu
mount -t bpf bpffs /sys/fs/bpf
mkdir -p /run/netns
mount -t tmpfs -o mode=755 netns /run/netns
mkdir -p /var/lib/ebpf-fleet
mount -t tmpfs -o mode=755 releases /var/lib/ebpf-fleet
mount -t tmpfs -o mode=755 commands /usr/local/sbin
exec "$@"
