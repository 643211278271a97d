# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The dispatcher: one XDP program that calls several others in turn, as libxdp's protocol has it.

Each slot of a dispatcher is a stub function, which a component (a program of type ext) replaces in
the kernel. The program is made here, instruction by instruction, so that a target needs neither
libxdp nor a file; what libxdp looks at is there: name, BTF and the map with the configuration.
The protocol: https://github.com/xdp-project/xdp-tools/blob/main/lib/libxdp/protocol.org.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import btf, info, maps, names
from .info import ProgramInfo
from .syscall import Buffer, Cmd, Fd, bpf

NAME = "xdp_dispatcher"
SLOTS = 10
VERSION = 2
STUB_RETURNS = 31  # what a slot without a component returns; always followed by the next slot
DEFAULT_PRIORITY = 50

# What an XDP program may return, by number: enum xdp_action, include/uapi/linux/bpf.h.
ACTIONS = ("aborted", "drop", "pass", "tx", "redirect")
_PASS = ACTIONS.index("pass")

_MAGIC = 236
_FIRST, _SECOND = 1, 2  # the versions of the protocol
_METADATA, _VERSION_NAME = "xdp_metadata", "dispatcher_version"
_RUN_CONFIG = ".xdp_run_config"
_MAP_NAME = "xdp_disp.rodata"
_LICENSE = b"Dual BSD/GPL"

_F_RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG
HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS, Linux 5.18
_ADJUST_TAIL = 65  # BPF_FUNC_xdp_adjust_tail
_XDP = names.ATTACH_TYPES.index("xdp")  # as libbpf declares SEC("xdp"); components remember it
_PSEUDO_CALL = 1  # BPF_PSEUDO_CALL: another function of this program

# include/uapi/linux/btf.h
_INT, _PTR, _ARRAY, _STRUCT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = 1, 2, 3, 4, 12, 13, 14, 15
_GLOBAL = 1  # BTF_FUNC_GLOBAL, BTF_VAR_GLOBAL_ALLOCATED
_CONTEXT = (  # struct xdp_md, include/uapi/linux/bpf.h
    *("data", "data_end", "data_meta"),
    *("ingress_ifindex", "rx_queue_index", "egress_ifindex"),
)


@dataclass(frozen=True)
class Slot:
    """How a component is called: in order of ``priority``, the lowest first (signed, as libxdp).

    ``actions`` are bits by number of ``ACTIONS``: those after which the next component is called.
    ``flags`` are those of the component's load that the dispatcher must know (HAS_FRAGS).
    """

    priority: int = DEFAULT_PRIORITY
    actions: int = 1 << _PASS
    flags: int = 0


@dataclass(frozen=True)
class Config:
    """A dispatcher: the version of the protocol and a slot for each component, in order."""

    slots: tuple[Slot, ...]
    version: int = VERSION

    @property
    def has_frags(self) -> bool:
        """Whether it takes packets in several pieces: only when every component does."""
        frags = (slot.flags & HAS_FRAGS for slot in self.slots)
        return self.version >= _SECOND and bool(self.slots) and all(frags)

    def encode(self) -> bytes:
        """``struct xdp_dispatcher_config`` of the protocol, native byte order."""
        rest = [Slot(0, 0, 0)] * (SLOTS - len(self.slots))
        stub = 1 << STUB_RETURNS
        actions = [slot.actions | stub for slot in self.slots] + [0] * len(rest)
        priorities = [slot.priority for slot in (*self.slots, *rest)]
        if self.version == _FIRST:
            return struct.pack("=B3x10I10i", len(self.slots), *actions, *priorities)
        head = (_MAGIC, self.version, len(self.slots), int(self.has_frags))
        flags = [slot.flags for slot in (*self.slots, *rest)]
        return struct.pack("=4B10I10i10I", *head, *actions, *priorities, *flags)


class Unknown(ValueError):
    """A dispatcher of a version that this collection does not know."""


def _decode(raw: bytes, types: btf.Btf) -> Config | None:
    version = raw[1] if raw[:1] == bytes([_MAGIC]) else _declared_version(types)
    if version == 0:
        return None
    if version == _SECOND and len(raw) == struct.calcsize("=4B30I"):
        _magic, _version, count, _frags, *words = struct.unpack("=4B10I10i10I", raw)
    elif version == _FIRST and len(raw) >= struct.calcsize("=B3x20I"):
        count, *words = struct.unpack_from("=B3x10I10i", raw)
        words += [0] * SLOTS
    else:
        raise Unknown(f"version {version} of the dispatcher protocol, {len(raw)} bytes")
    columns = zip(words[SLOTS : 2 * SLOTS], words[:SLOTS], words[2 * SLOTS :])
    slots = [Slot(prio, acts & ~(1 << STUB_RETURNS), flags) for prio, acts, flags in columns]
    return Config(tuple(slots[:count]), version)


