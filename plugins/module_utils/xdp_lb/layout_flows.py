# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the data plane remembers of connections, as Python values: the flow and nat tables.

The structs are those of bpf/xdp_lb/layout.h; byte order as in ``layout``.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import layout


@dataclass(frozen=True)
class Flow:
    """``struct flow``. Its family is that of its service, so ``client`` stays 16 bytes."""

    client: bytes
    client_port: int
    service_port: int
    service: int  # id

    def pack(self) -> bytes:
        """The key's bytes."""
        ports = layout.raw_port(self.client_port), layout.raw_port(self.service_port)
        return layout.FLOW.pack(self.client, *ports, self.service)

    @classmethod
    def unpack(cls, raw: bytes) -> Flow:
        """The key behind the bytes."""
        client, client_port, service_port, service = layout.FLOW.unpack(raw)
        return cls(client, layout.port_of(client_port), layout.port_of(service_port), service)


@dataclass(frozen=True)
class FlowEntry:
    """``struct flow_entry``. ``seen`` is CLOCK_MONOTONIC >> 30 ns (``layout.coarse``)."""

    backend: int
    slot: int
    seen: int
    state: int

    def pack(self) -> bytes:
        """The value's bytes."""
        return layout.FLOW_ENTRY.pack(self.backend, self.slot, self.seen, self.state)

    @classmethod
    def unpack(cls, raw: bytes) -> FlowEntry:
        """The value behind the bytes."""
        return cls(*layout.FLOW_ENTRY.unpack(raw))


@dataclass(frozen=True)
class NatEntry:
    """``struct nat_entry``."""

    backend: int
    seen: int
    server_sequence: int
    nat_port: int
    state: int
    protocol: int

    def pack(self) -> bytes:
        """The value's bytes."""
        return layout.NAT_ENTRY.pack(
            self.backend,
            self.seen,
            self.server_sequence,
            layout.raw_port(self.nat_port),
            self.state,
            self.protocol,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> NatEntry:
        """The value behind the bytes."""
        backend, seen, sequence, port, state, protocol = layout.NAT_ENTRY.unpack(raw)
        return cls(backend, seen, sequence, layout.port_of(port), state, protocol)


@dataclass(frozen=True)
class NatReply:
    """``struct nat_reply``."""

    backend: layout.Address
    backend_port: int
    nat_port: int
    protocol: int

    def pack(self) -> bytes:
        """The key's bytes."""
        return layout.NAT_REPLY.pack(
            layout.pack_address(self.backend),
            layout.raw_port(self.backend_port),
            layout.raw_port(self.nat_port),
            self.protocol,
            layout.family_of(self.backend),
            0,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> NatReply:
        """The key behind the bytes. Raises ValueError for an unknown family."""
        address, backend_port, nat_port, protocol, family, _zero = layout.NAT_REPLY.unpack(raw)
        backend = layout.unpack_address(address, family)
        if backend is None:
            raise ValueError(f"address family {family}")
        return cls(backend, layout.port_of(backend_port), layout.port_of(nat_port), protocol)


@dataclass(frozen=True)
class NatOrigin:
    """``struct nat_origin``; ``vip`` is 16 bytes, of the family of the flow's service.

    ``seen`` is of the backend's packets, that of ``NatEntry`` of the client's.
    """

    flow: Flow
    vip: bytes
    seen: int

    def pack(self) -> bytes:
        """The value's bytes."""
        return layout.NAT_ORIGIN.pack(self.flow.pack(), self.vip, self.seen)

    @classmethod
    def unpack(cls, raw: bytes) -> NatOrigin:
        """The value behind the bytes."""
        flow, vip, seen = layout.NAT_ORIGIN.unpack(raw)
        return cls(Flow.unpack(flow), vip, seen)
