"""One suite for every way in which an engine can be: looked at in all or through an index, with readers or without."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recommender.engine import features
from recommender.engine.adoption import TOP
from recommender.engine.coreads import CoReads
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.engine import Engine, Neighbor
from recommender.engine.errors import TooFewBooks, UnknownBook
from recommender.engine.recipes import recipe
from tests.recommender.books import UNREAD, blend_of, content_of, coreads_of, practice, readings_of

BOOKS = 400
NEAR = 2e-3  # scores are kept at half precision, and vectors too where there is an index
asked = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

some_ids = st.sets(st.integers(0, 4 * BOOKS), max_size=40)  # a quarter of them are known


@pytest.fixture(scope="module", params=["all, no readers", "all, readers", "index, no readers", "index, readers"])
def engine(request: pytest.FixtureRequest) -> Engine:
    corpus = practice(BOOKS)
    way, readers = request.param.split(", ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "LARGE", BOOKS - 1 if way == "index" else BOOKS)
        trained = Engine.train(corpus, recipe("content"), readings_of(corpus) if readers == "readers" else None)
    assert (trained.vectors.nearby is not None) == (way == "index")
    return trained


def ids_of(neighbors: list[Neighbor]) -> list[int]:
    return [neighbor.id for neighbor in neighbors]


def assert_best(engine: Engine, found: list[Neighbor], scores: NDArray[np.float64], row: int | None = None) -> None:
    """That these are the greatest of the scores; of an index, that they are nearly so.

    The tenth in the list of the book at `row` may be one that is in nobody's list otherwise: then the others are.
    """
    ours, best = np.array([neighbor.score for neighbor in found]), np.sort(scores)[::-1][: len(found)]
    if engine.vectors.nearby is None:
        if row is not None and not np.allclose(ours, best, rtol=0, atol=NEAR):
            ours = ours[np.array(ids_of(found)) != engine.ids[engine.neighbors[row, TOP - 1]]]
        np.testing.assert_allclose(ours, best[: len(ours)], rtol=0, atol=NEAR)
    else:
        assert (ours <= best + NEAR).all()
        assert ours.sum() >= 0.9 * best.sum() - NEAR * len(found)


# -- which and how many -----------------------------------------------------------------------------------------------


def test_every_book_has_ten_others_each_once_and_with_a_reason(engine: Engine) -> None:
    for book in engine.ids.tolist():
        found = engine.similar(book, 10)
        assert len({*ids_of(found), book}) == 11
        assert all(neighbor.reasons and 0 <= neighbor.score <= 1 for neighbor in found)


def test_the_nearest_are_those_of_scoring_every_pair(engine: Engine) -> None:
    scores = blend_of(engine, content_of(engine), coreads_of(engine))
    np.fill_diagonal(scores, -1)
    for row, book in enumerate(engine.ids.tolist()):
        assert_best(engine, engine.similar(book, 10), scores[row], row)


@asked
@given(
    row=st.integers(0, BOOKS - 1),
    k=st.integers(0, BOOKS),
    filters=st.tuples(st.none() | some_ids | st.just(set(range(0, 4 * BOOKS, 2))), some_ids),
    diversity=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
)
def test_there_are_k_results_under_any_filter_that_leaves_k_and_they_are_the_best(
    engine: Engine, row: int, k: int, filters: tuple[set[int] | None, set[int]], diversity: float
) -> None:
    book, (allow, exclude) = int(engine.ids[row]), filters
    left = [r for r, i in enumerate(engine.ids.tolist()) if (allow is None or i in allow) and i not in {*exclude, book}]
    found = engine.similar(book, k, allow=allow, exclude=exclude, diversity=diversity)
    assert len(found) == len(set(ids_of(found))) == min(k, len(left))
    assert set(ids_of(found)) <= set(engine.ids[left].tolist())
    scores = blend_of(engine, content_of(engine), coreads_of(engine))[row][left]
    if not diversity:
        assert_best(engine, found, scores, row)
    elif found:
        assert_best(engine, found[:1], scores, row)


def test_ids_may_come_as_a_set_a_list_or_an_array_in_any_order(engine: Engine) -> None:
    book, allowed = int(engine.ids[7]), engine.ids[::3]
    expected = engine.similar(book, 5, allow=allowed)
    assert engine.similar(book, 5, allow=allowed[::-1]) == expected
    assert engine.similar(book, 5, allow=set(allowed.tolist())) == expected
    assert engine.similar(book, 5, allow=[*allowed.tolist(), *allowed.tolist(), -1, 2**62]) == expected


def test_the_deep_list_and_a_search_tell_the_same(engine: Engine) -> None:
    book, others = int(engine.ids[11]), ids_of(engine.similar(int(engine.ids[11]), 10))
    searched = engine.similar(book, 10, allow=others)
    assert {n.id: n.reasons for n in searched} == {n.id: n.reasons for n in engine.similar(book, 10)}
    np.testing.assert_allclose([n.score for n in searched], [n.score for n in engine.similar(book, 10)], atol=NEAR)


def test_more_than_the_deep_list_holds_is_found_all_the_same(engine: Engine) -> None:
    found = engine.similar(int(engine.ids[0]), BOOKS)
    assert len(found) == BOOKS - 1
    rows, scores = engine.top(BOOKS)
    assert rows.shape == (BOOKS, BOOKS - 1)
    assert all(set(row) == set(range(BOOKS)) - {i} for i, row in enumerate(rows.tolist()))
    assert (np.diff(scores.astype(np.float32), axis=1) <= 0).all()
    assert engine.ids[rows[0, :50]].tolist() == ids_of(found)[:50]


def test_a_book_that_it_was_not_trained_with_is_unknown(engine: Engine) -> None:
    assert engine.knows(int(engine.ids[0]))
    for unknown in (0, 1, 2**62, -5):
        assert not engine.knows(unknown)
        with pytest.raises(UnknownBook, match=str(unknown)):
            engine.similar(unknown, 10)


@pytest.mark.parametrize(("k", "diversity"), [(-1, 0.0), (5, -0.1), (5, 1.1), (5, float("nan"))])
def test_impossible_questions_are_refused(engine: Engine, k: int, diversity: float) -> None:
    with pytest.raises(ValueError, match="diversity"):
        engine.similar(int(engine.ids[0]), k, diversity=diversity)


# -- diversity --------------------------------------------------------------------------------------------------------


def test_diverse_results_are_less_alike_and_begin_with_the_best(engine: Engine) -> None:
    content = content_of(engine)
    row_of = {book: row for row, book in enumerate(engine.ids.tolist())}

    def alike(neighbors: list[Neighbor]) -> float:
        return float(np.mean([content[row_of[a.id], row_of[b.id]] for a, b in combinations(neighbors, 2)]))

    books = engine.ids[::20].tolist()
    plain = [engine.similar(book, 10) for book in books]
    diverse = [engine.similar(book, 10, diversity=0.5) for book in books]
    assert [a[0] for a in plain] == [b[0] for b in diverse]
    assert np.mean([alike(b) for b in diverse]) < 0.8 * np.mean([alike(a) for a in plain])


# -- texts and baskets ------------------------------------------------------------------------------------------------


def test_a_text_is_nearest_to_the_book_that_has_it(engine: Engine) -> None:
    corpus = practice(BOOKS)
    for row in range(0, BOOKS, 25):
        facts = (corpus.titles, corpus.descriptions, corpus.categories, corpus.authors, corpus.prices.tolist())
        text = Corpus.of_text(*(column[row] for column in facts))
        found = engine.similar_to_text(text, 10)
        assert found[0].id == engine.ids[row]
        assert len(set(ids_of(found))) == 10


def test_a_text_without_a_known_word_has_k_answers_that_claim_nothing(engine: Engine) -> None:
    found = engine.similar_to_text(Corpus.of_text("zzzz qqqq"), 10, exclude=engine.ids[:5])
    assert len(set(ids_of(found))) == 10
    assert not {*ids_of(found)} & {*engine.ids[:5].tolist()}
    assert {n.score for n in found} == {0.0}
    assert all("nothing in common" in n.reasons[0].detail for n in found)


def test_a_filter_holds_for_texts_and_baskets_as_well(engine: Engine) -> None:
    corpus, allowed = practice(BOOKS), set(engine.ids[200:212].tolist())
    text = Corpus.of_text(corpus.titles[3], corpus.descriptions[3])
    assert set(ids_of(engine.similar_to_text(text, 20, allow=allowed))) == allowed
    basket = engine.ids[[200, 201, 5]].tolist()
    assert set(ids_of(engine.similar_to_basket(basket, 20, allow=allowed))) == allowed - set(basket)


@asked
@given(st.lists(st.integers(0, BOOKS - 1), min_size=1, max_size=6))
def test_a_basket_is_near_what_is_near_its_books_on_average(engine: Engine, rows: list[int]) -> None:
    distinct = sorted(set(rows))
    content = content_of(engine)[distinct].mean(axis=0)
    together = 1 - np.prod(1 - coreads_of(engine)[distinct], axis=0)
    scores = np.delete(blend_of(engine, content, together), distinct)
    found = engine.similar_to_basket([*engine.ids[rows].tolist(), 1], 10)
    assert not set(ids_of(found)) & set(engine.ids[rows].tolist())
    assert_best(engine, found, scores)


def test_a_basket_of_unknown_books_is_unknown(engine: Engine) -> None:
    for basket in ([], [1, 2]):
        with pytest.raises(UnknownBook):
            engine.similar_to_basket(basket, 10)


# -- on disk ----------------------------------------------------------------------------------------------------------


def test_an_engine_from_its_files_answers_as_it_did(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path)
    loaded = Engine.load(tmp_path, engine.manifest | {"version": "a"})
    assert not loaded.vectors.dense.flags.owndata
    assert not loaded.neighbors.flags.owndata
    text, basket = Corpus.of_text("The Quiet River", "A river runs."), engine.ids[:3].tolist()
    for book in engine.ids[::10].tolist():
        assert loaded.similar(book, 10) == engine.similar(book, 10)
    narrow = engine.ids[40:60].tolist()
    assert loaded.similar(basket[0], 10, allow=narrow) == engine.similar(basket[0], 10, allow=narrow)
    assert loaded.similar_to_text(text, 10) == engine.similar_to_text(text, 10)
    assert loaded.similar_to_basket(basket, 10) == engine.similar_to_basket(basket, 10)
    assert loaded.id_of(practice(BOOKS).upcs[9]) == engine.ids[9]


# -- readers ----------------------------------------------------------------------------------------------------------


def test_a_book_without_readers_is_ranked_as_without_any_readers() -> None:
    corpus = practice(BOOKS)
    alone = Engine.train(corpus, recipe("content"))
    blended = Engine.train(corpus, recipe("content"), readings_of(corpus))
    for book in corpus.ids[-UNREAD:].tolist():
        assert ids_of(blended.similar(book, 10)) == ids_of(alone.similar(book, 10))


def test_readings_of_nobody_are_as_none() -> None:
    corpus = practice(60)
    nobody = Readings.of_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), 60)
    engine = Engine.train(corpus, recipe("content"), nobody)
    assert engine.coreads is None
    assert engine.similar(3, 10) == Engine.train(corpus, recipe("content")).similar(3, 10)


# -- reasons, on six books worked out by hand -------------------------------------------------------------------------

TITLES = ["Ember Hour (Ash Saga #1)", "Salt Crown (Ash Saga #2)", "Lantern", "Pebble", "Kettle", "Thimble"]
DESCRIPTIONS = ["glacier voyage", "orchard", "glacier voyage compass", "violin", "harbour", "quarry"]
CATEGORIES = ["Fantasy", "Poetry", "Fantasy", "Cooking", "", "Travel"]
AUTHORS: list[tuple[str, ...]] = [("Ada Crane", "Bo Lind"), (), (), ("Bo Lind",), (), ()]


@pytest.fixture(scope="module")
def six() -> Engine:
    """Books 1 and 5 were read by three, 1 and 6 by two."""
    corpus = Corpus(np.arange(1, 7), list("abcdef"), TITLES, DESCRIPTIONS, CATEGORIES, AUTHORS, np.full(6, 9.99))
    readers = [(reader, row) for reader in (1, 2, 3) for row in (0, 4)] + [(r, w) for r in (4, 5) for w in (0, 5)]
    names, rows = np.array(readers).T
    return Engine.train(corpus, recipe("content"), Readings.of_pairs(names, rows, 6))


def test_reasons_name_what_two_books_share(six: Engine) -> None:
    reasons = {n.id: [(r.kind, r.detail) for r in n.reasons] for n in six.similar(1, 5)}
    assert reasons[2] == [("series", "ash saga")]
    assert reasons[3][0] == ("category", "Fantasy")
    assert (reasons[3][1][0], set(reasons[3][1][1].split(", "))) == ("words", {"glacier", "voyage"})
    assert reasons[4] == [("author", "Bo Lind")]
    assert reasons[5] == [("readers", "3 readers of this book also read it")]


def test_fewer_than_three_readers_are_not_told_of(six: Engine) -> None:
    assert all(r.kind != "readers" for n in six.similar(1, 5) if n.id == 6 for r in n.reasons)
    assert all(r.kind != "readers" for n in six.similar(6, 5) for r in n.reasons)


def test_a_book_that_shares_nothing_is_said_to_share_nothing(six: Engine) -> None:
    (last,) = six.similar(4, 1, allow=[6])
    assert last.score == 0
    assert [(r.kind, r.detail[:17]) for r in last.reasons] == [("words", "nothing in common")]


def test_a_missing_category_is_nothing_to_share() -> None:
    corpus = Corpus(
        np.arange(1, 4), ["a", "b", "c"], ["Ant hill", "Bee hive", "Cat"], ["", "", ""], [""] * 3, [()] * 3, np.ones(3)
    )
    engine = Engine.train(corpus, recipe("content"))
    assert all(r.kind != "category" for n in engine.similar(1, 2) for r in n.reasons)


def test_reasons_of_a_text_and_of_a_basket_are_those_of_what_was_sent(six: Engine) -> None:
    text = Corpus.of_text("Embers (Ash Saga #3)", "", "Cooking", ["Ada Crane"])
    told = {n.id: [(r.kind, r.detail) for r in n.reasons] for n in six.similar_to_text(text, 6)}
    assert told[1] == [("series", "ash saga"), ("author", "Ada Crane")]
    assert told[4] == [("category", "Cooking")]
    basket = {n.id: [(r.kind, r.detail) for r in n.reasons] for n in six.similar_to_basket([2, 5], 4)}
    assert basket[1] == [("series", "ash saga"), ("readers", "3 readers of one of these books also read it")]


# -- UPCs -------------------------------------------------------------------------------------------------------------


def test_a_book_is_found_by_its_upc(six: Engine) -> None:
    assert [six.id_of(upc) for upc in "abcdef"] == [1, 2, 3, 4, 5, 6]
    for unknown in ("", "A", "aa", "ç"):
        with pytest.raises(UnknownBook):
            six.id_of(unknown)


def test_a_upc_of_two_shops_names_neither_book() -> None:
    corpus = Corpus(
        np.arange(1, 4), ["x", "ü", "x"], ["Ant", "Bee", "Cat"], ["", "", ""], [""] * 3, [()] * 3, np.ones(3)
    )
    engine = Engine.train(corpus, recipe("content"))
    assert engine.id_of("ü") == 2
    with pytest.raises(UnknownBook, match="Several"):
        engine.id_of("x")


# -- the smallest and the plainest ------------------------------------------------------------------------------------


def test_two_books_are_near_each_other_and_one_is_too_few() -> None:
    corpus = Corpus(np.array([5, 9]), ["a", "b"], ["Ant", "Bee"], ["", ""], ["X", "Y"], [(), ()], np.ones(2))
    engine = Engine.train(corpus, recipe("content"))
    assert ids_of(engine.similar(5, 10)) == [9]
    assert engine.similar(5, 10, exclude=[9]) == []
    assert engine.similar_to_basket([5, 9], 10) == []
    with pytest.raises(TooFewBooks):
        Engine.train(Corpus.of_text("Ant"), recipe("content"))


@pytest.mark.parametrize("name", ["s", "title_category_price", "title_tfidf"])
def test_every_recipe_makes_an_engine(name: str) -> None:
    engine = Engine.train(practice(60), recipe(name))
    assert len(engine.similar(3, 10)) == 10
    assert engine.manifest["recipe"] == name


def test_the_engine_is_loaded_where_neither_django_nor_pandas_can_be() -> None:
    code = "import sys; sys.modules.update(django=None, pandas=None, fastapi=None); import recommender.engine.serving"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_coreads_in_any_order_are_looked_up_right(six: Engine) -> None:
    assert isinstance(six.coreads, CoReads)
    assert six.coreads.scores.has_sorted_indices
    assert six.coreads.scores.indices.tolist() == six.coreads.counts.indices.tolist()
