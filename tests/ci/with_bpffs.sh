#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# with_bpffs.sh COMMAND...: mounts an empty bpffs and runs the command. Call it in a mount namespace of its own.
set -eu
mount -t bpf bpffs /sys/fs/bpf
exec "$@"
