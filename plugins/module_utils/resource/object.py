# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The object a program comes from: a file, or what clang makes of a source on this host.

Everything that can be said without loading is said here, in words: libbpf's own errors name
neither the defect nor the way out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ..bpf import btf_sections, elf, libbpf
from .errors import Failure, from_os_error

_LOG_LINES = 12  # of libbpf and the verifier: the reason stands at the end
_CLANG_LINES = 40  # the reason stands at the beginning
_CLANG = ("clang", "-target", "bpf", "-O2", "-g", "-c")


@dataclass(frozen=True)
class Source:
    """Where the program comes from. ``compiler`` is empty for an object that is built already."""

    path: str
    compiler: str = ""
    cflags: tuple[str, ...] = ()
    sha256: str = ""  # what the file named by path must have, if not empty


@dataclass(frozen=True)
class Facts:
    """What the object declares, and the identity of its content."""

    path: str
    sha256: str
    elf: elf.Elf
    programs: Mapping[str, libbpf.ProgramDecl]
    maps: Mapping[str, libbpf.MapDecl]


def content_of(source: Source) -> bytes:
    """The bytes of the file that was named. Raises Failure when they are not the expected ones."""
    if os.path.exists(source.path) and not os.path.isfile(source.path):
        raise Failure(f"{source.path} is not a file; name the file itself")
    try:
        with open(source.path, "rb") as file:
            content = file.read()
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        advice = "copy it to the host first (ansible.builtin.copy)" if is_missing else ""
        raise from_os_error(error, f"read {source.path or 'the object'}", advice) from error
    if source.compiler and content.startswith(b"\x7fELF"):
        raise Failure(f"{source.path} is an object, not a source; give it as object")
    found = hashlib.sha256(content).hexdigest()
    if source.sha256 and found != source.sha256.lower():
        raise Failure(
            f"{source.path} has sha256 {found}, expected {source.sha256}; nothing was loaded: "
            "copy the file again, or correct sha256"
        )
    return content


@contextmanager
def opened(source: Source) -> Iterator[tuple[Facts, libbpf.Object]]:
    """The object, open and not loaded yet, and what it declares."""
    with ExitStack() as stack:
        path, content = stack.enter_context(_built(source))
        parsed = _parse(source.path, content)
        path = stack.enter_context(_acceptable(path, content, parsed))
        facts = None
        try:
            with libbpf.open_object(path) as handle:
                facts = _facts(source.path, content, parsed, handle)
                yield facts, handle
        except libbpf.Unavailable as error:
            raise Failure(
                f"cannot load {source.path}: {error.strerror}; install libbpf "
                "(Debian: libbpf1, Red Hat: libbpf), version 0.6 or later"
            ) from error
        except libbpf.LoadError as error:
            raise _load_failure(source.path, facts, error) from error


@contextmanager
def _built(source: Source) -> Iterator[tuple[str, bytes]]:
    """Path and content of the object: what was named, or what clang makes of it."""
    content = content_of(source)
    if source.compiler != "clang":
        yield source.path, content
        return
    import tempfile  # takes 5 ms to read with all that it needs, and only sources want it

    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-") as scratch:
        path = os.path.join(scratch, os.path.basename(source.path) + ".o")
        yield path, compile_clang(source, path)


@contextmanager
def _acceptable(path: str, content: bytes, parsed: elf.Elf) -> Iterator[str]:
    """The object, or where this kernel would refuse its types a copy with types that it takes."""
    types = parsed.sections.get(".BTF")
    if not types or btf_sections.accepted():
        yield path
        return
    try:
        taken = btf_sections.without_empty(types)
    except ValueError as error:
        raise Failure(f"the BTF of {path} is damaged; copy or build it again") from error
    if taken == types:
        yield path
        return
    import tempfile  # as above

    # libbpf names maps after the file.
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-") as scratch:
        copy = os.path.join(scratch, os.path.basename(path))
        with open(copy, "wb") as file:
            file.write(content.replace(types, taken, 1))
        yield copy


