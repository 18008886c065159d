"""The commands as a schedule, an analyst and an operator run them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from catalog.models import Book
from recommender.engine.artifact import Store
from recommender.management.commands import neighbors
from recommender.models import ModelVersion
from recommender.registry import start_training
from tests.factories import make_book
from tests.recommender.trainings import damage, make_readers, make_shelves, promoted, trained

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("store")]


def run(*arguments: Any) -> str:
    """What the command writes to standard output."""
    out = io.StringIO()
    call_command(*map(str, arguments), stdout=out)
    return out.getvalue()


def refused(*arguments: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    return caught.value


# --- Training ---------------------------------------------------------------------------------------------------------
def test_train_recommender_makes_a_candidate_and_says_how_to_serve_it(store: str) -> None:
    make_shelves()
    said = run("train_recommender", "--recipe", "s")
    row = ModelVersion.objects.get()
    assert (row.state, row.recipe) == ("candidate", "s")
    assert f"manage.py promote {row.version}" in said
    assert Store(store).champion() is None
    assert f"{row.version} is champion." in run("promote", row.version, "--reason", "Read by eye.")
    row.refresh_from_db()
    assert (row.state, row.reason) == ("champion", "Read by eye.")
    assert Store(store).champion() == row.version


def test_train_recommender_says_what_is_in_its_way() -> None:
    assert refused("train_recommender").returncode == 1, "there are no books"
    start_training()
    assert refused("train_recommender").returncode == 2


def test_retrain_promotes_and_tells_it_in_markdown(tmp_path: Path) -> None:
    make_readers(make_shelves())
    summary = tmp_path / "summary.md"
    summary.write_text("# Before\n")
    said = run("retrain", "--summary", summary, "--strict")
    row = ModelVersion.objects.get()
    assert row.state == "champion"
    assert said.startswith(f"{row.version}: promoted. There is no champion")
    assert said.lower().count("promoted.") == 1
    lines = summary.read_text().splitlines()
    assert lines[:4] == ["# Before", "## Recommender: promoted", "", row.reason]
    assert f"| version | `{row.version}` |" in lines
    assert "| readers | 120 |" in lines
    ndcg = row.metrics["metrics"]["ndcg@10"]
    assert any(line.startswith(f"| this one | {ndcg['value']:.3f} [") for line in lines)
    assert any(line.startswith("| same_category | ") for line in lines)
    assert "| ranking | ndcg@10 | recall@20 | mrr@20 |" in lines
    assert [line.split()[1] for line in lines if "(s)" in line] == ["read", "train", "evaluate", "publish"]
    assert "| coverage@10 | 1 |" in lines


def test_retrain_that_refuses_is_no_failure_unless_that_is_asked_for(store: str) -> None:
    make_readers(make_shelves())
    champion = promoted("s", content_only=True)
    assert "refused" in run("retrain", "--recipe", "title_tfidf", "--content-only")
    with pytest.raises(SystemExit) as ended:
        run("retrain", "--recipe", "title_tfidf", "--content-only", "--strict")
    assert ended.value.code == 3
    assert Store(store).champion() == champion.version


def test_retrain_does_not_begin_where_its_summary_cannot_be_written(tmp_path: Path) -> None:
    make_shelves()
    assert refused("retrain", "--summary", tmp_path / "nowhere" / "summary.md").returncode == 2
    assert not ModelVersion.objects.exists()


def test_retrain_into_an_address_that_is_no_store_fails_and_is_not_left_under_way(settings: Settings) -> None:
    make_shelves()
    settings.ARTIFACT_STORE = "nowhere://models"
    assert refused("retrain").returncode == 1
    row = ModelVersion.objects.get()
    assert (row.state, "Protocol not known: nowhere" in row.reason) == ("failed", True)


def test_retrain_that_promoted_is_no_failure_where_old_artifacts_cannot_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    make_shelves()
    monkeypatch.setattr(Store, "prune", refuse)
    assert "promoted" in run("retrain")


def test_retrain_that_fails_says_so_and_leaves_a_summary(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    assert refused("retrain", "--summary", summary).returncode == 1
    assert "## Recommender: failed" in summary.read_text()
    assert "TooFewBooks" in summary.read_text()


def test_retrain_while_a_training_is_under_way_is_refused() -> None:
    start_training()
    assert refused("retrain").returncode == 2
    assert ModelVersion.objects.count() == 1


def test_retrain_goes_on_with_a_training_that_was_begun_for_it() -> None:
    make_shelves()
    training = start_training("s", requested_by="oskar")
    run("retrain", "--training", training.pk)
    training.refresh_from_db()
    assert (training.state, training.recipe, training.decided_by) == ("champion", "s", "oskar")
    assert refused("retrain", "--training", training.pk).returncode == 2


def test_retrain_begins_by_mending_the_pointer(store: str) -> None:
    make_shelves()
    old, champion = promoted(), promoted()
    Store(store).set_champion(old.version)
    Book.objects.all().delete()
    assert refused("retrain").returncode == 1, "there is nothing left to train on"
    assert Store(store).champion() == champion.version


def test_retrain_replaces_a_champion_that_is_damaged(store: str) -> None:
    make_shelves()
    damage(store, promoted().version)
    (Path(store) / "champion.json").unlink()
    run("retrain", "--strict")
    assert Store(store).champion() == ModelVersion.objects.champions().get().version


# --- Deciding ---------------------------------------------------------------------------------------------------------
def test_rollback_serves_the_version_before(store: str) -> None:
    make_shelves()
    first = promoted()
    assert refused("rollback").returncode == 1
    promoted()
    assert run("rollback", "--reason", "Odd.") == f"{first.version} is champion again.\n"
    assert Store(store).champion() == first.version


def test_promote_refuses_what_there_is_not_and_mends_the_pointer_on_demand(store: str) -> None:
    make_shelves()
    champion = promoted()
    assert "no version 'x'" in str(refused("promote", "x"))
    assert "is champion" in str(refused("promote", champion.version))
    assert "nothing to mend" in run("promote", "--sync")
    (Path(store) / "champion.json").unlink()
    assert "mended" in run("promote", "--sync")
    assert Store(store).champion() == champion.version
    refused("promote")
    refused("promote", champion.version, "--sync")


# --- Neighbors --------------------------------------------------------------------------------------------------------
def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_neighbors_are_listed_for_every_listed_book_from_rank_1_with_falling_scores() -> None:
    books = make_shelves(24)
    make_book(listed=False)
    text = run("neighbors", "--top", 5, "--format", "csv")
    assert text.startswith("upc,neighbor_upc,rank,score\n")
    rows = rows_of(text)
    assert len(rows) == 24 * 5
    listed = {book.upc for book in books}
    for book in books:
        own = [row for row in rows if row["upc"] == book.upc]
        assert [row["rank"] for row in own] == ["1", "2", "3", "4", "5"]
        near = [row["neighbor_upc"] for row in own]
        assert len(set(near)) == 5
        assert set(near) <= listed - {book.upc}
        scores = [float(row["score"]) for row in own]
        assert scores == sorted(scores, reverse=True)
        assert 0 <= scores[-1] <= scores[0] <= 1
    assert not ModelVersion.objects.exists()


def test_neighbors_do_not_begin_where_their_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shelves()

    def train(*_: Any, **__: Any) -> None:
        pytest.fail("it computed first")

    monkeypatch.setattr(neighbors, "trained", train)
    assert "No such file" in str(refused("neighbors", "--output", tmp_path / "nowhere" / "neighbors.csv"))


def test_neighbors_of_few_books_are_all_others() -> None:
    make_shelves(4)
    assert len(rows_of(run("neighbors", "--top", 100))) == 4 * 3


def test_neighbors_know_readers_unless_content_alone_is_asked_for() -> None:
    make_readers(make_shelves())
    content = run("neighbors", "--top", 3, "--content-only")
    assert run("neighbors", "--top", 3) != content
    assert run("neighbors", "--top", 3, "--content-only") == content, "the same question has the same answer"
    assert run("neighbors", "--top", 3, "--content-only", "--recipe", "title_category_price") != content


def test_neighbors_end_quietly_when_who_reads_them_has_read_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    make_shelves(8)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        call_command("neighbors", "--top", "2")
        pipe.write("What Python would still write goes nowhere.")


def test_neighbors_go_to_a_file(tmp_path: Path) -> None:
    make_shelves(8)
    file = tmp_path / "neighbors.csv"
    assert run("neighbors", "--top", 2, "--output", file) == ""
    assert file.read_bytes().count(b"\n") == 1 + 8 * 2
    assert b"\r" not in file.read_bytes()


@pytest.mark.parametrize(
    "arguments", [("--top", 0), ("--top", 101), ("--top", "x"), ("--format", "xls"), ("--recipe", "magic")]
)
def test_neighbors_refuse_what_they_do_not_understand(arguments: Sequence[Any]) -> None:
    make_shelves(4)
    refused("neighbors", *arguments)


def test_neighbors_of_an_empty_catalogue_cannot_be_listed() -> None:
    assert "2 books" in str(refused("neighbors"))


# --- Evaluating -------------------------------------------------------------------------------------------------------
def interactions_file(path: Path, books: Sequence[Book]) -> Path:
    """Readers who read eight books of one shelf each, and a book that the catalogue does not have."""
    dice = np.random.default_rng(8)
    with gzip.open(path, "wt", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["reader", "upc", "rating"])
        for reader in range(120):
            own = books[reader % 4 :: 4]
            lines.writerows([reader, own[i].upc, ""] for i in dice.choice(len(own), 8, replace=False))
        lines.writerow([0, "unknown", 5])
    return path


def figures(*arguments: Any) -> Any:
    return json.loads(run("evaluate", "--format", "json", *arguments))


def test_evaluate_judges_by_the_readers_of_a_file_beside_every_baseline(tmp_path: Path) -> None:
    books = make_shelves()
    file = interactions_file(tmp_path / "interactions.csv.gz", books)
    queries = tmp_path / "queries.csv"
    queries.write_text("upc\n" + "\n".join(book.upc for book in books[:40]) + "\nunknown\n")
    told = figures("--interactions", file, "--queries", queries, "--recipe", "content", "--recipe", "title_tfidf")
    assert told["source"] == "readers of interactions.csv.gz"
    content, titles = told["recipes"]["content"], told["recipes"]["title_tfidf"]
    assert content["n_queries"] == 40
    assert content["metrics"]["ndcg@10"]["value"] > content["baselines"]["random"]["ndcg@10"]["value"] + 0.3
    assert {"value", "low", "high"} == set(titles["metrics"]["ndcg@10"])
    assert set(content["baselines"]) >= {
        *("random", "popularity", "same_category", "title_tfidf", "title_category_price", "s")
    }
    alone = figures("--interactions", file, "--content-only")
    assert alone["content_only"] is True
    assert alone["recipes"]["content"]["n_queries"] == 60


def test_evaluate_goes_by_the_catalogues_own_readers_when_there_are_enough_and_by_proxies_when_not() -> None:
    books = make_shelves()
    told = figures()
    assert told["source"].startswith("proxies alone")
    assert told["recipes"]["content"]["metrics"] == {}
    assert told["recipes"]["content"]["proxies"]["same_category_precision@10"] > 0.8
    make_readers(books)
    told = figures()
    assert told["source"] == "the catalogue's own interactions"
    assert told["recipes"]["content"]["metrics"]["ndcg@10"]["value"] > 0.5
    text = run("evaluate")
    assert "this one" in text
    assert "same_category" in text


def test_evaluate_refuses_files_that_are_not_what_was_asked_for(tmp_path: Path) -> None:
    books = make_shelves(8)
    file = tmp_path / "x.csv"
    assert "x.csv" in str(refused("evaluate", "--interactions", file)), "there is no such file"
    file.write_text("who,what\n1,2\n")
    assert "no column reader, upc" in str(refused("evaluate", "--interactions", file))
    file.write_bytes(b"\x1f\x8bnot really packed")
    refused("evaluate", "--interactions", file)
    file.write_bytes(b"reader,upc\n\xff,\xff\n")
    refused("evaluate", "--interactions", file)
    file.write_text(f"reader,upc\n1,{books[0].upc}\n")
    assert "three readers" in str(refused("evaluate", "--interactions", file))
    assert "--interactions" in str(refused("evaluate", "--queries", file))


def test_evaluate_needs_a_shop_where_two_have_a_book_of_one_upc(tmp_path: Path) -> None:
    books = make_shelves()
    file = interactions_file(tmp_path / "x.csv.gz", books)
    make_book(shop="other", upc=books[0].upc)
    assert "name one shop" in str(refused("evaluate", "--interactions", file))
    assert figures("--interactions", file, "--shop", "test-shop", "--content-only")["recipes"]["content"]["metrics"]


def test_a_version_that_waits_is_told_by_the_command_that_trained_it() -> None:
    make_shelves()
    promoted("s")
    assert "waiting" in run("retrain", "--recipe", "content")
    assert trained().row.recipe == "s", "the champion's recipe goes on"
