from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.engine import truth as truth_module
from recommender.engine.corpus import Readings
from recommender.engine.truth import Truth, books_to_ask, split_readers, truth_of


def readings_of(*shelves: list[int], n_books: int = 6) -> Readings:
    """One reader a shelf."""
    pairs = [(reader, book) for reader, shelf in enumerate(shelves) for book in shelf]
    readers, books = np.array(pairs, np.int64).T
    return Readings.of_pairs(readers, books, n_books)


# Books 0 and 1 share four readers, 0 and 2 three, 1 and 2 two; reader 5 read one book, 4, and book 5 is read by nobody.
SHELVES = ([0, 1], [0, 1], [0, 1, 2], [0, 1, 2], [0, 2], [4])


def test_truth_is_the_shrunk_cosine_worked_out_by_hand() -> None:
    truth = truth_of(readings_of(*SHELVES))

    assert truth.queries.tolist() == [0, 1, 2]
    assert truth.neighbors[:, :3].tolist() == [[1, 2, -1], [0, -1, -1], [0, -1, -1]]
    near, far = 4 / np.sqrt(5 * 4) * 4 / 9, 3 / np.sqrt(5 * 3) * 3 / 8
    assert truth.grades[0, :3] == pytest.approx([near, far, 0])
    assert truth.grades[1:, 0] == pytest.approx([near, far])


def test_a_book_of_one_book_readers_is_a_candidate_but_skipped_as_a_query() -> None:
    truth = truth_of(readings_of(*SHELVES))

    assert truth.candidates.tolist() == [0, 1, 2, 4]
    assert truth.n_skipped == 1


def test_a_reader_of_one_book_makes_no_book_less_like_another() -> None:
    with_single = truth_of(readings_of(*SHELVES, [0], [0], [0]))

    assert with_single.grades[0, 0] == truth_of(readings_of(*SHELVES)).grades[0, 0]


def test_two_books_with_two_common_readers_are_not_alike() -> None:
    truth = truth_of(readings_of([0, 1], [0, 1]))

    assert len(truth) == 0
    assert truth.n_skipped == 2


def test_only_the_queries_are_asked_about_and_those_nobody_read_are_skipped() -> None:
    truth = truth_of(readings_of(*SHELVES), np.array([5, 2], np.int32))

    assert truth.queries.tolist() == [2]
    assert truth.n_skipped == 1


def test_truth_keeps_ten_books_and_equally_near_ones_by_row() -> None:
    truth = truth_of(readings_of(*[list(range(14))] * 3, n_books=14), np.array([3], np.int32))

    assert truth.neighbors.tolist() == [[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]]


def test_truth_does_not_depend_on_how_many_queries_are_worked_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = truth_of(readings_of(*SHELVES))
    monkeypatch.setattr(truth_module, "BLOCK", 2)

    assert truth_of(readings_of(*SHELVES)).fingerprint() == at_once.fingerprint()


def test_a_frozen_truth_is_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    truth = truth_of(readings_of(*SHELVES))
    truth.save(tmp_path / "frozen")
    loaded = Truth.load(tmp_path / "frozen")

    assert loaded.fingerprint() == truth.fingerprint()
    assert loaded.grades.dtype == np.float32
    assert loaded.n_skipped == 1


def test_another_grade_is_another_fingerprint() -> None:
    truth = truth_of(readings_of(*SHELVES))
    other = truth_of(readings_of(*SHELVES, [0, 1]))

    assert truth.fingerprint() != other.fingerprint()


def test_many_books_are_asked_about_by_a_sample_that_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth_module, "MAX_QUERIES", 3)
    readings = readings_of(list(range(6)))

    asked = books_to_ask(readings)

    assert len(set(asked.tolist())) == 3
    assert asked.tolist() == sorted(asked.tolist()) == books_to_ask(readings).tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_every_reader_is_in_exactly_one_part(seed: int, share: float) -> None:
    readings = readings_of(*[[reader % 6, 6 + reader] for reader in range(9)], n_books=15)

    first, second = split_readers(readings, seed, share)

    assert first.n_readers == round(share * 9)
    names = np.concatenate([part.matrix[:, 6:].indices for part in (first, second)])
    assert sorted(names.tolist()) == list(range(9))
