"""What is shown of a case: of a volume the slice with most to see, found through the manifest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.case import Case
from preceptor.evaluation.scores import read_rows, scores_of
from preceptor.evaluation.showcases import fullest, showcases
from preceptor.recipe import read_recipe
from preceptor.recipe_data import DataRecipe

from .fabricate import fabricate_volumes

DATA = DataRecipe(labels={"background": 0, "left": 1, "right": 2}, ignore=[9])


def slices(folder: Path, areas: list[int], value: int = 1) -> list[Case]:
    """Slices of which so many pixels hold a value."""
    cases = []
    for index, area in enumerate(areas):
        mask = np.zeros(36, np.uint8)
        mask[:area] = value
        Image.fromarray(mask.reshape(6, 6)).save(folder / f"{index}.png")
        cases.append(Case(f"v_{index}", folder / f"{index}.png", folder / f"{index}.png", volume="v"))
    return cases


@pytest.mark.parametrize(
    ("areas", "value", "expected"), [([0, 3, 9, 4], 2, 2), ([0, 0, 0, 0, 0], 1, 2), ([0, 9, 1], 9, 1), ([5], 1, 0)]
)
def test_of_a_volume_the_slice_with_most_foreground_is_shown(tmp_path, areas, value, expected) -> None:
    cases = slices(tmp_path, areas, value)
    assert fullest(cases, DATA) is cases[expected]


def test_slices_that_cannot_be_read_are_no_error(tmp_path) -> None:
    cases = slices(tmp_path, [2, 5, 3])
    (tmp_path / "1.png").write_bytes(b"no picture")
    assert fullest(cases, DATA) is cases[2]
    gone = [Case(f"g{index}", tmp_path / "gone.png", tmp_path / "gone.png", volume="g") for index in range(3)]
    assert fullest(gone, DATA) is gone[1]


def test_a_volume_is_shown_by_one_slice_with_the_predictions_of_every_arm(tmp_path) -> None:
    run = fabricate_volumes(tmp_path, patients=2, size=32)
    arms = ("control", "student", "teacher-wide", "teacher-words")
    scores = {arm: scores_of(read_rows(run / arm / "cases.csv"), arm) for arm in arms}
    shown = showcases(run, read_recipe(run / "recipe.yaml"), scores, "student")
    assert len(shown) == 4
    for case in shown:
        assert case.trouble == ""
        assert case.name.split(",")[1] in (" slice 2 of 4", " slice 3 of 4")
        assert [panel.arm for panel in case.panels] == list(arms)
        assert all(case.reference), "each of the three classes has its outline"
        dice = scores["student"].per_case()[scores["student"].cases.index(case.name.split(",")[0])]
        assert case.panels[1].dice == pytest.approx(dice)
