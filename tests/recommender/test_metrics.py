from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, Qrel, R, ScoredDoc, nDCG
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine import metrics
from recommender.engine.features import Features
from recommender.engine.metrics import Lists
from recommender.engine.truth import DEPTH, Truth

N_BOOKS = 40


def truth_of_grades(*grades: dict[int, float]) -> Truth:
    """Query `i` is book `i`, and its truth the books of `grades[i]`."""
    neighbors = np.full((len(grades), DEPTH), -1, np.int32)
    values = np.zeros((len(grades), DEPTH), np.float32)
    for i, of_query in enumerate(grades):
        best = sorted(of_query, key=lambda book: -of_query[book])
        neighbors[i, : len(best)], values[i, : len(best)] = best, [of_query[book] for book in best]
    queries = np.arange(len(grades), dtype=np.int32)
    return Truth(queries, neighbors, values, np.arange(N_BOOKS, dtype=np.int32), 0)


def lists_of(*books: list[int], k: int = 20) -> Lists:
    lists = np.full((len(books), k), -1, np.int32)
    for i, of_query in enumerate(books):
        lists[i, : len(of_query)] = of_query
    return lists


# Grades are whole, as trec_eval wants them; books differ from the query, which is book 0.
graded = st.dictionaries(st.integers(1, N_BOOKS - 1), st.integers(1, 9).map(float), min_size=1, max_size=DEPTH)
ranked = st.lists(st.integers(1, N_BOOKS - 1), unique=True, max_size=20)


def all_of(truth: Truth, lists: Lists) -> NDArray[np.float64]:
    return np.stack([judge(lists, truth) for judge in (metrics.ndcg, metrics.recall, metrics.reciprocal_rank)])


def test_ndcg_recall_and_reciprocal_rank_worked_out_by_hand() -> None:
    truth = truth_of_grades({5: 0.6, 7: 0.3, 9: 0.1})
    lists = lists_of([3, 7, 5])

    ideal = 0.6 / np.log2(2) + 0.3 / np.log2(3) + 0.1 / np.log2(4)
    assert metrics.ndcg(lists, truth) == pytest.approx([(0.3 / np.log2(3) + 0.6 / np.log2(4)) / ideal])
    assert metrics.recall(lists, truth) == pytest.approx([2 / 3])
    assert metrics.reciprocal_rank(lists, truth) == pytest.approx([1 / 2])


def test_a_book_listed_again_brings_nothing_again() -> None:
    truth = truth_of_grades({5: 0.6, 7: 0.3})

    assert all_of(truth, lists_of([5, 5, 5])) == pytest.approx(all_of(truth, lists_of([5])))


def test_a_book_after_the_last_place_that_counts_brings_nothing() -> None:
    truth = truth_of_grades({30: 1.0})
    others = list(range(1, 20))

    assert metrics.ndcg(lists_of([*others[:9], 30]), truth) > 0
    assert metrics.ndcg(lists_of([*others[:10], 30]), truth) == 0
    assert metrics.recall(lists_of([*others, 30]), truth) == 1
    assert metrics.recall(lists_of([*others, 20, 30], k=21), truth) == 0
    assert metrics.reciprocal_rank(lists_of([*others, 20, 30], k=21), truth) == 0


@given(graded, ranked)
def test_ir_measures_computes_the_same(grades: dict[int, float], books: list[int]) -> None:
    qrels = [Qrel("0", str(book), int(grade)) for book, grade in grades.items()]
    run = [ScoredDoc("0", str(book), -float(rank)) for rank, book in enumerate(books)]
    expected = ir_measures.calc_aggregate([nDCG @ 10, R @ 20, RR @ 20], qrels, run)

    ours = all_of(truth_of_grades(grades), lists_of(books))

    assert ours[:, 0] == pytest.approx([expected[nDCG @ 10], expected[R @ 20], expected[RR @ 20]])


@given(graded, st.lists(st.integers(-1, N_BOOKS - 1), max_size=20))
def test_figures_lie_between_0_and_1_even_with_books_listed_twice(grades: dict[int, float], books: list[int]) -> None:
    figures = all_of(truth_of_grades(grades), lists_of(books))

    assert (figures >= 0).all()
    assert (figures <= 1 + 1e-6).all()


@given(graded)
def test_the_truth_itself_scores_1(grades: dict[int, float]) -> None:
    truth = truth_of_grades(grades)

    assert all_of(truth, truth.neighbors) == pytest.approx(1)


@given(graded, ranked, st.integers(1, 20))
def test_books_that_are_not_in_the_truth_change_nothing_at_the_end(
    grades: dict[int, float], books: list[int], more: int
) -> None:
    truth = truth_of_grades(grades)
    with_tail = [*books, *range(N_BOOKS, N_BOOKS + more)][:20]

    assert (all_of(truth, lists_of(with_tail)) == all_of(truth, lists_of(books))).all()


def test_coverage_counts_each_book_once_and_no_padding() -> None:
    lists = np.array([[1, 2, 3], [0, 2, -1], [0, 1, -1]], np.int32)

    assert metrics.coverage(lists, 4) == 1
    assert metrics.coverage(lists, 4, k=1) == 2 / 4


