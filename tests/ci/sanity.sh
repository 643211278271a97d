#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# All of `ansible-test sanity`; compile and import run on every Python of PATH that the collection supports.
# $RESULTS: where the JUnit files go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if compgen -G '../sanity/ignore-*.txt' >/dev/null; then
    echo "tests/sanity/ holds an ignore file; nothing is ignored here" >&2
    exit 1
fi
export PIP_QUIET=2
python pip_bootstrap.py
for version in 3.9 3.10 3.11 3.12 3.13; do
    command -v "python$version" || echo "python$version is not on this machine"
done
target=$(./copy.sh sanity)
cd "$target"
status=0
# What pip says while a test's virtual environment is made is left out, unless it is an error.
ansible-test sanity --local --junit --color no 2>&1 |
    sed -E '/^(WARNING: Location|Looking in|Collecting|Processing|  (  )* *(Downloading|━)|     ━|Installing collected|Successfully)/d' ||
    status=$?
cp tests/output/junit/*.xml "${RESULTS:?}/"
exit "$status"
