"""A whole cluster, from nothing to ready and back, with a handle on each of its processes.

    with Cluster(folder, size=Size(workers=4)) as cluster:
        cluster["ingest-1"].kill()          # the supervisor starts it again
        cluster.roll("api")                 # one at a time, without a failed request

For tests and benchmarks as much as for the terminal: it needs no Django, and changes nothing outside of its folder.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from kombu import Connection

from bookapi import key_rotation, queues
from bookapi.key_rotation import Folders
from bookapi.serving import free_port, is_free
from deploy import services
from deploy.cluster import commands, monitoring
from deploy.cluster.site import DATABASE, HOST, Shop, Site
from deploy.cluster.supervisor import Kept, State, Supervisor
from deploy.cluster.topology import BEHIND_GATEWAY, ENDING, ROOT, WORKERS, Size, Topology
from deploy.programs import NotInstalled, NotStarted, find_program

#: What the cluster cannot do without: the program, and the Debian package that brings it. PostgreSQL is looked for
#: where Debian hides it.
PROGRAMS = {
    "rabbitmq-server": "rabbitmq-server",
    "epmd": "rabbitmq-server",
    "redis-server": "redis-server",
    "haproxy": "haproxy",
}


class PortTaken(Exception):
    """Somebody listens at the gateway's port."""


class Cluster:
    """Every process of the topology, ready while the block lasts."""

    def __init__(
        self,
        folder: Path,
        *,
        size: Size | None = None,
        port: int | None = None,
        shop: Shop | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`port` is the gateway's, a free one by default; the others are chosen. Nothing is started yet."""
        self.size = size or Size()
        self.site = Site(folder, port or free_port(), shop or Shop())
        self.topology = Topology(self.site)
        self.supervisor = Supervisor(say)
        self.say = say
        self._generation = 0
        self._changing = threading.Lock()  # one roll or one change of size at a time

    # --- From nothing to ready ----------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        try:
            self.start_services()
            self.prepare()
            self.start_product()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_services(self) -> None:
        """PostgreSQL, RabbitMQ and Redis, ready, and keys. Raises PortTaken, NotInstalled, NotStarted."""
        if not is_free(HOST, self.site.ports["gateway"]):
            raise PortTaken
        if missing := missing_packages():
            raise NotInstalled("A program", " ".join(missing))
        key_rotation.make(Folders(self.site.public_keys, self.site.private_keys))
        self._add_and_wait(self.topology.services())

    def prepare(self) -> None:
        """Database with its tables, queues. What is there already stays. Raises NotStarted."""
        services.make_database(f"{self.site.database_url.removesuffix(DATABASE)}postgres", DATABASE)
        with Connection(self.site.broker_url) as link:
            queues.declare(link)
        self.manage("migrate", "--no-input", "--verbosity", "0")

    def start_product(self) -> None:
        """Everything else, ready. Raises NotStarted."""
        self._add_and_wait(self.topology.product(self.size))
        self.topology.gateway.write(self.topology.backends(self.supervisor.all(*BEHIND_GATEWAY)))
        last = [self.topology.door()]
        if self.size.prometheus:
            last.append(self.topology.prometheus(self.supervisor.all))
        self._add_and_wait(last)

    def _add_and_wait(self, several: list[Kept]) -> None:
        for kept in several:
            self.supervisor.add(kept)
        self.supervisor.wait(several)

    def close(self) -> None:
        """End everything in order. Returns when nothing is left."""
        for kinds in ENDING:
            if several := self.supervisor.all(*kinds):
                self.supervisor.end(several)
        self.supervisor.close()

    # --- What one does with it ----------------------------------------------------------------------------------------
    def __getitem__(self, name: str) -> Kept:
        """The process of that name: "api-1", "ingest-2", "rabbitmq", "postgres"."""
        return self.supervisor[name]

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self.site.gateway

    def override(self, who: str, **variables: str) -> None:
        """Tell one process ("ingest-1") or a kind of them ("ingest") something else, from its next start on."""
        self.topology.overrides[who] = {**self.topology.overrides.get(who, {}), **variables}

    def manage(self, *arguments: str) -> str:
        """What `manage.py` with these arguments prints, asked of this cluster. Raises NotStarted if it fails."""
        done = subprocess.run(
            commands.manage(*arguments),
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotStarted(f"manage.py {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment of a process that belongs to the operator: it may do everything."""
        return {**os.environ, **self.site.signing_environment()}

    def status(self) -> list[dict[str, Any]]:
        """One row a process."""
        return [
            {
                "name": kept.name,
                "kind": kept.kind,
                "address": kept.url,
                "state": kept.state.value,
                "pid": kept.pid,
                "restarts": kept.restarts,
            }
            for kept in self.supervisor.all()
        ]

    # --- Replacing and scaling ----------------------------------------------------------------------------------------
    def roll(self, kind: str, say: Callable[[str], None] = lambda _: None) -> None:
        """Replace every process of a kind, one at a time: the new one is ready before the old one is asked to end.

        Raises KeyError if there is no such kind, NotStarted if a new one is not ready; the old one then stays.
        """
        kind = "ingest" if kind == "workers" else kind
        if kind not in BEHIND_GATEWAY and kind not in WORKERS:
            raise KeyError(kind)
        with self._changing:
            for old in self.supervisor.all(kind):
                self._replace(old)
                say(f"{old.name} is a new process.")

    def _replace(self, old: Kept) -> None:
        self._generation += 1
        number = int(old.name.rpartition("-")[2])
        new = self.topology.one(old.kind, number, self._generation)
        new.name = f"{old.name} (new)"
        self.supervisor.add(new)
        try:
            self.supervisor.wait([new])
        except NotStarted:
            self.supervisor.remove(new.name)
            raise
        self.supervisor.swap(new, old)
        self._tell_gateway()
        self.supervisor.end([old])

    def scale(self, workers: int) -> None:
        """Have so many ingest workers. One that goes finishes what it has begun. Raises NotStarted."""
        with self._changing:
            there = self.supervisor.all("ingest")
            self._add_and_wait([self.topology.one("ingest", n) for n in range(len(there) + 1, workers + 1)])
            self.supervisor.end(there[workers:])
            for kept in there[workers:]:
                self.supervisor.remove(kept.name)

    def _tell_gateway(self) -> None:
        """Let the gateway ask those that are ready now. Without a dropped request."""
        several = [kept for kept in self.supervisor.all(*BEHIND_GATEWAY) if kept.state is State.READY]
        self.topology.gateway.write(self.topology.backends(several))
        if (process := self["gateway"].process) is not None:
            self.topology.gateway.reload(process)
        if self.size.prometheus:
            monitoring.write_targets(self.site, several)


def missing_packages() -> list[str]:
    """The Debian packages of programs that are not on this machine."""
    missing = {package for program, package in PROGRAMS.items() if not _is_there(program, package)}
    with suppress(NotInstalled):
        services.find_postgres()
        return sorted(missing)
    return sorted(missing | {"postgresql"})


def _is_there(program: str, package: str) -> bool:
    try:
        find_program(program, package)
    except NotInstalled:
        return False
    return True
