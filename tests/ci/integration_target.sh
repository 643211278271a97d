#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# integration_target.sh TARGET: one target, in the copy number $SLOT that integration.sh made. Its output goes to
# .cache/ci/integration-TARGET.log, and here when it failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

: "${SLOT:?integration.sh says which copy is ours}"
name=$1
log=$PWD/.cache/ci/integration-$name.log
cd ".cache/integration-$SLOT/ansible_collections/ebpf/fleet"
# Debian's interpreter runs the modules, as on a managed host; only it sees python3-bpfcc.
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ansible-test integration "$name" \
    --controller origin:python=default \
    --target "controller:python=$python@/usr/bin/python3" \
    --allow-root --allow-destructive --diff --color no >"$log" 2>&1; then
    printf 'target %s: passed in %d s\n' "$name" "$SECONDS"
else
    # In one piece: another target runs beside this one.
    printf '%s\ntarget %s: failed in %d s; the whole output is in %s\n' \
        "$(tail -n 60 "$log" | sed 's/^/    /')" "$name" "$SECONDS" "$log"
    exit 1
fi