def _declared_version(types: btf.Btf) -> int:
    """The version in the BTF, where one number is the length of an array; 0 when there is none."""
    try:
        variable = btf.variables(types, _METADATA)[_VERSION_NAME]
    except KeyError:
        return 0
    return _number(types, types.types[variable.type_id].type_id)


def _number(types: btf.Btf, type_id: int) -> int:
    """What ``__uint(name, number)`` of bpf_helpers.h declares."""
    pointer, _names = types.resolve(type_id)
    return types.types[pointer.type_id].count if pointer.kind == "ptr" else 0


def read(program: ProgramInfo) -> Config | None:
    """The configuration of a dispatcher, libxdp's or one made here; None when it is none.

    Raises Unknown for one of a later version, FileNotFoundError when it is gone meanwhile.
    """
    if program.name != NAME or len(program.map_ids) != 1 or not program.btf_id:
        return None
    with info.open_map(program.map_ids[0]) as fd:
        about = info.map_(fd)
        if about.type != "array" or about.max_entries != 1 or not about.flags & _F_RDONLY_PROG:
            return None
        raw = maps.lookup(fd, bytes(4), about.value_size) or b""
    return _decode(raw, btf.load(program.btf_id))


def run_config(program: ProgramInfo) -> Slot:
    """How a component says itself that it wants to be called (XDP_RUN_CONFIG of xdp_helpers.h)."""
    types = btf.load(program.btf_id) if program.btf_id else btf.Btf(())
    try:
        declared = btf.variables(types, _RUN_CONFIG)
    except KeyError:
        return Slot()
    for name, variable in declared.items():
        if name[1:16] == program.name:  # the kernel keeps 15 characters
            return _run_config(types, types.types[variable.type_id].type_id)
    return Slot()


def _run_config(types: btf.Btf, type_id: int) -> Slot:
    members, _names = types.resolve(type_id)
    found = {member.name: _number(types, member.type_id) for member in members.members}
    chosen = [number for number, name in enumerate(ACTIONS) if found.get(f"XDP_{name.upper()}")]
    actions = sum(1 << number for number in chosen) if chosen else 1 << _PASS
    return Slot(found.get("priority", DEFAULT_PRIORITY), actions)


def load(config: Config) -> Fd:
    """Load a dispatcher, attached to nothing. Raises OSError."""
    functions, types = _describe(len(config.slots), config.version)
    code, starts = _program(config)
    flags = HAS_FRAGS if config.has_frags else 0
    entries = b"".join(struct.pack("=II", *entry) for entry in zip(starts, functions))
    program = _load("xdp", code, types, entries, flags, _XDP)
    try:
        _bind(program, config.encode())
    except OSError:
        program.close()
        raise
    return program


def components_load() -> bool:
    """Whether the kernel loads components, which some hardened kernels refuse even to root."""
    functions, types = _describe(0, VERSION)
    code = _instruction(0xB7, 0, 0, 0, _PASS) + _instruction(0x95)
    entry = struct.pack("=II", 0, functions[0])
    with load(Config((Slot(),))) as dispatcher:
        target = (function_ids(info.program(dispatcher))["prog0"], dispatcher.number)
        try:
            _load("ext", code, types, entry, 0, 0, target).close()
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, 524):
                return False
            raise
    return True


