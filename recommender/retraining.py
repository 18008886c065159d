"""What the schedule runs: train, evaluate, decide, promote, tidy up; and what it tells about it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from recommender.engine.errors import ArtifactError
from recommender.engine.features import Progress
from recommender.models import ModelVersion
from recommender.promotion import conclude, mend_pointer, prune
from recommender.training import train

logger = logging.getLogger(__name__)

#: In this order; PostgreSQL keeps JSON's fields in another.
STEPS = ("read", "train", "evaluate", "publish")
METRICS = ("ndcg@10", "recall@20", "mrr@20")


def retrain(training: ModelVersion, *, content_only: bool = False, progress: Progress | None = None) -> ModelVersion:
    """The version that was trained, decided on and, if it is good enough, served.

    Raises:
        TrainingFailed: there is no candidate.
        PromotionError: the candidate is good, and could not be served.
    """
    try:
        mend_pointer()
    except (ArtifactError, OSError):  # a champion that cannot be loaded is one more reason to train another
        logger.exception("champion pointer cannot be mended")
    trained = train(training, content_only=content_only, progress=progress)
    conclude(trained, by=training.requested_by)
    try:
        prune()
    except (ArtifactError, OSError):  # it was decided, and what is served has moved: the next one may tidy up
        logger.exception("artifacts cannot be pruned")
    return trained.row


def in_markdown(version: ModelVersion) -> str:
    """A training and its decision in Markdown, fit for the summary of a scheduled job."""
    title = version.decision or version.state
    lines = [
        f"## Recommender: {title.replace('_', ' ')}",
        "",
        version.reason,
        "",
        *_table(
            ("", ""),
            [
                ("version", f"`{version.version}`" if version.version else "none"),
                ("recipe", f"{version.recipe} {version.recipe_version}"),
                ("kind", version.kind.replace("_", " ") or "-"),
                ("books", f"{version.n_books:,}"),
                ("readers", f"{version.n_readers:,}"),
                *((f"{step} (s)", f"{version.durations[step]:.1f}") for step in STEPS if step in version.durations),
            ],
        ),
    ]
    if version.metrics:
        lines += ["", *_figures(version.metrics)]
    return "\n".join(lines) + "\n"


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    if report["metrics"]:
        baselines = sorted(report["baselines"].items(), key=lambda baseline: -baseline[1][METRICS[0]]["value"])
        rankings = [("this one", report["metrics"]), *baselines]
        yield (
            f"{report['n_queries']} queries, {report['n_skipped']} more skipped for want of truth, "
            f"{report['n_candidates']} candidates; 95 % intervals."
        )
        yield ""
        yield from _table(
            ("ranking", *METRICS), [(name, *(_interval(of[metric]) for metric in METRICS)) for name, of in rankings]
        )
    else:
        yield "There are not enough readers to judge by."
    for title in ("guards", "proxies"):
        yield ""
        known = [(name, f"{value:.4g}") for name, value in report[title].items() if value is not None]
        yield from _table((title, ""), known)


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (headers, ("---",) * len(headers), *rows):
        yield f"| {' | '.join(cells)} |"
