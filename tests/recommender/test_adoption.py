from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recommender.engine.adoption import TOP, adopt


def lists_of(likeness: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    likeness = likeness.copy()
    np.fill_diagonal(likeness, -1)
    rows = np.argsort(-likeness, axis=1, kind="stable")[:, :k].astype(np.int32)
    return rows, np.take_along_axis(likeness, rows, axis=1).astype(np.float16)


def orphans_in(rows: np.ndarray) -> set[int]:
    return set(range(len(rows))) - set(rows[:, :TOP].ravel().tolist())


def crowd(n: int) -> np.ndarray:
    """Books of which the first are near to all others, and the last to nobody more than anybody else."""
    fame = np.linspace(1, 0.1, n)
    return np.sqrt(np.outer(fame, fame))


def test_an_orphan_takes_the_tenth_place_of_the_list_where_that_costs_least() -> None:
    # Twelve books: 0-9 are near to each other, and 10 is of all lists the eleventh, closest behind in that of book 3.
    likeness = np.full((12, 12), 0.5)
    likeness[11, :] = likeness[:, 11] = 0.45
    likeness[10, :] = likeness[:, 10] = 0.2
    likeness[3, 10] = likeness[10, 3] = 0.4
    rows, scores = lists_of(likeness, 11)
    assert orphans_in(rows) == {10}

    assert adopt(rows, scores) == 1

    assert rows[3, TOP - 1] == 10
    assert rows[3, TOP] == 11  # moved down by one
    assert scores[3, TOP - 1] == np.float16(0.45)


def test_a_few_that_all_are_near_to_do_not_keep_the_rest_out() -> None:
    rows, scores = lists_of(crowd(50), 40)
    before = orphans_in(rows)

    adopted = adopt(rows, scores)

    assert len(before) == 39
    assert len(orphans_in(rows)) == len(before) - adopted < len(before) / 3


def test_lists_of_fewer_than_ten_stay_as_they_are() -> None:
    rows, scores = lists_of(crowd(9), 8)
    kept = rows.copy()

    assert adopt(rows, scores) == 0
    assert np.array_equal(rows, kept)


@given(st.integers(0, 2**32), st.integers(12, 60), st.integers(11, 59))
def test_adoption_leaves_lists_in_order_and_makes_no_orphans(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    likeness = np.outer(rng.random(n), rng.random(n)) + 0.1 * rng.random((n, n))
    rows, scores = lists_of(likeness, min(k, n - 1))
    before, first_nine = orphans_in(rows), rows[:, : TOP - 1].copy()

    adopted = adopt(rows, scores)

    assert np.array_equal(rows[:, : TOP - 1], first_nine)
    assert orphans_in(rows) < before or not adopted
    assert len(before) - len(orphans_in(rows)) == adopted
    assert np.all(np.diff(scores.astype(np.float32), axis=1) <= 0)
    for row, own in enumerate(rows.tolist()):
        assert len(set(own)) == len(own)
        assert row not in own
