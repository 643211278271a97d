# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A source in BCC dialect: compiled, loaded, attached and detached, each a step of its own.

BCC attaches what its naming convention says while it loads. Here the functions are known first,
so that check mode can stop before anything runs, and a trace begins when all of it is in place.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..resource.bcc_source import Captured
from ..resource.errors import Failure
from . import needs
from .request import Probe

_LAST_LINES = 15
# Functions with these prefixes say themselves where they run; double underscores stand for colons.
_PREFIXES = {
    "kprobe__": "kprobe",
    "kretprobe__": "kretprobe",
    "tracepoint__": "tracepoint",
    "raw_tracepoint__": "raw_tracepoint",
}
_OTHERS = ("kfunc__", "kretfunc__", "lsm__")


class Program:
    """What BCC made of a source. Everything of it is gone with the process at the latest."""

    def __init__(self, bcc: Any, module: Any, declared: tuple[Probe, ...]) -> None:
        self.bcc = bcc
        self.module = module
        self.probes = tuple(_probes(self._names(), declared))

    def _names(self) -> list[str]:
        lib = self.bcc.lib
        count = lib.bpf_num_functions(self.module.module)
        return [lib.bpf_function_name(self.module.module, at).decode() for at in range(count)]

    def tables(self) -> dict[str, Any]:
        """BCC's tables by name, in the order of the source."""
        lib = self.bcc.lib
        # BCC itself does not call it, and declares no types for it.
        lib.bpf_table_name.restype = ctypes.c_char_p
        lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        found = {}
        for at in range(lib.bpf_num_tables(self.module.module)):
            name = lib.bpf_table_name(self.module.module, at)
            found[name.decode()] = self.module[name]
        return found

    def load(self) -> None:
        """Let the kernel verify every function. Raises Failure with the verifier's words."""
        kinds = {
            "kprobe": self.bcc.BPF.KPROBE,
            "kretprobe": self.bcc.BPF.KPROBE,
            "tracepoint": self.bcc.BPF.TRACEPOINT,
            "raw_tracepoint": self.bcc.BPF.RAW_TRACEPOINT,
        }
        for probe in self.probes:
            with said(f"the kernel refuses {probe.function}"):
                self.module.load_func(probe.function.encode(), kinds[probe.type])

    def attach(self) -> None:
        """Let every function run. Raises Failure that names the probe."""
        for probe in self.probes:
            function, target = probe.function.encode(), probe.target.encode()
            with said(f"cannot attach {probe}"):
                if probe.type == "kprobe":
                    event = self.module.fix_syscall_fnname(target)
                    self.module.attach_kprobe(event=event, fn_name=function)
                elif probe.type == "kretprobe":
                    event = self.module.fix_syscall_fnname(target)
                    self.module.attach_kretprobe(event=event, fn_name=function)
                elif probe.type == "tracepoint":
                    self.module.attach_tracepoint(tp=target, fn_name=function)
                else:
                    self.module.attach_raw_tracepoint(tp=target, fn_name=function)

    def detach(self) -> None:
        """Let no function run any more. Tables and buffers stay to be read."""
        for event in list(self.module.kprobe_fds):
            self.module.detach_kprobe_event(event)
        for event in list(self.module.tracepoint_fds):
            self.module.detach_tracepoint(event)
        for event in list(self.module.raw_tracepoint_fds):
            self.module.detach_raw_tracepoint(event)

    def symbol(self, address: int) -> str:
        """The kernel's function and the offset in it, else the address in hexadecimal."""
        name: bytes = self.bcc.BPF.ksym(address, show_offset=True)
        return f"0x{address:x}" if name.startswith(b"[unknown]") else name.decode()

    def stack(self, table: str, stack_id: int) -> list[str]:
        """The functions of a kernel stack, innermost first; nothing for one that was not kept."""
        kept = {
            name: found
            for name, found in self.tables().items()
            if isinstance(found, self.bcc.table.StackTrace)
        }
        if table not in kept and (table or len(kept) != 1):
            raise Failure(
                "decode: stack needs a BPF_STACK_TRACE in the source, named where there are several"
            )
        stacks = kept[table] if table else next(iter(kept.values()))
        if stack_id < 0:
            return []
        try:
            return [self.symbol(address) for address in stacks.walk(stack_id)]
        except KeyError:
            return []


def compiled(source: str, flags: list[str], declared: tuple[Probe, ...]) -> Program:
    """Compile a source. Raises Failure with the compiler's words."""
    bcc = needs.bcc()

    # Compiled, and by that neither loaded nor attached yet.
    kind = type("Unattached", (bcc.BPF,), {"_trace_autoload": lambda _self: None})
    with said("BCC cannot compile the source"):
        module = kind(text=source.encode(), cflags=flags)
    return Program(bcc, module, declared)


def _probes(names: list[str], declared: tuple[Probe, ...]) -> Iterator[Probe]:
    """Where each function runs. Raises Failure for one that nothing names."""
    unknown = [probe.function for probe in declared if probe.function not in names]
    if unknown:
        raise Failure(f"probes: the source has no function {', '.join(unknown)}")
    by_name = {probe.function for probe in declared}
    for name in names:
        if name in by_name:
            continue
        if name.startswith(_OTHERS):
            raise Failure(f"{name}: programs of this type are not traced with; use a kprobe")
        for prefix, type_ in _PREFIXES.items():
            if name.startswith(prefix):
                separator = ":" if type_ == "tracepoint" else "__"
                yield Probe(name, type_, name[len(prefix) :].replace("__", separator, 1))
                break
        else:
            raise Failure(
                f"nothing says where {name} runs: name it in probes, or by BCC's convention "
                "(kprobe__FUNCTION, TRACEPOINT_PROBE(category, name)); make a helper static inline"
            )
    yield from declared


@contextmanager
def said(attempt: str) -> Iterator[None]:
    """Turn what BCC raises, and what it wrote to descriptor 2 meanwhile, into a Failure."""
    with Captured() as captured:
        try:
            yield
        except Exception as error:  # BCC raises it bare, for all that it refuses
            text = re.sub(r"\x1b\[[0-9;]*m", "", captured.text()).strip() or str(error)
            tail = "\n".join(text.splitlines()[-_LAST_LINES:])
            raise Failure(
                f"{attempt}: {error}" if tail == str(error) else f"{attempt}:\n{tail}"
            ) from error
