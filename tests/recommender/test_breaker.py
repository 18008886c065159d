"""The circuit breaker, by a clock of our own."""

from __future__ import annotations

import pytest

from recommender.breaker import Breaker, CircuitOpen


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, pause_s=5.0, clock=clock)


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.admit()
    except CircuitOpen:
        return True
    return False


def test_it_opens_after_so_many_failures_in_a_row_and_says_so_once(breaker: Breaker) -> None:
    assert [breaker.failed() for _ in range(2)] == [False, False]
    assert not is_open(breaker)
    assert [breaker.failed() for _ in range(3)] == [True, False, False]
    assert is_open(breaker)


def test_a_success_in_between_forgets_the_failures(breaker: Breaker) -> None:
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert not is_open(breaker)


def test_after_the_pause_one_alone_may_try(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failed()
    clock.now += 4.9
    assert is_open(breaker)
    clock.now += 0.2
    assert not is_open(breaker)
    assert is_open(breaker)


def test_a_try_that_fails_opens_it_for_another_pause(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failed()
    clock.now += 6
    breaker.admit()
    clock.now += 1
    breaker.failed()
    clock.now += 4.9
    assert is_open(breaker)
    clock.now += 0.2
    assert not is_open(breaker)


def test_a_try_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failed()
    clock.now += 6
    breaker.admit()
    breaker.succeeded()
    assert not is_open(breaker)
    assert not is_open(breaker)


def test_a_try_that_never_comes_back_does_not_keep_it_open_for_ever(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        breaker.failed()
    clock.now += 6
    breaker.admit()
    clock.now += 5.1
    assert not is_open(breaker)
