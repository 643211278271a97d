#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes a Debian root file system a machine of the matrix; mmdebstrap runs it before it cleans up.
#
#   customize.sh ROOT NAME:SUITE:[headers]...    one argument for each kernel
set -eu

root=$1
shift
here=$(dirname "$0")
inside() { chroot "$root" "$@"; }
install() { inside env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }

# Read by what is installed next: how to make initial RAM disks.
cp -R --no-preserve=ownership "$here/files/." "$root/"
install initramfs-tools zstd

: >"$root/etc/machine-kernels"
for kernel in "$@"; do
    name=${kernel%%:*} rest=${kernel#*:}
    suite=${rest%%:*} headers=${rest#*:}
    version=$(inside apt-cache madison linux-image-cloud-amd64 |
        awk -F ' *[|] *' -v suite="$suite/main" '$3 ~ " " suite " " { print $2; exit }')
    # The package of that name is empty, and depends on the kernel.
    release=$(inside apt-cache show "linux-image-cloud-amd64=$version" |
        sed -n 's/^Depends:.*linux-image-\([0-9][^ ,]*\).*/\1/p')
    if [ -z "$release" ]; then
        echo "the mirror has no linux-image-cloud-amd64 in $suite" >&2
        exit 1
    fi
    install --target-release "$suite" "linux-image-$release" ${headers:+"linux-headers-$release"}
    echo "$name $release" >>"$root/etc/machine-kernels"
done

# Nothing runs that no scenario asked for, and nothing runs now and then.
inside systemctl mask --quiet \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer logrotate.timer man-db.timer systemd-tmpfiles-clean.timer \
    getty@tty1.service getty-static.service serial-getty@ttyS0.service systemd-logind.service \
    keyboard-setup.service console-setup.service systemd-hwdb-update.service systemd-pstore.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount \
    sys-kernel-config.mount dev-hugepages.mount systemd-journal-flush.service \
    systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-timesyncd.service systemd-networkd.service systemd-resolved.service networking.service
for service in nginx iperf3 nftables rsync prometheus prometheus-node-exporter; do
    if [ -e "$root/lib/systemd/system/$service.service" ]; then inside systemctl disable --quiet "$service.service"; fi
done
inside systemctl enable --quiet machine.service ssh.service
inside systemctl set-default --quiet multi-user.target

rm -f "$root"/etc/ssh/ssh_host_*
inside ssh-keygen -q -t ed25519 -N '' -C machine -f /etc/ssh/ssh_host_ed25519_key
: >"$root/etc/fstab"
echo localhost >"$root/etc/hostname"
