from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.engine import accents, names, series
from recommender.engine.names import names_in
from recommender.engine.series import series_of


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Starving Hearts (Triangular Trade Trilogy, #1)", "triangular trade trilogy"),
        ("Chase Me (Paris Nights #2)", "paris nights"),
        ("Giant Days, Vol. 2 (Giant Days #5-8)", "giant days"),
        ("Saga, Volume 6 (Saga (Collected Editions) #6)", "saga"),
        ("Ms. Marvel, Vol. 1: No Normal (Ms. Marvel (2014-2015) #1)", "ms marvel"),
        ("Origins (Alphas 0.5)", "alphas"),
        ("Guards! Guards! (Discworld, Book 8)", "discworld"),
        ("Fables, Vol. 1: Legends in Exile", "fables"),
        ("Danganronpa Volume 1", "danganronpa"),
        ("Les Misérables, Tome 2", "les miserables"),
        ("Henry IV, Part One", "henry iv"),
        ("Batman: The Long Halloween (Batman)", "batman"),
    ],
)
def test_titles_tell_their_series(title: str, expected: str) -> None:
    assert series_of(title) == expected


@pytest.mark.parametrize(
    "title",
    [
        "",
        "Catch-22",
        "Fahrenheit 451",
        "The Book Thief",
        "Volume 1",
        "(1929)",
        "Maude (1883-1993):She Grew Up with the country",
        "First Steps for New Christians (Print Edition)",
        "Is Everyone Hanging Out Without Me? (And Other Concerns)",
        "Slaughterhouse (Five)",
    ],
)
def test_titles_without_a_series_tell_none(title: str) -> None:
    assert series_of(title) == ""


@given(st.text(alphabet="aé (#1),:Vol.", max_size=2_000))
def test_no_title_is_too_odd_to_be_read(title: str) -> None:
    found = series_of(title)

    assert found == " ".join(found.split())
    assert found == found.lower()


def test_names_are_pairs_of_capitalised_words_that_are_not_common() -> None:
    text = "The New York Times bestseller by Joanne, Gabriel García Márquez and George R. R. Martin."

    assert names_in(text, common={"the", "new", "york", "times"}) == (
        "gabriel garcia",
        "garcia marquez",
        "george martin",
    )


def test_a_name_in_the_genitive_is_the_same_name() -> None:
    assert names_in("Stephen King's best", set()) == names_in("by Stephen King", set()) == ("stephen king",)


@pytest.mark.parametrize("module", [accents, names, series])
def test_examples_in_the_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
