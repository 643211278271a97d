#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# network.sh up|down PREFIX: a balancer, two servers and a client on one bridge, each in a network namespace. The
# client's packets to 192.0.2.0/24 go to the balancer. Checksums are real ones, as on a wire.
set -eu

fabric=$2_fabric

plug() {
    ip netns add "$2_$1"
    ip -n "$fabric" link add "$1" type veth peer name eth0 netns "$2_$1"
    ip -n "$fabric" link set "$1" master br0 up
    ip netns exec "$2_$1" ethtool -K eth0 tx off >/dev/null
    ip -n "$2_$1" link set lo up
    ip -n "$2_$1" address add "10.123.0.$3/24" dev eth0
    ip -n "$2_$1" link set eth0 up
}

down() {
    for name in lb one two client fabric; do
        ip netns delete "$1_$name" 2>/dev/null || true
    done
}

case $1 in
up)
    ip netns add "$fabric"
    ip -n "$fabric" link set lo up
    ip -n "$fabric" link add br0 type bridge stp_state 0
    ip -n "$fabric" link set br0 up
    plug lb "$2" 1
    plug one "$2" 11
    plug two "$2" 12
    plug client "$2" 50
    ip -n "$2_client" route add 192.0.2.0/24 via 10.123.0.1
    ;;
down) down "$2" ;;
esac
