from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recommender.engine import baselines as baselines_module
from recommender.engine.baselines import (
    Ranker,
    at_random,
    baselines,
    by_likeness,
    most_read,
    same_category,
)
from recommender.engine.coreads import CoReads
from recommender.engine.corpus import Corpus
from recommender.engine.features import Features

CATEGORIES = ["Poetry", "Travel", "Poetry", "Poetry", "Travel", "Art"]
N = len(CATEGORIES)
ALL = np.arange(N, dtype=np.int32)
READERS = np.array([3, 9, 1, 9, 0, 4], np.int64)


def features() -> Features:
    """Likeness of two books: the cosine of the angle between them, half of it dense."""
    angle = np.radians([0, 2, 6, 14, 30, 62])
    rows = (np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(0.5)).astype(np.float32)
    return Features(rows, csr_array(rows), np.zeros((N, 16), np.int32))


def corpus() -> Corpus:
    titles = ["Red sea", "Blue sea", "Red sun", "Blue star (Saga #1)", "Green moon (Saga #2)", "Green sea"]
    return Corpus(np.arange(10, 16), list("abcdef"), titles, [""] * N, CATEGORIES, [()] * N, np.linspace(10, 60, N))


RANKERS = {
    "random": at_random(3),
    "popularity": most_read(READERS),
    "same_category": same_category(CATEGORIES, 3),
    "likeness": by_likeness(features()),
}


@pytest.mark.parametrize("name", RANKERS)
@given(st.sets(st.integers(0, N - 1), min_size=1), st.sets(st.integers(0, N - 1), min_size=1), st.integers(1, 8))
def test_every_ranking_has_exactly_k_candidates_or_all_there_are(
    name: str, queries: set[int], candidates: set[int], k: int
) -> None:
    rows = np.array(sorted(queries), np.int32)
    lists = RANKERS[name](rows, np.array(sorted(candidates), np.int32), k)

    assert lists.shape == (len(rows), k)
    assert lists.dtype == np.int32
    for row, of_query in zip(rows.tolist(), lists.tolist(), strict=True):
        books = [book for book in of_query if book >= 0]
        assert len(set(books)) == len(books) == min(k, len(candidates - {row}))
        assert set(books) <= candidates - {row}
        assert of_query == books + [-1] * (k - len(books))


@pytest.mark.parametrize("ranker", [at_random, lambda seed: same_category(CATEGORIES, seed)])
def test_a_seed_gives_one_ranking_and_another_seed_another(ranker: type[Ranker]) -> None:
    first, again, other = (ranker(seed)(ALL, ALL, 3).tolist() for seed in (1, 1, 2))

    assert first == again != other


def test_random_offers_every_book_equally_often() -> None:
    queries = np.zeros(5000, np.int32)

    assert np.bincount(at_random()(queries, ALL, 1).ravel()) == pytest.approx([0, *[1000] * 5], abs=120)


def test_the_most_read_come_first_and_of_equals_the_lower_row() -> None:
    assert most_read(READERS)(np.array([1, 2], np.int32), ALL, 4).tolist() == [[3, 5, 0, 2], [1, 3, 5, 0]]


def test_books_of_the_category_come_before_all_others() -> None:
    lists = same_category(CATEGORIES)(ALL, ALL, 5)

    assert {*lists[0, :2].tolist()} == {2, 3}
    assert lists[1, 0] == 4
    assert {*lists[0, 2:].tolist()} == {1, 4, 5}


def test_likeness_is_ranked_from_dense_and_sparse_together_in_any_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0], [3, 2, 1], [4, 3, 2]]

    assert by_likeness(features())(ALL, ALL, 3).tolist() == expected
    monkeypatch.setattr(baselines_module, "BLOCK", 4)
    assert by_likeness(features())(ALL, ALL, 3).tolist() == expected


def test_of_equally_near_books_the_lower_rows_come_first_whatever_k_is() -> None:
    alike = Features(np.ones((N, 1), np.float32), csr_array((N, 1), dtype=np.float32), np.zeros((N, 16), np.int32))

    assert by_likeness(alike)(ALL[2:3], ALL, 2).tolist() == [[0, 1]]
    assert by_likeness(alike)(ALL[2:3], ALL, 4).tolist() == [[0, 1, 3, 4]]


def test_common_readers_lift_a_book_and_leave_the_others_to_their_content() -> None:
    scores = csr_array(([0.9], ([0], [5])), shape=(N, N), dtype=np.float32)
    coreads = CoReads(scores, scores.astype(np.int32))

    lists = by_likeness(features(), coreads, 2.0)(ALL, ALL, 3)

    assert lists[0].tolist() == [5, 1, 2]
    assert lists[1].tolist() == [0, 2, 3]


def test_baselines_stand_under_their_names_and_series_count_in_s() -> None:
    rankers = baselines(corpus(), READERS)

    assert list(rankers) == ["random", "popularity", "same_category", "title_tfidf", "title_category_price", "s"]
    assert rankers["s"](np.array([3], np.int32), ALL, 1).tolist() == [[4]]