def _load(
    type_: str,
    code: bytes,
    types: bytes,
    entries: bytes,
    flags: int,
    attach_type: int,
    target: tuple[int, int] = (0, 0),
) -> Fd:
    """``union bpf_attr``, BPF_PROG_LOAD; ``target`` is a BTF id and a program's descriptor."""
    blob, instructions = Buffer(types), Buffer(code)
    table, license_ = Buffer(entries), Buffer(_LICENSE + b"\0")
    doing = f"load an {type_} program"
    with Fd(bpf(Cmd.BTF_LOAD, "QQII", blob.address, 0, blob.size, 0, doing=doing)) as described:
        return Fd(
            bpf(
                Cmd.PROG_LOAD,
                "IIQQIIQII16sIIIIQIIQIII",
                *(names.PROG_TYPES.index(type_), len(code) // 8, instructions.address),
                *(license_.address, 0, 0, 0, 0, flags, NAME.encode(), 0, attach_type),
                *(described.number, 8, table.address, len(entries) // 8, 0, 0, 0, *target),
                doing=doing,
            )
        )


def _bind(program: Fd, content: bytes) -> None:
    with maps.create("array", 4, len(content), 1, _F_RDONLY_PROG, _MAP_NAME) as fd:
        maps.update(fd, bytes(4), content)
        maps.freeze(fd)
        doing = "bind the dispatcher's configuration"
        bpf(Cmd.PROG_BIND_MAP, "III", program.number, fd.number, 0, doing=doing)


def replaced(count: int) -> tuple[str, ...]:
    """The function that each of ``count`` components replaces, in order.

    A single one takes the place of the whole dispatcher, as with libxdp: it costs no call more.
    """
    return (NAME,) if count == 1 else tuple(f"prog{index}" for index in range(count))


def attach(component: Fd, dispatcher: Fd, type_id: int) -> Fd:
    """Let the component replace the function whose BTF id is ``type_id``, as long as the link is.

    A component can be in several dispatchers at a time (Linux 5.10). Raises OSError: EINVAL when
    the function's signature is another, or when the component changes packets and the dispatcher
    was made by a libxdp that forbids it (Linux 6.13). ``union bpf_attr.link_create``.
    """
    values = (component.number, dispatcher.number, 0, 0, type_id)
    return Fd(bpf(Cmd.LINK_CREATE, "IIIII", *values, doing="attach to a slot of a dispatcher"))


def function_ids(dispatcher: ProgramInfo) -> Mapping[str, int]:
    """The BTF id of each function of a dispatcher, by name."""
    types = btf.load(dispatcher.btf_id).types
    return {each.name: number for number, each in enumerate(types) if each.kind == "func"}


def _program(config: Config) -> tuple[bytes, list[int]]:
    """The instructions, and where each function begins: the dispatcher, then the stubs."""
    count = len(config.slots)
    body, stub = 1 + 7 * count + 2, 4  # instructions
    code = [_instruction(0xBF, 6, 1)]  # r6 = ctx
    for index, slot in enumerate(config.slots):
        call_at = len(code) + 1
        code += [
            _instruction(0xBF, 1, 6),
            _instruction(0x85, 0, _PSEUDO_CALL, 0, body + stub * index - call_at - 1),
            _instruction(0xB4, 2, 0, 0, 1),
            _instruction(0x6C, 2, 0),  # w2 = 1 << w0
            _instruction(0x54, 2, 0, 0, _signed(slot.actions | 1 << STUB_RETURNS)),
            _instruction(0x56, 2, 0, 1, 0),  # go on when the action is among them
            _instruction(0x95),
        ]
    code += [_instruction(0xB7, 0, 0, 0, _PASS), _instruction(0x95)]
    code += list(_stub()) * count
    return b"".join(code), [0, *(body + stub * index for index in range(count))]


def _stub() -> Iterator[bytes]:
    """What a component replaces.

    It moves the end of the packet by nothing, because since Linux 6.13 only a function that may
    change packets can be replaced by one that does (changes_pkt_data, kernel/bpf/verifier.c).
    """
    yield _instruction(0xB7, 2, 0, 0, 0)
    yield _instruction(0x85, 0, 0, 0, _ADJUST_TAIL)
    yield _instruction(0xB7, 0, 0, 0, STUB_RETURNS)
    yield _instruction(0x95)


def _instruction(
    opcode: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    """``struct bpf_insn``; the two registers are bit fields and follow the byte order."""
    registers = target | source << 4 if sys.byteorder == "little" else target << 4 | source
    return struct.pack("=BBhi", opcode, registers, offset, value)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _describe(count: int, version: int) -> tuple[list[int], bytes]:
    """BTF ids of the functions, and the BTF: their signatures and the version of the protocol."""
    strings = bytearray(b"\0")
    types: list[bytes] = []

    def add(kind: int, name: str, size_or_type: int, extra: bytes = b"", vlen: int = 0) -> int:
        at = len(strings) if name else 0
        strings.extend(name.encode() + b"\0" if name else b"")
        types.append(struct.pack("=III", at, kind << 24 | vlen, size_or_type) + extra)
        return len(types)

    number = add(_INT, "int", 4, struct.pack("=I", 1 << 24 | 32))
    word = add(_INT, "unsigned int", 4, struct.pack("=I", 32))
    members = b""
    for index, name in enumerate(_CONTEXT):
        members += struct.pack("=III", len(strings), word, 32 * index)
        strings.extend(name.encode() + b"\0")
    context = add(_STRUCT, "xdp_md", 4 * len(_CONTEXT), members, len(_CONTEXT))
    pointer = add(_PTR, "", context)
    parameter = struct.pack("=II", len(strings), pointer)
    strings.extend(b"ctx\0")
    signature = add(_FUNC_PROTO, "", number, parameter, 1)
    known = [NAME, *(f"prog{index}" for index in range(count))]
    functions = [add(_FUNC, name, signature, b"", _GLOBAL) for name in known]
    array = add(_ARRAY, "", 0, struct.pack("=III", number, word, version))
    variable = add(_VAR, _VERSION_NAME, add(_PTR, "", array), struct.pack("=I", _GLOBAL))
    add(_DATASEC, _METADATA, 8, struct.pack("=III", variable, 0, 8), 1)
    body = b"".join(types)
    header = (0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
    return functions, struct.pack("=HBBIIIII", *header) + body + bytes(strings)
