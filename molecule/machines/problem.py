# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error that every command of this directory ends with."""

from __future__ import annotations


class Problem(Exception):
    """Something the user can act upon; its text says what to do."""
