from __future__ import annotations

from catalog.memo import Memo, forget_all


def test_the_values_asked_for_last_are_kept_and_no_more_than_the_size() -> None:
    memo: Memo[str] = Memo(size=2)
    memo.keep((1, "a"), "first")
    memo.keep((1, "b"), "second")
    assert memo.get((1, "a")) == "first"
    memo.keep((2, "a"), "third")
    assert memo.get((1, "b")) is None
    assert memo.get((1, "a")) == "first"
    assert memo.get((2, "a")) == "third"


def test_a_value_that_is_false_is_a_value() -> None:
    memo: Memo[int] = Memo(size=1)
    memo.keep("none", 0)
    assert memo.get("none") == 0


def test_everything_is_forgotten_at_once() -> None:
    one: Memo[int] = Memo(size=1)
    other: Memo[int] = Memo(size=1)
    one.keep("x", 1)
    other.keep("x", 2)
    forget_all()
    assert one.get("x") is None
    assert other.get("x") is None
