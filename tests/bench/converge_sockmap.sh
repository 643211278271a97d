#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The accelerator by bpftool: converge_sockmap.sh up|upgrade|down, beside the file `object`. As such scripts go, it looks at
# nothing that is there, checks nothing that it did, and leaves everything half done where it fails.
set -eu
here=$(dirname "$0")
pins=/sys/fs/bpf/bench
cgroup=/sys/fs/cgroup/bench

case $1 in
up)
    mkdir "$pins"
    bpftool prog loadall "$here/object" "$pins/programs" pinmaps "$pins/maps"
    bpftool prog attach pinned "$pins/programs/sockmap_redirect" msg_verdict pinned "$pins/maps/sockets"
    bpftool map update pinned "$pins/maps/policy_ports" key hex 00 00 00 00 00 00 value hex 01
    bpftool map update pinned "$pins/maps/policy_cidrs" key hex 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
        value hex 01
    bpftool cgroup attach "$cgroup" sock_ops pinned "$pins/programs/sockmap_establish" multi
    ;;
upgrade)
    set --
    for map in "$pins"/maps/*; do
        case $map in
        *rodata | *bss | *data) ;;
        *) set -- "$@" map name "$(basename "$map")" pinned "$map" ;;
        esac
    done
    bpftool prog loadall "$here/object" "$pins/next" "$@"
    bpftool prog attach pinned "$pins/next/sockmap_redirect" msg_verdict pinned "$pins/maps/sockets"
    bpftool cgroup attach "$cgroup" sock_ops pinned "$pins/next/sockmap_establish" multi
    bpftool cgroup detach "$cgroup" sock_ops pinned "$pins/programs/sockmap_establish"
    rm -r "$pins/programs"
    mv "$pins/next" "$pins/programs"
    ;;
down)
    [ -e "$pins" ] || exit 0
    bpftool cgroup detach "$cgroup" sock_ops pinned "$pins/programs/sockmap_establish"
    bpftool prog detach pinned "$pins/programs/sockmap_redirect" msg_verdict pinned "$pins/maps/sockets"
    rm -r "$pins"
    ;;
esac
