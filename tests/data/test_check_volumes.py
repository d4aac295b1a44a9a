"""What is wrong with a volume is told once, not once a slice."""

import numpy as np
import pytest

from preceptor.data.check import check
from preceptor.data.check_volumes import require_one_grid
from preceptor.data.layouts import read_cases
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe
from tests.published_folders import save_nifti, volumes

LABELS = {"background": 0, "a": 1, "b": 2}


def look(root, folder=None):
    data = DataRecipe(root=str(root), labels=LABELS, split={"rule": "random"})
    return check(read_cases(data), data, None, overlays=folder)


def errors(report):
    return [(item.code, item.where) for item in report.errors]


def test_equal_grids_have_no_finding(tmp_path):
    assert look(volumes(tmp_path)).errors == ()


def test_another_place_is_told_once_and_drawn_once(tmp_path):
    mask = volumes(tmp_path / "data") / "masks" / "scan1.nii"
    save_nifti(mask, np.zeros((4, 20, 24), np.uint8), (4.0, 0.8, 0.9))
    report = look(tmp_path / "data", tmp_path / "shown")
    assert errors(report) == [("geometry-mismatch", "scan1")]
    assert [path.name for path in (tmp_path / "shown").iterdir()] == ["scan1.png"]
    with pytest.raises(DataError, match=r"masks/scan1\.nii: image and mask lie on different grids"):
        require_one_grid(tmp_path / "data" / "images" / "scan1.nii", mask)


@pytest.mark.parametrize("shape", [(2, 20, 24), (4, 20, 30)])
def test_another_shape_is_told_once_and_its_slices_are_not_looked_into(tmp_path, shape):
    mask = volumes(tmp_path / "data") / "masks" / "scan1.nii"
    save_nifti(mask, np.full(shape, 9, np.uint8), (4.0, 0.8, 0.7))
    report = look(tmp_path / "data", tmp_path / "shown")
    assert errors(report) == [("shape-mismatch", "scan1")]
    told = report.errors[0].message
    assert f"image 4 slices of 20 x 24, mask {shape[0]} slices of {shape[1]} x {shape[2]}" in told


def test_rounding_is_one_note(tmp_path):
    mask = volumes(tmp_path) / "masks" / "scan0.nii.gz"
    save_nifti(mask, np.ones((3, 20, 24), np.uint8), (3.0, 0.8, 0.70001))
    notes = [item for item in look(tmp_path).findings if item.code == "geometry-rounding"]
    assert [item.where for item in notes] == ["scan0"]


def test_damaged_volume_is_told_once_by_its_reader(tmp_path):
    path = volumes(tmp_path) / "masks" / "scan0.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = look(tmp_path)
    assert errors(report) == [("unreadable-mask", "scan0")]
    assert "masks/scan0.nii.gz" in report.errors[0].message
