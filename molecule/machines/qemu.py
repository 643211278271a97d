# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One QEMU: its command line, and whether this host can do better than emulate the processor."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from declared import HIERARCHIES, Machine
from images import Built
from layout import Run

PROGRAM = "qemu-system-x86_64"
# QEMU 7.2 emulates cmpxchg16b wrongly: Linux 6.12 then panics in kmalloc.
# What it has translated would take up to a gigabyte of memory.
TCG = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,cx16=off")
KVM = ("-accel", "kvm", "-cpu", "max")
# What merges packets is in the way of native XDP.
XDP_READY = "guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
PROBE_SECONDS = 20


def queues(machine: Machine) -> int:
    """Pairs of queues of eth1: native XDP wants one to send from beside each that is in use."""
    return 2 * machine.cpus


def command(
    run: Run, machine: Machine, built: Built, kernel: str, port: int, taps: Sequence[int]
) -> list[str]:
    """The command line that starts a machine with that kernel, and leaves it in the background."""
    vmlinuz, initrd = built.boot_files(kernel)
    directory = run.of(machine.name)
    data = f"romfile=,mq=on,vectors={2 * len(taps) + 2},{XDP_READY}"
    return [
        PROGRAM,
        *accelerator(vmlinuz),
        *("-name", f"{run.namespace}/{machine.name}"),
        *("-smp", str(machine.cpus), "-m", str(machine.memory)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", str(vmlinuz), "-initrd", str(initrd)),
        *("-append", kernel_command_line(run, machine)),
        *("-drive", f"file={run.disk(machine.name)},format=qcow2,if=virtio,cache=unsafe"),
        *("-chardev", f"file,id=console,path={run.console(machine.name)},append=on"),
        *("-serial", "chardev:console"),
        *("-device", "virtio-rng-pci"),
        *("-netdev", f"user,id=eth0,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", f"virtio-net-pci,netdev=eth0,romfile=,mac={mac(machine, 0)}"),
        *("-netdev", f"tap,id=eth1,vhost=off,fds={':'.join(map(str, taps))}"),
        *("-device", f"virtio-net-pci,netdev=eth1,{data},mac={mac(machine, 1)}"),
        *("-daemonize", "-pidfile", str(directory / "pid")),
    ]


def mac(machine: Machine, interface: int) -> str:
    return f"52:54:00:77:{interface:02x}:{machine.address:02x}"


def kernel_command_line(run: Run, machine: Machine) -> str:
    key = (run.directory / "id_ed25519.pub").read_text(encoding="ascii").split()[1]
    identity = hashlib.sha256(f"{run.name}/{machine.name}".encode()).hexdigest()[:32]
    return " ".join(
        [
            "root=/dev/vda rw rootfstype=ext4 console=ttyS0 loglevel=4 net.ifnames=0",
            "mitigations=off nokaslr",  # neither is worth its time here
            # On a busy host the processors stand still for seconds: nothing is to panic about that.
            "no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
            # Without cmpxchg16b, see above, BPF programs get no memory for a socket's storage on
            # Linux 7.x, since kmalloc_nolock() has none, unless the caches are debugged. Kernels
            # before 6.9 call this otherwise.
            "slab_debug=F,kmalloc-*",
            "systemd.show_status=error systemd.ssh_auto=no systemd.condition-needs-update=no",
            f"systemd.hostname={machine.name.replace('_', '-')} systemd.machine_id={identity}",
            HIERARCHIES[machine.hierarchy],
            f"machine.address={machine.address} machine.key={key}",
        ]
    )


@functools.cache
def accelerator(vmlinuz: Path) -> tuple[str, ...]:
    """KVM where it can boot that kernel, and emulation elsewhere."""
    return KVM if _kvm_boots(vmlinuz) else TCG


def _kvm_boots(vmlinuz: Path) -> bool:
    """Whether a kernel comes as far as missing its root; that /dev/kvm can be opened says little.

    There are hosts whose KVM refuses registers, and such that run firmware, but no kernel.
    """
    if not Path("/dev/kvm").exists():
        return False
    command = [PROGRAM, *KVM, "-smp", "2", "-m", "512", "-nodefaults", "-display", "none"]
    command += ["-kernel", str(vmlinuz), "-append", "console=ttyS0 panic=-1", "-no-reboot"]
    try:
        done = subprocess.run(
            [*command, "-serial", "stdio"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return b"Unable to mount root" in done.stdout
