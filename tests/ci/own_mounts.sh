#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# own_mounts.sh COMMAND...: runs the command with an empty bpffs and with network namespace names of its own. Call it
# in a mount namespace of its own.
set -eu
mount -t bpf bpffs /sys/fs/bpf
mkdir -p /run/netns
mount -t tmpfs -o mode=755 netns /run/netns
exec "$@"
