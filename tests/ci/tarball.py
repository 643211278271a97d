# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a built collection tarball: nothing is missing, and it works as installed.

tarball.py build/ebpf-fleet-0.1.0.tar.gz
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKED = ("meta", "plugins", "roles", "playbooks")  # what an installed collection runs from
SOURCES = ("bpf", "LICENSES")  # what belongs to it but is not read on any host
BESIDES = {"MANIFEST.json", "FILES.json", "README.md", "CHANGELOG.rst", "REUSE.toml"}
BESIDES |= {"changelogs", "docs", *SOURCES, *PACKED}
TRANSPORT = "bpf_engine"  # what actions call; no playbook does, and no default of theirs is for it


def committed(folders: tuple[str, ...]) -> set[str]:
    """The files below these folders that git knows or would take."""
    command = [
        "git",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *folders,
    ]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


def check_contents(tarball: Path) -> list[str]:
    """What is missing from the tarball, differs in it, or does not belong there."""
    problems: list[str] = []
    with tarfile.open(tarball) as archive:
        members = {member.name: member for member in archive.getmembers() if member.isfile()}
        wanted = {
            name for name in committed((*PACKED, *SOURCES)) if not Path(name).name.startswith(".")
        }
        problems += [
            f"{name} is not packed; see manifest: in galaxy.yml"
            for name in sorted(wanted - members.keys())
        ]
        problems += [
            f"{name} does not belong into the tarball"
            for name in sorted(members)
            if name.split("/")[0] not in BESIDES or "__pycache__" in name
        ]
        built = ("roles/*/files/*.bpf.o", "roles/*/files/*.pyz")
        objects = sorted(path for pattern in built for path in ROOT.glob(pattern))
        if not objects:
            problems.append("no object was built: run `make bpf` first")
        for path in objects:
            name = str(path.relative_to(ROOT))
            packed = archive.extractfile(members[name]) if name in members else None
            if packed is None or packed.read() != path.read_bytes():
                problems.append(f"{name} is not packed as it was built")
    return problems


def check_action_group() -> list[str]:
    """The group that module_defaults uses holds every module for playbooks, and no other name."""
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    group = set(runtime["action_groups"]["bpf"])
    modules = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")} - {TRANSPORT}
    return [
        f"meta/runtime.yml: the action group bpf and plugins/modules/ disagree on {name}"
        for name in sorted(group ^ modules)
    ]


def run(command: list[str], home: Path) -> None:
    """Run a command that sees the installed collection only; raises SystemExit when it fails."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(home),
        "ANSIBLE_HOME": str(home / ".ansible"),
    }
    environment["ANSIBLE_DEPRECATION_WARNINGS"] = "1"
    result = subprocess.run(
        command,
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if result.returncode != 0:
        sys.stderr.write(result.stdout + result.stderr)
        raise SystemExit(f"as installed, this failed: {' '.join(command)}")


def check_use(tarball: Path) -> None:
    """Install it, delete all it may not rely on, and use the modules and the playbooks."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        run(
            ["ansible-galaxy", "collection", "install", "--offline", "-p", scratch, str(tarball)],
            home,
        )
        installed = home / "ansible_collections" / "ebpf" / "fleet"
        for entry in installed.iterdir():
            if entry.name not in (*PACKED, "MANIFEST.json", "FILES.json"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        modules = sorted(path.stem for path in (installed / "plugins" / "modules").glob("*.py"))
        run(
            ["ansible-doc", "-t", "module", "--json", *(f"ebpf.fleet.{name}" for name in modules)],
            home,
        )
        for playbook in sorted((installed / "playbooks").glob("*.yml")):
            run(
                [
                    "ansible-playbook",
                    "-i",
                    "localhost,",
                    "--list-tasks",
                    f"ebpf.fleet.{playbook.stem}",
                ],
                home,
            )
        if os.geteuid() == 0:
            run(
                [
                    "ansible",
                    "-i",
                    "localhost,",
                    "-c",
                    "local",
                    "-m",
                    "ebpf.fleet.bpf_info",
                    "localhost",
                ],
                home,
            )
        print(json.dumps({"modules": modules}))


def main() -> int:
    tarball = Path(sys.argv[1]).resolve()
    problems = check_contents(tarball) + check_action_group()
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    check_use(tarball)
    return 0


if __name__ == "__main__":
    sys.exit(main())
