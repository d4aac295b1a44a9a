"""What one score is of follows from the cases and the recipe, and so does the unit of its distances."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preceptor.data.case import Case
from preceptor.errors import RecipeError
from preceptor.evaluation.units import distances_in, scored, units


def test_what_one_score_is_of() -> None:
    path = Path("x")
    cases = [Case(f"v-{n}", path, slice=n, volume="v") for n in (1, 0)]
    cases += [Case("alone", path), Case("v-file", path, volume="v")]
    together = [(name, [case.name for case in chosen]) for name, chosen in units(cases, "auto")]
    assert together == [("v", ["v-file", "v-0", "v-1"]), ("alone", ["alone"])]
    assert [name for name, _ in units(cases, "slice")] == ["v-1", "v-0", "alone", "v-file"]
    with pytest.raises(RecipeError, match="no slices of volumes"):
        units(cases, "volume")


def test_what_is_scored_and_the_unit_of_its_distances_are_told(small_data: Path, tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 2), np.float32), np.diag([1.5, 1.5, 8, 1])), tmp_path / "a.nii")
    picture = Case("a", small_data / "images" / "c12.png")
    files = {"pixel": picture, "voxel": replace(picture, volume="v"), "mm": Case("n", tmp_path / "a.nii", slice=0)}
    files["mm"] = replace(files["mm"], volume="n")
    for unit, case in files.items():
        assert distances_in([case], "auto") == unit
    assert distances_in([files["voxel"]], "slice") == "pixel"
    assert scored([files["mm"]], "auto") == "volume"
    assert scored([files["mm"]], "slice") == "slice"
    assert scored([picture, files["mm"]], "auto") == "case"
