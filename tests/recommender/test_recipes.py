from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from recommender.engine.errors import UnknownRecipe
from recommender.engine.recipes import DEFAULT, RECIPES, Recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    written = orjson.dumps(recipe(name).as_json())

    assert Recipe.from_json(orjson.loads(written)) == RECIPES[name]


def test_a_recipe_of_another_version_of_us_is_refused_by_its_field() -> None:
    with pytest.raises(TypeError, match="colour"):
        Recipe.from_json(recipe(DEFAULT).as_json() | {"colour": 1.0})


def test_an_unknown_recipe_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownRecipe, match=r"'best'.*content"):
        recipe("best")


def test_price_weighs_in_no_recipe_but_the_one_named_after_it() -> None:
    assert [r.name for r in RECIPES.values() if r.price] == ["title_category_price"]


def test_the_baseline_is_the_one_that_is_documented() -> None:
    expected = Recipe("s", 1, text=0.60, topics=0.15, category=0.10, series=0.15)

    assert replace(recipe("s"), readers_weight=expected.readers_weight) == expected


def test_one_recipe_alone_needs_the_embedding_extra() -> None:
    assert [r.name for r in RECIPES.values() if r.embedding] == ["sentences"]
