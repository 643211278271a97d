#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# copy.sh NAME: copies the collection to .cache/NAME/ansible_collections/ebpf/fleet and prints that path. ansible-test
# works in a real directory of that name only (a symlink is resolved), and takes its list of files from git.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

base=$PWD/.cache/$1
target=$base/ansible_collections/ebpf/fleet
rm -rf "$base"
mkdir -p "$target"
{
    git ls-files -z --cached --others --exclude-standard
    find roles \( -name '*.bpf.o' -o -name '*.pyz' -o -path '*/files/*.json' \) -type f -print0 2>/dev/null || true
} | rsync --archive --ignore-missing-args --from0 --files-from=- ./ "$target/"
git init --quiet "$target"
printf '%s\n' "$target"
