from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from recommender.engine import evaluation
from recommender.engine.baselines import Ranker, Rows, at_random, baselines, by_likeness, most_read
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.evaluation import Fit, Scores, Trial, assess, judge, likeness_fit, trials
from recommender.engine.features import Featurizer
from recommender.engine.recipes import Recipe, recipe
from recommender.engine.truth import split_readers, truth_of
from tests.recommender import real_readers

N = 30
ALL = np.arange(N, dtype=np.int32)


def corpus() -> Corpus:
    """Thirty books of three categories in turn, whose titles tell nothing."""
    titles = [f"Volume {chr(97 + i % 26)}{chr(97 + i // 26)}x" for i in range(N)]
    categories = [("Art", "Poetry", "Travel")[i % 3] for i in range(N)]
    return Corpus(np.arange(100, 100 + N), titles, titles, [""] * N, categories, [()] * N, np.full(N, np.nan))


def readings(n_readers: int = 90) -> Readings:
    """Readers read six books of one residue of 5: what no text here tells."""
    random = np.random.default_rng(1)
    shelves = [5 * random.choice(6, 5, replace=False) + reader % 5 for reader in range(n_readers)]
    readers = np.repeat(np.arange(n_readers), 5)
    return Readings.of_pairs(readers, np.concatenate(shelves), N)


def fit_of(books: Corpus, of: Recipe, known: Rows | None = None) -> Fit:
    return likeness_fit(Featurizer.fit(books, of)[1], of, known)


def scores(ndcg: Sequence[float], queries: Sequence[int], skipped: int = 0, truth: str = "t") -> Scores:
    figures = np.array(ndcg, np.float64)
    return Scores(np.array(queries, np.int32), figures, figures, figures, np.ones(len(ndcg)), skipped, N, truth)


def test_scores_of_trials_are_means_by_query_and_skip_what_no_trial_answered() -> None:
    mean = Scores.mean([scores([0.2, 0.4], [1, 2], 2), scores([0.8], [2], 3)])

    assert mean.queries.tolist() == [1, 2]
    assert mean.ndcg == pytest.approx([0.2, 0.6])
    assert mean.n_skipped == 2
    assert mean.intervals()["ndcg@10"].value == pytest.approx((0.2 + 0.4 + 0.8) / 3)


def test_figures_of_each_query_are_kept_by_book() -> None:
    kept = scores([0.25, 1], [1, 2]).per_query(corpus().ids)

    assert kept["book"] == [101, 102]
    assert kept["ndcg@10"] == kept["recall@20"] == kept["reciprocal_rank@20"] == [0.25, 1]


def test_a_gain_pairs_the_queries_of_one_truth() -> None:
    gain = scores([0.2, 0.6, 0.7], [1, 2, 3]).gain_over(scores([0.1, 0.5, 0.9], [1, 2, 3]))

    assert gain.mean.value == pytest.approx(0)
    assert gain.n_queries == 3


def test_rankings_judged_by_different_truths_are_not_compared() -> None:
    with pytest.raises(ValueError, match="one truth"):
        scores([0.2], [1], truth="a").gain_over(scores([0.2], [1], truth="b"))


def test_no_reader_is_both_learned_from_and_judged_by() -> None:
    asked = []
    questions = trials(readings(), seeds=range(3))

    def fit(training: Readings | None) -> Ranker:
        asked.append(training)
        return at_random()

    judge(questions, fit)

    assert [part.n_readers for part in asked if part] == [45, 45, 45]
    for seed, question in enumerate(questions):
        _, judging = split_readers(readings(), seed)
        assert question.truth.fingerprint() == truth_of(judging, ALL).fingerprint()
    assert questions[0].truth.fingerprint() == trials(readings(), seeds=[0])[0].truth.fingerprint()


def test_a_recipe_learns_from_half_of_the_readers_what_the_others_read() -> None:
    wanted = recipe("s")
    _, features = Featurizer.fit(corpus(), wanted)
    content = judge(trials(readings()), likeness_fit(features, replace(wanted, readers_weight=0.0)))
    with_readers = judge(trials(readings()), likeness_fit(features, wanted))

    assert with_readers.ndcg.mean() > 0.8
    assert content.ndcg.mean() < 0.5
    assert with_readers.gain_over(content).p < 0.001


def test_an_older_version_offers_no_newer_books_and_scores_less_for_it() -> None:
    known = ALL[:15]
    questions = trials(readings(), seeds=[0])
    ranks = fit_of(corpus(), recipe("s"), known)(questions[0].training)

    lists = ranks(ALL, ALL, 20)
    assert set(lists[lists >= 0].tolist()) == set(range(15))
    newer = judge(questions, fit_of(corpus(), recipe("s")))
    assert newer.gain_over(judge(questions, lambda _: ranks)).mean.low > 0


def test_readers_of_newer_books_do_not_help_an_older_version() -> None:
    known = ALL[:15]
    fit = fit_of(corpus(), recipe("s"), known)
    query = ALL[15:]

    assert fit(readings())(query, known, 5).tolist() == fit(None)(query, known, 5).tolist()


def test_guards_and_proxies_of_a_ranking_that_is_all_right() -> None:
    lists = by_likeness(Featurizer.fit(corpus(), recipe("s"))[1])(ALL, ALL, 20)
    found = assess(corpus(), lists, latency_ms=0.5)

    assert found.guards == {
        "exactly_10": 1.0,
        "self_neighbors": 0.0,
        "duplicates": 0.0,
        "coverage@10": 1.0,
        "popularity_percentile@10": None,
        "latency_p99_ms": 0.5,
    }
    assert found.proxies["same_category_precision@10"] == pytest.approx(0.9)  # nine other books of its category
    assert found.proxies["same_series_recall@10"] is None
    assert found.proxies["churn@10"] is None


