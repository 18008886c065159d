"""Which version is served: decided by figures or by people, moved in one step, and moved back in one.

The registry's row is the truth, and the store's pointer follows it. The pointer is written inside the transaction
that moves the rows, last: if it cannot be written, nothing has moved. Only a process that dies between the two leaves a
pointer that is ahead of its row; `mend_pointer` sets it right, and every retraining begins with that.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from recommender.engine import judgement
from recommender.engine.artifact import Store
from recommender.engine.errors import ArtifactError, DamagedArtifact, ForeignArtifact
from recommender.engine.evaluation import Assessment
from recommender.evaluating import scores_of
from recommender.models import DecisionRecord, ModelVersion
from recommender.registry import champion, record_decision
from recommender.training import Trained

logger = logging.getLogger(__name__)

Decision, State = ModelVersion.Decision, ModelVersion.State


class PromotionError(Exception):
    """The champion stays; the message says why."""


class NotPromotable(PromotionError):
    """This version cannot be served."""


class ChampionMoved(PromotionError):
    """Another version became champion since this one was judged."""


class NothingBefore(PromotionError):
    """There is no version to go back to."""


# --- By figures -------------------------------------------------------------------------------------------------------
def conclude(trained: Trained, by: str = "") -> judgement.Decision:
    """Judge the candidate against the champion and act on it: promote, refuse, or leave it to a person.

    Raises:
        PromotionError: it was to be promoted and could not be, which is on record.
    """
    decision, row, served = judged(trained), trained.row, trained.champion
    if decision.promote:
        instead_of = served.row if served else None
        _serve(row, Decision.PROMOTED, decision.reason, by, instead_of=instead_of, figures=decision.figures)
    elif decision.promote is None:
        with transaction.atomic():
            _hold_candidate(row)
            record_decision(row, Decision.WAITING, decision.reason, by=by, figures=decision.figures)
    else:
        refuse(row, decision.reason, by=by, figures=decision.figures)
    return decision


def judged(trained: Trained) -> judgement.Decision:
    """What the protocol says. A champion whose artifact cannot be loaded is none: no process could serve it."""
    served = trained.champion
    if served is None or served.engine is None:
        return judgement.decide("first", trained.assessment)
    scores = scores_of(served.engine, trained.corpus, trained.questions)
    case: judgement.Case = "refresh" if trained.row.kind == ModelVersion.Kind.REFRESH else "new_recipe"
    return judgement.decide(case, trained.assessment, Assessment(scores, served.row.metrics.get("guards", {}), {}))


# --- By hand ----------------------------------------------------------------------------------------------------------
def promote(version: ModelVersion, reason: str, *, by: str = "") -> None:
    """Serve the version from now on.

    Raises:
        NotPromotable: it has no artifact, or a damaged one; it is served already; the pointer cannot be written.
        ChampionMoved: somebody else promoted another version at the same moment.
    """
    _serve(version, Decision.PROMOTED, reason, by, instead_of=champion())


def roll_back(reason: str = "", *, by: str = "") -> ModelVersion:
    """The version that is served again: the one that the champion replaced.

    Raises:
        NothingBefore: there is no champion, or it replaced nothing.
        NotPromotable, ChampionMoved: as for `promote`.
    """
    current = champion()
    before = previous_champion(current) if current else None
    if current is None or before is None:
        raise NothingBefore("There is no version to go back to.")
    told = f"Rolled back from {current.version}. {reason}".rstrip()
    _serve(before, Decision.ROLLED_BACK, told, by, instead_of=current)
    return before


def previous_champion(current: ModelVersion) -> ModelVersion | None:
    """The version that it replaced when it was last promoted. One query."""
    promoted = DecisionRecord.objects.filter(model_version=current, decision=Decision.PROMOTED)
    record = promoted.select_related("replaced").first()
    return record.replaced if record else None


def refuse(version: ModelVersion, reason: str, *, by: str = "", figures: dict[str, Any] | None = None) -> None:
    """The version is not served. Raises NotPromotable of one that is no candidate."""
    with transaction.atomic():
        _hold_candidate(version)
        version.state = State.REFUSED
        record_decision(version, Decision.REFUSED, reason, by=by, figures=figures)


# --- How it is done ---------------------------------------------------------------------------------------------------
def _hold_candidate(version: ModelVersion) -> None:
    """Until the transaction ends nobody else decides on it. Raises NotPromotable if somebody has, since it was read."""
    version.refresh_from_db(fields=["state"], from_queryset=ModelVersion.objects.select_for_update())
    if version.state != State.CANDIDATE:
        raise NotPromotable(f"{version} is {version.state}, and no candidate.")


def _serve(
    version: ModelVersion,
    decision: ModelVersion.Decision,
    reason: str,
    by: str,
    *,
    instead_of: ModelVersion | None,
    figures: dict[str, Any] | None = None,
) -> None:
    if version.state in {State.TRAINING, State.FAILED, State.CHAMPION}:
        raise NotPromotable(f"{version} is {version.state}.")
    try:
        store = Store(settings.ARTIFACT_STORE)
        store.load(version.version)  # every file is looked at
        with transaction.atomic():
            _take_the_place(version, instead_of)
            record_decision(version, decision, reason, by=by, figures=figures, replaced=instead_of)
            store.set_champion(version.version)
    except (DamagedArtifact, ForeignArtifact) as error:
        raise _not_served(version, error, by, State.FAILED) from error
    except (ArtifactError, OSError, ChampionMoved) as error:
        raise _not_served(version, error, by) from error


def _take_the_place(version: ModelVersion, instead_of: ModelVersion | None) -> None:
    """Move the states. Of two processes that promote at once, one waits here and then finds the champion moved."""
    # Who waited finds that the row is no champion any more, and looks again for the one that is.
    current = ModelVersion.objects.champions().select_for_update().first() or champion()
    if current != instead_of:
        raise ChampionMoved(f"{current or 'no version'} is champion now; it was {instead_of or 'none'}.")
    ModelVersion.objects.champions().update(state=State.RETIRED)
    version.state = State.CHAMPION
    try:
        with transaction.atomic():
            version.save(update_fields=["state"])
    except IntegrityError:  # there was no champion whose row we could have waited for
        raise ChampionMoved("Another version became champion at the same moment.") from None


def _not_served(version: ModelVersion, error: Exception, by: str, state: str = "") -> PromotionError:
    """What to raise, after it went on record. The version stays what it was, or becomes what `state` says.

    The reason is for everybody who may read the registry; the error's own words may name folders of ours.
    """
    version.refresh_from_db()
    version.state = state or version.state
    decision = Decision.WAITING if version.state == State.CANDIDATE else Decision.REFUSED
    reason = f"Not served: {(type(error).__doc__ or type(error).__name__).splitlines()[0]}"
    with transaction.atomic():
        record_decision(version, decision, reason, by=by, figures={"error": str(error)})
    return error if isinstance(error, PromotionError) else NotPromotable(f"{reason} {error}")


# --- Upkeep -----------------------------------------------------------------------------------------------------------
def mend_pointer() -> bool:
    """Whether the store's pointer was not at the champion; now it is. Raises ArtifactError and OSError."""
    store, served = Store(settings.ARTIFACT_STORE), champion()
    if served is None:
        return False
    try:
        pointed = store.champion()
    except ArtifactError:
        logger.exception("champion pointer is damaged")
        pointed = None
    if pointed == served.version:
        return False
    store.load(served.version)
    with transaction.atomic():
        if ModelVersion.objects.champions().select_for_update().first() != served:
            return False  # somebody promoted another one meanwhile, and pointed at it
        store.set_champion(served.version)
    logger.warning("champion pointer mended", extra={"pointed": pointed, "champion": served.version})
    return True


def prune() -> list[str]:
    """The versions whose artifacts were removed. The champion's, the one before it and the newest that waits stay."""
    served = champion()
    waiting = ModelVersion.objects.filter(state=State.CANDIDATE).first()
    protected = {version.version for version in (served, served and previous_champion(served), waiting) if version}
    removed = Store(settings.ARTIFACT_STORE).prune(
        keep=settings.ARTIFACT_KEEP, max_age_days=settings.ARTIFACT_KEEP_DAYS, protect=protected
    )
    if removed:
        logger.info("artifacts pruned", extra={"versions": removed})
    return removed
