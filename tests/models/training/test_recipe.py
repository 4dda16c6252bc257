"""A recipe is read strictly: what is misspelt or impossible is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

import models
from models.training.recipe import RecipeError, load_recipe

RECIPES = sorted((Path(models.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_names_data_that_is_there(path: Path) -> None:
    """Every path of it leads to a file of the repository."""
    recipe = load_recipe(path)
    for name in (recipe.data.catalogue, recipe.data.mapping, recipe.data.queries, recipe.data.qrels):
        found = recipe.path(name)
        assert found is not None and found.is_file()
    assert recipe.training.max_minutes <= 20


def test_the_three_kinds_have_a_recipe() -> None:
    """Word vectors, LSTM and BERT."""
    assert {load_recipe(path).kind for path in RECIPES} == {"words", "lstm", "bert"}


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "x"\nkind = "words"\n' + text)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[training]\nbacth = 3", "did you mean 'batch'"),
        ("[training]\nbatch = 1", "at least 2"),
        ("[training]\nbatch = true", "a whole number"),
        ('[training]\nlearning_rate = "fast"', "a number"),
        ("[training]\ntemperature = 0", "above 0"),
        ("[training]\nsoup = 0.5", "need a base model"),
        ("[training]\nsoup = 2", "between 0 and 1"),
        ("[noise]\ntypos = 1.5", "between 0 and 1"),
        ("[pairs]\nspans = 0\njudged = 0", "nothing to learn|not all 0"),
        ('[data]\nqueries = "q.tsv"', "belong together"),
        ("training = 3", "must be a table"),
        ("[training", "not TOML"),
    ],
)
def test_a_faulty_recipe_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """The message names the file and what is wrong."""
    path = _write(tmp_path, text)
    with pytest.raises(RecipeError, match=told) as error:
        load_recipe(path)
    assert str(path) in str(error.value)
    assert load_recipe(_write(tmp_path, "[training]\nbatch = 2")).training.batch == 2


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """With the known ones."""
    path = tmp_path / "recipe.toml"
    path.write_text('name = "x"\nkind = "gru"\n')
    with pytest.raises(RecipeError, match="words, lstm, bert"):
        load_recipe(path)


def test_a_digest_is_of_the_settings_and_not_of_the_place(tmp_path: Path) -> None:
    """Defaults written out change nothing, nor does more time; another seed does."""
    (tmp_path / "sub").mkdir()
    one = load_recipe(_write(tmp_path, ""))
    other = load_recipe(_write(tmp_path / "sub", "[training]\nbatch = 64"))
    assert one.digest == other.digest
    assert load_recipe(_write(tmp_path, ""), seed=1).digest != one.digest
    assert load_recipe(_write(tmp_path, ""), seed=None).digest == one.digest
    assert load_recipe(_write(tmp_path, "[training]\nmax_minutes = 1")).digest == one.digest
