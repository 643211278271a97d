# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule's machines: what can be known of them without booting one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "molecule" / "machines"))

import declared  # noqa: E402
import images  # noqa: E402
import layout  # noqa: E402
import mirror  # noqa: E402
import processes  # noqa: E402
from problem import Problem  # noqa: E402

DATA: dict[str, Any] = {
    "packages": ["python3"],
    "images": {
        "old": {
            "suite": "bookworm",
            "packages": ["curl"],
            "kernels": {"6.1": {"suite": "bookworm"}},
        }
    },
    "machines": {
        "one": {"image": "old", "kernel": "6.1", "address": 2, "hierarchy": "unified", "why": "it"}
    },
}


def machine(**changes: Any) -> declared.Machine:
    return replace(declared.parse(DATA)[0], **changes)


def test_what_the_matrix_declares_can_be_booted() -> None:
    assert len(declared.load()) >= 5


def test_an_image_has_its_own_packages_and_everybody_s() -> None:
    assert machine().image.packages == ("curl", "python3")


def test_addresses_are_of_the_machines_network() -> None:
    assert (machine(address=20).ipv4, machine(address=20).ipv6) == ("10.77.0.20", "fd77::14")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kernel": "5.10"}, "one: image old has no kernel 5.10"),
        ({"hierarchy": "legacy"}, "one: hierarchy is one of unified, hybrid"),
        ({"address": 255}, "one: address is from 2 to 254"),
    ],
)
def test_a_machine_that_cannot_be_booted_is_named(changes: dict[str, Any], words: str) -> None:
    assert list(declared.faults([machine(**changes)])) == [words]


def test_two_machines_with_one_address_are_refused() -> None:
    both = [machine(), machine(name="two")]
    assert list(declared.faults(both)) == ["two machines have the same address"]


class TestRecipes:
    @pytest.fixture
    def guest(self, tmp_path: Path) -> Path:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/unit").write_text("text")
        return tmp_path

    def test_the_same_recipe_is_known_again(self, guest: Path) -> None:
        first, second = (images.recipe_digest(machine().image, guest) for _each in range(2))
        assert first == second

    @pytest.mark.parametrize("changes", [{"suite": "trixie"}, {"packages": ()}, {"kernels": ()}])
    def test_another_image_is_another_recipe(self, guest: Path, changes: dict[str, Any]) -> None:
        image = machine().image
        assert images.recipe_digest(replace(image, **changes), guest) != images.recipe_digest(
            image, guest
        )

    def test_a_file_counts_with_its_name_contents_and_permissions(self, guest: Path) -> None:
        digests = {images.recipe_digest(machine().image, guest)}
        (guest / "etc/unit").write_text("other text")
        digests.add(images.recipe_digest(machine().image, guest))
        (guest / "etc/unit").chmod(0o755)
        digests.add(images.recipe_digest(machine().image, guest))
        (guest / "etc/unit").rename(guest / "etc/other")
        digests.add(images.recipe_digest(machine().image, guest))
        (guest / "etc/other").rename(guest / "other")
        digests.add(images.recipe_digest(machine().image, guest))
        assert len(digests) == 5


class TestRuns:
    @pytest.mark.parametrize("name", ["a/b", "..", "a b", "x" * 21])
    def test_a_name_that_no_path_can_have_is_refused(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EBPF_FLEET_RUN", name)
        with pytest.raises(Problem, match="EBPF_FLEET_RUN"):
            layout.this_run()

    def test_ssh_can_make_sockets_in_its_directory(self) -> None:
        longest = layout.Run("x" * layout.NAME_LENGTH).ssh_masters / ("0" * 10 + "." + "0" * 16)
        assert len(str(longest)) < 108  # struct sockaddr_un


class TestProcesses:
    @pytest.fixture
    def run(self) -> layout.Run:
        return layout.Run(f"unit{os.getpid()}")

    @pytest.fixture
    def of_another_run(self, run: layout.Run) -> Iterator[subprocess.Popen[bytes]]:
        with qemu_like(layout.Run(f"{run.name}x")) as process:
            yield process
            process.kill()

    def test_only_the_run_s_own_are_found(
        self, run: layout.Run, of_another_run: subprocess.Popen[bytes]
    ) -> None:
        with qemu_like(run) as process:
            assert processes.machines(run) == {"one": process.pid}
            processes.end(process.pid)
            assert processes.ends_itself(process.pid, 0)
        assert processes.machines(run) == {}
        assert of_another_run.poll() is None


def qemu_like(run: layout.Run) -> subprocess.Popen[bytes]:
    """A process that is called like the QEMU of the run's machine `one`."""
    program = ("import time; time.sleep(600)", "-name", f"{run.namespace}/one")
    return subprocess.Popen(
        ["qemu-system-x86_64", "-c", *program], executable=sys.executable, stdin=subprocess.DEVNULL
    )


def test_the_mirror_is_the_one_that_apt_has() -> None:
    address = mirror.mirror()
    assert mirror.sources(["trixie"]).endswith(f" {address} trixie main\n")
    assert "://" in address
