"""What `make cluster` starts and what the images start are the same programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from deploy.cluster import commands
from deploy.cluster.site import Shop, Site
from deploy.cluster.topology import ENDING, Size, Topology

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
#: What a container has in the place of our interpreter.
HERE = {sys.executable: "python"}


def composed(service: str) -> list[str]:
    command: list[str] = COMPOSE["services"][service]["command"]
    return command


@pytest.mark.parametrize("kind", commands.QUEUES)
def test_workers_are_started_alike(kind: str) -> None:
    assert composed(kind) == [HERE.get(part, part) for part in commands.worker(kind, kind)]


def test_schedule_is_started_alike() -> None:
    assert composed("beat") == [HERE.get(part, part) for part in commands.beat()]


def test_everything_of_the_containers_is_in_the_cluster_and_is_ended(tmp_path: Path) -> None:
    topology = Topology(Site(tmp_path, 18080, Shop()))
    kinds = {kept.kind for kept in topology.product(Size())} | {
        "postgres",
        "rabbitmq",
        "redis",
        "gateway",
        "prometheus",
    }
    once = {"migrate", "keys"}  # `Cluster.prepare` does what these do
    assert set(COMPOSE["services"]) - once - {"grafana"} == kinds - {"shop"}
    assert kinds | {"epmd"} == {kind for together in ENDING for kind in together}


def test_authentication_alone_is_told_of_the_keys_that_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_PRIVATE_KEYS", "/of/whoever/starts/them")
    topology = Topology(Site(tmp_path, 18080, Shop()))
    signers = {k.name for k in topology.product(Size()) if k.make().environment.get("JWT_PRIVATE_KEYS") != ""}
    assert signers == {"auth-1"}


def test_variables_can_be_given_to_one_process_or_to_a_kind(tmp_path: Path) -> None:
    topology = Topology(Site(tmp_path, 18080, Shop()))
    topology.overrides = {"ingest": {"DATABASE_URL": "for all"}, "ingest-2": {"DATABASE_URL": "for one"}}
    told = {k.name: k.make().environment["DATABASE_URL"] for k in topology.product(Size(workers=2))}
    assert (told["ingest-1"], told["ingest-2"]) == ("for all", "for one")
    assert told["crawl-1"] == topology.site.database_url
