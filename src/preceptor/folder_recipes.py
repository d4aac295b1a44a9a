"""Recipes made from a data folder and a few options, for work without training: checking, embedding, judging."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from preceptor.errors import RecipeError
from preceptor.recipe import Recipe, read_recipe, shipped_recipes, validate_recipe
from preceptor.recipe_data import DataRecipe, ReportRecipe


def data_of(
    source: str,
    *,
    layout: str = "auto",
    labels: Sequence[str] = (),
    groups: str = "auto",
    changes: Iterable[str] = (),
) -> tuple[DataRecipe, ReportRecipe | None]:
    """The sections `data` and, where reports are read, `reports`: of a recipe, or of a folder with these options.

    source: a folder, a recipe file, or the name of a shipped recipe. labels: `name=value`, the background first.
    changes: `a.b=value`. Raises RecipeError for what no recipe may hold.
    """
    from preceptor.learning.privilege import needs_reports

    if not Path(source).is_dir():
        recipe = _read(source, changes)
        return recipe.data, recipe.reports if needs_reports(recipe) else None
    data = {"root": source, "layout": layout, "labels": _labels(labels), "split": {"groups": groups}}
    recipe = _folder(data, {}, source, changes)
    return recipe.data, recipe.reports


def attributes_of(source: str, changes: Iterable[str] = ()) -> ReportRecipe | None:
    """How attributes are read, where a recipe shows them to a network, or the changes on a folder say how."""
    from preceptor.learning.privilege import reads_attributes

    if not Path(source).is_dir():
        recipe = _read(source, changes)
        return recipe.reports if reads_attributes(recipe) else None
    reports = _folder({"root": source}, {}, source, changes).reports
    return reports if {"coding", "attributes"} & reports.model_fields_set else None


def check_networks(source: str, changes: Iterable[str] = ()) -> None:
    """Raise RecipeError where `source` is a recipe whose networks or distillers cannot be built; see `check_arms`."""
    from preceptor.learning.arm import check_arms

    if not Path(source).is_dir():
        check_arms(_read(source, changes))


def embedding_recipe(source: str, changes: Iterable[str] = ()) -> Recipe:
    """The recipe whose report wordings are embedded; of a folder every wording and its mirrored forms.

    So features of a folder serve any recipe on it, whatever its splits and flips.
    """
    if not Path(source).is_dir():
        return _read(source, changes)
    data = {"root": source, "split": {"rule": "random", "validation": 0.0, "test": 0.0}, "missing_text": "empty"}
    return _folder(data, {"flip_horizontal": 0.5, "flip_vertical": 0.5}, source, changes)


def _read(source: str, changes: Iterable[str]) -> Recipe:
    if not Path(source).exists() and source.removeprefix("recipes/").removesuffix(".yaml") not in shipped_recipes():
        raise RecipeError(
            "this is neither a data folder, nor a recipe file, nor a shipped recipe",
            where=source,
            remedy="check the path; `preceptor list recipes` names the shipped recipes",
        )
    return read_recipe(source, changes)


def _folder(data: dict[str, Any], augment: dict[str, Any], source: str, changes: Iterable[str]) -> Recipe:
    content = {"name": "folder", "student": {"name": "unguided"}, "data": data, "augment": augment}
    return validate_recipe(content, where=source, changes=changes)


def _labels(pairs: Sequence[str]) -> dict[str, int | str]:
    result: dict[str, int | str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (sign and name and value):
            raise RecipeError(
                "a label is not of the form name=value", where=f"--label {pair}", expected="--label lesion=255"
            )
        result[name] = int(value) if value.lstrip("-").isdigit() else value
    return result
