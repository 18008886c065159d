"""Databases that crawls of the tests write to, and the shop that most of them read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crawler.practice_shop import Shop, serving
from tests.crawler.deployment import ROOT, Crawl, Deployment, Template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("databases"))


@pytest.fixture(scope="session")
def migrated(template: Template) -> Iterator[Deployment]:
    """A migrated database without a book."""
    with template.copy() as deployment:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            cwd=ROOT,
            env=deployment.environment(),
            check=True,
        )
        yield deployment


@pytest.fixture
def deployment(template: Template, migrated: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """A migrated database of the test's own."""
    with template.copy(migrated.url, tmp_path) as copy:
        yield copy


@dataclass
class Crawled:
    """The practice shop, which is being served, after one whole crawl of it."""

    shop: Shop
    address: str
    first: Crawl
    deployment: Deployment


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Shop, str]]:
    shop = Shop(300)
    with serving(shop) as address:
        yield shop, address


@pytest.fixture(scope="session")
def _crawled_once(
    template: Template, migrated: Deployment, served: tuple[Shop, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crawled]:
    shop, address = served
    with template.copy(migrated.url, tmp_path_factory.mktemp("crawled")) as deployment:
        yield Crawled(shop, address, deployment.crawl(address), deployment)


@pytest.fixture
def crawled(template: Template, _crawled_once: Crawled, tmp_path: Path) -> Iterator[Crawled]:
    """A crawled shop with a database of the test's own."""
    once = _crawled_once
    with template.copy(once.deployment.url, tmp_path) as copy:
        yield Crawled(once.shop, once.address, once.first, copy)
