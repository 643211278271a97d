#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# integration.sh [TARGET...]: the targets of tests/integration, all of them in one process unless named.
# Changes what the bpffs on /sys/fs/bpf holds: call it through with_bpffs.sh in a mount namespace of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target=$(./copy.sh integration)
cd "$target"
# Debian's interpreter runs the modules, as on a managed host; only it sees python3-bpfcc.
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
exec ansible-test integration \
    --controller origin:python=default \
    --target "controller:python=$python@/usr/bin/python3" \
    --allow-root --allow-destructive --continue-on-error --diff --color no "$@"
