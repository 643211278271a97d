# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a machine: unpacks itself once, then does what it is asked and answers in JSON.

python3 modules.pyz try       every module: check, apply, again, check again
python3 modules.pyz verify    what the playbook declared, as bpftool, ip and tc see it
python3 modules.pyz drift     harm to what was declared, and its repair
python3 modules.pyz leave     take away what was declared
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile

HOME = "/var/tmp/ebpf-fleet-modules"


def unpack(archive: str) -> str:
    """The archive's content in a directory, where Python keeps what it has compiled."""
    with open(archive, "rb") as file:
        place = os.path.join(HOME, hashlib.sha256(file.read()).hexdigest()[:16])
    if not os.path.isdir(place):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(f"{place}.new")
        os.rename(f"{place}.new", place)
    return place


if __name__ == "__main__":
    where = sys.path[0]
    if zipfile.is_zipfile(where):
        where = unpack(where)
        os.execv(sys.executable, [sys.executable, where, *sys.argv[1:]])
    import commands

    commands.main(where, sys.argv[1:])
