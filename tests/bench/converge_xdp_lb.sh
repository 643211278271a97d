#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The balancer by bpftool: converge_xdp_lb.sh up|upgrade|down, beside the files `object` and `entries`, a line a map's entry.
# The rings are left out: a script has nothing to compute them with. It looks at nothing and checks nothing.
set -eu
here=$(dirname "$0")
pins=/sys/fs/bpf/bench
device=eth0

case $1 in
up)
    mkdir "$pins"
    bpftool prog load "$here/object" "$pins/xdp_lb" type xdp pinmaps "$pins/maps"
    bpftool batch file "$here/entries" >/dev/null
    while read -r entry; do
        # shellcheck disable=SC2086 # its words are bpftool's arguments
        bpftool $entry
    done <"$here/long_entries"
    bpftool net attach xdpdrv pinned "$pins/xdp_lb" dev "$device"
    ;;
upgrade)
    set --
    for map in "$pins"/maps/*; do
        case $map in
        *rodata | *bss | *data) ;;
        *) set -- "$@" map name "$(basename "$map")" pinned "$map" ;;
        esac
    done
    bpftool prog load "$here/object" "$pins/next" type xdp "$@"
    bpftool net attach xdpdrv pinned "$pins/next" dev "$device" overwrite
    mv "$pins/next" "$pins/xdp_lb"
    ;;
down)
    [ -e "$pins" ] || exit 0
    bpftool net detach xdpdrv dev "$device"
    rm -r "$pins"
    ;;
esac
