"""Where a cluster lives: its folder, its ports, and what its processes are told about each other."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bookapi.serving import free_port, is_free

HOST = "127.0.0.1"
DATABASE = "books"


@dataclass(frozen=True)
class Shop:
    """The shop to read. Without an address: the practice shop, with so many books."""

    name: str = "practice-shop"
    url: str = ""
    books: int = 1000


class Ports:
    """A port for every name: free ones at first, and the same ones at the next start if they are free still."""

    def __init__(self, file: Path, given: Mapping[str, int]) -> None:
        self._file = file
        self._known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        self._checked = dict(given)
        self._known.update(given)

    def __getitem__(self, name: str) -> int:
        if name not in self._checked:
            known = self._known.get(name)
            taken = set(self._checked.values())
            good = known is not None and known not in taken and is_free(HOST, known)
            self._checked[name] = known if good and known is not None else self._another(taken)
            self._save()
        return self._checked[name]

    def renew(self, name: str) -> int:
        """Another port for the same name: what listens at the old one goes on for a while."""
        self._checked[name] = self._another(set(self._checked.values()))
        self._save()
        return self._checked[name]

    @staticmethod
    def _another(taken: set[int]) -> int:
        while (port := free_port()) in taken:
            pass
        return port

    def _save(self) -> None:
        self._known.update(self._checked)
        self._file.write_text(json.dumps(self._known, indent=1))


class Site:
    """A folder with everything that the cluster keeps, and the addresses of its parts.

    Everybody may enter the folder, because PostgreSQL refuses to run as root; secrets in it are for the owner alone.
    """

    def __init__(self, folder: Path, port: int, shop: Shop) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = Ports(self.folder / "ports.json", {"gateway": port})
        self.shop = shop

    # --- Addresses ----------------------------------------------------------------------------------------------------
    @property
    def gateway(self) -> str:
        return f"http://{HOST}:{self.ports['gateway']}"

    @property
    def database_url(self) -> str:
        return f"postgres://postgres@{HOST}:{self.ports['postgres']}/{DATABASE}"

    @property
    def broker_url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.ports['rabbitmq']}/"

    @property
    def shop_url(self) -> str:
        return self.shop.url or f"http://{HOST}:{self.ports['shop']}"

    # --- What is kept -------------------------------------------------------------------------------------------------
    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def public_keys(self) -> Path:
        return self.folder / "keys" / "public"

    @property
    def private_keys(self) -> Path:
        return self.folder / "keys" / "private"

    @property
    def metrics_token_file(self) -> Path:
        return self.folder / "metrics_token"

    @property
    def metrics_token(self) -> str:
        """What Prometheus shows to read measurements."""
        file = self.metrics_token_file
        if not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as secret:
                secret.write(secrets.token_urlsafe(32))
        return file.read_text()

    # --- What processes are told --------------------------------------------------------------------------------------
    def environment(self, *, shop: bool = True) -> dict[str, str]:
        """For every process of the product; VAR_DIR puts models, spool, logs of jobs and the secret into the folder."""
        loopback = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST, "localhost")))
        return {
            "VAR_DIR": str(self.folder),
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "CACHE_URL": f"redis://{HOST}:{self.ports['redis']}/0",
            "RECOMMENDER_URL": f"http://{HOST}:{self.ports['predictions']}",
            "ARTIFACT_STORE": str(self.folder / "models"),
            "JWT_PUBLIC_KEYS": str(self.public_keys),
            "JWT_PRIVATE_KEYS": "",  # whatever whoever starts them has
            "PUBLIC_URL": self.gateway,
            "TRUSTED_PROXIES": "1",
            "RATE_LIMIT_ACCOUNT": "off",  # the gateway counts, once for all replicas
            "RATE_LIMIT_ADDRESS": "off",
            "METRICS_TOKEN": self.metrics_token,
            **({"SHOP_NAME": self.shop.name, "SHOP_URL": self.shop_url} if shop else {}),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "INFO",
            "NO_PROXY": loopback,
            "no_proxy": loopback,
        }

    def signing_environment(self, *, shop: bool = True) -> dict[str, str]:
        """For the authentication service alone, and for whoever makes the keys."""
        return {**self.environment(shop=shop), "JWT_PRIVATE_KEYS": str(self.private_keys)}
