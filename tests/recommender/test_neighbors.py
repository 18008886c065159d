"""Against sorting every score, on numbers small enough that arithmetic is exact and ties are many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine import nearby, neighbors
from recommender.engine.coreads import CoReads
from recommender.engine.features import Features
from recommender.engine.neighbors import top_neighbors
from recommender.engine.ranking import best, diverse
from recommender.engine.vectors import Vectors

seeds = st.integers(0, 2**32 - 1)


def features_of(seed: int, n: int, d: int = 3, m: int = 6) -> Features:
    """Entries are multiples of a quarter, few of them, so that scores are exact and many are equal."""
    chance = np.random.default_rng(seed)
    dense = chance.choice([0, 0.25, -0.25, 0.5], (n, d)).astype(np.float32)
    sparse = csr_array(chance.choice([0, 0, 0, 0.25, 0.5], (n, m)).astype(np.float32))
    return Features(dense, sparse, np.full((n, 16), -1, np.int32))


def coreads_of(seed: int, n: int) -> CoReads:
    chance = np.random.default_rng(seed)
    scores = chance.choice([0, 0, 0, 0.25, 0.75], (n, n)).astype(np.float32)
    np.fill_diagonal(scores, 0)
    return CoReads(csr_array(scores), csr_array((scores > 0).astype(np.int32) * 3))


def obvious(features: Features, coreads: CoReads | None, weight: float, k: int) -> tuple[list[list[int]], NDArray]:
    """Every score, sorted: the greatest first, of equal ones the first row."""
    sparse = features.sparse.toarray()
    content = np.clip(features.dense @ features.dense.T + sparse @ sparse.T, 0, 1)
    together = coreads.scores.toarray() if coreads else np.zeros_like(content)
    scores = (content + weight * together) / (1 + weight)
    rows = [
        sorted((j for j in range(len(features)) if j != i), key=lambda j: (-scores[i, j], j))[:k]
        for i in range(len(features))
    ]
    return rows, scores


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 40), st.integers(1, 50), st.booleans())
def test_exact_neighbors_are_those_of_sorting_every_score(seed: int, n: int, k: int, with_readers: bool) -> None:
    features, coreads = features_of(seed, n), coreads_of(seed, n) if with_readers else None
    rows, scores = top_neighbors(Vectors.of(features, indexed=False), coreads, 3.0, k)
    expected, all_scores = obvious(features, coreads, 3.0 if coreads else 0.0, k)
    assert rows.shape == scores.shape == (n, k)
    for i, nearest in enumerate(expected):
        assert rows[i].tolist() == nearest + [-1] * (k - len(nearest))
        np.testing.assert_allclose(scores[i][: len(nearest)], all_scores[i][nearest], atol=1e-3)
        assert not scores[i][len(nearest) :].any()


def test_blocks_of_books_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = Vectors.of(features_of(5, 31), indexed=False)
    whole = top_neighbors(vectors, k=7)
    monkeypatch.setattr(neighbors, "CELLS", 31 * 4)
    in_blocks = top_neighbors(vectors, k=7)
    np.testing.assert_array_equal(whole[0], in_blocks[0])
    np.testing.assert_array_equal(whole[1], in_blocks[1])


@pytest.mark.parametrize("frequent", [0.0, 0.3, 1.0])
def test_it_makes_no_difference_which_columns_are_multiplied_densely(
    frequent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "FREQUENT", frequent)
    features = features_of(9, 30)
    rows, _ = top_neighbors(Vectors.of(features, indexed=False), k=5)
    assert rows.tolist() == obvious(features, None, 0.0, 5)[0]


def clustered(n: int, d: int = 8) -> Features:
    chance = np.random.default_rng(3)
    dense = chance.standard_normal((n, d)) + 2 * np.eye(d)[np.arange(n) % d]
    dense /= np.linalg.norm(dense, axis=1, keepdims=True) * np.sqrt(2)
    return Features(dense.astype(np.float32), csr_array((n, 4), dtype=np.float32), np.full((n, 16), -1, np.int32))


def test_the_index_finds_what_looking_at_all_finds() -> None:
    features = clustered(700)
    exact, _ = top_neighbors(Vectors.of(features, indexed=False), k=10)
    found, scores = top_neighbors(Vectors.of(features, indexed=True), k=10)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert np.mean(shared) > 0.97
    assert all(i not in row for i, row in enumerate(found.tolist()))
    assert (np.diff(scores.astype(np.float32), axis=1) <= 0).all()


def test_books_that_share_a_series_or_readers_are_found_though_the_index_does_not_see_them() -> None:
    features = clustered(300)
    far = int(np.argmin(features.dense @ features.dense[0]))
    read = int(np.argsort(features.dense @ features.dense[0])[1])
    series = csr_array((np.full(2, 1.2, np.float32), ([0, far], [1, 1])), shape=(300, 4))
    together = csr_array((np.array([0.9], np.float32), ([0], [read])), shape=(300, 300))
    coreads = CoReads(together, together.astype(np.int32))
    vectors = Vectors.of(Features(features.dense, series, features.words), indexed=True)
    rows, scores = top_neighbors(vectors, coreads, 3.0, k=10)
    assert rows[0, 0] == read
    assert far in rows[0].tolist()
    slowly = obvious(Features(vectors.dense.astype(np.float32), series, features.words), coreads, 3.0, 10)[1]
    np.testing.assert_allclose(scores[0], slowly[0][rows[0]], atol=1e-3)


def test_a_name_that_too_many_books_share_gathers_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "MOST_SHARING", 2)
    column = csr_array((np.ones(5, np.float32), (np.arange(5), [0, 0, 0, 1, 1])), shape=(300, 4))
    vectors = Vectors.of(Features(clustered(300).dense, column, np.zeros((300, 0), np.int32)), indexed=True)
    assert vectors.nearby is not None
    assert vectors.nearby.sharers(vectors.features(np.array([0]))).tolist() == []
    assert vectors.nearby.sharers(vectors.features(np.array([3]))).tolist() == [3, 4]


def test_books_of_a_crowded_series_are_found_through_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "MOST_SHARING", 2)
    members = np.arange(0, 600, 20)  # of all clusters
    series = csr_array((np.full(30, 0.6, np.float32), (members, np.ones(30, int))), shape=(600, 4))
    features = Features(clustered(600).dense, series, np.zeros((600, 0), np.int32))
    exact, _ = top_neighbors(Vectors.of(features, indexed=False))
    found, _ = top_neighbors(Vectors.of(features, indexed=True))
    shared = [len({*exact[i, :10].tolist()} & {*found[i, :10].tolist()}) / 10 for i in members]
    assert np.mean(shared) > 0.97


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1, 7, 100]), st.sampled_from([1, 50, 3_000, 20_000]), st.sampled_from([2, 1_000_000]))
def test_the_best_of_a_row_are_the_first_of_the_sorted_row(seed: int, k: int, n: int, values: int) -> None:
    scores = np.random.default_rng(seed).integers(0, values, n).astype(np.float32)
    assert best(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


def test_the_best_are_found_where_every_sixteenth_score_is_the_greatest() -> None:
    scores = np.zeros(20_000, np.float32)
    scores[::16] = 1
    scores[5:30] = 2
    assert best(scores, 100).tolist() == np.argsort(-scores, kind="stable")[:100].tolist()


def test_the_best_are_found_where_the_bound_of_the_sample_is_too_high() -> None:
    scores = np.arange(20_000, dtype=np.float32)
    scores[::16] += 1_000_000
    scores[:16_000] = 0
    assert best(scores, 400).tolist() == np.argsort(-scores, kind="stable")[:400].tolist()


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(0, 15), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_diverse_ones_are_chosen_one_by_one(seed: int, n: int, k: int, diversity: float) -> None:
    chance = np.random.default_rng(seed)
    relevance = np.sort(chance.integers(0, 5, n))[::-1].astype(np.float32) / 4
    likeness = chance.integers(0, 5, (n, n)).astype(np.float32) / 4
    chosen: list[int] = []
    while len(chosen) < min(k, n):
        left = [i for i in range(n) if i not in chosen]
        gain = {
            i: relevance[i]
            if not chosen
            else (1 - diversity) * relevance[i] - diversity * max(likeness[c, i] for c in chosen)
            for i in left
        }
        chosen.append(max(left, key=lambda i: (gain[i], -i)))
    assert diverse(relevance, likeness, k, diversity).tolist() == chosen
