"""Which version is served: by figures, by hand, after a crash, and never by accident."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from catalog.models import Book
from recommender import promotion
from recommender.engine.artifact import Store
from recommender.engine.errors import ArtifactError
from recommender.models import DecisionRecord, ModelVersion
from recommender.promotion import (
    ChampionMoved,
    NothingBefore,
    NotPromotable,
    conclude,
    mend_pointer,
    promote,
    prune,
    refuse,
    roll_back,
)
from recommender.registry import start_training
from tests.bookapi.logins import all_at_once
from tests.factories import change_book
from tests.recommender.trainings import damage, make_readers, make_shelves, promoted, trained

pytestmark = pytest.mark.django_db


def served(store: str) -> str:
    """The champion, of which row and pointer say the same."""
    row = ModelVersion.objects.champions().get()
    assert Store(store).champion() == row.version
    return row.version


# --- By figures -------------------------------------------------------------------------------------------------------
def test_the_first_model_that_holds_the_guards_is_served(store: str) -> None:
    make_shelves()
    row = promoted()
    assert served(store) == row.version
    record = DecisionRecord.objects.get()
    assert (record.model_version, record.decision, record.replaced, record.by) == (row, "promoted", None, "")
    assert record.reason == row.reason
    assert record.figures["case"] == "first"
    assert row.decided_at == record.at


def test_a_model_that_breaks_a_guard_is_refused_and_the_reason_is_on_record(store: str) -> None:
    make_shelves()
    champion = promoted()
    candidate = trained()
    guards = {**candidate.assessment.guards, "coverage@10": 0.5}
    conclude(replace(candidate, assessment=replace(candidate.assessment, guards=guards)), by="oskar")
    assert served(store) == champion.version
    candidate.row.refresh_from_db()
    assert (candidate.row.state, candidate.row.decided_by) == ("refused", "oskar")
    assert "coverage@10 is 0.5000" in candidate.row.reason
    assert candidate.row.decisions.get().figures["guards"]["coverage@10"] == 0.5


def test_a_champion_of_a_catalogue_that_no_model_covers_does_not_grow_old(store: str) -> None:
    make_shelves()
    narrow = promoted()
    narrow.metrics["guards"]["coverage@10"] = 0.51
    narrow.save()
    candidate = trained()
    guards = {**candidate.assessment.guards, "coverage@10": 0.5}
    conclude(replace(candidate, assessment=replace(candidate.assessment, guards=guards)))
    assert served(store) == candidate.row.version != narrow.version


def test_a_refresh_without_truth_is_served(store: str) -> None:
    make_shelves()
    old = promoted()
    new = promoted()
    assert new.kind == "refresh"
    assert served(store) == new.version
    old.refresh_from_db()
    assert old.state == "retired"
    assert new.decisions.get().replaced == old


def test_a_new_recipe_without_truth_waits_for_a_person_who_may_serve_it(store: str) -> None:
    make_shelves()
    champion = promoted()
    candidate = trained("s")
    assert conclude(candidate).promote is None
    assert (candidate.row.kind, candidate.row.state, candidate.row.decision) == ("new_recipe", "candidate", "waiting")
    assert served(store) == champion.version
    promote(candidate.row, "Looks good to me.", by="ada")
    assert served(store) == candidate.row.version
    kept = [(record.decision, record.by, record.reason) for record in candidate.row.decisions.all()]
    assert kept[0] == ("promoted", "ada", "Looks good to me.")
    assert kept[1][:2] == ("waiting", "")


def test_a_new_recipe_that_readers_agree_with_is_served(store: str) -> None:
    make_readers(make_shelves())
    weak = promoted("title_tfidf", content_only=True)
    strong = trained("content")
    decision = conclude(strong)
    assert decision.promote, decision.reason
    assert decision.figures["gain"]["p"] < 0.05
    assert decision.figures["gain"]["value"] > 0.1
    assert served(store) == strong.row.version != weak.version


def test_a_new_recipe_that_is_worse_is_refused(store: str) -> None:
    make_readers(make_shelves())
    strong = promoted("s", content_only=True)
    weak = trained("title_tfidf", content_only=True)
    decision = conclude(weak)
    assert decision.promote is False
    assert "gains -0." in decision.reason
    assert served(store) == strong.version


def test_a_refresh_on_spoilt_books_is_refused(store: str) -> None:
    books = make_shelves()
    make_readers(books)
    champion = promoted("s", content_only=True)
    # A crawl that reads the wrong part of the page, and finds one shelf for everything.
    Book.objects.update(description="Free delivery within two days.", category=books[0].category)
    worse = trained("s", content_only=True)
    assert worse.row.kind == "refresh"
    decision = conclude(worse)
    assert decision.promote is False, decision.reason
    assert decision.figures["gain"]["low"] < -0.01
    assert served(store) == champion.version


def test_a_refresh_that_knows_new_books_is_served(store: str) -> None:
    books = make_shelves()
    for book in books[30:]:
        change_book(book, listed=False)
    old = promoted("s")
    for book in books:
        change_book(book, listed=True)
    make_readers(books)
    new = trained("s")
    decision = conclude(new)
    assert decision.promote, decision.reason
    assert served(store) == new.row.version != old.version


def test_a_champion_without_artifact_gives_way_to_what_holds_the_guards(store: str) -> None:
    make_shelves()
    lost = promoted()
    shutil.rmtree(Path(store) / lost.version)
    candidate = trained("s")
    assert candidate.row.kind == "first"
    assert conclude(candidate).promote
    assert served(store) == candidate.row.version


def test_a_champion_that_a_person_chose_meanwhile_is_not_overridden(store: str) -> None:
    make_shelves()
    promoted()
    other, candidate = trained().row, trained()
    promote(other, "By hand.")
    with pytest.raises(ChampionMoved, match=other.version):
        conclude(candidate)
    assert served(store) == other.version
    candidate.row.refresh_from_db()
    assert (candidate.row.state, candidate.row.decision) == ("candidate", "waiting")


# --- What cannot be served --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("recipe", "duplicates"), [("content", 1.0), ("title_tfidf", 0.0)], ids=["refused", "waits"])
def test_what_a_person_served_while_it_was_judged_stays_champion(store: str, recipe: str, duplicates: float) -> None:
    make_shelves()
    promoted()
    candidate = trained(recipe)
    guards = {**candidate.assessment.guards, "duplicates": duplicates}
    candidate = replace(candidate, assessment=replace(candidate.assessment, guards=guards))
    promote(ModelVersion.objects.get(pk=candidate.row.pk), "At once.")
    with pytest.raises(NotPromotable, match="is champion"):
        conclude(candidate)
    assert served(store) == candidate.row.version
    assert candidate.row.decisions.get().decision == "promoted"


def test_a_pointer_is_not_mended_to_a_champion_that_another_one_has_just_replaced(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shelves()
    before, row = promoted(), trained().row
    Store(store).set_champion(row.version)
    load = Store.load

    def load_and_promote(self: Store, version: str) -> Any:
        monkeypatch.setattr(Store, "load", load)
        promote(row, "Meanwhile.")
        return load(self, version)

    monkeypatch.setattr(Store, "load", load_and_promote)
    assert not mend_pointer()
    assert served(store) == row.version != before.version


def test_a_damaged_artifact_is_refused_by_name_and_the_champion_stays(store: str) -> None:
    make_shelves()
    champion = promoted()
    candidate = trained()
    path = damage(store, candidate.row.version)
    with pytest.raises(NotPromotable, match=r"ids\.npy"):
        conclude(candidate)
    assert served(store) == champion.version
    candidate.row.refresh_from_db()
    assert (candidate.row.state, candidate.row.decision) == ("failed", "refused")
    assert str(path) not in candidate.row.reason, "readers of the registry need not know our folders"
    assert str(path) in candidate.row.decisions.get().figures["error"]
    with pytest.raises(NotPromotable, match="is failed"):
        promote(candidate.row, "-")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ArtifactError("No space left on device")])
def test_a_pointer_that_cannot_be_written_moves_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    make_shelves()
    champion = promoted()
    candidate = trained()

    def full(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Store, "set_champion", full)
        with pytest.raises(NotPromotable, match="No space left"):
            conclude(candidate)
    assert served(store) == champion.version
    candidate.row.refresh_from_db()
    assert (candidate.row.state, candidate.row.decision) == ("candidate", "waiting")
    promote(candidate.row, "There is space again.")
    assert served(store) == candidate.row.version


@pytest.mark.usefixtures("store")
def test_what_is_served_or_has_no_artifact_is_not_promoted() -> None:
    make_shelves()
    with pytest.raises(NotPromotable, match="champion"):
        promote(promoted(), "-")
    with pytest.raises(NotPromotable, match="training"):
        promote(start_training(), "-")


@pytest.mark.usefixtures("store")
def test_only_candidates_are_refused() -> None:
    make_shelves()
    champion = promoted()
    with pytest.raises(NotPromotable, match="champion"):
        refuse(champion, "-")
    candidate = trained().row
    refuse(candidate, "I do not like it.", by="ada")
    assert (candidate.state, candidate.decided_by) == ("refused", "ada")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", [True, False])
def test_of_two_who_promote_at_once_one_moves_the_champion_and_pointer_and_row_agree(store: str, first: bool) -> None:
    make_shelves()
    if not first:
        promoted()
    rows = [trained().row, trained().row]

    def act(i: int) -> str:
        try:
            promote(rows[i], "-")
        except ChampionMoved:
            return "moved"
        return rows[i].version

    told = all_at_once(2, act)
    assert served(store) in told
    assert ModelVersion.objects.champions().count() == 1


# --- Back -------------------------------------------------------------------------------------------------------------
def test_rolling_back_serves_the_version_before_and_again_the_one_before_that(store: str) -> None:
    make_shelves()
    first, second, third = promoted(), promoted(), promoted()
    assert roll_back("It recommends cookbooks.", by="oskar") == second
    assert served(store) == second.version
    third.refresh_from_db()
    assert third.state == "retired"
    record = second.decisions.first()
    assert record is not None
    assert (record.decision, record.replaced, record.by) == ("rolled_back", third, "oskar")
    assert record.reason == f"Rolled back from {third.version}. It recommends cookbooks."
    assert roll_back() == first
    assert served(store) == first.version
    with pytest.raises(NothingBefore):
        roll_back()
    assert served(store) == first.version
    assert DecisionRecord.objects.count() == 5, "nothing that was decided is forgotten"


def test_a_damaged_version_is_not_gone_back_to(store: str) -> None:
    make_shelves()
    first, second = promoted(), promoted()
    damage(store, first.version)
    with pytest.raises(NotPromotable, match=r"ids\.npy"):
        roll_back()
    assert served(store) == second.version


@pytest.mark.usefixtures("store")
def test_without_a_champion_there_is_nothing_to_go_back_to() -> None:
    with pytest.raises(NothingBefore):
        roll_back()


# --- Upkeep -----------------------------------------------------------------------------------------------------------
def spoil(store: str, _other: str) -> None:
    (Path(store) / "champion.json").write_text("{")


def remove(store: str, _other: str) -> None:
    (Path(store) / "champion.json").unlink()


def point_elsewhere(store: str, other: str) -> None:
    Store(store).set_champion(other)


@pytest.mark.parametrize("harm", [spoil, remove, point_elsewhere])
def test_a_pointer_that_is_not_at_the_champion_is_mended(store: str, harm: Callable[[str, str], None]) -> None:
    make_shelves()
    old, champion = promoted(), promoted()
    assert not mend_pointer()
    harm(store, old.version)
    assert mend_pointer()
    assert served(store) == champion.version


def test_a_process_that_dies_between_pointer_and_row_leaves_what_can_be_mended(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shelves()
    champion = promoted()
    candidate = trained().row
    point = Store.set_champion

    def point_and_die(self: Store, version: str) -> None:
        point(self, version)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "set_champion", point_and_die)
        with pytest.raises(KeyboardInterrupt):
            promote(candidate, "-")
    assert Store(store).champion() == candidate.version
    assert mend_pointer()
    assert served(store) == champion.version


@pytest.mark.usefixtures("store")
def test_where_nothing_was_promoted_there_is_no_pointer_to_mend() -> None:
    assert not mend_pointer()


def test_old_artifacts_are_removed_but_never_the_champion_the_one_before_and_what_waits(
    store: str, settings: Settings
) -> None:
    make_shelves()
    settings.ARTIFACT_KEEP = 1
    before, champion = promoted(), promoted()
    waiting = trained().row
    others = [trained().row for _ in range(2)]
    for other in others:
        refuse(other, "-")
    assert prune() == [others[0].version]
    assert Store(store).versions() == [before.version, champion.version, waiting.version, others[1].version]
    assert roll_back() == before
    assert promotion.champion() == before
