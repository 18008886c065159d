"""Whether a challenger takes the champion's place. Three questions that differ, and guards that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from recommender.engine.evaluation import Assessment, Scores

Case = Literal["new_recipe", "refresh", "first"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The protocol's figures."""

    gain: float = 0.005  # nDCG@10 that a new recipe has to bring
    p: float = 0.05  # one-sided
    loss: float = 0.01  # nDCG@10 that a refresh might have lost at worst: newer data is worth that risk
    queries: int = 30  # fewer are no truth: with 30 a gain of .05 goes unnoticed more often than not
    coverage: float = 0.98
    popularity: tuple[float, float] = (0.45, 0.58)
    latency_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a challenger, and why."""

    promote: bool | None  # None: waits for a person
    reason: str  # sentences
    figures: dict[str, Any] = field(default_factory=dict)  # what was decided by; fit for JSON


def decide(
    case: Case,
    challenger: Assessment,
    champion: Assessment | None = None,
    limits: Limits = Limits(),
) -> Decision:
    """Promote, refuse, or leave it to a person.

    A *first* model needs the guards. A *new recipe* must be better than the champion; without truth nobody can tell, so
    a person has to. A *refresh* is the champion's recipe on newer data, of which the champion knows nothing: it must
    not be worse, and without truth the guards have to do. Raises ValueError when the two were judged by different
    truths, or when the case needs a champion and there is none.
    """
    if case != "first" and champion is None:
        raise ValueError(f"A {case} is judged against a champion.")
    figures: dict[str, Any] = {"case": case, "guards": challenger.guards, "proxies": challenger.proxies}
    if broken := list(_broken(challenger.guards, limits)):
        return Decision(False, f"Refused. {' '.join(broken)}", figures)
    kept = _kept(challenger.guards)
    if case == "first" or champion is None:
        return Decision(True, f"Promoted: there is no champion yet. {kept}", figures)
    judged = _judged(challenger.scores, champion.scores, limits)
    if isinstance(judged, str):
        if case == "refresh":
            return Decision(True, f"Promoted: a refresh of the champion's recipe. {judged} {kept}", figures)
        waits = "A new recipe is not promoted without truth: it waits for a person."
        return Decision(None, f"{waits} {judged} {kept} {_proxies(challenger.proxies)}", figures)
    ours, theirs = judged
    gain, new, old = ours.gain_over(theirs), ours.intervals()["ndcg@10"], theirs.intervals()["ndcg@10"]
    figures |= {
        "challenger": new.as_json(),
        "champion": old.as_json(),
        "gain": gain.as_json(),
        "n_queries": gain.n_queries,
        "n_skipped": ours.n_skipped,
        "n_candidates": ours.n_candidates,
    }
    told = (
        f"nDCG@10 {new.value:.4f} against the champion's {old.value:.4f}: "
        f"{gain.mean.value:+.4f}, 95 % between {gain.mean.low:+.4f} and {gain.mean.high:+.4f}, p = {gain.p:.4f}, "
        f"over {gain.n_queries} queries{f', which can show a gain of {gain.detectable:.3f}' if gain.detectable else ''}."
    )
    if case == "refresh":
        good = gain.mean.low > -limits.loss
        rule = f"it may have lost {limits.loss} at most" if good else f"it may have lost more than {limits.loss}"
    else:
        good = gain.mean.value >= limits.gain and gain.p < limits.p
        rule = f"a new recipe has to gain {limits.gain} with p below {limits.p}" + (", and did" if good else "")
    return Decision(good, f"{'Promoted' if good else 'Refused'}: {rule}. {told} {kept}", figures)


def _judged(ours: Scores | None, theirs: Scores | None, limits: Limits) -> tuple[Scores, Scores] | str:
    """Both, or why they are no truth to decide by."""
    if ours is None or theirs is None:
        return "There is no truth to judge it by."
    if len(ours.queries) < limits.queries:
        return f"{len(ours.queries)} queries with truth are too few to judge by; {limits.queries} are needed."
    return ours, theirs


def _broken(guards: dict[str, float | None], limits: Limits) -> Iterator[str]:
    """A sentence for each guard that does not hold. What was not measured does not fail."""
    low, high = limits.popularity
    full, own, twice, coverage, popularity, latency = (guards.get(name) for name in GUARDS)
    if full is not None and full < 1:
        yield f"Only {full:.2%} of the books have as many neighbors as were asked for."
    if own:
        yield f"{own:.0f} books are neighbors of themselves."
    if twice:
        yield f"{twice:.0f} neighbors are listed twice."
    if coverage is not None and coverage < limits.coverage:
        yield f"Only {coverage:.1%} of the books are ever recommended; {limits.coverage:.0%} have to be."
    if popularity is not None and not low <= popularity <= high:
        yield f"The mean popularity percentile is {popularity:.3f}, outside of {low} to {high}."
    if latency is not None and latency > limits.latency_ms:
        yield f"One answer in a hundred takes over {latency:.1f} ms; {limits.latency_ms:g} ms are allowed."


GUARDS = ("exactly_10", "self_neighbors", "duplicates", "coverage@10", "popularity_percentile@10", "latency_p99_ms")


def _kept(guards: dict[str, float | None]) -> str:
    missing = [name for name in GUARDS if guards.get(name) is None]
    return "All guards hold." if not missing else f"The guards hold; not measured: {', '.join(missing)}."


def _proxies(proxies: dict[str, float | None]) -> str:
    told = ", ".join(f"{name} {figure:.3f}" for name, figure in proxies.items() if figure is not None)
    return f"Proxies: {told or 'none'}."
