from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine import coreads
from recommender.engine.coreads import CoReads, blended, co_reads
from recommender.engine.corpus import Readings
from recommender.engine.evaluation import judge, likeness_fit, trials
from recommender.engine.features import Featurizer
from recommender.engine.recipes import recipe
from tests.recommender import real_readers

CONTENT = recipe("content")


def readings_of(*shelves: list[int], n_books: int = 6) -> Readings:
    readers = np.repeat(np.arange(len(shelves)), [len(shelf) for shelf in shelves])
    return Readings.of_pairs(readers, np.concatenate(shelves).astype(np.int64), n_books)


def at_random(n_readers: int, n_books: int, most: int) -> Readings:
    """Readers of one book to `most`."""
    dice = np.random.default_rng(0)
    shelves = [dice.choice(n_books, dice.integers(1, most + 1), replace=False).tolist() for _ in range(n_readers)]
    return readings_of(*shelves, n_books=n_books)


def plainly(readings: Readings) -> NDArray[np.float64]:
    """The same scores as the docstring tells them, pair by pair, without the limit of books."""
    read = readings.matrix.toarray()
    read = read[(read > 0).sum(axis=1) >= 2]
    weights = 1 / np.log2(1 + (read > 0).sum(axis=1))
    n = read.shape[1]
    own = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            common = int(((read[:, i] > 0) & (read[:, j] > 0)).sum())
            if i != j and common >= coreads.MIN_IN_COMMON:
                norms = (weights * read[:, i] ** 2).sum() * (weights * read[:, j] ** 2).sum()
                cosine = (weights * read[:, i] * read[:, j]).sum() / np.sqrt(norms)
                own[i, j] = cosine * common / (common + coreads.SHRINKAGE)
    walked = own.copy()
    for i in range(n):
        near = np.argsort(-own[i], kind="stable")[: coreads.NEAREST]
        if own[i, near].sum():
            walked[i] += coreads.SHARED_IN * own[i, near] @ own[near] / own[i, near].sum()
    walked[np.arange(n), np.arange(n)] = 0
    return walked / (1 + coreads.SHARED_IN)


def test_two_books_that_three_readers_share_by_hand() -> None:
    found = co_reads(readings_of([0, 1], [0, 1], [0, 1], [2, 3]), CONTENT)

    own = 1.0 * 3 / (3 + coreads.SHRINKAGE)  # no third book to share in
    assert found.scores.toarray()[0, 1] == pytest.approx(own / (1 + coreads.SHARED_IN))
    assert found.counts.toarray()[0, 1] == 3
    assert found.scores.toarray()[2, 3] == 0  # one reader says nothing


@pytest.mark.parametrize("at_a_time", [10, 10_000_000])
def test_scores_equal_a_plain_reckoning_in_any_blocks(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreads, "PAIRS_AT_A_TIME", at_a_time)
    readings = at_random(60, 25, 9)

    assert co_reads(readings, CONTENT).scores.toarray() == pytest.approx(plainly(readings), abs=1e-6)


def test_a_book_shares_in_what_its_neighbors_are_read_with() -> None:
    found = co_reads(readings_of([0, 1], [0, 1], [1, 2], [1, 2]), CONTENT)

    assert found.scores.toarray()[0, 2] > 0
    assert found.counts.toarray()[0, 2] == 0
    assert found.counts.nnz == found.scores.nnz  # stored, so that the two have one pattern


def test_nothing_is_its_own_neighbor_and_scores_lie_between_0_and_1() -> None:
    found = co_reads(at_random(200, 40, 12), CONTENT)

    assert not found.scores.diagonal().any()
    assert 0 < found.scores.data.min() <= found.scores.data.max() <= 1
    assert found.scores.indices.tolist() == found.counts.indices.tolist()
    assert found.scores.indptr.tolist() == found.counts.indptr.tolist()


def test_only_the_best_of_a_row_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = at_random(300, 40, 12)
    whole = co_reads(readings, CONTENT).scores.toarray()
    monkeypatch.setattr(coreads, "KEPT", 5)
    kept = co_reads(readings, CONTENT).scores

    assert np.diff(kept.indptr).max() == 5
    assert kept[[0]].data.max() == pytest.approx(whole[0].max(), rel=0.2)


def test_one_reader_of_everything_hardly_sways_what_others_read() -> None:
    shelves = [[0, 1]] * 5 + [[2, 3]] * 5
    before = co_reads(readings_of(*shelves, n_books=60), CONTENT).scores.toarray()
    after = co_reads(readings_of(*shelves, list(range(60)), n_books=60), CONTENT).scores.toarray()

    assert after[0].argmax() == before[0].argmax() == 1
    assert after[0, 1] == pytest.approx(before[0, 1], rel=0.2)
    assert after[0, 2] == 0


def test_who_reads_more_than_anybody_can_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreads, "MOST_BOOKS", 3)
    found = co_reads(readings_of([0, 1, 2, 3], [0, 1, 2, 3], [4, 5], [4, 5]), CONTENT)

    assert found.scores[[0]].nnz == 0
    assert found.scores[[4]].nnz == 1


@pytest.mark.parametrize("shelves", [[[0]], [[0], [1]], [[0, 1]]])
def test_readers_who_share_nothing_give_nothing(shelves: list[list[int]]) -> None:
    found = co_reads(readings_of(*shelves), CONTENT)

    assert found.scores.shape == found.counts.shape == (6, 6)
    assert found.scores.nnz == 0


def test_no_readers_at_all_give_nothing() -> None:
    found = co_reads(Readings(csr_array((0, 6), dtype=np.float32)), CONTENT)

    assert found.scores.shape == (6, 6)
    assert isinstance(found, CoReads)


def test_a_blend_keeps_the_order_of_content_where_nobody_read() -> None:
    content = np.array([0.3, -0.1, 0.2, 0.9], np.float32)
    nobody = blended(content, np.zeros(4, np.float32), weight=5)
    some = blended(content, np.array([0, 0.5, 0, 1], np.float32), weight=5)

    assert np.argsort(-nobody).tolist() == [3, 0, 2, 1]
    assert np.argsort(-some).tolist() == [3, 1, 0, 2]
    assert min(some.min(), nobody.min()) >= 0
    assert some.max() <= 1
    assert blended(content, np.zeros(4, np.float32), weight=0)[0] == pytest.approx(0.3)


@real_readers.needed
def test_half_of_the_readers_foretell_the_other_half() -> None:
    corpus, readings, queries = real_readers.corpus(), real_readers.readings(), real_readers.queries()
    fit = likeness_fit(Featurizer.fit(corpus, CONTENT)[1], CONTENT)
    halves = trials(readings, query_rows=queries)
    blend = judge(halves, fit)
    content = judge(halves, lambda _: fit(None))

    assert blend.intervals()["ndcg@10"].value >= 0.465
    few = np.isin(blend.queries, np.flatnonzero(np.bincount(readings.matrix.indices) < 20))
    assert blend.ndcg[few].mean() >= content.ndcg[few].mean()
