from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from recommender.engine.evaluation import Assessment, Scores
from recommender.engine.judgement import Case, Limits, decide

GOOD: dict[str, float | None] = {
    "exactly_10": 1.0,
    "self_neighbors": 0.0,
    "duplicates": 0.0,
    "coverage@10": 0.99,
    "popularity_percentile@10": 0.5,
    "latency_p99_ms": 1.0,
}
PROXIES: dict[str, float | None] = {"same_category_precision@10": 0.61, "churn@10": 0.125}


def scores(ndcg: Sequence[float] | np.ndarray, truth: str = "frozen") -> Scores:
    figures = np.asarray(ndcg, np.float64)
    n = len(figures)
    return Scores(np.arange(n, dtype=np.int32), figures, figures, figures, np.ones(n), 57, 571, truth)


def version(
    ndcg: Sequence[float] | np.ndarray | None = None, *, with_readers: bool = False, **guards: float | None
) -> Assessment:
    return Assessment(None if ndcg is None else scores(ndcg), GOOD | guards, PROXIES, with_readers)


def shifted(gain: float, spread: float, n: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """A challenger's and a champion's figures whose differences have exactly this mean and standard deviation."""
    champion = np.full(n, 0.4)
    differences = np.random.default_rng(0).normal(size=n)
    differences = (differences - differences.mean()) / differences.std() * spread + gain
    return champion + differences, champion


@pytest.mark.parametrize(
    ("gain", "spread", "promote"),
    [
        (0.02, 0.05, True),
        (0.02, 0.5, False),  # p is about .27
        (0.004, 0.001, False),  # certain, but too little
        (0.006, 0.001, True),
        (-0.02, 0.05, False),
    ],
)
def test_a_new_recipe_must_gain_enough_and_surely(gain: float, spread: float, promote: bool) -> None:
    challenger, champion = shifted(gain, spread)

    decision = decide("new_recipe", version(challenger), version(champion))

    assert decision.promote is promote
    assert f"gains {gain:+.4f}" in decision.reason


@pytest.mark.parametrize(
    ("gain", "spread", "promote"),
    [
        (0.0, 0.0, True),
        (-0.005, 0.01, True),  # at worst .0063 lost
        (-0.009, 0.05, False),  # might be .015
        (-0.02, 0.0, False),
        (0.0, 0.2, False),  # nobody can tell
    ],
)
def test_a_refresh_must_not_be_worse(gain: float, spread: float, promote: bool) -> None:
    challenger, champion = shifted(gain, spread)

    assert decide("refresh", version(challenger), version(champion)).promote is promote


@pytest.mark.parametrize("truth", [None, [], [0.4] * 29])
def test_without_enough_truth_a_refresh_needs_the_guards_alone(truth: list[float] | None) -> None:
    assert decide("refresh", version(truth), version(truth)).promote is True
    assert decide("refresh", version(truth, duplicates=1), version(truth)).promote is False


@pytest.mark.parametrize(("truth", "why"), [(None, "no truth"), ([0.9] * 29, "29 queries with truth are too few")])
def test_without_enough_truth_a_new_recipe_waits_for_a_person_with_proxies(truth: list[float] | None, why: str) -> None:
    champion = None if truth is None else [0.1] * 29

    decision = decide("new_recipe", version(truth), version(champion))

    assert decision.promote is None
    assert decision.reason.startswith("Waits for a person.")
    assert why in decision.reason
    assert decision.figures["proxies"]["churn@10"] == 0.125


def test_thirty_queries_are_enough() -> None:
    assert decide("new_recipe", version([0.9] * 30), version([0.1] * 30)).promote is True


def test_a_first_model_needs_no_champion_and_no_truth() -> None:
    decision = decide("first", version())

    assert decision.promote is True
    assert "no champion to compare it with" in decision.reason


BROKEN: list[tuple[dict[str, float | None], str]] = [
    ({"exactly_10": 0.999}, "Only 99.90% of the books"),
    ({"self_neighbors": 2.0}, "Neighbors of themselves: 2 books."),
    ({"duplicates": 1.0}, "Listed twice: 1 of the neighbors."),
    ({"latency_p99_ms": 20.1}, "over 20.1 ms"),
]
NARROW: list[tuple[dict[str, float | None], str]] = [
    ({"coverage@10": 0.9799}, "coverage@10 is 0.9799; 0.98 to 1.0 is wanted."),
    ({"popularity_percentile@10": 0.44}, "popularity_percentile@10 is 0.4400"),
    ({"popularity_percentile@10": 0.59}, "popularity_percentile@10 is 0.5900"),
]


@pytest.mark.parametrize("case", ["first", "refresh", "new_recipe"])
@pytest.mark.parametrize(("guards", "why"), BROKEN)
def test_a_broken_guard_refuses_whatever_was_gained(case: Case, guards: dict[str, float | None], why: str) -> None:
    decision = decide(case, version([0.9] * 50, **guards), version([0.1] * 50))

    assert decision.promote is False
    assert why in decision.reason


@pytest.mark.parametrize("case", ["refresh", "new_recipe"])
@pytest.mark.parametrize(("guards", "why"), NARROW)
def test_a_narrower_choice_than_the_champions_is_refused(case: Case, guards: dict[str, float | None], why: str) -> None:
    decision = decide(case, version([0.9] * 50, **guards), version([0.1] * 50))

    assert decision.promote is False
    assert why in decision.reason


@pytest.mark.parametrize(("guards", "_why"), NARROW)
def test_a_first_model_may_be_narrow_since_without_it_there_is_none(guards: dict[str, float | None], _why: str) -> None:
    assert decide("first", version(**guards)).promote is True


def test_a_champion_that_is_narrow_itself_does_not_grow_old_for_that() -> None:
    champion = version([0.1] * 50, **{"coverage@10": 0.9})

    assert decide("refresh", version([0.1] * 50, **{"coverage@10": 0.895}), champion).promote is True
    assert decide("refresh", version([0.1] * 50, **{"coverage@10": 0.889}), champion).promote is False


def test_several_broken_guards_are_all_named() -> None:
    reason = decide("first", version(self_neighbors=1.0, duplicates=3.0)).reason

    assert "Neighbors of themselves" in reason
    assert "Listed twice" in reason


@pytest.mark.parametrize("name", GOOD)
def test_what_was_not_measured_does_not_refuse_and_is_said(name: str) -> None:
    decision = decide("first", version(**{name: None}))

    assert decision.promote is True
    assert f"{name} not measured" in decision.reason


def test_a_version_that_learned_from_readers_may_lean_to_what_is_read_much() -> None:
    champion = version([0.1] * 50)
    for percentile, promote in ((0.65, True), (0.8, False)):
        challenger = version([0.1] * 50, with_readers=True, **{"popularity_percentile@10": percentile})
        assert decide("refresh", challenger, champion).promote is promote


def test_the_champion_need_not_hold_the_guards() -> None:
    assert decide("new_recipe", version([0.9] * 50), version([0.1] * 50, duplicates=9.0)).promote is True


def test_the_limits_can_be_others() -> None:
    challenger = version([0.1] * 50, **{"coverage@10": 0.9})
    assert decide("refresh", challenger, version([0.1] * 50), limits=Limits(coverage=0.8)).promote is True


def test_a_reason_holds_its_figures_and_what_so_many_queries_can_show() -> None:
    challenger, champion = shifted(0.02, 0.125)
    decision = decide("new_recipe", version(challenger), version(champion))

    for said in ("0.4200", "0.4000", "+0.0200", "240 queries", "gain of 0.020", "57 without truth", "571 books"):
        assert said in decision.reason
    assert json.loads(json.dumps(decision.figures))["gain"]["value"] == 0.02


def test_versions_judged_by_different_truths_are_not_compared() -> None:
    other = Assessment(scores([0.1] * 50, truth="another"), GOOD, PROXIES)

    with pytest.raises(ValueError, match="one truth"):
        decide("refresh", version([0.1] * 50), other)


@pytest.mark.parametrize("case", ["refresh", "new_recipe"])
def test_a_challenger_of_nobody_is_a_first_model(case: Case) -> None:
    with pytest.raises(ValueError, match="against a champion"):
        decide(case, version())
