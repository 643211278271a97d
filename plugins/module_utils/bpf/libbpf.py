# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""libbpf, for the one thing that it alone does well: turning an ELF object into descriptors.

libbpf applies relocations (CO-RE among them) and creates maps; pins, links and queries are made
with bpf(2) directly. The symbols used exist since libbpf 0.6.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import names
from .syscall import Fd, lift_memlock

_MAX_ERRNO = 4095  # include/linux/err.h: libbpf 0.x returns errors as pointers
_LIBRARIES = ("libbpf.so.1", "libbpf.so.0")
_LOG_SIZE = 16 << 20  # what libbpf itself reserves for a verifier log
_PRINT_WARN = 0  # enum libbpf_print_level
# What strerror does not know: the kernel's own ENOTSUPP, and enum libbpf_errno.
_MEANINGS = {
    524: "Not supported by this kernel",
    4000: "libelf cannot read the object",
    4001: "The object is not formed as libbpf wants it",
    4003: "The object has another byte order",
    4005: "The object cannot be relocated",
    4010: "The kernel has no such program type",
}

_PrintCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SYMBOLS: dict[str, Any] = {
    "bpf_object__open_file": ctypes.c_void_p,
    "bpf_object__close": None,
    "bpf_object__load": ctypes.c_int,
    "bpf_object__next_program": ctypes.c_void_p,
    "bpf_object__next_map": ctypes.c_void_p,
    "bpf_program__name": ctypes.c_char_p,
    "bpf_program__section_name": ctypes.c_char_p,
    "bpf_program__get_type": ctypes.c_int,
    "bpf_program__set_type": ctypes.c_int,
    "bpf_program__set_expected_attach_type": ctypes.c_int,
    "bpf_program__get_expected_attach_type": ctypes.c_int,
    "bpf_program__set_attach_target": ctypes.c_int,
    "bpf_program__set_autoload": ctypes.c_int,
    "bpf_program__fd": ctypes.c_int,
    "bpf_map__name": ctypes.c_char_p,
    "bpf_map__type": ctypes.c_int,
    "bpf_map__key_size": ctypes.c_uint,
    "bpf_map__value_size": ctypes.c_uint,
    "bpf_map__max_entries": ctypes.c_uint,
    "bpf_map__map_flags": ctypes.c_uint,
    "bpf_map__is_internal": ctypes.c_bool,
    "bpf_map__set_max_entries": ctypes.c_int,
    "bpf_map__set_pin_path": ctypes.c_int,
    "bpf_map__reuse_fd": ctypes.c_int,
    "bpf_map__fd": ctypes.c_int,
}


class Unavailable(OSError):
    """libbpf is missing on this host, or too old."""


class LoadError(OSError):
    """libbpf or the verifier refused; ``log`` is what they said, oldest line first."""

    def __init__(self, code: int, log: str, doing: str) -> None:
        super().__init__(code, _MEANINGS.get(code) or os.strerror(code), doing)
        self.log = log


@dataclass(frozen=True)
class ProgramDecl:
    """A program as the object declares it; ``type`` is unspec when its section says nothing."""

    name: str
    section: str
    type: str
    attach_type: str


@dataclass(frozen=True)
class MapDecl:
    """A map as the object declares it. ``internal`` ones hold its global variables."""

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    internal: bool


def library() -> Any:
    """libbpf with its functions typed. Raises Unavailable."""
    for name in _LIBRARIES:
        try:
            found = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        break
    else:
        raise Unavailable(errno.ENOENT, "libbpf is not installed", "libbpf.so.1")
    if not hasattr(found, "bpf_object__next_program"):
        raise Unavailable(errno.ENOSYS, "libbpf is older than 0.6", name)
    for symbol, result in _SYMBOLS.items():
        getattr(found, symbol).restype = result
    if hasattr(found, "libbpf_set_strict_mode"):
        found.libbpf_set_strict_mode(ctypes.c_uint(0xFFFFFFFF))
    return found


def _checked(pointer: int | None, doing: str) -> int:
    if pointer is None or pointer == 0:
        code = ctypes.get_errno() or errno.EINVAL
        raise OSError(code, os.strerror(code), doing)
    if pointer > 2**64 - 1 - _MAX_ERRNO:
        code = 2**64 - pointer
        raise OSError(code, os.strerror(code), doing)
    return pointer


def _require(result: int, doing: str) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result), doing)


def _walk(lib: Any, pointer: int, step: str, name_of: str) -> Iterator[tuple[str, ctypes.c_void_p]]:
    """The programs or maps of an open object, each with its name."""
    item = getattr(lib, step)(ctypes.c_void_p(pointer), None)
    while item:
        name = getattr(lib, name_of)(ctypes.c_void_p(item))
        yield name.decode("utf-8", "replace"), ctypes.c_void_p(item)
        item = getattr(lib, step)(ctypes.c_void_p(pointer), ctypes.c_void_p(item))


