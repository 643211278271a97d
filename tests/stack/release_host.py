# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of its own for tests of releases: mounts, bpffs, store and network, which a reboot takes but the store.

What runs on it is started with nsenter(1), so that the test's own process stays outside. Control groups are the machine's,
below one of the test's.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.ebpf.fleet.plugins.module_utils import options

ROOT = Path(__file__).resolve().parents[2]
PYZ = ROOT / "roles/host/files/ebpf-fleet.pyz"
CGROUPS = Path("/sys/fs/cgroup/unified")
STORE = "/var/lib/ebpf-fleet"
COMMAND = "/usr/local/sbin/ebpf-fleet"
# On a disk that a reboot keeps, each in the test's directory.
KEPT = ("/var/lib/ebpf-fleet", "/usr/local/sbin", "/etc/systemd/system")
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_SETUP = """
set -e
for name in {kept}; do mkdir -p "$name" "{disk}$name"; mount --bind "{disk}$name" "$name"; done
mount -t tmpfs -o mode=755 own /run
{systemd}
mount --bind "{disk}/boot_id" {boot_id}
while umount /sys/fs/bpf 2>/dev/null; do :; done
{bpffs}
ip link set lo up
"""

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
const volatile __u32 version = 1;
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u64);
} kept SEC(".maps");
SEC("sockops") int watch(struct bpf_sock_ops *ctx)
{
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&kept, &key);
    return value && version + ctx->op > 0;
}
SEC("xdp") int pass(struct xdp_md *ctx) { return version ? XDP_PASS : XDP_DROP; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
# The same names; the verifier sees a scalar used as a pointer.
REJECTED = PROGRAM.replace("return value && version", "return *(__u32 *)(long)ctx->op + version")

Document = dict[str, Any]


class Refused(Exception):
    """The engine's Failure."""


@dataclass
class Host:
    """``disk`` is what a reboot keeps; ``group`` a control group that the test may fill; ``code`` the engine, unpacked."""

    disk: Path
    group: Path
    blobs: Path
    code: Path
    digests: Mapping[str, str]
    systemd: bool = False
    bpffs: bool = True
    _holder: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def boot(self) -> None:
        """Start the host: nothing is loaded, and it is another boot than the one before."""
        self.disk.joinpath("boot_id").write_text(os.urandom(8).hex() + "\n")
        words = ["unshare", "--mount", "--propagation", "private", "--net", "sleep", "infinity"]
        self._holder = subprocess.Popen(words)
        _until(lambda: self._is_apart("mnt") and self._is_apart("net"))
        script = _SETUP.format(
            kept=" ".join(KEPT),
            disk=self.disk,
            boot_id=BOOT_ID,
            systemd="mkdir -p /run/systemd/system" if self.systemd else "",
            bpffs="mount -t bpf bpf /sys/fs/bpf" if self.bpffs else "",
        )
        self.run("sh", "-c", script)

    def _is_apart(self, kind: str) -> bool:
        assert self._holder is not None
        own, its = f"/proc/self/ns/{kind}", f"/proc/{self._holder.pid}/ns/{kind}"
        return os.readlink(own) != os.readlink(its)

    def halt(self) -> None:
        """End the host, and every process that runs on it."""
        if self._holder is None:
            return
        for pid in self.processes():
            os.kill(pid, 9)
        self._holder.wait()
        self._holder = None

    def reboot(self) -> None:
        """Lose everything but the disk and the control groups."""
        self.halt()
        self.boot()

    def processes(self) -> list[int]:
        """The processes on the host, by number."""
        assert self._holder is not None
        home = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
        found = []
        for path in Path("/proc").glob("[0-9]*/ns/mnt"):
            try:
                if os.readlink(path) == home:
                    found.append(int(path.parts[2]))
            except OSError:
                continue
        return sorted(found)

    def guards(self) -> list[int]:
        """Those of them that are guards of a change."""
        return [pid for pid in self.processes() if " guard " in _command_line(pid)]

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start something on the host."""
        assert self._holder is not None
        enter = ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", "--", *words]
        return subprocess.Popen(enter, text=True, **options)

    def run(
        self, *words: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run something on the host to its end."""
        pipe = subprocess.PIPE
        with self.start(*words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            out, error = process.communicate(text, timeout=120)
        done = subprocess.CompletedProcess(words, process.returncode, out, error)
        assert not check or done.returncode == 0, (words, out, error)
        assert "Traceback" not in error, error
        return done

    def engine(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the engine's command line."""
        return self.run(sys.executable, "-I", str(self.code), *words, check=check)

    def ask(self, request: Document, check: bool = False) -> Document:
        """Send a request. Raises Refused with the engine's words."""
        words = (sys.executable, "-I", str(self.code), *(["--check"] if check else []), "request")
        done = self.run(*words, text=json.dumps(request), check=False)
        assert done.stdout, done.stderr
        answer: Document = json.loads(done.stdout)
        if answer.get("failed"):
            raise Refused(answer["msg"])
        return answer

    def deploy(self, manifest: Document, check: bool = False, **more: Any) -> Document:
        """Deploy with the objects at hand."""
        request = {"do": "deploy", "manifest": manifest, "blobs": str(self.blobs), **more}
        return self.ask({"run": {"user": "tester"}, **request}, check)

    def do(self, what: str, release: str | None = None, check: bool = False) -> Document:
        """Ask for a release of the stack ``web``."""
        return self.ask({"do": what, "name": "web", "release": release}, check)

    def status(self) -> Document:
        """What the engine says of the stack ``web``."""
        (found,) = self.ask({"do": "status", "name": "web"})["stacks"]
        return dict(found)

    def manifest(
        self, release: str | None, version: int, built: str = "program", **more: Any
    ) -> Document:
        """A stack with one program, its map and its hook."""
        found = {
            "layout": 1,
            "name": "web",
            "resources": [
                resource(
                    "bpf_prog",
                    object=f"sha256:{self.digests[built]}",
                    pin_dir="web",
                    programs=["watch"],
                    maps={"kept": "web_maps/kept"},
                    constants={"version": version},
                ),
                resource(
                    "cgroup_attach", cgroup=str(self.group), prog="web/watch", link="web/link"
                ),
            ],
            "drain": [],
            "prune": True,
            "boot": "early",
            **more,
        }
        return {**found, "release": release} if release else found

    def install(self) -> str:
        """Have the engine on the host, as the module does. Returns its digest."""
        sha = hashlib.sha256(PYZ.read_bytes()).hexdigest()
        code = (
            f"import sys; sys.path.insert(0, {str(PYZ)!r}); from ebpf_fleet.stack import main; "
            f"main.install_engine({str(PYZ)!r}, {sha!r})"
        )
        self.run(sys.executable, "-I", "-c", code)
        return sha

    def bpftool(self, *words: str) -> Any:
        """What bpftool says, on the host."""
        return json.loads(self.run("bpftool", "-j", *words).stdout.strip() or "null")

    def version(self) -> int | None:
        """The version of the one program that runs in the control group, None when none does."""
        for _attempt in range(10):
            attached = self.bpftool("cgroup", "show", str(self.group)) or []
            if not attached:
                return None
            (one,) = attached
            words = ("bpftool", "-j", "prog", "show", "id", str(one["id"]))
            program = json.loads(self.run(*words, check=False).stdout)
            if "metadata" in program:
                return int(program["metadata"]["constants"].partition("=")[2])
        raise AssertionError("the program is gone each time it is looked at")

    def listing(self, *directories: str) -> list[str]:
        """Each file and directory with its permissions and content, by path."""
        found = []
        for directory in directories or (STORE, "/usr/local/sbin", "/etc/systemd/system"):
            base = self.disk / directory.lstrip("/")
            for path in sorted(base.rglob("*")):
                what = os.readlink(path) if path.is_symlink() else ""
                if path.is_file() and not path.is_symlink():
                    what = hashlib.sha256(path.read_bytes()).hexdigest()
                found.append(f"{path.relative_to(self.disk)} {path.lstat().st_mode:o} {what}")
        return found

    def stored(self, *parts: str) -> Path:
        """A file of the stack ``web``."""
        return self.disk.joinpath(STORE.lstrip("/"), "web", *parts)


@contextmanager
def running(disk: Path, made: Made, **options: Any) -> Iterator[Host]:
    """A host that runs, and its control group; both end with the context."""
    group = CGROUPS / f"fleet-release-{os.getpid()}"
    group.mkdir()
    disk.mkdir()
    host = Host(disk, group, made.blobs, made.code, made.digests, **options)
    try:
        host.boot()
        yield host
    finally:
        host.halt()
        _remove_groups(group)


def _remove_groups(top: Path) -> None:
    if top.is_dir():
        for path in sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True):
            path.rmdir()
        top.rmdir()


@dataclass(frozen=True)
class Made:
    """``blobs`` has each object under its sha256; ``digests`` are those by name; ``code`` is the engine, unpacked."""

    blobs: Path
    code: Path
    digests: Mapping[str, str]


def build(directory: Path) -> Made:
    """Compile the objects, unpack and compile the engine."""
    code = directory / "engine"
    zipfile.ZipFile(PYZ).extractall(code)
    compileall.compile_dir(str(code), quiet=2)
    blobs = directory / "blobs"
    blobs.mkdir()
    machine = subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True, check=True)
    flags = ["-g", "-O2", "-target", "bpf", f"-idirafter/usr/include/{machine.stdout.strip()}"]
    digests = {}
    for name, source in (("program", PROGRAM), ("rejected", REJECTED)):
        made = directory / name
        words = ["clang", *flags, "-c", "-xc", "-", "-o", str(made)]
        subprocess.run(words, input=source, text=True, check=True)
        digests[name] = hashlib.sha256(made.read_bytes()).hexdigest()
        shutil.copy(made, blobs / digests[name])
    return Made(blobs, code, digests)


def resource(name: str, **given: Any) -> Document:
    """One resource with all its options, as the action plugin normalises them."""
    checked = ArgumentSpecValidator(**options.RESOURCES[name]).validate(given)
    assert not checked.error_messages, (name, checked.error_messages)
    return {name: checked.validated_parameters}


def wait_for(what: Any, seconds: float = 15) -> None:
    """Wait until something holds."""
    _until(what, seconds)


def _until(holds: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


__all__: Sequence[str] = ("Document", "Host", "Refused", "build", "resource", "running", "wait_for")
