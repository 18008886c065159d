from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recommender.engine import embeddings, features
from recommender.engine.corpus import Corpus
from recommender.engine.errors import NoEmbeddings, TooFewBooks
from recommender.engine.evaluation import Scores, Trial, judge, likeness_fit
from recommender.engine.features import WORDS, Features, Featurizer
from recommender.engine.recipes import RECIPES, Recipe, recipe
from recommender.engine.truth import truth_of
from tests.recommender import real_readers

CONTENT = recipe("content")
WITHOUT_MODEL = [name for name in RECIPES if not recipe(name).embedding]
TITLES = [
    "The Raven Boys (The Raven Cycle #1)",
    "The Dream Thieves (The Raven Cycle #2)",
    "Roman cooking at home",
    "Baking bread at home",
    "A history of Rome",
    "Café life",
]
DESCRIPTIONS = [
    "Ghosts walk the ley line. By Maggie Stiefvater.",
    "Dreams walk out of the night. Another by Maggie Stiefvater.",
    "Recipes for pasta, sauces and baking.",
    "Recipes for loaves, dough and ovens.",
    "Emperors, senates, legions and roads.",
    "",
]
CATEGORIES = ["Fantasy", "Fantasy", "Food", "Food", "History", ""]
AUTHORS: list[tuple[str, ...]] = [("Maggie Stiefvater",), ("Maggie Stiefvater",), ("A", "B"), ("B", "C"), (), ()]


def corpus_of(
    titles: Sequence[str] = TITLES,
    descriptions: Sequence[str] = DESCRIPTIONS,
    categories: Sequence[str] = CATEGORIES,
    authors: Sequence[tuple[str, ...]] = AUTHORS,
) -> Corpus:
    n = len(titles)
    ids, prices = np.arange(1, n + 1, dtype=np.int64), np.linspace(5, 50, n)
    return Corpus(ids, [str(i) for i in ids], titles, descriptions, categories, authors, prices)


def likeness(made: Features) -> NDArray[np.float32]:
    return np.asarray(made.dense @ made.dense.T + (made.sparse @ made.sparse.T).toarray())


def only(**weights: float) -> Recipe:
    return replace(Recipe("only", 1, lsa_dimensions=3), **weights)  # type: ignore[arg-type]


def test_series_and_authors_count_by_their_weights() -> None:
    scores = likeness(Featurizer.fit(corpus_of(), only(series=0.75, authors=0.25))[1])

    assert scores[0, 1] == pytest.approx(1)  # same series, same author
    assert scores[2, 3] == pytest.approx(0.25 / 2)  # one of two authors each
    assert scores[0, 2] == 0
    assert scores[4, 4] == 0  # has neither


def test_tf_idf_is_the_cosine_of_the_textbook() -> None:
    titles = ["red fox", "red hen", "blue sea"]
    made = Featurizer.fit(corpus_of(titles, [""] * 3, [""] * 3, [()] * 3), recipe("title_tfidf"))[1]

    shared, alone = np.log(4 / 3) + 1, np.log(4 / 2) + 1
    assert likeness(made)[0, 1] == pytest.approx(shared**2 / (shared**2 + alone**2), rel=1e-5)
    assert likeness(made)[0, 2] == 0


def test_words_match_by_their_first_letters_and_without_accents() -> None:
    titles = ["A detective investigates", "Détective investigations", "Gardens"]
    books = corpus_of(titles, [""] * 3, [""] * 3, [()] * 3)

    stems = likeness(Featurizer.fit(books, only(text=1, word_length=6))[1])
    words = likeness(Featurizer.fit(books, only(text=1))[1])

    assert stems[0, 1] == pytest.approx(1)
    assert 0 < words[0, 1] < 1


def test_a_category_is_told_by_half_and_guessed_by_half() -> None:
    titles = ["bread dough oven", "bread dough flour", "bread oven flour", "sword dragon elf", "sword elf quest"]
    books = corpus_of(titles, [""] * 5, ["Food", "Food", "", "Fantasy", "Fantasy"], [()] * 5)

    told = likeness(Featurizer.fit(books, only(category=1))[1])
    guessed = likeness(Featurizer.fit(books, only(category=1, category_guess=0.5))[1])

    assert told[2, 0] == 0
    assert guessed[2, 0] > 0.5 > guessed[2, 3]
    assert guessed[0, 1] > guessed[0, 3]


def test_near_prices_are_alike_in_the_recipe_that_looks_at_them() -> None:
    scores = likeness(Featurizer.fit(corpus_of(), only(price=1))[1])

    assert scores[0, 1] > scores[0, 3] > scores[0, 5]


