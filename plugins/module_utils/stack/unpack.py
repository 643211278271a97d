# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How an engine comes to the host; apart from what every run needs, as it takes long to import."""

from __future__ import annotations

import compileall
import ctypes
import os
import py_compile
import shutil
import zipfile

from ..bpf import files
from ..resource.errors import Failure, from_os_error
from ..resource.lock import host_lock
from . import store
from .engine_dir import base

_LOCK_SECONDS = 60

_libc = ctypes.CDLL(None, use_errno=True)


def install(pyz: str, sha: str) -> None:
    """Unpack the engine whose file has this SHA-256, in hex, unless it is there. Raises Failure."""
    target = os.path.join(base(), sha)
    if os.path.isdir(target):
        return
    if not store.has_content(pyz, sha):
        raise Failure(f"{pyz} does not have the SHA-256 {sha}; it came damaged: run it again")
    with host_lock(_LOCK_SECONDS):
        if not os.path.isdir(target):
            try:
                _unpack(pyz, target)
            except OSError as error:
                raise from_os_error(error, f"install the engine in {target}") from error


def _unpack(pyz: str, target: str) -> None:
    staged = files.staging_path(target)
    files.make_directories(base(), 0o700)
    if os.path.lexists(staged):
        shutil.rmtree(staged)
    try:
        with zipfile.ZipFile(pyz) as packed:
            packed.extractall(staged)
        # Nobody edits these sources, so nobody has to compare their times with the compiled ones.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(staged, quiet=2, invalidation_mode=mode)
        os.chmod(staged, 0o700)
        _sync_file_system(staged)
        os.rename(staged, target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    files.sync_directory(base())


def _sync_file_system(path: str) -> None:
    """syncfs(2): one call for some hundred files."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(directory) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(directory)
