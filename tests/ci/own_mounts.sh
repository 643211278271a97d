#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# own_mounts.sh COMMAND...: runs the command with an empty bpffs, with network namespace names of its own, with nothing
# that releases keep on a host, and with whatever it writes to /etc and /usr/local for itself. Call it in a mount
# namespace of its own.
set -eu
mount -t bpf bpffs /sys/fs/bpf
mkdir -p /run/netns
mount -t tmpfs -o mode=755 netns /run/netns
mkdir -p /var/lib/ebpf-fleet
mount -t tmpfs -o mode=755 releases /var/lib/ebpf-fleet

layers=$(mktemp -d)
mount -t tmpfs -o mode=755 layers "$layers"
for place in /etc /usr/local; do
    mkdir -p "$layers/upper$place" "$layers/work$place"
    chmod 755 "$layers/upper$place"
    mount -t overlay -o "lowerdir=$place,upperdir=$layers/upper$place,workdir=$layers/work$place" own "$place"
done
umount --lazy "$layers"
rmdir "$layers"
exec "$@"
