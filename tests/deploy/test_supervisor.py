"""Processes that are kept running: started again when they end by themselves, and gone when nobody wants them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.cluster import control
from deploy.cluster.cluster import Cluster, missing_packages
from deploy.cluster.site import Ports
from deploy.cluster.supervisor import Kept, State, Supervisor
from deploy.programs import NotInstalled, NotStarted, Program

FOREVER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "It did not come true."
        time.sleep(0.02)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(said.append)
    yield supervisor
    supervisor.end(supervisor.all())
    supervisor.close()


def kept(folder: Path, command: list[str] = FOREVER, name: str = "one") -> Kept:
    """Ready as soon as it has said something."""
    log = folder / f"{name}.log"
    return Kept(name, "kind", lambda: Program(name, command, folder, log, lambda: log.stat().st_size > 0))


def test_process_that_is_killed_is_started_again_and_that_is_said(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    one = kept(tmp_path)
    supervisor.add(one)
    supervisor.wait()
    before = one.pid
    one.kill()
    wait_for(lambda: one.restarts == 1 and one.state is State.READY)
    assert one.pid not in {before, None}
    assert said == ["one ended with code -9; starting it again in 0.5 s.", "one is ready again."]


def test_process_that_keeps_failing_is_waited_for_longer_and_longer(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    supervisor.add(kept(tmp_path, [sys.executable, "-S", "-c", "raise SystemExit('no such book')"]))
    with pytest.raises(NotStarted, match="no such book"):
        supervisor.wait()
    assert [line.rpartition(" in ")[2] for line in said[:3]] == ["0.5 s.", "1 s.", "2 s."]


def test_what_goes_wrong_with_one_process_ends_no_other(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    sound, broken = kept(tmp_path), kept(tmp_path, name="two")
    looks = iter([True])

    def make(make: Callable[[], Program] = broken.make) -> Program:
        if next(looks, False):
            raise ValueError("a file says nonsense")
        return make()

    broken.make = make
    supervisor.add(sound)
    supervisor.add(broken)
    supervisor.wait()
    assert said == ["two cannot be started: a file says nonsense; starting it again in 0.5 s."]
    assert sound.pid is not None


def test_process_that_cannot_be_asked_ends_no_other(supervisor: Supervisor, said: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    asked = iter([ValueError("no answer is that long")])

    def is_ready() -> bool:
        for error in asked:
            raise error
        return log.stat().st_size > 0

    one = Kept("one", "kind", lambda: Program("one", FOREVER, tmp_path, log, is_ready))
    supervisor.add(one)
    supervisor.wait()
    assert said == ["one cannot be looked after: no answer is that long"]
    assert one.restarts == 0


def test_process_that_was_ended_stays_so(supervisor: Supervisor, tmp_path: Path) -> None:
    one, two = kept(tmp_path), kept(tmp_path, name="two")
    supervisor.add(one)
    supervisor.add(two)
    supervisor.wait()
    supervisor.end([one])
    two.kill()
    wait_for(lambda: two.restarts == 1)  # the supervisor has been round since
    assert (one.state, one.pid, one.restarts) == (State.ENDED, None, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Other kernels do not end children with their parent.")
def test_supervisor_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys; from tests.deploy.test_supervisor import *\n"
        "supervisor = Supervisor(); supervisor.add(kept(pathlib.Path(sys.argv[1]))); supervisor.wait()\n"
        "print(supervisor['one'].pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    child.wait(10)


def test_ports_are_the_same_at_the_next_start(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json", {"gateway": 8080})
    ports = {name: first[name] for name in ("gateway", "postgres", "api-1")}
    assert ports["gateway"] == 8080
    assert len(set(ports.values())) == 3
    again = Ports(tmp_path / "ports.json", {"gateway": 8081})
    assert again["postgres"] == ports["postgres"]
    assert again.renew("api-1") != ports["api-1"]
    assert again["gateway"] == 8081


def test_what_is_not_installed_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("deploy.programs.shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("deploy.services.Path.glob", lambda *_: iter(()))
    assert missing_packages() == ["haproxy", "postgresql", "rabbitmq-server", "redis-server"]
    with pytest.raises(NotInstalled) as caught, Cluster(tmp_path):
        pass
    assert caught.value.package == "haproxy postgresql rabbitmq-server redis-server"


def test_another_terminal_is_answered_and_told_how_it_goes(tmp_path: Path) -> None:
    def roll(wish: object, say: object) -> str:
        assert callable(say)
        say("one is new")
        return "done"

    def fail(wish: object, say: object) -> None:
        raise NotStarted("two is not ready")

    heard: list[str] = []
    with pytest.raises(control.NotUp):
        control.ask(tmp_path, "roll")
    with control.listening(tmp_path, {"roll": roll, "fail": fail}):
        assert control.ask(tmp_path, "roll", heard.append) == "done"
        assert heard == ["one is new"]
        with pytest.raises(control.Failed, match="NotStarted: two is not ready"):
            control.ask(tmp_path, "fail")
    with pytest.raises(control.NotUp):
        control.ask(tmp_path, "roll")


def test_note_of_a_cluster_that_was_killed_is_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text('{"socket": "/nowhere/socket"}')
    with pytest.raises(control.NotUp):
        control.ask(tmp_path, "status")
