#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the BPF objects and programs where the roles read them, then in two other places, and compares: the bytes may depend on
# the sources and the compiler only, or no host could be told apart from another by an object's sha256.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# built TREE: sha256 and path of each object and program below the tree's roles/.
built() {
    (cd "$1" && find roles \( -name '*.bpf.o' -o -name '*.pyz' \) -type f -exec sha256sum {} + | sort -k 2)
}

# copy_tree TARGET: the sources as git has them, with what is not committed yet, and without anything built.
copy_tree() {
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard |
        rsync --archive --ignore-missing-args --from0 --files-from=- ./ "$1/"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

make --no-print-directory -C bpf
built . >"$scratch/here"
if ! [[ -s $scratch/here ]]; then
    echo "the build left no .bpf.o below roles/" >&2
    exit 1
fi
for place in "$scratch/a" "$scratch/elsewhere/with a space"; do
    copy_tree "$place"
    make --no-print-directory -C "$place/bpf" >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        exit 1
    }
    built "$place" >"$scratch/there"
    diff "$scratch/here" "$scratch/there" || {
        echo "the same sources gave other objects in $place" >&2
        exit 1
    }
done
cat "$scratch/here"
