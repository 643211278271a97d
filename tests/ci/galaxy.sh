#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the tarball, lets Galaxy's importer judge it, and uses it as an operator does who installed it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tests/ci/setup.sh galaxy
rm -rf build
ansible-galaxy collection build --output-path build
tarball=$(echo build/ebpf-fleet-*.tar.gz)

python tests/ci/tarball.py "$tarball"

# The importer writes importer_result.json to the working directory and takes its tools from PATH.
tarball=$PWD/$tarball
PATH=$PWD/.venv-galaxy/bin:$PATH
cd .cache/ci
python -m galaxy_importer.main "$tarball" | tee galaxy-importer.log
if grep -E '^(WARNING|ERROR)' galaxy-importer.log; then
    echo "Galaxy's importer has something to say" >&2
    exit 1
fi