def _facts(path: str, content: bytes, parsed: elf.Elf, handle: libbpf.Object) -> Facts:
    return Facts(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        elf=parsed,
        programs={program.name: program for program in handle.programs()},
        maps={decl.name: decl for decl in handle.maps()},
    )


def _parse(path: str, content: bytes) -> elf.Elf:
    try:
        parsed = elf.parse(content)
    except ValueError as error:
        raise Failure(f"{path} {error}") from error
    if "maps" in parsed.sections:
        raise Failure(
            f'{path} defines its maps in the legacy section "maps", which libbpf 1.x does not load'
            '; define them in SEC(".maps") with __uint and __type (BTF-defined maps)'
        )
    if ".maps" in parsed.sections and ".BTF" not in parsed.sections:
        raise Failure(
            f"{path} has maps but no BTF that describes them; compile it with clang -g, "
            "and strip it with llvm-strip -g only (which keeps BTF)"
        )
    return parsed


def _load_failure(path: str, facts: Facts | None, error: libbpf.LoadError) -> Failure:
    """What libbpf and the verifier said, with the end of the log, where the reason stands."""
    lines = [line for line in error.log.splitlines() if line.strip()]
    advice = (_missing_feature(facts) if facts else "") or _load_advice(error)
    failure = from_os_error(error, f"load {path}", advice)
    tail = "\n".join(lines[-_LOG_LINES:])
    return Failure(f"{failure}\n{tail}" if tail else str(failure), **failure.details, log=lines)


def _missing_feature(facts: Facts) -> str:
    """The first program or map type of the object that this kernel does not have."""
    from ..bpf import features  # takes 4 ms to read, and only failures want it

    known = features.prog_types()
    for program in facts.programs.values():
        feature = known.get(program.type)
        if feature and not feature.supported:
            return f"this kernel has no {program.type} programs{_since(feature.since)}"
        if program.section.startswith("xdp.frags") and not features.xdp_frags():
            return (
                f"this kernel has no XDP programs for packets in several buffers{_since('5.18')}; "
                f'write SEC("xdp") for {program.name} instead of SEC("{program.section}")'
            )
    known = features.map_types()
    for decl in facts.maps.values():
        feature = known.get(decl.type)
        if feature and not feature.supported:
            return f"this kernel has no {decl.type} maps{_since(feature.since)}"
    return ""


def _since(version: str) -> str:
    return f"; Linux {version} has them" if version else "; it was built without them"


def _load_advice(error: libbpf.LoadError) -> str:
    if "vmlinux BTF" in error.log or "/sys/kernel/btf" in error.log:
        return (
            "the object needs the kernel's BTF (CO-RE): CONFIG_DEBUG_INFO_BTF, "
            "in distribution kernels since 5.10"
        )
    return "the last lines of the log say why"


def compile_clang(source: Source, output: str) -> bytes:
    """Compile to ``output``, reproducibly, and return the object's bytes."""
    import subprocess  # likewise

    directory = os.path.dirname(os.path.abspath(source.path))
    command = [*_CLANG, f"-ffile-prefix-map={directory}=.", "-fdebug-compilation-dir=."]
    command += [*_include_paths(), *source.cflags, "-x", "c", os.path.abspath(source.path)]
    command += ["-o", output]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd=directory
        )
    except FileNotFoundError as error:
        raise Failure(
            "compiler: clang needs clang on this host (Debian: clang and libbpf-dev); "
            "or compile on a build host and give the result as object"
        ) from error
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[:_CLANG_LINES])
        raise Failure(f"clang rejects {source.path}:\n{said}", command=command)
    try:
        with open(output, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise Failure(
            f"clang made no object of {source.path}; take what keeps it from that out of cflags",
            command=command,
        ) from error


def _include_paths() -> list[str]:
    """Debian keeps asm/ below the architecture's directory; clang -target bpf does not look."""
    triplet = f"/usr/include/{os.uname().machine}-linux-gnu"
    return [f"-I{triplet}"] if os.path.isdir(triplet) else []
