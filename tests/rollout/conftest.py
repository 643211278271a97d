# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts are up for as long as the tests run, and nothing of them stays."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import fabric

# Reads past its stack: no verifier lets that pass.
REFUSED = """
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))
SEC("sockops") int refused(void *context) { return *(volatile int *)((char *)&context + 4096); }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="session", autouse=True)
def _hosts() -> Iterator[None]:
    """Twelve hosts on which nothing was ever done."""
    try:
        fabric.down()
        fabric.up()
        yield
    finally:
        fabric.down()
    assert not fabric.cgroups.lab_cgroup().exists()


@pytest.fixture(scope="session")
def refused_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BPF object that the kernel does not load."""
    directory = tmp_path_factory.mktemp("refused")
    source, made = directory / "refused.bpf.c", directory / "refused.bpf.o"
    source.write_text(REFUSED, encoding="ascii")
    triplet = subprocess.run(
        ["gcc", "-print-multiarch"], check=False, capture_output=True, text=True
    ).stdout.strip()
    include = [f"-I/usr/include/{triplet}"] if triplet else []
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", *include, "-c", str(source), "-o", str(made)],
        check=True,
    )
    return made


@pytest.fixture
def extra(tmp_path: Path) -> Path:
    """A second inventory, for what one host has and the others have not."""
    return tmp_path / "extra.yml"
