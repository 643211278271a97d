#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every C source as bpf/.clang-format wants it, those of tests and examples too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mapfile -t sources < <(git ls-files --cached --others --exclude-standard -- 'bpf/*.c' 'bpf/*.h' 'playbooks/*.c' 'tests/*.c' 'tests/*.h')
((${#sources[@]})) || { echo "no C sources found" >&2; exit 1; }
clang-format --dry-run -Werror --style=file:bpf/.clang-format "${sources[@]}"
echo "${#sources[@]} files"
