"""Against looking at all, where all cells are looked through; and what cells must not lose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recommender.engine import cells as module
from recommender.engine.cells import Cells

Vectors = NDArray[np.float32]


def grouped(n: int, d: int = 12, seed: int = 4) -> Vectors:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((n, d)) + 3 * np.eye(d)[chance.integers(0, d, n)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cells_of(vectors: Vectors, progress: Callable[[str, int, int], None] | None = None) -> Cells:
    return Cells.of(lambda rows: vectors[rows], len(vectors), progress)


def near_each(cells: Cells, n: int) -> NDArray[np.intp]:
    """(n_vectors, n); asserts that every row comes once."""
    rows, near = (np.concatenate(parts) for parts in zip(*cells.near_each(n), strict=True))
    assert np.sort(rows).tolist() == list(range(len(cells.rows)))
    return np.asarray(near[np.argsort(rows)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 12))
def test_with_all_cells_looked_through_the_nearest_are_those_of_all(seed: int, n: int, k: int) -> None:
    vectors = grouped(n, seed=seed)
    cells = cells_of(vectors)  # nine at most
    scores = vectors @ vectors.T
    for row, near in enumerate(near_each(cells, k)):
        worst = np.sort(scores[row])[::-1][min(n, k) - 1]
        for found in (near[near >= 0], cells.near(vectors[row], k)):
            assert len({*found.tolist()}) == min(n, k)
            assert scores[row][found].min() >= worst - 0.02  # they are compared in bytes


@pytest.mark.parametrize("probed", [1, 3])
def test_of_each_group_the_nearest_are_in_the_nearest_cells(probed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBED", probed)
    monkeypatch.setattr(module, "AT_A_TIME", 7)  # less than a cell holds
    vectors = grouped(900)
    near = near_each(cells_of(vectors), 10)
    exact = np.argsort(-(vectors @ vectors.T), axis=1)[:, :10]
    found = np.mean([len({*a} & {*b}) / 10 for a, b in zip(near.tolist(), exact.tolist(), strict=True)])
    assert found > (0.4 if probed == 1 else 0.7)
    assert all(row in some for row, some in enumerate(near.tolist()))


def test_a_cell_of_short_vectors_is_looked_through_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBED", 1)
    vectors = grouped(600)
    vectors[vectors[:, 0] > 0.5] *= 0.2
    assert all(row in some for row, some in enumerate(near_each(cells_of(vectors), 60).tolist()))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_vectors_that_are_all_the_same_are_found_all_the_same(value: float) -> None:
    vectors = np.full((50, 3), value, np.float32)
    assert sorted(near_each(cells_of(vectors), 60)[7].tolist()) == [-1] * 10 + list(range(50))


def test_what_is_longer_than_what_was_learned_from_is_cut_not_turned_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEARNED_FROM", 1)
    vectors = grouped(400)
    learned = np.random.default_rng(module.SEED).choice(400, 20, replace=False)
    longest = next(row for row in range(400) if row not in learned)
    vectors[longest] *= 10
    cells = cells_of(vectors)
    assert longest in cells.near(vectors[longest], 1)


def test_cells_come_back_from_a_folder_and_nothing_from_an_empty_one(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    vectors = grouped(100)
    cells = cells_of(vectors, lambda *progress: told.append(progress))
    assert told == [("index", 100, 100)]
    assert Cells.load(tmp_path, "some") is None
    cells.save(tmp_path, "some")
    loaded = Cells.load(tmp_path, "some")
    assert loaded is not None
    np.testing.assert_array_equal(near_each(loaded, 5), near_each(cells, 5))
