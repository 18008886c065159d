"""Which of the parallel processes runs which tests."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from xdist.remote import Producer

from tests.conftest import Spread

IDS = [
    "tests/gateway/test_a.py::test_x",
    "tests/system/test_b.py::test_x",
    "tests/gateway/test_c.py::test_x[/@]",
    "tests/system/test_b.py::test_y",
    *["tests/bookapi/test_d.py::test_of_the_schema"] * 30,
    *[f"tests/catalog/test_e.py::test_{number}" for number in range(30)],
]


class Process:
    """What the scheduler sees of a process: tests are sent to it, by their places in the collection."""

    shutting_down = False
    gateway = SimpleNamespace(id="")

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        self.ran: list[int] = []

    def send_runtest_some(self, places: list[int]) -> None:
        self.waiting.extend(places)

    def shutdown(self) -> None:
        self.shutting_down = True


def test_each_test_is_run_once_though_some_share_an_id_and_what_belongs_together_by_one_process() -> None:
    config: Any = SimpleNamespace(getvalue=lambda _: ["popen", "popen"], option=SimpleNamespace(loadscopereorder=False))
    spread = Spread(config, Producer("", enabled=False))
    processes = [Process(), Process()]
    for process in processes:
        spread.add_node(process)
    for process in processes:
        spread.add_node_collection(process, IDS)
    spread.schedule()
    while any(process.waiting for process in processes):
        for process in processes:
            if process.waiting:
                process.ran.append(process.waiting.popleft())
                spread.mark_test_complete(process, process.ran[-1])
    assert sorted(place for process in processes for place in process.ran) == list(range(len(IDS)))
    assert [{0, 2} <= set(process.ran) for process in processes].count(True) == 1
    assert [{1, 3} <= set(process.ran) for process in processes].count(True) == 1
    assert min(len(process.ran) for process in processes) > 20
