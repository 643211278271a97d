# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems: made once for each recipe, and kept in the user's cache for every checkout."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import mirror
from declared import Image
from host import output
from layout import GUEST, IMAGES
from problem import Problem

# Free space for what scenarios write, beside what is in the image.
SPARE_MIB = 1024
BUILD_SECONDS = 1800
# Another checkout may have another recipe, and use its image now.
KEEP_SECONDS = 24 * 3600
BOOTSTRAP = (
    "--mode=root",
    "--variant=apt",
    "--format=directory",
    '--aptopt=Apt::Install-Recommends "false"',
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")),
)
# What every kernel of the matrix can read, and no checksums that an emulated processor is slow at.
FEATURES = "^metadata_csum,^metadata_csum_seed,^64bit,^orphan_file"


@dataclass(frozen=True)
class Built:
    """An image in the cache."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "root.img"

    @property
    def host_key(self) -> str:
        """The public key of the machines' ssh servers."""
        return (self.directory / "ssh_host_ed25519_key.pub").read_text(encoding="ascii").strip()

    def release(self, kernel: str) -> str:
        """What `uname -r` says under that kernel."""
        releases = json.loads((self.directory / "kernels.json").read_text(encoding="utf-8"))
        return str(releases[kernel])

    def boot_files(self, kernel: str) -> tuple[Path, Path]:
        """The kernel and its initial RAM disk."""
        release = self.release(kernel)
        boot = self.directory / "boot"
        return boot / f"vmlinuz-{release}", boot / f"initrd.img-{release}"


def ensure(image: Image) -> Built:
    """The image of this recipe, made now if need be. Raises Problem when it cannot be made."""
    digest = recipe_digest(image, GUEST)
    directory = IMAGES / f"{image.name}-{digest}"
    with _lock(image.name):
        if not directory.is_dir():
            _build(image, directory)
        os.utime(directory)
        _remove_old(image.name, directory)
    return Built(directory)


def recipe_digest(image: Image, guest: Path) -> str:
    """16 hex digits that change with all that an image is made of, but the mirror's state."""
    digest = hashlib.sha256(
        json.dumps([asdict(image), BOOTSTRAP, FEATURES, SPARE_MIB], sort_keys=True).encode()
    )
    for path in sorted(guest.rglob("*")):
        if path.is_file():
            digest.update(f"\0{path.relative_to(guest)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _lock(name: str) -> Iterator[None]:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / f".{name}.lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(image: Image, directory: Path) -> None:
    """Make the image beside its place, then move it there: what is in place is complete."""
    begin = time.monotonic()
    print(f"image {image.name}: building (a minute or two)", flush=True)
    for left in IMAGES.glob(f".{image.name}.build-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".{image.name}.build-", dir=IMAGES) as name:
        work, result = Path(name), Path(name) / "result"
        root = work / "root"
        (result / "boot").mkdir(parents=True)
        _bootstrap(image, root, work)
        for path in root.glob("boot/*-cloud-amd64"):
            if path.name.startswith(("vmlinuz-", "initrd.img-")):
                shutil.move(path, result / "boot" / path.name)
        shutil.copy(root / "etc/ssh/ssh_host_ed25519_key.pub", result)
        (result / "kernels.json").write_text(json.dumps(_releases(root)), encoding="utf-8")
        _make_disk(root, result / "root.img")
        result.rename(directory)
    print(f"image {image.name}: built in {time.monotonic() - begin:.0f} s", flush=True)


def _bootstrap(image: Image, root: Path, work: Path) -> None:
    suites = dict.fromkeys([image.suite, *(kernel.suite for kernel in image.kernels)])
    (work / "apt.conf").write_text("\n".join([*mirror.options(), ""]), encoding="utf-8")
    kernels = [
        f"{kernel.name}:{kernel.suite}:{'headers' if kernel.headers else ''}"
        for kernel in image.kernels
    ]
    command = [
        "mmdebstrap",
        *BOOTSTRAP,
        f"--aptopt={work / 'apt.conf'}",
        f"--include={','.join(image.packages)}",
        f'--customize-hook={GUEST / "customize.sh"} "$1" {" ".join(kernels)}',
        image.suite,
        str(root),
        "-",
    ]
    log = IMAGES / f"{image.name}.log"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command,
            input=mirror.sources(suites),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise Problem(f"{tail}\nimage {image.name} could not be made; all of it is in {log}")


def _releases(root: Path) -> dict[str, str]:
    """The release of each kernel by its name in the matrix, as the hook noted it."""
    lines = (root / "etc/machine-kernels").read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def _make_disk(root: Path, disk: Path) -> None:
    used = int(output("du", "--summarize", "--block-size=1M", str(root)).split()[0])
    # Tables are written here, not in the background of each machine.
    options = "lazy_itable_init=0,lazy_journal_init=0"
    output(
        *("mke2fs", "-q", "-t", "ext4", "-L", "root", "-O", FEATURES, "-E", options),
        *("-d", str(root), str(disk), f"{used + used // 5 + SPARE_MIB}M"),
        timeout=300,
    )


def _remove_old(name: str, current: Path) -> None:
    """Images of former recipes go, unless something used them lately."""
    for path in IMAGES.glob(f"{name}-*"):
        if path != current and time.time() - path.stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(path)
