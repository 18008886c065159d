"""The API gateway as a local program: HAProxy with the configuration that containers use, before local addresses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bookapi.processes import Child
from bookapi.serving import free_port
from deploy.programs import LOOK_S, START_S, NotStarted, Program, end_of, find_program, says_ok

CONFIGURATION = Path(__file__).with_name("haproxy.cfg")
#: Where the applications are in containers. Local ones get a file of their own.
CONTAINERS = Path(__file__).with_name("backends.cfg")


class Refused(Exception):
    """HAProxy does not accept its configuration; the message is its own."""


def render_backends(*, auth: Sequence[str], api: Sequence[str], admin: Sequence[str]) -> str:
    """The second file of the configuration, for servers at these addresses ("127.0.0.1:8001")."""
    lines: list[str] = []
    for name, addresses in {"auth": auth, "api": api, "admin": admin}.items():
        # Named by their address: a line of the log says who answered, and a reload knows who is still there.
        lines += [f"backend {name}", *(f"    server {address} {address}" for address in addresses), ""]
    return "\n".join(lines)


def check(backends: Path, environment: Mapping[str, str]) -> None:
    """Return if HAProxy would start with it, without a warning. Raises Refused, NotInstalled."""
    done = subprocess.run(
        [*_haproxy(backends), "-c"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    if done.returncode or "[WARNING]" in done.stderr:
        raise Refused(done.stderr.strip())


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway on loopback. Its log has a line of JSON for every request, between HAProxy's own words."""

    folder: Path
    keys: Path  # the folder of the three public keys
    certificate: Path | None = None  # chain and key in one file
    settings: Mapping[str, str] = field(default_factory=dict)  # variables of haproxy.cfg
    port: int = field(default_factory=free_port)
    internal_port: int = field(default_factory=free_port)  # metrics and health of the gateway itself
    tls_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    @property
    def backends(self) -> Path:
        return self.folder / "backends.cfg"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "JWT_PUBLIC_KEYS": str(self.keys),
            "GATEWAY_BIND": f"127.0.0.1:{self.port}",
            "GATEWAY_INTERNAL_BIND": f"127.0.0.1:{self.internal_port}",
            "GATEWAY_TLS_BIND": f"127.0.0.1:{self.tls_port}",
            **({"GATEWAY_CERTIFICATE": str(self.certificate)} if self.certificate else {}),
            **self.settings,
        }

    def write(self, backends: str) -> None:
        """Put the servers of `render_backends` where it reads them. Raises Refused, and then nothing is changed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.backends.with_suffix(".draft")
        draft.write_text(backends)
        check(draft, self.environment)
        draft.replace(self.backends)

    def program(self) -> Program:
        """What runs it, after `write`. It is ready when a server can be asked. Raises NotInstalled."""
        return Program(
            "gateway",
            [*_haproxy(self.backends), "-W"],
            self.folder,
            self.log,
            lambda: says_ok(self.internal_port, "/health/ready"),
            self.url,
            environment=self.environment,
        )

    def reload(self, process: Child) -> None:
        """Go on with what the files say now: servers, keys, configuration. No request is dropped.

        Raises Refused, and then it goes on as it was; NotStarted.
        """
        check(self.backends, self.environment)
        loaded = self._loaded()
        process.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + START_S
        while self._loaded() == loaded:
            if process.code is not None or time.monotonic() > deadline:
                raise NotStarted(f"the gateway was not reloaded: {end_of(self.log)}")
            time.sleep(LOOK_S / 5)

    def _loaded(self) -> int:
        return self.log.read_bytes().count(b"Loading success")


@contextmanager
def running(gateway: Gateway, backends: str) -> Iterator[Child]:
    """The gateway before these servers, ready, until the block ends. Raises NotInstalled, NotStarted, Refused."""
    gateway.write(backends)
    program = gateway.program()
    with program.start() as process:
        program.wait(process)
        yield process


def _haproxy(backends: Path) -> list[str]:
    return [find_program("haproxy", "haproxy"), "-f", str(CONFIGURATION), "-f", str(backends)]