def test_a_shared_name_in_descriptions_counts_unless_everybody_has_it() -> None:
    descriptions = [f"{word} by Ann Dee of New York" for word in ("lake", "hill")]
    descriptions += ["by Solitary Author from New York"] + [f"book{i} from New York" for i in range(39)]
    books = corpus_of([f"t{i}" for i in range(42)], descriptions, [""] * 42, [()] * 42)

    featurizer, made = Featurizer.fit(books, only(names=1))

    assert likeness(made)[0, 1] == pytest.approx(1)
    assert set(featurizer.columns["names"]) == {"ann dee"}


@pytest.mark.parametrize("name", WITHOUT_MODEL)
def test_rows_are_of_length_one_or_less_and_absent_blocks_are_zeros(name: str) -> None:
    made = Featurizer.fit(corpus_of(), recipe(name))[1]
    lengths = np.diag(likeness(made))

    assert (lengths <= 1 + 1e-5).all()
    assert made.dense.dtype == made.sparse.dtype == np.float32


def test_a_book_that_has_every_block_is_wholly_like_itself() -> None:
    made = Featurizer.fit(corpus_of(), CONTENT)[1]

    assert np.diag(likeness(made))[:2] == pytest.approx([1, 1], abs=1e-5)


def test_weights_of_what_no_book_tells_go_to_the_others() -> None:
    unsigned = corpus_of(authors=[()] * 6)

    with_block = likeness(Featurizer.fit(unsigned, CONTENT)[1])
    without = likeness(Featurizer.fit(unsigned, replace(CONTENT, authors=0.0))[1])

    assert with_block == pytest.approx(without, abs=1e-6)


@pytest.mark.parametrize("name", WITHOUT_MODEL)
@pytest.mark.parametrize("large", [False, True])
def test_what_was_fitted_is_transformed_to_the_same_also_after_a_saving(
    name: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(features, "LARGE", 3)
        monkeypatch.setattr(features, "SAMPLE", 5)
    featurizer, made = Featurizer.fit(corpus_of(), recipe(name))
    featurizer.save(tmp_path)
    loaded = Featurizer.load(tmp_path)

    for again in (featurizer.transform(corpus_of()), loaded.transform(corpus_of())):
        assert again.dense == pytest.approx(made.dense, abs=1e-6)
        assert again.sparse.toarray() == pytest.approx(made.sparse.toarray(), abs=1e-6)
        assert again.words.tolist() == made.words.tolist()
    assert loaded.vocabulary.tolist() == featurizer.vocabulary.tolist()
    assert loaded.recipe == recipe(name)


def test_the_same_corpus_gives_the_same_features() -> None:
    first, second = (Featurizer.fit(corpus_of(), CONTENT)[1] for _ in range(2))

    assert first.dense.tobytes() == second.dense.tobytes()
    assert first.sparse.data.tobytes() == second.sparse.data.tobytes()


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Featurizer.fit(corpus_of(), CONTENT)[1]
    monkeypatch.setattr(features, "_batches", lambda n, size=4: (np.arange(i, min(i + 4, n)) for i in range(0, n, 4)))
    done: list[tuple[str, int, int]] = []
    parts = Featurizer.fit(corpus_of(), CONTENT, progress=lambda *step: done.append(step))[1]

    assert likeness(parts) == pytest.approx(likeness(whole), abs=1e-6)
    assert done == [("features", 4, 6), ("features", 6, 6)]


def test_a_large_corpus_keeps_only_rare_exact_columns_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LARGE", 3)
    featurizer, made = Featurizer.fit(corpus_of(), CONTENT)

    assert made.sparse.shape[1] == sum(len(featurizer.columns[block]) for block in ("series", "authors", "names"))
    assert likeness(made)[2, 3] > likeness(made)[2, 0]


def test_books_that_repeat_each_other_make_no_topics_of_their_own() -> None:
    books = corpus_of(["red fox", "red fox", "red fox", "blue sea"], [""] * 4, [""] * 4, [()] * 4)

    assert Featurizer.fit(books, only(topics=1))[0].topics.shape == (4, 2)


def test_words_of_a_book_are_its_weightiest_as_people_write_them() -> None:
    books = corpus_of(["Investigations", "Gardens", "Lakes"], ["of 12 murders in x", "", ""], [""] * 3, [()] * 3)
    featurizer, made = Featurizer.fit(books, only(text=1, word_length=6))

    assert made.words.shape == (3, WORDS)
    assert {str(featurizer.vocabulary[word]) for word in made.words[0] if word >= 0} == {"investigations", "murders"}


def test_a_text_of_unknown_words_is_like_nothing() -> None:
    featurizer, _ = Featurizer.fit(corpus_of(), CONTENT)
    made = featurizer.transform(Corpus.of_text("Zzyzx", "qwertz", "Cartography", ["Nobody"], 9.99))

    assert not made.dense.any()
    assert made.sparse.nnz == 0
    assert (made.words == -1).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=30),
            st.text(max_size=60),
            st.sampled_from(["", "Art", "Food"]),
            st.lists(st.sampled_from(["A", "B"]), max_size=2),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_whatever_the_texts_are_scores_are_numbers_of_at_most_one(
    books: list[tuple[str, str, str, list[str]]],
) -> None:
    titles, descriptions, categories, authors = zip(*books, strict=True)
    books_of_them = corpus_of(titles, descriptions, categories, [tuple(each) for each in authors])
    try:
        made = Featurizer.fit(books_of_them, CONTENT)[1]
    except TooFewBooks:
        return
    scores = likeness(made)
    assert np.isfinite(scores).all()
    assert scores.max() <= 1 + 1e-5


