# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text, and how often collectors are asked: no host is needed."""

from __future__ import annotations

import subprocess
import time

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.metrics import exporter, family, pace
from ansible_collections.ebpf.fleet.plugins.module_utils.metrics.family import (
    Family,
    counter,
    gauge,
    render,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure


def test_promtool_takes_the_text_with_any_label() -> None:
    odd = gauge("odd", 'Says "so"\nand \\so.')
    odd.add(0.25, path='C:\\ "x"\n', other="ä")
    odd.add(-1, path="", other="")
    many = counter("sent_bytes_total", "Bytes.")
    many.add(2**53 - 1)
    text = render([odd, gauge("nothing", "None."), many])
    assert 'ebpf_fleet_odd{path="C:\\\\ \\"x\\"\\n",other="ä"} 0.25\n' in text
    assert "ebpf_fleet_sent_bytes_total 9007199254740991\n" in text
    assert "nothing" not in text
    subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


def test_of_states_one_is_true() -> None:
    state = gauge("state", "One.")
    state.states("b", ("a", "b"), "state", of="x")
    assert [sample.value for sample in state.samples] == [0.0, 1.0]


@pytest.mark.parametrize("text", ["9435", ":9435", "127.0.0.1", "127.0.0.1:0", "h:65536", "h:http"])
def test_a_place_is_an_address_and_a_port(text: str) -> None:
    with pytest.raises(Failure, match="ADDRESS:PORT"):
        exporter.place(text)


def test_places() -> None:
    assert exporter.place("127.0.0.1:9435") == ("127.0.0.1", 9435)
    assert exporter.place("[::1]:80") == ("::1", 80)


def told(found: list[Family], name: str) -> float:
    return next(each for each in found if each.name == name).samples[0].value


def collected(paced: pace.Pace) -> list[Family]:
    paced.renew(slow=False)
    return paced.told()


class Work:
    """A collector that counts how often it was asked, and takes processor time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked, self.seconds, self.trouble = 0, seconds, False

    def collect(self) -> list[Family]:
        self.asked += 1
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        if self.trouble:
            raise OSError(5, "nothing there")
        found = gauge("asked", "How often.")
        found.add(self.asked)
        return [found]


def test_who_costs_much_is_asked_seldom() -> None:
    dear, cheap = Work(0.02), Work()
    paced = pace.Pace(
        [pace.Collector("dear", dear.collect), pace.Collector("cheap", cheap.collect)]
    )
    for dummy in range(50):
        collected(paced)
        time.sleep(0.002)
    assert dear.asked == 1
    assert cheap.asked > 1


def test_a_change_is_seen_at_once() -> None:
    work, stamp = Work(), ["a"]
    paced = pace.Pace([pace.Collector("it", work.collect, lambda: tuple(stamp), 3600, rest=0)])
    assert told(collected(paced), "asked") == 1
    assert told(collected(paced), "asked") == 1
    stamp.append("b")
    assert told(collected(paced), "asked") == 2


def test_a_stamp_that_costs_much_is_asked_seldom() -> None:
    work, asked = Work(), []

    def stamp() -> int:
        asked.append(Work(0.02).collect())
        return 0

    paced = pace.Pace([pace.Collector("it", work.collect, stamp, 3600)])
    for dummy in range(50):
        collected(paced)
    assert len(asked) == 1


def test_what_fails_says_so_and_keeps_its_numbers() -> None:
    work = Work()
    paced = pace.Pace([pace.Collector("it", work.collect)])
    assert told(collected(paced), "collector_success") == 1
    work.trouble = True
    time.sleep(0.1)
    found = collected(paced)
    assert told(found, "collector_success") == 0
    assert told(found, "asked") == 1
    assert list(paced.problems()) == ["it: [Errno 5] nothing there"]


def test_a_slow_one_is_not_waited_for() -> None:
    slow, fast = Work(), Work()
    paced = pace.Pace(
        [
            pace.Collector("slow", slow.collect, slow=True),
            pace.Collector("fast", fast.collect),
        ]
    )
    collected(paced)
    assert (slow.asked, fast.asked) == (0, 1)
    assert list(paced.problems()) == ["slow: not collected yet"]
    paced.renew(slow=True)
    assert (slow.asked, fast.asked) == (1, 1)
    assert not list(paced.problems())


def test_prefix_is_everywhere() -> None:
    assert family.PREFIX == "ebpf_fleet_"
