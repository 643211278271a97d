#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes a Debian machine ready: the packages of requirements/apt.txt, a virtual environment with the pinned tools,
# and the import tree. Each step is skipped when it is done already.
#
#   setup.sh          what the lab and the tests need
#   setup.sh galaxy   the virtual environment of galaxy-importer instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'setup: %s\n' "$*"; }

# install_packages: what is missing of requirements/apt.txt.
install_packages() {
    local wanted missing=() name
    wanted=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' requirements/apt.txt)
    for name in $wanted; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        say "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2
        exit 1
    fi
    say "installing ${#missing[@]} Debian packages (a minute or two): ${missing[*]}"
    without_starting_services apt_install "${missing[@]}"
    # The lab runs its own instances; the machine's own ones stay off after a reboot too.
    if [[ -d /run/systemd/system ]]; then
        for name in "${missing[@]}"; do
            case $name in
            nginx-light) systemctl --quiet disable nginx.service ;;
            openssh-server) systemctl --quiet disable ssh.service ;;
            prometheus) systemctl --quiet disable prometheus.service ;;
            esac
        done
    fi
}

apt_install() {
    local log=.cache/apt.log
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        say "apt-get failed; the whole output is in $log" >&2
        return 1
    fi
}

# without_starting_services COMMAND...: Debian starts a server as soon as it is installed, unless policy-rc.d forbids.
without_starting_services() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    "$@" || status=$?
    rm -f "$policy"
    return "$status"
}

# find_python: Debian's own, since only that one sees python3-bpfcc; ansible-core 2.19 needs 3.11.
find_python() {
    local python
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    say "Python 3.11 or later is needed (Debian 12 or later has it)" >&2
    return 1
}

# make_venv DIRECTORY LOCK: a virtual environment with exactly the pinned versions.
make_venv() {
    local directory=$1 lock=$2 python stamp
    python=$(find_python)
    stamp="$(sha256sum <"$lock") $("$python" --version) $PWD"
    [[ -f $directory/stamp && $(<"$directory/stamp") == "$stamp" ]] && return
    say "creating $directory from $lock (about half a minute)"
    rm -rf "$directory"
    "$python" -m venv "$directory"
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$lock" 2>.cache/pip.log || {
        tail -n 20 .cache/pip.log >&2
        say "pip could not install $lock" >&2
        return 1
    }
    "$directory/bin/python" -m pip check --quiet --disable-pip-version-check
    printf '%s' "$stamp" >"$directory/stamp"
}

# make_import_tree: the repository as ansible_collections.ebpf.fleet, for Python and for ansible-playbook.
make_import_tree() {
    mkdir -p .cache/collections/ansible_collections/ebpf
    ln -sfn ../../../.. .cache/collections/ansible_collections/ebpf/fleet
}

mkdir -p .cache
if [[ ${1:-} == galaxy ]]; then
    make_venv .venv-galaxy requirements/galaxy.txt
else
    install_packages
    make_venv .venv requirements/python.txt
    make_import_tree
fi
