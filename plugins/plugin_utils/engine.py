# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a conversation with the engine on a host.

One request goes out as the arguments of a small module. A host that lacks the engine or an object
says so before anything else, and gets exactly that, once. What it has it is asked for by digest
alone, so that nothing is sent to an unchanged host.
"""

from __future__ import annotations

import getpass
import hashlib
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.ebpf.fleet.plugins.module_utils.options import file_option
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.object import (
    Source,
    content_of,
)

from .objects import prepared
from .resources import normalised, unexpanded

ENGINE = Path(__file__).resolve().parents[2] / "roles" / "host" / "files" / "ebpf-fleet.pyz"
_RETRY_SECONDS = 1
_OF_THE_TRANSPORT = ("lacks", "invocation")


@dataclass(frozen=True)
class Blob:
    """What a host may lack, and the file that it comes from."""

    path: str
    content: bytes


Blobs = dict[str, Blob]  # by SHA-256, in hex


class EngineAction(ActionBase):
    """An action whose work is done by the engine. ``_converse`` says what to ask it for.

    TRANSFERS_FILES stays False: a directory is made on the target only when something is sent.
    """

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            result.update(self._converse(task_vars or {}))
        except Failure as failure:
            result.update(failed=True, msg=str(failure), **failure.details)
        return result

    def cleanup(self, force: bool = False) -> None:
        """Remove what was sent, unless the release has cut the host off until it reverts."""
        try:
            super().cleanup(force)
        except AnsibleConnectionFailure as error:
            self._display.warning(f"{self._connection._shell.tmpdir} stays on the host: {error}")

    def _converse(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Ask the engine. Raises Failure, AnsibleError."""
        raise NotImplementedError

    def _options(self, specification: Mapping[str, Any]) -> dict[str, Any]:
        """The task's own options, validated."""
        arguments = unexpanded(specification["argument_spec"])
        _checked, options = self.validate_argument_spec(
            arguments, required_if=specification.get("required_if")
        )
        return dict(options)

    def _resources(self, option: str, listed: list[Any], blobs: Blobs) -> list[Any]:
        """The resources as a manifest has them; what they load is added to ``blobs``."""
        found = []
        for where, kind, params in normalised(option, listed):
            try:
                found.append({kind: self._by_digest(kind, params, blobs)})
            except Failure as failure:
                raise Failure(f"{where}: {failure}", **failure.details) from failure
        return found

    def _by_digest(self, kind: str, params: dict[str, Any], blobs: Blobs) -> dict[str, Any]:
        """The options with a file of the controller replaced by ``sha256:`` and its digest."""
        option = file_option(kind, params)
        if not option:
            return params
        find = partial(self._find_needle, "files")
        with prepared(option, params, find, self._loader) as file:
            expected = "" if file.is_compiled else params["sha256"] or ""
            content = content_of(Source(file.local, sha256=expected))
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = Blob(file.found, content)
        known = {**params, option: None, "sha256": None, file.option: f"sha256:{digest}"}
        return {**known, "compiler": "clang", "cflags": None} if file.is_compiled else known

    def _ask(
        self, request: dict[str, Any], blobs: Blobs, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """The engine's answer; what the host lacks of ``blobs`` and of the engine is sent."""
        program = engine()
        digest = hashlib.sha256(program.content).hexdigest()
        arguments = {"engine": digest, "objects": sorted(blobs), "request": request}
        answer = self._run_engine(arguments, task_vars)
        if answer.get("lacks"):
            directory = self._send(answer["lacks"], {**blobs, digest: program})
            answer = self._run_engine({**arguments, "blobs": directory}, task_vars)
        if answer.get("lacks"):
            raise Failure(f"the host did not keep what was sent to it: {answer['lacks']}")
        if "msg" in answer:
            answer["msg"] = _by_name(answer["msg"], blobs)
        return {key: value for key, value in answer.items() if key not in _OF_THE_TRANSPORT}

    def _run_engine(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="ebpf.fleet.bpf_engine", module_args=arguments, task_vars=task_vars
        )
        return answer

    def _send(self, lacks: list[str], blobs: Blobs) -> str:
        """A directory on the host with what it lacks, each file named by its digest."""
        unknown = [digest for digest in lacks if digest not in blobs]
        if unknown:
            raise Failure(
                f"the host's store has lost {', '.join(unknown)}, and this task does not have it "
                "either; deploy the release again with ebpf.fleet.bpf_stack"
            )
        directory: str = self._make_tmp_path()
        sent = [self._connection._shell.join_path(directory, digest) for digest in lacks]
        for digest, path in zip(lacks, sent):
            self._transfer_data(path, blobs[digest].content)
        self._fixup_perms2((directory, *sent), execute=False)
        return directory

    def _confirm(
        self, name: str, answer: dict[str, Any], patience: float, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """The answer, after a new connection to the host has confirmed the release in it.

        A connection that cannot be made is tried again for ``patience`` seconds.
        """
        end = time.monotonic() + patience
        release = answer["release"]
        request = {"do": "confirm", "name": name, "release": release}
        told = datetime.fromtimestamp(answer["confirm_by"], timezone.utc)
        reverts = (
            f"the host reverts to what it ran before by itself at {told:%Y-%m-%d %H:%M:%S} UTC"
        )
        while True:
            try:
                self._connection.reset()
                confirmed = self._ask(request, {}, task_vars)
                break
            except AnsibleConnectionFailure as error:
                if time.monotonic() + _RETRY_SECONDS >= end:
                    said = f"no new connection could be made to confirm release {release}"
                    return {**answer, "failed": True, "msg": f"{said}, {reverts}: {error}"}
                time.sleep(_RETRY_SECONDS)
        if confirmed.get("failed"):
            said = f"release {release} could not be confirmed, {reverts}"
            return {**answer, "failed": True, "msg": f"{said}: {confirmed.get('msg')}"}
        return {key: value for key, value in answer.items() if key != "confirm_by"}


def _by_name(text: str, blobs: Blobs) -> str:
    """A message of the host with each object called as the operator calls it."""
    for digest, blob in blobs.items():
        text = re.sub(rf"[^\s'\"]*/{digest}", lambda _found, name=blob.path: name, text)
    return text


def engine() -> Blob:
    """The program that does the work on a host. Raises Failure when it was not built."""
    try:
        return Blob(str(ENGINE), ENGINE.read_bytes())
    except FileNotFoundError as error:
        raise Failure(
            f"{ENGINE} is missing: a checkout of the collection has to be built first (make -C bpf)"
        ) from error


def this_run() -> dict[str, str]:
    """Who asks: what a release on a host remembers of the run that brought it."""
    playbooks = context.CLIARGS.get("args") or ()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for the user id, as in some containers
        user = ""
    return {
        "controller": socket.gethostname(),
        "user": user,
        "playbook": "" if isinstance(playbooks, str) else ", ".join(playbooks),
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
