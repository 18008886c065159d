"""What the documentation says exists, exists."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands
from django.urls import Resolver404, resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.pt-BR.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
decision = pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)


def make_help() -> str:
    return subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def targets() -> set[str]:
    """What `make` can make, as the Makefile declares it."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony
    return set(phony[1].split())


def test_readme_shows_what_make_help_says() -> None:
    assert make_help().rstrip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_help_names_every_target() -> None:
    assert set(re.findall(r"^make (\w+)", make_help(), re.MULTILINE)) == targets()


def test_make_alone_is_make_help() -> None:
    alone = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert alone == make_help()


@page
def test_make_targets_that_a_page_names_exist(path: Path) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets()


@page
def test_links_of_a_page_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in local if not (path.parent / link).exists()] == []


@page
def test_management_commands_that_a_page_names_exist(path: Path) -> None:
    named = set(re.findall(r"manage\.py ([a-z_]+)", path.read_text(encoding="utf-8")))
    assert named <= get_commands().keys()


@page
def test_addresses_that_a_page_names_are_served(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`(/(?:api/v1|admin|metrics)[\w/-]*)`", text))
    named |= {f"/api/v1{address}" for address in re.findall(r"`(/(?:stats|ml|books|changes|health)/?[\w/-]*)`", text)}
    missing = []
    for address in named:
        try:
            resolve(address)
        except Resolver404:
            missing.append(address)
    assert missing == []


@page
def test_python_of_a_page_is_python(path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block)


@page
def test_page_shows_pictures_that_load_fast(path: Path) -> None:
    for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).stat().st_size < 200_000, link


@decision
def test_decision_has_its_four_parts_on_one_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {int(path.stem[:4])}\. \S", text)
    assert "\nStatus: " in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.splitlines()) <= 60


@decision
def test_decision_is_in_the_index_by_its_title(path: Path) -> None:
    title = path.read_text(encoding="utf-8").splitlines()[0].partition(". ")[2]
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert f"[{int(path.stem[:4])}]({path.name}) | {title} |" in index


def test_decisions_that_the_code_cites_exist() -> None:
    numbers = {path.stem[:4] for path in DECISIONS}
    cited = {
        number
        for package in ("bookapi", "catalog", "crawler")
        for path in (ROOT / package).rglob("*.py")
        for number in re.findall(r"docs/adr/(\d{4})", path.read_text(encoding="utf-8"))
    }
    assert cited <= numbers


def test_continuous_integration_runs_every_python_that_is_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert job["steps"][-1]["run"] == "make lint test"
    assert workflow["permissions"] == {"contents": "read"}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