class Object:
    """An open object; made by ``open_object``, configured, then loaded once."""

    def __init__(self, lib: Any, pointer: int, path: str, log: list[str]) -> None:
        self._lib = lib
        self._pointer = pointer
        self._path = path
        self._log = log
        # A map that is re-used takes the name of the other one, so the names are noted before.
        self._programs = dict(_walk(lib, pointer, "bpf_object__next_program", "bpf_program__name"))
        self._maps = dict(_walk(lib, pointer, "bpf_object__next_map", "bpf_map__name"))

    def programs(self) -> tuple[ProgramDecl, ...]:
        """The programs that the object holds, in its order."""
        lib = self._lib
        return tuple(
            ProgramDecl(
                name=name,
                section=lib.bpf_program__section_name(item).decode(),
                type=names.name_of(names.PROG_TYPES, lib.bpf_program__get_type(item)),
                attach_type=names.name_of(
                    names.ATTACH_TYPES, lib.bpf_program__get_expected_attach_type(item)
                ),
            )
            for name, item in self._programs.items()
        )

    def maps(self) -> tuple[MapDecl, ...]:
        """The maps that the object declares, those of its global variables included."""
        lib = self._lib
        return tuple(
            MapDecl(
                name=name,
                type=names.name_of(names.MAP_TYPES, lib.bpf_map__type(item)),
                key_size=lib.bpf_map__key_size(item),
                value_size=lib.bpf_map__value_size(item),
                max_entries=lib.bpf_map__max_entries(item),
                flags=lib.bpf_map__map_flags(item),
                internal=lib.bpf_map__is_internal(item),
            )
            for name, item in self._maps.items()
        )

    def set_type(self, program: str, type_: str, attach_type: str = "") -> None:
        """Say what the section name does not: program type and expected attach type."""
        item = self._programs[program]
        number = names.number_of(names.PROG_TYPES, type_, names.PROG_TYPE_ALIASES)
        self._lib.bpf_program__set_type(item, ctypes.c_int(number))
        if attach_type:
            number = names.number_of(names.ATTACH_TYPES, attach_type, names.ATTACH_TYPE_ALIASES)
            self._lib.bpf_program__set_expected_attach_type(item, ctypes.c_int(number))

    def set_target(self, program: str, target: Fd, function: str) -> None:
        """Say which function of which loaded program it replaces (type ext). Raises OSError."""
        result = self._lib.bpf_program__set_attach_target(
            self._programs[program], ctypes.c_int(target.number), function.encode()
        )
        _require(result, f"let {program} replace {function}")

    def select(self, programs: frozenset[str]) -> None:
        """Load these programs and leave the others out."""
        for name, item in self._programs.items():
            self._lib.bpf_program__set_autoload(item, ctypes.c_bool(name in programs))

    def set_max_entries(self, map_name: str, count: int) -> None:
        """Override a map's size before it is created."""
        result = self._lib.bpf_map__set_max_entries(self._maps[map_name], ctypes.c_uint(count))
        _require(result, f"set max_entries of map {map_name}")

    def reuse(self, map_name: str, fd: Fd) -> None:
        """Use an existing map instead of creating this one; the shapes have been compared."""
        result = self._lib.bpf_map__reuse_fd(self._maps[map_name], ctypes.c_int(fd.number))
        _require(result, f"reuse map {map_name}")

    def load(self) -> None:
        """Relocate, create the maps, verify and load. Raises LoadError with the log."""
        self._log.clear()
        lift_memlock()
        result = self._lib.bpf_object__load(ctypes.c_void_p(self._pointer))
        if result < 0:
            raise LoadError(-result, "".join(self._log), f"load {self._path}")

    def program_fd(self, name: str) -> Fd:
        """A descriptor of its own for a loaded program."""
        return Fd(os.dup(self._lib.bpf_program__fd(self._programs[name])))

    def map_fd(self, name: str) -> Fd:
        """A descriptor of its own for a created or re-used map."""
        return Fd(os.dup(self._lib.bpf_map__fd(self._maps[name])))

    def forget_pin_paths(self) -> None:
        """Ignore LIBBPF_PIN_BY_NAME: nothing is pinned unless it was declared."""
        for item in self._maps.values():
            self._lib.bpf_map__set_pin_path(item, None)


def require_sound(lib: Any, path: str) -> None:
    """Let a child open the object first: some defects of an ELF file crash libbpf.

    Raises LoadError when it did not survive. Costs a millisecond.
    """
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        lib.bpf_object__open_file(os.fsencode(path), None)
        os._exit(0)
    _child, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        log = "libbpf crashes on this file: it is damaged; copy or build it again"
        raise LoadError(errno.EBADMSG, log, f"open {path}")


@contextmanager
def open_object(path: str) -> Iterator[Object]:
    """Open an object, and close it at the end with all that was not taken from it.

    Raises Unavailable, or LoadError with what libbpf said.
    """
    lib = library()
    log: list[str] = []
    libc = ctypes.CDLL(None)

    def collect(level: int, layout: bytes, arguments: int) -> int:
        if level == _PRINT_WARN:
            text = ctypes.create_string_buffer(_LOG_SIZE)
            libc.vsnprintf(text, ctypes.c_size_t(_LOG_SIZE), layout, ctypes.c_void_p(arguments))
            log.append(text.value.decode("utf-8", "replace"))
        return 0

    callback = _PrintCallback(collect)
    lib.libbpf_set_print(None)
    require_sound(lib, path)
    lib.libbpf_set_print(callback)
    pointer = 0
    try:
        try:
            pointer = _checked(lib.bpf_object__open_file(os.fsencode(path), None), f"open {path}")
        except OSError as error:
            raise LoadError(error.errno or 0, "".join(log), f"open {path}") from error
        opened = Object(lib, pointer, path, log)
        opened.forget_pin_paths()
        yield opened
    finally:
        if pointer:
            lib.bpf_object__close(ctypes.c_void_p(pointer))
        lib.libbpf_set_print(None)
