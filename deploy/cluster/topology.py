"""The picture, as processes.

    clients ──► gateway ──► api-1, api-2 … ──► PostgreSQL, Redis
                   │             └──► prediction-1 … (internal) ◄── models, a folder
                   ├──────► auth-1: the same program; alone holds the keys that sign
                   └──────► admin-1: the same program
    beat ──► crawl-1: scrapy ──► RabbitMQ ──► ingest-1, ingest-2 … ──► PostgreSQL
      └────► training-1, upkeep-1
    prometheus looks at all of them

What stands here is which processes there are, and how they find each other. How each is started is in `commands`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bookapi.processes import GRACE_S
from deploy import services
from deploy.cluster import commands, monitoring
from deploy.cluster.site import Site
from deploy.cluster.supervisor import Kept
from deploy.gateway import Gateway, render_backends
from deploy.programs import Program, answers, says_ok

ROOT = Path(__file__).resolve().parents[2]
#: The order in which kinds of processes end: first who starts work, then who does it, then who is asked, then what all
#: stand on. A message that is left waits in the broker for the next start.
ENDING = (
    ("beat",),
    ("crawl", "training"),
    ("ingest", "upkeep"),
    ("gateway",),
    ("api", "auth", "admin", "prediction", "prometheus", "shop"),
    ("rabbitmq", "postgres", "redis"),
    ("epmd",),
)
SERVICES = ("postgres", "epmd", "rabbitmq", "redis")
#: What listens at a port of its own, and moves to another one when it is replaced.
BEHIND_GATEWAY = ("api", "auth", "admin", "prediction")
WORKERS = tuple(commands.QUEUES)
#: Seconds that a worker has to finish what it has begun: a batch, or the end of a crawl, which drains its spool.
DRAIN_S = 60.0


@dataclass(frozen=True)
class Size:
    """How many of each."""

    api: int = 2
    workers: int = 2
    predictions: int = 1
    prometheus: bool = True


class Topology:
    """Makes the processes of a site. `overrides` are variables for one process, by its name, or for a kind of them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.overrides: dict[str, Mapping[str, str]] = {}
        self.gateway = Gateway(
            site.folder / "gateway",
            site.public_keys,
            settings={"GATEWAY_PUBLIC_READ": os.environ.get("PUBLIC_READ", "false"), **_limits()},
            port=site.ports["gateway"],
            internal_port=site.ports["gateway-internal"],
            tls_port=site.ports["gateway-tls"],
        )

    # --- What the product stands on -----------------------------------------------------------------------------------
    def services(self) -> list[Kept]:
        folder, ports = self.site.folder, self.site.ports
        return [
            Kept("postgres", "postgres", lambda: services.postgres_program(folder / "postgres", ports["postgres"])),
            Kept("epmd", "epmd", lambda: services.epmd_program(folder / "rabbitmq", ports["epmd"])),
            Kept("rabbitmq", "rabbitmq", self._rabbitmq),
            Kept("redis", "redis", lambda: services.redis_program(folder / "redis", ports["redis"])),
        ]

    def _rabbitmq(self) -> Program:
        ports = self.site.ports
        folder = self.site.folder / "rabbitmq"
        return services.rabbitmq_program(folder, ports["rabbitmq"], ports["epmd"], ports["rabbitmq-metrics"])

    # --- The product --------------------------------------------------------------------------------------------------
    def product(self, size: Size) -> list[Kept]:
        several = [("api", size.api), ("prediction", size.predictions), ("ingest", size.workers)]
        kept = [self.one(kind, number) for kind, count in several for number in range(1, count + 1)]
        kept += [self.one(kind, 1) for kind in ("auth", "admin", "crawl", "training", "upkeep")]
        kept += [Kept("beat", "beat", lambda: self._ours("beat", "beat", commands.beat()))]
        if not self.site.shop.url:
            kept.append(Kept("shop", "shop", self._shop))
        return kept

    def one(self, kind: str, number: int, generation: int = 0) -> Kept:
        """One of several. A later `generation` takes the place of an earlier one, and both run for a moment."""
        name = f"{kind}-{number}"
        if kind in WORKERS:
            return Kept(name, kind, lambda: self._worker(kind, name, generation))
        make = self._prediction if kind == "prediction" else self._server
        port = self.site.ports.renew(name) if generation else self.site.ports[name]
        return Kept(name, kind, lambda: make(kind, name, port))

    def _server(self, kind: str, name: str, port: int) -> Program:
        return self._ours(
            name, kind, commands.api(port), ready=lambda: says_ok(port, "/api/v1/health/ready"), port=port
        )

    def _prediction(self, kind: str, name: str, port: int) -> Program:
        # Alive is enough: before the first training there is no model, and the API answers without one.
        return self._ours(name, kind, commands.prediction(port), ready=lambda: says_ok(port, "/health/live"), port=port)

    def _worker(self, kind: str, name: str, generation: int) -> Program:
        node = f"{name}.{generation}" if generation else name
        log = self.site.logs / f"{name}.log"
        before = log.stat().st_size if log.exists() else 0
        ready = partial(_said, log, before, f"{node}@", " ready.")
        return self._ours(name, kind, commands.worker(kind, node), ready=ready, grace_s=DRAIN_S)

    def _shop(self) -> Program:
        port = self.site.ports["shop"]
        command = commands.practice_shop(port, self.site.shop.books)
        return self._ours("shop", "shop", command, ready=lambda: answers(port), port=port)

    def _ours(
        self,
        name: str,
        kind: str,
        command: list[str],
        *,
        ready: Callable[[], bool] | None = None,
        port: int = 0,
        grace_s: float = GRACE_S,
    ) -> Program:
        environment = self.site.signing_environment() if kind == "auth" else self.site.environment()
        return Program(
            name,
            command,
            ROOT,
            self.site.logs / f"{name}.log",
            ready or (lambda: True),
            f"http://127.0.0.1:{port}" if port else "",
            {**environment, **self.overrides.get(kind, {}), **self.overrides.get(name, {})},
            grace_s=grace_s,
        )

    # --- The door, and who watches ------------------------------------------------------------------------------------
    def door(self) -> Kept:
        return Kept("gateway", "gateway", self.gateway.program)

    def backends(self, several: list[Kept]) -> str:
        """The gateway's second file, for the servers that there are now."""
        at = {
            kind: [kept.url.removeprefix("http://") for kept in several if kept.kind == kind] for kind in BEHIND_GATEWAY
        }
        text = render_backends(auth=at["auth"], api=at["api"], admin=at["admin"])
        return text + _predictions(self.site.ports["predictions"], at["prediction"])

    def prometheus(self, several: Callable[[], list[Kept]]) -> Kept:
        def make() -> Program:
            configuration = monitoring.write(self.site, several())
            folder = self.site.folder / "prometheus"
            return services.prometheus_program(folder, self.site.ports["prometheus"], configuration)

        return Kept("prometheus", "prometheus", make)


def _predictions(port: int, servers: list[str]) -> str:
    """One address for all prediction services, inside: what a platform's service name is in containers."""
    lines = ["", "listen predictions", f"    bind 127.0.0.1:{port}", "    no log", "    no option http-buffer-request"]
    lines += ["    http-check send meth GET uri /health/live ver HTTP/1.1 hdr Host localhost"]
    return "\n".join([*lines, *(f"    server {address} {address}" for address in servers), ""])


def _said(log: Path, after: int, *words: str) -> bool:
    """Whether a line of the log, written since it had `after` bytes, holds all of the words."""
    if not log.exists():
        return False
    with log.open("rb") as lines:
        lines.seek(after)
        return any(all(word.encode() in line for word in words) for line in lines)


def _limits() -> dict[str, str]:
    """Limits of the gateway that whoever starts us has set."""
    return {name: value for name, value in os.environ.items() if name.startswith("GATEWAY_LIMIT_")}