@pytest.mark.parametrize("titles", [["alone"], ["", ""], ["1", "?"]])
def test_too_little_to_compare_is_refused(titles: list[str]) -> None:
    n = len(titles)
    with pytest.raises(TooFewBooks):
        Featurizer.fit(corpus_of(titles, [""] * n, [""] * n, [()] * n), CONTENT)


# -- embeddings -------------------------------------------------------------------------------------------------------


def by_length(texts: Sequence[str]) -> NDArray[np.float32]:
    """A model that tells long texts from short ones."""
    return np.array([[1, len(text) / 20, 1] for text in texts], np.float32)


def test_embeddings_are_made_in_training_and_are_zeros_for_a_new_text(tmp_path: Path) -> None:
    featurizer, made = Featurizer.fit(corpus_of(), only(text=0.5, embedding=0.5), embed=by_length)
    plain = Featurizer.fit(corpus_of(), only(text=0.5))[1]
    featurizer.save(tmp_path)
    new = Featurizer.load(tmp_path).transform(corpus_of())

    assert np.diag(likeness(made))[:5] == pytest.approx(np.ones(5), abs=1e-5)
    assert made.dense.shape == new.dense.shape == (6, 3)
    assert not new.dense.any()
    assert likeness(new) == pytest.approx(likeness(plain) / 2, abs=1e-6)


def test_a_new_text_gets_sensible_scores_from_an_engine_that_learned_with_a_model() -> None:
    featurizer, made = Featurizer.fit(corpus_of(), recipe("sentences"), embed=by_length)
    new = featurizer.transform(Corpus.of_text("Baking cakes", "Recipes for dough and ovens."))
    scores = np.asarray(made.dense @ new.dense.T + (made.sparse @ new.sparse.T).toarray())[:, 0]

    assert scores.argmax() == 3
    assert (np.abs(scores) <= 1).all()


def test_a_recipe_with_embeddings_is_refused_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDDING_MODEL", raising=False)
    with pytest.raises(NoEmbeddings, match="names no model"):
        Featurizer.fit(corpus_of(), only(text=0.5, embedding=0.5))

    monkeypatch.setenv("EMBEDDING_MODEL", "/nowhere/at-all")
    with pytest.raises(NoEmbeddings, match="/nowhere/at-all"):
        embeddings.configured()


# -- real readers -----------------------------------------------------------------------------------------------------


def judged(name: str) -> Scores:
    made = Featurizer.fit(real_readers.corpus(), recipe(name))[1]
    truth = truth_of(real_readers.readings(), real_readers.queries())
    return judge([Trial(None, truth)], likeness_fit(made, recipe(name)))


@real_readers.needed
def test_readers_agree_with_content_more_than_with_the_baseline() -> None:
    gain = judged("content").gain_over(judged("s"))

    assert gain.mean.low > 0.01
    assert gain.p < 0.001


@real_readers.needed
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("content", 0.235, 0.26),
        ("s", 0.21, 0.23),
        ("title_category_price", 0.16, 0.18),
        ("title_tfidf", 0.12, 0.13),
    ],
)
def test_recipes_lie_in_their_bands(name: str, low: float, high: float) -> None:
    assert low < judged(name).ndcg.mean() < high
