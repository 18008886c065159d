"""What a mean over queries is worth: intervals and tests that assume nothing about how figures are distributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

PerQuery = NDArray[np.float64]

RESAMPLES = 2_000
FLIPS = 10_000
BLOCK = 4_000_000  # random numbers held at once
ROUNDING = 1e-12  # sums of the same numbers in another order differ by less


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: PerQuery, weights: PerQuery | None = None, seed: int = 0) -> Self:
        """Percentile bootstrap over the queries. Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13.

        Of the differences of two rankings, query by query, it is the paired interval. `weights` are how many times each
        query was asked; all of its figures come and go together. Raises ValueError for no figures.
        """
        n = len(figures)
        if not n:
            raise ValueError("A mean needs at least one query.")
        random = np.random.default_rng(seed)
        weights = np.ones(n) if weights is None else weights
        weighted = figures * weights
        means = []
        for size in _sizes(n, RESAMPLES):
            drawn = random.integers(0, n, (size, n))
            means.append(weighted[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
        low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
        return cls(float(weighted.sum() / weights.sum()), float(low), float(high))

    def as_json(self) -> dict[str, float]:
        return {"value": round(self.value, 5), "low": round(self.low, 5), "high": round(self.high, 5)}

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better one ranking is than another, over the same queries."""

    mean: Interval  # of the differences, above 0 when the first is better
    p: float  # one-sided
    detectable: float
    n_queries: int

    @classmethod
    def of(cls, differences: PerQuery, weights: PerQuery | None = None, seed: int = 0) -> Self:
        """`weights` as for `Interval.of`. Raises ValueError for no differences."""
        mean = Interval.of(differences, weights, seed)
        counted = differences if weights is None else differences * weights / weights.mean()
        return cls(mean, sign_flip_p(counted, seed), detectable(counted), len(differences))

    def as_json(self) -> dict[str, float]:
        return self.mean.as_json() | {"p": round(self.p, 5), "detectable": round(self.detectable, 5)}


def sign_flip_p(differences: PerQuery, seed: int = 0, flips: int = FLIPS) -> float:
    """How often chance alone gives a mean difference as large: one-sided, above 0 and at most 1.

    If the two rankings were equally good, each query's difference could as well have the other sign. Fisher's
    randomisation test as in Smucker, Allan & Carterette, CIKM 2007; the observed signs count as one of the flips, so
    that p is never 0 (Phipson & Smyth, 2010).
    """
    random = np.random.default_rng(seed)
    observed = differences.sum()
    as_large = 0
    for size in _sizes(len(differences), flips):
        signs = random.integers(0, 2, (size, len(differences)), dtype=np.int8) * np.int8(2) - np.int8(1)
        as_large += int((signs @ differences >= observed - ROUNDING).sum())
    return (1 + as_large) / (1 + flips)


def detectable(differences: PerQuery) -> float:
    """The least true gain that the test finds in four of five trials, at p < .05, with queries as many and as unlike.

    (1.645 + 0.842) standard errors: the one-sided 5 % and the 80 % quantiles of the normal distribution.
    """
    if len(differences) < 2:
        return 1.0  # the whole range of a figure: one query tells nothing
    return float((1.645 + 0.842) * differences.std(ddof=1) / np.sqrt(len(differences)))


def _sizes(n: int, total: int) -> list[int]:
    """The resamples in parts that memory holds."""
    size = max(1, BLOCK // max(n, 1))
    return [min(size, total - start) for start in range(0, total, size)]
