# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of checks: what `make test` runs, in this order."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import counting
from counting import Count

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "ci"
VENV = ROOT / ".venv" / "bin"
COLLECTIONS = ROOT / ".cache" / "collections"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")  # what a managed host may have

Counter = Callable[["Part", str, bool], Count]
Command = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One check. The timeout is in seconds.

    `alone`: it wants the machine for itself; `always`: the others need what it makes.
    """

    name: str
    what: str
    commands: tuple[Command, ...]
    count: Counter = field(default=lambda _part, _output, succeeded: counting.one(succeeded))
    timeout: int = 300
    alone: bool = False
    always: bool = False
    env: tuple[tuple[str, str], ...] = ()

    @property
    def results(self) -> Path:
        """Where the part's tools write JUnit files."""
        return CACHE / f"{self.name}-results"

    def forget_results(self) -> None:
        """Remove what an earlier run wrote, so that it cannot be counted again."""
        self.results.mkdir(parents=True, exist_ok=True)
        for file in self.results.glob("*.xml"):
            file.unlink()


def interpreters() -> dict[str, Path]:
    """The Pythons of PYTHONS on this machine: pyenv's, else PATH's, without pyenv's shims."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*sorted(pyenv.glob("versions/*/bin")), *map(Path, search_path())]
    found: dict[str, Path] = {}
    for version in PYTHONS:
        for folder in folders:
            if (folder / f"python{version}").is_file():
                found[version] = folder
                break
    return found


def search_path() -> list[str]:
    """PATH without pyenv's shims, which claim to be every Python and then refuse to run."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [folder for folder in folders if folder and Path(folder).name != "shims"]


def environment(part: Part) -> dict[str, str]:
    """The environment of a part's commands: the pinned tools first, no colours."""
    # Appended: the interpreters must not hide the machine's own python3 or the pinned tools.
    extra = [str(folder) for folder in interpreters().values()]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(VENV), *search_path(), *extra]),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "RESULTS": str(part.results),
        **dict(part.env),
    }


def count_junit(part: Part, _output: str, succeeded: bool) -> Count:
    return counting.junit(sorted(part.results.glob("*.xml")), succeeded)


def count_sanity(part: Part, _output: str, succeeded: bool) -> Count:
    """Sanity tests that found nothing to look at (PowerShell, say) are left out."""
    return counting.junit(sorted(part.results.glob("*.xml")), succeeded, skips=False)


def count_integration(_part: Part, output: str, succeeded: bool) -> Count:
    return counting.integration(output, succeeded)


# make test-full: every case of the kill and the fail matrix, which takes hours.
FULL = os.environ.get("STACK_FAULTS") == "all"


def pytest(name: str, what: str, timeout: int, *files: str) -> Part:
    """tests/NAME with pytest, or these files; no plugin of the environment may take part."""
    report = f"--junit-xml={CACHE / f'{name}-results' / 'pytest.xml'}"
    chosen = files or (f"tests/{name}",)
    return Part(
        name=name,
        what=what,
        commands=(("python", "-m", "pytest", report, *chosen),),
        count=count_junit,
        timeout=timeout,
        alone=True,
        env=(("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"), ("PYTHONPATH", str(COLLECTIONS))),
    )


def machines() -> Part:
    """A sample of what `make molecule` proves, and that breaking something makes that fail.

    The images of the machines are made first where they are not in the cache.
    """
    part = pytest("machines", "a sample of make molecule", timeout=3600)
    sample = ("python", "molecule/run.py", "--sample", "--junit", str(part.results / "sample.xml"))
    return replace(part, commands=(sample, *part.commands))


PARTS = (
    Part(
        "objects",
        "the BPF objects, and that two builds in two places give the same bytes",
        (("tests/ci/objects.sh",),),
        always=True,
    ),
    Part("ruff", "ruff's rules", (("ruff", "check", "."),)),
    Part("format", "ruff's format", (("ruff", "format", "--check", "."),)),
    Part(
        "mypy",
        "types of module_utils and of what runs the machines",
        (
            ("mypy", "--strict", "plugins/module_utils"),
            ("mypy", "--strict", "molecule/run.py", "molecule/machines/machines.py"),
        ),
    ),
    Part("clang-format", "format of the C sources", (("tests/ci/clang_format.sh",),)),
    Part("shellcheck", "shell scripts", (("tests/ci/shellcheck.sh",),)),
    Part("reuse", "a license for every file", (("reuse", "lint", "--lines"),)),
    Part("ansible-lint", "profile production, nothing skipped", (("ansible-lint", "--offline"),)),
    Part("changelog", "change fragments", (("antsibull-changelog", "lint"),)),
    Part(
        "docs",
        "the modules' and roles' documentation",
        (
            (
                "antsibull-docs",
                "lint-collection-docs",
                "--plugin-docs",
                "--skip-rstcheck",
                "--validate-collection-refs=all",
                ".",
            ),
        ),
    ),
    Part("galaxy", "the tarball: Galaxy's importer, contents, use", (("tests/ci/galaxy.sh",),)),
    Part(
        "sanity",
        "ansible-test sanity, on every Python found",
        (("tests/ci/sanity.sh",),),
        count=count_sanity,
        timeout=600,
    ),
    pytest("unit", "the engine as plain Python", timeout=600),
    Part(
        "integration",
        "the modules and roles through Ansible",
        (("tests/ci/integration.sh",),),
        count=count_integration,
        timeout=1800,
        alone=True,
    ),
    pytest(
        "stack",
        "releases: transactions, the store, replay; killed and failing at each step",
        timeout=6 * 3600 if FULL else 1200,
    ),
    pytest("packets", "the load balancer packet by packet, on bytes alone", timeout=600),
    pytest("traffic", "the data planes under real traffic", timeout=900),
    pytest("balancer", "the load balancer under real traffic", timeout=1500),
    pytest("rollout", "roll-outs over twelve hosts: what stops, and what goes back", timeout=1800),
    pytest("metrics", "what a host tells Prometheus, and that it alerts", timeout=900),
    pytest("lab", "make lab from end to end", timeout=900),
    pytest("report", "the report of a fleet, in a browser that clicks through it", timeout=600),
    pytest(
        "scenarios",
        "that `make molecule` refuses what it should, without a machine",
        300,
        *("tests/machines/test_judged.py", "tests/machines/test_refused.py"),
    ),
    machines(),
)
