#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Resolves requirements/*.in in fresh virtual environments and writes what came out to requirements/*.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for name in python galaxy; do
    echo "resolving requirements/$name.in"
    /usr/bin/python3 -m venv "$scratch/$name"
    "$scratch/$name/bin/pip" install --quiet --disable-pip-version-check -r "requirements/$name.in"
    {
        echo "# Written by \`make pins\` from $name.in."
        "$scratch/$name/bin/pip" freeze
    } >"requirements/$name.txt"
done
