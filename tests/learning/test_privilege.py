"""Privileges: one dictionary that recipes, packages and reports agree with."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from preceptor.data.loading import Batch
from preceptor.errors import DataError
from preceptor.learning.privilege import (
    PRIVILEGES,
    condition_of,
    encodes_reports,
    needs_reports,
    planned_condition,
    reader_of,
    readers_of,
    reads_attributes,
)
from preceptor.recipe import TeacherRecipe, validate_recipe
from preceptor.recipe_data import ReportRecipe
from preceptor.text.encoders import build_encoder
from preceptor.text.features import embed


def test_recipes_take_exactly_the_privileges_that_there_are() -> None:
    assert set(get_args(TeacherRecipe.model_fields["privilege"].annotation)) == set(PRIVILEGES)


@pytest.mark.parametrize("name", PRIVILEGES)
def test_a_privilege_refuses_a_batch_without_what_it_needs(name: str) -> None:
    privilege, batch = PRIVILEGES[name], Batch(torch.rand(1, 1, 4, 4), None, ["a"])
    if privilege.needs or privilege.reading:
        with pytest.raises(DataError, match="a network that is shown"):
            privilege.view(batch)
    else:
        assert privilege.view(batch) == (batch.image, None)


@pytest.mark.parametrize("name", PRIVILEGES)
def test_what_a_privilege_shows_is_the_condition_that_it_plans(name: str, small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe)
    embed(["words"], build_encoder(recipe.reports), tmp_path / "reports.safetensors")
    readers = readers_of([name], recipe.reports, tmp_path / "reports.safetensors")
    shown = {kind: reader.batch(["words", "words"]) for kind, reader in readers.items()}
    batch = Batch(torch.rand(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), ["a", "b"], shown)
    image, condition = PRIVILEGES[name].view(batch)
    assert image.shape == batch.image.shape
    planned = planned_condition(name, recipe.reports)
    assert condition_of(name, reader_of(name, recipe.reports, tmp_path / "reports.safetensors")) == planned
    if planned is None:
        assert condition is None
    else:
        assert condition is not None
        assert condition.shape in ((2, planned["length"], planned["width"]), (2, planned["width"]))


def test_only_a_recipe_with_a_reading_teacher_needs_reports(small_recipe: dict) -> None:
    reading = validate_recipe(small_recipe)
    assert needs_reports(reading)
    assert encodes_reports(reading)
    blind = validate_recipe(small_recipe, changes=["teacher.privilege=none", "teacher.segmentor.name=unguided"])
    assert not needs_reports(blind)
    assert not encodes_reports(blind)


def test_a_teacher_that_is_shown_attributes_needs_no_report_and_no_encoder(small_recipe: dict) -> None:
    recipe = validate_recipe(
        small_recipe, changes=["teacher.privilege=attributes", "teacher.segmentor.name=c2fvl", "reports.coding=notes"]
    )
    assert (reads_attributes(recipe), needs_reports(recipe), encodes_reports(recipe)) == (True, False, False)
    assert not reads_attributes(validate_recipe(small_recipe))
    reader = reader_of("attributes", recipe.reports, None)
    assert reader is not None
    assert reader.batch(["Both lungs show consolidation.", ""]).isnan().sum(dim=1).tolist() == [7, 8]


def test_a_reader_of_reports_wants_their_features() -> None:
    with pytest.raises(DataError, match="preceptor embed"):
        reader_of("report", ReportRecipe(), None)
