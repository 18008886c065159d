from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recommender.engine import significance
from recommender.engine.significance import Gain, Interval, detectable, sign_flip_p

figures = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))


@given(figures, st.integers(0, 99))
def test_an_interval_holds_its_mean_within_the_figures(per_query: np.ndarray, seed: int) -> None:
    interval = Interval.of(per_query, seed=seed)

    assert interval.value == pytest.approx(per_query.mean())
    assert per_query.min() - 1e-9 <= interval.low <= interval.high <= per_query.max() + 1e-9


def test_an_interval_is_as_wide_as_the_normal_distribution_says() -> None:
    per_query = np.random.default_rng(1).normal(0.5, 0.2, 1000)
    interval = Interval.of(per_query)

    error = per_query.std() / np.sqrt(1000)
    assert interval.low == pytest.approx(per_query.mean() - 1.96 * error, abs=error / 5)
    assert interval.high == pytest.approx(per_query.mean() + 1.96 * error, abs=error / 5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    held = [i.low <= 0.5 <= i.high for i in (Interval.of(random.random(60), seed=s) for s in range(400))]

    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_a_query_asked_three_times_weighs_three_times() -> None:
    interval = Interval.of(np.array([0.0, 1.0]), np.array([1.0, 3.0]))

    assert interval.value == 0.75
    assert (interval.low, interval.high) == (0, 1)


def test_the_same_seed_gives_the_same_interval_in_any_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    per_query = np.random.default_rng(3).random(50)
    whole = Interval.of(per_query, seed=7)
    monkeypatch.setattr(significance, "BLOCK", 999)

    assert Interval.of(per_query, seed=7) == whole
    assert Interval.of(per_query, seed=8) != whole


def test_a_mean_of_no_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one query"):
        Interval.of(np.array([]))


def test_p_is_that_of_all_sign_flips() -> None:
    differences = np.array([0.3, -0.1, 0.2, 0.4, 0.1, -0.2, 0.3, 0.1])
    means = [np.dot(signs, differences) for signs in product((1, -1), repeat=len(differences))]
    exact = np.mean([mean >= differences.sum() - 1e-12 for mean in means])

    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.01)


def test_p_of_no_difference_is_1_and_is_never_0() -> None:
    assert sign_flip_p(np.zeros(20)) == 1
    assert sign_flip_p(np.ones(50)) == pytest.approx(1 / 10_001)


def test_p_is_one_sided() -> None:
    worse = np.random.default_rng(4).normal(-0.1, 0.1, 100)

    assert sign_flip_p(worse) > 0.99
    assert sign_flip_p(-worse) < 0.01


def test_p_is_uniform_where_there_is_no_difference() -> None:
    random = np.random.default_rng(5)
    ps = np.array([sign_flip_p(random.normal(0, 0.1, 40), seed, flips=500) for seed in range(400)])

    for share in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(ps <= share) == pytest.approx(share, abs=0.06)


def test_the_detectable_gain_is_found_in_four_of_five_trials() -> None:
    random = np.random.default_rng(6)
    gain = detectable(random.normal(0, 0.125, 240))
    found = [sign_flip_p(random.normal(gain, 0.125, 240), seed, flips=500) < 0.05 for seed in range(300)]

    assert gain == pytest.approx(0.02, abs=0.002)
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)


def test_one_query_can_show_nothing() -> None:
    assert detectable(np.array([0.5])) == 1


def test_a_gain_counts_a_query_as_many_times_as_it_was_asked() -> None:
    differences, times = np.array([0.5, -0.1, -0.1]), np.array([1.0, 3.0, 3.0])

    gain = Gain.of(differences, times)

    assert gain.mean.value == pytest.approx((0.5 - 0.3 - 0.3) / 7)
    assert gain.p > 0.5
    assert gain.n_queries == 3