def test_popularity_is_a_percentile_among_the_books_with_readers() -> None:
    n_readers = np.array([*range(1, 101), 0], np.int64)

    assert metrics.popularity_percentile(np.array([[99, 100]], np.int32), n_readers) == pytest.approx(0.995)
    assert metrics.popularity_percentile(np.array([[0, -1]], np.int32), n_readers) == pytest.approx(0.005)
    assert metrics.popularity_percentile(np.arange(100, dtype=np.int32)[:, None], n_readers) == pytest.approx(0.5)


def test_equally_popular_books_share_a_percentile() -> None:
    n_readers = np.full(100, 7, np.int64)

    assert metrics.popularity_percentile(np.array([[0, 99]], np.int32), n_readers) == pytest.approx(0.5)


def test_popularity_is_unknown_without_enough_books_with_readers() -> None:
    unread, read = np.array([[0, 1]], np.int32), np.array([[2, 3]], np.int32)

    assert metrics.popularity_percentile(read, np.array([0] * 2 + [3] * 99, np.int64)) is None
    assert metrics.popularity_percentile(read, np.array([0] * 2 + [3] * 100, np.int64)) == pytest.approx(0.5)
    assert metrics.popularity_percentile(unread, np.array([0] * 2 + [3] * 100, np.int64)) is None


def test_a_list_is_full_with_all_other_books_of_a_small_catalogue() -> None:
    lists = np.array([[1, 2, -1], [0, 2, -1], [0, -1, -1]], np.int32)

    assert metrics.full_share(lists, 3) == pytest.approx(2 / 3)
    assert metrics.full_share(lists, 100, k=2) == pytest.approx(2 / 3)
    assert metrics.full_share(lists, 100, k=3) == 0


def test_self_neighbors_and_duplicates_are_counted_and_padding_is_neither() -> None:
    lists = np.array([[0, 2, 2, -1, -1], [2, 0, 2, 2, -1], [0, 1, -1, -1, -1]], np.int32)

    assert metrics.self_neighbors(lists, np.arange(3, dtype=np.int32)) == 1
    assert metrics.duplicates(lists) == 3


def features_of(dense: list[list[float]], sparse: list[list[float]]) -> Features:
    n = len(dense)
    return Features(np.array(dense, np.float32), csr_array(np.array(sparse, np.float32)), np.zeros((n, 16), np.int32))


def test_diversity_is_one_less_the_mean_likeness_of_pairs() -> None:
    root = np.sqrt(0.5)
    features = features_of([[root, 0], [root, 0], [0, root]], [[root], [0], [root]])  # likeness: .5, .5, 0
    lists = np.array([[0, 1, 2], [0, 1, -1], [2, -1, -1]], np.int32)

    assert metrics.intra_list_diversity(lists, features) == pytest.approx(1 - (1 / 3 + 1 / 2) / 2)


def test_diversity_of_lists_of_one_is_unknown() -> None:
    assert metrics.intra_list_diversity(np.array([[1], [0]], np.int32), features_of([[1], [1]], [[0], [0]])) is None


def test_diversity_of_many_lists_is_that_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SAMPLE", 5)
    lists = np.array([[0, 1]] * 50, np.int32)

    assert metrics.intra_list_diversity(lists, features_of([[1], [0]], [[0], [1]])) == pytest.approx(1)


def test_precision_and_recall_of_a_label_leave_out_books_without_one() -> None:
    labels = ["saga", "saga", "saga", "", "lone"]
    lists = np.array([[1, 3], [0, 2], [3, 4], [0, 1], [3, -1]], np.int32)

    assert metrics.same_label_precision(lists, labels) == pytest.approx((1 / 2 + 1 + 0 + 0) / 4)
    assert metrics.same_label_recall(lists, labels) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert metrics.same_label_recall(lists, labels, k=1) == pytest.approx((1 + 1 + 0) / 3)


def test_without_labels_nothing_is_said_of_them() -> None:
    lists = np.array([[1], [0]], np.int32)

    assert metrics.same_label_precision(lists, ["", ""]) is None
    assert metrics.same_label_recall(lists, ["one", "two"]) is None


def test_churn_compares_books_and_not_rows() -> None:
    old_ids, new_ids = np.array([10, 20, 30], np.int64), np.array([5, 10, 20, 30], np.int64)
    old = np.array([[1, 2], [0, 2], [0, 1]], np.int32)
    new = np.array([[1, 2], [2, 3], [3, 0], [1, -1]], np.int32)

    # 10 keeps 20 and 30; 20 keeps 30 and gets 5; 30 keeps 10 and has no second; 5 is new itself.
    assert metrics.churn(old_ids, old, new_ids, new) == pytest.approx(1 / 5)
    assert metrics.churn(old_ids, old, old_ids, old) == 0


def test_churn_does_not_depend_on_how_many_lists_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 2)
    ids = np.array([1, 2, 3], np.int64)

    assert metrics.churn(ids, np.array([[1], [2], [0]], np.int32), ids, np.array([[1], [0], [1]], np.int32)) == 2 / 3


def test_churn_of_versions_without_a_common_book_is_unknown() -> None:
    lists = np.array([[-1]], np.int32)

    assert metrics.churn(np.array([1], np.int64), lists, np.array([2], np.int64), lists) is None
