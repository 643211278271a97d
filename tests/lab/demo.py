# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make lab` shows: converge, converge again, verify, measure, load, leave it at work."""

from __future__ import annotations

import json
import time

import balancing
import fabric
import figures
import plays
from layout import FIGURES, SSH_CONFIG, WEB
from plays import must_change_nothing, output, play, summary
from progress import step

NOTES = """
Medians of {rounds} rounds. {plain} is plain (a new host, never accelerated), {accelerated} is
accelerated, {rolled_back} is rolled back; the three were measured in turn, never at once, in an
order that changed with each round. What wrk and nginx say to each other stays on TCP in all three,
and is part of the bytes over lo."""

UNDER_LOAD = """
Clients ask all services the whole time, over connections that each live for half a second, and ask
again when one breaks. failed: requests given up. broken: connections that ended before their time,
which those to a server that is killed must. refused: attempts to connect that came to nothing."""

NEXT = f"""
The lab is up and at work. Try:
  ssh -F {SSH_CONFIG} web1
      and there: bpftool prog show; bpftool cgroup tree /sys/fs/cgroup; curl -i localhost:8080
  ssh -F {SSH_CONFIG} client1 curl -si http://192.0.2.10/
  export ANSIBLE_CONFIG=tests/lab/ansible.cfg PATH=$PWD/.venv/bin:$PATH
  ansible-playbook ebpf.fleet.site --check --diff
      after an edit in playbooks/inventories/lab/group_vars/
  ansible-playbook ebpf.fleet.drain -e backend=10.78.1.33
  ansible-playbook ebpf.fleet.verify      prove that the stack is bypassed and every backend answers
  ansible-playbook ebpf.fleet.drift       say what is not as declared, host by host
  make report                             all of it on one page, with the figures above
  ansible-playbook ebpf.fleet.rollback    say to what one can go back; -e to=none takes everything away
  make lab-down                           leave no trace"""


def run() -> None:
    begin = time.monotonic()
    plain, accelerated, rolled_back = WEB
    with step("ten hosts: namespaces, sshd, nginx"):
        fabric.up()
    with step("site.yml") as result:
        result.text = summary(play("site"))
    with step("site.yml again") as result:
        recaps = play("site")
        must_change_nothing(recaps)
        result.text = summary(recaps)
    with step("verify.yml") as result:
        play("verify")
        result.text = "data bypasses the stack, every backend answers"
    with step(f"{plain.name} made anew; rollback.yml on {rolled_back.name}") as result:
        fabric.again(plain)
        result.text = summary(play("rollback", rolled_back.name, "-e", "to=none"))
    with step("nginx restarted everywhere: new connections only"):
        figures.prepare(WEB)
    states = {"plain": plain, "accelerated": accelerated, "rolled back": rolled_back}
    table = figures.measure(states)
    keep(table)
    with step("site.yml: all three accelerated") as result:
        result.text = summary(play("site", "sockmap_accelerator"))
    under_load = balancing.show()
    with step("drift.yml") as result:
        drift = plays.table(output("drift"), "host", "what", "state")
        result.text = "nothing has drifted"
    print()
    print("\n".join(figures.render(table)))
    print(
        NOTES.format(
            rounds=figures.ROUNDS,
            plain=plain.name,
            accelerated=accelerated.name,
            rolled_back=rolled_back.name,
        )
    )
    print()
    print("\n".join(under_load))
    print(UNDER_LOAD)
    print("\ndrift.yml:\n" + "\n".join(drift))
    print(NEXT)
    print(f"\n{time.monotonic() - begin:.0f} s in all.")


def keep(table: figures.Table) -> None:
    """For `make report`, for as long as the lab is up."""
    title = f"The lab's services, medians of {figures.ROUNDS} rounds."
    note = "Measured in turn on three hosts that share this machine's processors."
    text = json.dumps(figures.document(table, title, note), indent=1)
    FIGURES.write_text(f"{text}\n", encoding="utf-8")
