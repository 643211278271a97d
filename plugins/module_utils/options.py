# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The options of every resource: plain data, for the modules on a host and for the controller.

Each constant holds the arguments of AnsibleModule, which are those of ArgumentSpecValidator too:
a resource of a stack is validated by the very specification that its own module has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Options = dict[str, Any]

LOCK_TIMEOUT: Options = {"type": "int", "default": 60}
COMMON: dict[str, Options] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "lock_timeout": LOCK_TIMEOUT,
}


def _numbers(**defaults: int) -> Options:
    options = {name: {"type": "int", "default": default} for name, default in defaults.items()}
    return {"type": "dict", "default": {}, "options": options}


BPFFS: Options = {
    "argument_spec": {
        **COMMON,
        "path": {"type": "path", "default": "/sys/fs/bpf"},
        "mode": {"type": "raw"},
    }
}

BPF_PROG: Options = {
    "argument_spec": {
        **COMMON,
        "object": {"type": "path"},
        "source": {"type": "path"},
        "compiler": {"type": "str", "choices": ["clang", "bcc"], "default": "clang"},
        "remote_src": {"type": "bool", "default": False},
        "cflags": {"type": "list", "elements": "str"},
        "sha256": {"type": "str"},
        "pin": {"type": "path"},
        "program": {"type": "str"},
        "pin_dir": {"type": "path"},
        "programs": {"type": "list", "elements": "str"},
        "type": {"type": "str"},
        "attach_type": {"type": "str"},
        "maps": {"type": "dict"},
        "pin_maps": {"type": "path"},
        "map_max_entries": {"type": "dict"},
        "constants": {"type": "dict"},
        "on_incompatible_map": {
            "type": "str",
            "choices": ["fail", "recreate"],
            "default": "fail",
        },
        "discard_maps": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "stack": {"type": "str"},
        "release": {"type": "str"},
        "labels": {"type": "dict"},
    },
    "mutually_exclusive": [("object", "source"), ("pin", "pin_dir"), ("program", "programs")],
    "required_one_of": [("pin", "pin_dir")],
    "required_if": [("state", "present", ("object", "source"), True)],
    "required_by": {"program": "pin", "programs": "pin_dir"},
}

BPF_MAP_PIN: Options = {
    "argument_spec": {
        **COMMON,
        "pin": {"type": "path", "required": True},
        "type": {"type": "str"},
        "key_size": {"type": "int", "no_log": False},
        "value_size": {"type": "int"},
        "max_entries": {"type": "int"},
        "flags": {"type": "list", "elements": "str"},
        "name": {"type": "str"},
        "map_id": {"type": "int"},
        "prog": {"type": "path"},
        "map": {"type": "str"},
        "mode": {"type": "raw"},
        "discard_data": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
    }
}

_ENTRY: Options = {
    "key": {"type": "raw", "required": True, "no_log": False},
    "value": {"type": "raw"},
}
BPF_MAP_ENTRIES: Options = {
    "argument_spec": {
        **COMMON,
        "map": {"type": "path", "required": True},
        "entries": {"type": "list", "elements": "dict", "default": [], "options": _ENTRY},
        "key_format": {"type": "list", "elements": "str", "no_log": False},
        "value_format": {"type": "list", "elements": "str"},
        "purge": {"type": "bool", "default": False},
    }
}

CGROUP_ATTACH: Options = {
    "argument_spec": {
        **COMMON,
        "cgroup": {"type": "str", "required": True},
        "create_cgroup": {"type": "bool", "default": False},
        "allow_root": {"type": "bool", "default": False},
        "prog": {"type": "str"},
        "attach_type": {"type": "str"},
        "link": {"type": "str"},
        "mode": {
            "type": "str",
            "choices": ["link", "multi", "override", "exclusive"],
            "default": "link",
        },
    }
}

SOCKMAP_ATTACH: Options = {
    "argument_spec": {
        **COMMON,
        "map": {"type": "str", "required": True},
        "prog": {"type": "str"},
        "attach_type": {"type": "str", "default": "sk_msg_verdict"},
        "link": {"type": "str"},
        "link_fallback": {"type": "bool", "default": False},
        "drain": {"type": "str", "choices": ["wait", "force", "none"], "default": "wait"},
        "drain_timeout": {"type": "int", "default": 60},
    }
}

TC_ATTACH: Options = {
    "argument_spec": {
        **COMMON,
        "interface": {"type": "str", "required": True},
        "netns": {"type": "str"},
        "direction": {"type": "str", "choices": ["ingress", "egress"], "required": True},
        "prog": {"type": "str"},
        "link": {"type": "str"},
        "priority": {"type": "int", "default": 50},
        "handle": {"type": "int", "default": 1},
        "force": {"type": "bool", "default": False},
    },
    "required_if": [("state", "present", ("prog",))],
}

XDP_ATTACH: Options = {
    "argument_spec": {
        **COMMON,
        "interface": {"type": "str", "required": True},
        "netns": {"type": "str"},
        "prog": {"type": "str"},
        "link": {"type": "str"},
        "mode": {
            "type": "str",
            "choices": ["auto", "native", "generic", "offload"],
            "default": "auto",
        },
        "force": {"type": "bool", "default": False},
        "priority": {"type": "int"},
    },
    "required_if": [("state", "present", ("prog",))],
}

