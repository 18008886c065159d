"""Whether a challenger takes the champion's place. Three questions that differ, and guards that all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recommender.engine.evaluation import Assessment, Scores
from recommender.engine.significance import Gain

Case = Literal["new_recipe", "refresh", "first"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The protocol's figures. Gains are of mean nDCG@10."""

    gain: float = 0.005  # that a new recipe has to bring
    p: float = 0.05  # one-sided, that it has to stay below
    loss: float = 0.01  # that a refresh may have had at worst, newer data being worth that risk; of guards likewise
    queries: int = 30  # fewer are no truth: 30 show a gain of .06, 240 one of .02
    coverage: float = 0.98
    popularity: tuple[float, float] = (0.45, 0.58)
    popularity_with_readers: tuple[float, float] = (0.45, 0.75)  # people read together what is read much
    latency_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a challenger, and why."""

    promote: bool | None  # None: waits for a person
    reason: str  # sentences
    figures: dict[str, Any]  # what it was decided by; fit for JSON


def decide(
    case: Case, challenger: Assessment, champion: Assessment | None = None, limits: Limits | None = None
) -> Decision:
    """Promote, refuse, or leave it to a person.

    A *first* model needs the guards that tell a broken one; it may narrow the choice or lean to what is popular, since
    without it nothing is recommended at all. A *new recipe* must be better than the champion; without truth nobody can
    tell, so a person has to. A *refresh* is the champion's recipe on newer data, of which the champion knows nothing:
    it must not be worse, and without truth the guards have to do. Raises ValueError when the two were judged by
    different truths, or when the case needs a champion and there is none.
    """
    if case != "first" and champion is None:
        raise ValueError(f"A {case} is judged against a champion.")
    limits = limits or Limits()
    ours, theirs = challenger.scores, champion.scores if champion else None
    gain = ours.gain_over(theirs) if case != "first" and ours and theirs else None
    promote, why = _verdict(case, gain, limits)
    broken = list(_defects(challenger.guards, limits))
    if champion:
        broken += _lapses(challenger, champion, limits)
    if broken:
        promote = False
        why = "A guard does not hold."
    figures: dict[str, Any] = {"case": case, "guards": challenger.guards, "proxies": challenger.proxies}
    sentences = [_OUTCOMES[promote], why, *broken]
    if gain and ours and theirs:
        figures |= {"challenger": _ndcg(ours), "champion": _ndcg(theirs), "gain": gain.as_json()}
        figures |= {"n_queries": gain.n_queries, "n_skipped": ours.n_skipped, "n_candidates": ours.n_candidates}
        sentences.append(_compared(figures))
    else:
        sentences.append(_told("Proxies", challenger.proxies))
    sentences.append(_told("Guards", challenger.guards))
    return Decision(promote, " ".join(sentences), figures)


_OUTCOMES = {True: "Promoted.", False: "Refused.", None: "Waits for a person."}


def _verdict(case: Case, gain: Gain | None, limits: Limits) -> tuple[bool | None, str]:
    """By the case's own rule, with the guards left aside."""
    if case == "first":
        return True, "There is no champion to compare it with, so that the guards decide."
    if gain is None or gain.n_queries < limits.queries:
        absent = "there is no truth to judge by" if gain is None else f"{gain.n_queries} queries with truth are too few"
        if case == "refresh":
            return True, f"It refreshes the champion's recipe, and {absent}, so that the guards decide."
        return None, f"It is a new recipe, and {absent}: nobody but a person can say whether it is better."
    if case == "refresh":
        held = gain.mean.low > -limits.loss
        return held, (
            f"It refreshes the champion's recipe: the lower bound of its difference is {gain.mean.low:+.4f}, "
            f"and has to be above {-limits.loss}."
        )
    better = gain.mean.value >= limits.gain and gain.p < limits.p
    return better, (
        f"It is a new recipe and gains {gain.mean.value:+.4f} with p = {gain.p:.4f}; "
        f"at least {limits.gain} with p below {limits.p} is needed."
    )


def _defects(guards: Mapping[str, float | None], limits: Limits) -> Iterator[str]:
    """A sentence for each guard without which a model is broken. What was not measured does not fail."""
    full, own, twice, latency = map(guards.get, ("exactly_10", "self_neighbors", "duplicates", "latency_p99_ms"))
    if full is not None and full < 1:
        yield f"Only {full:.2%} of the books have as many neighbors as were asked for."
    if own:
        yield f"Neighbors of themselves: {own:.0f} books."
    if twice:
        yield f"Listed twice: {twice:.0f} of the neighbors."
    if latency is not None and latency > limits.latency_ms:
        yield f"One answer in a hundred takes over {latency:.1f} ms; {limits.latency_ms:g} ms are allowed."


def _lapses(challenger: Assessment, champion: Assessment, limits: Limits) -> Iterator[str]:
    """A sentence for each guard of breadth that does not hold, and that the champion keeps better.

    A catalogue may be such that no model reaches them; its champion must not grow old for that.
    """
    popular = limits.popularity_with_readers if challenger.with_readers else limits.popularity
    for name, (low, high) in {"coverage@10": (limits.coverage, 1.0), "popularity_percentile@10": popular}.items():
        figure, lapse = challenger.guards.get(name), _outside(champion.guards.get(name), low, high)
        if _outside(figure, low, high) > (lapse + limits.loss if lapse else 0.0):
            yield f"{name} is {figure:.4f}; {low} to {high} is wanted."


def _outside(figure: float | None, low: float, high: float) -> float:
    """How far a figure is out of its range; what was not measured is within."""
    return 0.0 if figure is None else max(low - figure, figure - high, 0.0)


def _ndcg(scores: Scores) -> dict[str, float]:
    return scores.as_json()["ndcg@10"]


def _compared(figures: Mapping[str, Any]) -> str:
    gain = figures["gain"]
    return (
        f"nDCG@10 is {figures['challenger']['value']:.4f} against the champion's {figures['champion']['value']:.4f}, "
        f"a difference of {gain['value']:+.4f} (95 % {gain['low']:+.4f} to {gain['high']:+.4f}), "
        f"over {figures['n_queries']} queries, which can show a gain of {gain['detectable']:.3f}; "
        f"{figures['n_skipped']} without truth were skipped, and {figures['n_candidates']} books were ranked."
    )


def _told(kind: str, figures: Mapping[str, float | None]) -> str:
    told = (f"{name} {'not measured' if figure is None else format(figure, '.4g')}" for name, figure in figures.items())
    return f"{kind}: {', '.join(told) or 'none'}."
