# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as lines whose columns are aligned."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.ebpf.fleet.plugins.filter.table import table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [["web1", 7, "in sync"], ["web10", None, ""]]
    assert table(rows, ["host", "n", ""]) == [
        "host   n",
        "web1   7     in sync",
        "web10  None",
    ]


def test_no_rows_are_no_lines_or_the_header_alone() -> None:
    assert table([]) == []
    assert table([], ["host"]) == ["host"]


def test_rows_have_the_same_number_of_cells() -> None:
    with pytest.raises(AnsibleFilterError, match="number of cells"):
        table([["a"], ["b", "c"]])