_LB_BACKEND: Options = {
    "address": {"type": "str", "required": True},
    "port": {"type": "int"},
    "weight": {"type": "int", "default": 1},
    "state": {"type": "str", "choices": ["active", "draining", "disabled"], "default": "active"},
}
_LB_SERVICE: Options = {
    "name": {"type": "str", "required": True},
    "vip": {"type": "str", "required": True},
    "port": {"type": "str", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "forwarding": {"type": "str", "choices": ["nat", "dsr", "ipip"], "required": True},
    "scheduler": {"type": "str", "choices": ["maglev"], "default": "maglev"},
    "affinity": {"type": "str", "choices": ["flow", "source"], "default": "flow"},
    "health_check": {"type": "dict"},
    "backends": {"type": "list", "elements": "dict", "default": [], "options": _LB_BACKEND},
}
XDP_LB_SERVICES: Options = {
    "argument_spec": {
        **COMMON,
        "pin_dir": {"type": "path", "default": "xdp_lb"},
        "netns": {"type": "str"},
        "services": {"type": "list", "elements": "dict", "default": [], "options": _LB_SERVICE},
        "sources": {
            "type": "dict",
            "default": {},
            "options": {"ipv4": {"type": "str"}, "ipv6": {"type": "str"}},
        },
        "nat_ports": _numbers(first=1024, last=32767),
        "idle_timeout": _numbers(tcp=7440, udp=300),
        "udp_grace": {"type": "int", "default": 60},
    }
}

XDP_LB_BACKEND: Options = {
    "argument_spec": {
        **COMMON,
        "services": {"type": "list", "elements": "dict", "default": []},
        "unpack": {"type": "str", "choices": ["device", "none"], "default": "device"},
        "mss": {"type": "bool", "default": True},
        "record": {"type": "path", "default": "/var/lib/ebpf-fleet/xdp_lb_backend.json"},
    }
}

_EXPECT: Options = {
    "verdict": {"type": "str"},
    "data": {"type": "str"},
    "unchanged": {"type": "bool"},
}
_PACKET: Options = {
    "name": {"type": "str"},
    "data": {"type": "str"},
    "pcap": {"type": "path"},
    "expect": {"type": "dict", "options": _EXPECT},
}
BPF_TEST_RUN: Options = {
    "argument_spec": {
        "prog": {"type": "path", "required": True},
        "packets": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": _PACKET,
            "mutually_exclusive": [("data", "pcap")],
            "required_one_of": [("data", "pcap")],
        },
        "repeat": {"type": "int", "default": 1},
    }
}

# A file that belongs to a release; there is no module of its own, ansible.builtin.copy is that.
CONFIG_FILE: Options = {
    "argument_spec": {
        **COMMON,
        "path": {"type": "path", "required": True},
        "content": {"type": "str"},
        "mode": {"type": "raw", "default": "0644"},
    },
    "required_if": [("state", "present", ("content",))],
}

RESOURCES: Mapping[str, Options] = {
    "bpffs": BPFFS,
    "bpf_map_entries": BPF_MAP_ENTRIES,
    "bpf_map_pin": BPF_MAP_PIN,
    "bpf_prog": BPF_PROG,
    "bpf_test_run": BPF_TEST_RUN,
    "cgroup_attach": CGROUP_ATTACH,
    "config_file": CONFIG_FILE,
    "sockmap_attach": SOCKMAP_ATTACH,
    "tc_attach": TC_ATTACH,
    "xdp_attach": XDP_ATTACH,
    "xdp_lb_backend": XDP_LB_BACKEND,
    "xdp_lb_services": XDP_LB_SERVICES,
}

# What the stack itself says, and a resource of it therefore cannot.
OF_THE_STACK: Mapping[str, tuple[str, ...]] = {
    name: tuple(
        option
        for option in ("lock_timeout", "stack", "release")
        if option in specification["argument_spec"]
    )
    for name, specification in RESOURCES.items()
}


BPF_STACK: Options = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "state": COMMON["state"],
        "release": {"type": "str"},
        "resources": {"type": "list", "elements": "dict", "default": []},
        "drain": {"type": "list", "elements": "dict", "default": []},
        "prune": {"type": "bool", "default": True},
        "boot": {"type": "str", "choices": ["early", "network", "never"], "default": "early"},
        "confirm": {"type": "str", "choices": ["now", "later"], "default": "now"},
        "confirm_timeout": {"type": "int", "default": 60},
        "keep": {"type": "int", "default": 5},
        "lock_timeout": LOCK_TIMEOUT,
    }
}

BPF_RELEASE: Options = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "release": {"type": "str"},
        "state": {
            "type": "str",
            "choices": ["active", "withdrawn", "confirmed", "absent"],
            "default": "active",
        },
        "keep": {"type": "int"},
        "lock_timeout": LOCK_TIMEOUT,
    },
    "required_if": [
        ("state", "active", ("release",)),
        ("state", "withdrawn", ("release",)),
        ("state", "confirmed", ("release",)),
    ],
}


def file_option(resource: str, params: Mapping[str, Any]) -> str:
    """The option that names a file to send with the resource, "" when nothing is to be sent."""
    if resource != "bpf_prog" or params.get("state") == "absent" or params.get("remote_src"):
        return ""
    return next((option for option in ("object", "source") if params.get(option)), "")