def test_p99_is_of_every_book_asked_once() -> None:
    asked: list[int] = []

    took = evaluation.p99_ms(asked.append, [3, 1, 2])

    assert asked == [3, 1, 2]
    assert took >= 0


def whatever(ranker: Ranker) -> Fit:
    """Whoever may be learned from."""
    return lambda _: ranker


def report_with_truth() -> dict[str, object]:
    all_readings = readings()
    questions = [Trial(None, truth_of(all_readings))]
    features = Featurizer.fit(corpus(), recipe("s"))[1]
    rankers = baselines(corpus(), evaluation.readers_of(all_readings, N))
    beside = {name: judge(questions, whatever(ranker)) for name, ranker in rankers.items()}
    lists = by_likeness(features)(ALL, ALL, 20)
    previous = (corpus().ids, lists[:, ::-1].copy())
    assessment = assess(
        corpus(), lists, scores=beside.pop("s"), readings=all_readings, features=features, previous=previous
    )
    return evaluation.report(assessment, beside)


def test_a_report_is_json_with_an_interval_and_the_baselines_beside_every_figure() -> None:
    report = json.loads(json.dumps(report_with_truth(), allow_nan=False))

    assert report["n_queries"] == report["n_candidates"] == N
    assert report["n_skipped"] == 0
    assert set(report["metrics"]) == {"ndcg@10", "recall@20", "mrr@20"}
    for figures in (report["metrics"], *report["baselines"].values()):
        for name in report["metrics"]:
            assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert list(report["baselines"]) == ["random", "popularity", "same_category", "title_tfidf", "title_category_price"]
    assert report["baselines"]["random"]["gain_over_it"].keys() == {"value", "low", "high", "p", "detectable"}
    assert report["proxies"]["churn@10"] == 1
    assert report["proxies"]["intra_list_diversity@10"] > 0


def test_a_report_without_truth_has_guards_and_proxies_and_no_metrics() -> None:
    report = evaluation.report(assess(corpus(), at_random()(ALL, ALL, 10)))

    assert report["metrics"] == report["baselines"] == {}
    assert report["n_queries"] == 0
    assert report["proxies"]["same_category_precision@10"] < 0.6


def test_a_truth_without_queries_is_reported_as_none_and_how_many_were_skipped() -> None:
    nothing = judge([Trial(None, truth_of(readings(2)))], lambda _: at_random())

    report = evaluation.report(assess(corpus(), at_random()(ALL, ALL, 10), scores=nothing), {"random": nothing})

    assert report["metrics"] == report["baselines"] == {}
    assert report["n_skipped"] == 10


def test_the_table_names_every_ranking_and_says_what_was_not_measured() -> None:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(evaluation.table(report_with_truth()))

    text = " ".join(captured.get().split())
    for said in ("30 queries, 0 more skipped", "popularity", "title_tfidf", "this one", "latency_p99_ms not measured"):
        assert said in text


def test_the_table_of_a_report_without_truth_has_no_rows() -> None:
    assert evaluation.table(evaluation.report(assess(corpus(), at_random()(ALL, ALL, 10)))).row_count == 0


TITLE_CATEGORY_SERIES = Recipe(
    "title, category, series", 1, text=0.6, category=0.2, series=0.2, with_description=False, title_boost=1
)


def on_real_readers() -> tuple[list[Trial], Corpus]:
    return [Trial(None, truth_of(real_readers.readings(), real_readers.queries()))], real_readers.corpus()


def ndcg_of(questions: list[Trial], fit: Fit) -> float:
    return judge(questions, fit).intervals()["ndcg@10"].value


@real_readers.needed
def test_truth_of_real_readers_has_the_queries_and_candidates_it_should() -> None:
    questions, _ = on_real_readers()

    assert len(questions[0].truth) == 236
    assert questions[0].truth.n_skipped == 57
    assert len(questions[0].truth.candidates) == 571


@real_readers.needed
@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (recipe("title_tfidf"), 0.123),
        (TITLE_CATEGORY_SERIES, 0.164),
        (Recipe("title twice and description", 1, text=1.0), 0.195),
        (recipe("s"), 0.2195),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else "",
)
def test_recipes_score_with_real_readers_what_was_measured_elsewhere(of: Recipe, expected: float) -> None:
    questions, books = on_real_readers()

    assert ndcg_of(questions, fit_of(books, of)) == pytest.approx(expected, abs=0.01)


@real_readers.needed
def test_random_and_popular_books_are_far_below_with_real_readers() -> None:
    questions, books = on_real_readers()
    n_readers = evaluation.readers_of(real_readers.readings(), len(books))

    assert ndcg_of(questions, lambda _: at_random()) == pytest.approx(0.015, abs=0.005)
    assert ndcg_of(questions, lambda _: most_read(n_readers)) < 0.15


@real_readers.needed
def test_half_of_the_real_readers_tell_what_the_other_half_read() -> None:
    questions = trials(real_readers.readings(), range(3), real_readers.queries())
    fit = fit_of(real_readers.corpus(), recipe("s"))

    assert ndcg_of(questions, lambda _: fit(None)) == pytest.approx(0.195, abs=0.02)
    assert ndcg_of(questions, fit) > 0.42  # a plain blend gives .45; ways to blend get better
