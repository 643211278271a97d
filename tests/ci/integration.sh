#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# integration.sh [TARGET...]: the targets of tests/integration, all of them unless named, two at a time. Each has a
# mount namespace with an empty bpffs on /sys/fs/bpf, an empty /run/netns and no stored releases: it sees nothing of the
# machine's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if (($#)); then
    targets=("$@")
else
    # A setup_ target is a dependency of others, not a test. The one with the most tasks first, so that no long one is
    # left over for the end, when there is nothing to run beside it.
    mapfile -t targets < <(
        cd ../integration/targets
        for name in */; do
            [[ $name == setup_* ]] || printf '%s %s\n' "$(cat "$name"tasks/*.yml | wc -c)" "${name%/}"
        done | sort -rn | cut -d ' ' -f 2
    )
fi

# ansible-test makes this key at its first run; two first runs at once would get in each other's way.
key=$HOME/.ansible/test/id_rsa
if ! [[ -f $key ]]; then
    mkdir -p "${key%/*}"
    ssh-keygen -m PEM -q -t rsa -N '' -f "$key"
fi

for slot in 0 1; do
    ./copy.sh "integration-$slot" >/dev/null
done
printf '%s\n' "${targets[@]}" |
    xargs --max-procs=2 --max-args=1 --process-slot-var=SLOT \
        unshare --mount --propagation private ./own_mounts.sh ./integration_target.sh
