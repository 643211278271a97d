# SPDX-License-Identifier: GPL-3.0-or-later
"""Give ansible-test the pip that it would otherwise download from a site of its own.

`ansible-test sanity` makes one virtual environment for each test and bootstraps pip there with a
script that it fetches and caches in ~/.ansible/test/cache. Where only a package index can be
reached, that fails. This writes a stand-in to the same place: it puts a pip wheel, taken from the
package index, on sys.path and installs that wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

STAND_IN = '''\
"""Bootstraps pip from a wheel that lies next to this file."""
import sys

WHEEL = {wheel!r}
sys.path.insert(0, WHEEL)
from pip._internal.cli.main import main

# The arguments of the real get-pip ask for pip itself, which the wheel is.
sys.exit(main(["install", "--no-index", "--quiet", "--disable-pip-version-check", WHEEL]))
'''


def wanted_pip() -> str:
    """The pip version that ansible-test bootstraps; raises SystemExit when it cannot be told."""
    spec = find_spec("ansible_test")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("ansible-test is not installed: run this with .venv/bin/python")
    source = Path(spec.submodule_search_locations[0]) / "_internal" / "python_requirements.py"
    match = re.search(r"default_packages = dict\(\s*pip='([0-9.]+)'", source.read_text())
    if match is None:
        raise SystemExit(
            f"no pip version in {source}: this ansible-core bootstraps pip in another way"
        )
    return match[1]


def main() -> None:
    version = wanted_pip()
    cache = Path.home() / ".ansible" / "test" / "cache"
    stand_in = cache / f"get_pip_{version.replace('.', '_')}.py"
    if stand_in.exists():
        return
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--dest", str(cache), f"pip=={version}"], check=True)
    wheel = cache / f"pip-{version}-py3-none-any.whl"
    stand_in.write_text(STAND_IN.format(wheel=str(wheel)))


if __name__ == "__main__":
    main()
