#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every shell script: by its name, or by its first line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mapfile -t scripts < <(
    git ls-files --cached --others --exclude-standard |
        while IFS= read -r file; do
            [[ -f $file && $file != *.j2 ]] || continue
            if [[ $file == *.sh ]] || head -n 1 -- "$file" | grep -aqE '^#!.*[/ ](ba|da)?sh( |$)'; then
                printf '%s\n' "$file"
            fi
        done
)
((${#scripts[@]})) || { echo "no shell scripts found" >&2; exit 1; }
shellcheck --enable=quote-safe-variables,check-unassigned-uppercase "${scripts[@]}"
echo "${#scripts[@]} scripts"
