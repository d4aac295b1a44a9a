"""Claims about the check of one case's files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.case import Case
from preceptor.data.check_files import compare_geometry, content_hash, inspect_case
from preceptor.data.readers import Geometry
from preceptor.recipe_data import DataRecipe

DATA = DataRecipe(labels={"background": 0, "lesion": 255})
CASE = Case("case0", Path("/d/a.png"), Path("/d/m.png"))
AFFINE = ((2.0, 0.0, 0.0, 5.0), (0.0, 2.0, 0.0, 6.0), (0.0, 0.0, 3.0, 7.0), (0.0, 0.0, 0.0, 1.0))


def moved(by):
    first, *others = AFFINE
    return ((*first[:3], first[3] + by), *others)


def only(findings):
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("form", ["RGB", "RGBA", "uint16", "other name"])
def test_one_picture_has_one_hash_in_all_its_forms(form):
    grey = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, -1)
    other = {
        "RGB": rgb,
        "RGBA": np.concatenate([rgb, np.full((5, 7, 1), 255, np.uint8)], -1),
        "uint16": grey.astype(np.uint16),
        "other name": grey.copy(),
    }[form]
    assert content_hash(grey) == content_hash(other)


def test_other_pictures_have_other_hashes():
    grey = np.arange(36, dtype=np.uint8).reshape(4, 9)
    changed = grey.copy()
    changed[2, 2] += 1
    hashes = {content_hash(p) for p in (grey, changed, grey.reshape(9, 4), grey.astype(np.int16) - 1, grey / 7)}
    assert len(hashes) == 5


def test_equal_geometry_has_no_finding():
    one = Geometry((4, 5), (2.0, 2.0), "nifti", AFFINE, "RAS")
    assert compare_geometry(CASE, one, one) == []
    assert compare_geometry(CASE, one, Geometry((4, 5), format="png")) == []


def test_rounding_is_noted_and_more_is_an_error_with_both_values():
    one = Geometry((4, 5), (2.0, 2.0), "nifti", AFFINE, "RAS")
    item = only(compare_geometry(CASE, one, Geometry((4, 5), (2.0, 2.0), "nifti", moved(9e-4), "RAS")))
    assert (item.level, item.code) == ("note", "geometry-rounding")
    assert item.message == "affines differ by 9.0e-04 mm"
    item = only(compare_geometry(CASE, one, Geometry((4, 5), (2.0, 2.0), "nifti", moved(1.5), "RAS")))
    assert (item.level, item.code) == ("error", "geometry-mismatch")
    assert "2.0, 0.0, 0.0, 5.0" in item.message
    assert "2.0, 0.0, 0.0, 6.5" in item.message
    assert "they differ by up to 1.5 mm; remedy: resample the mask onto its image's grid" in item.message


def test_spacings_are_compared_where_there_is_no_affine():
    one, other = Geometry((4, 5), (2.0, 2.0), "dicom"), Geometry((4, 5), (2.0, 2.5), "dicom")
    item = only(compare_geometry(CASE, one, other))
    assert item.message.startswith("spacings of image [2.0, 2.0], of mask [2.0, 2.5]; they differ by up to 0.5 mm")


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((6, 4), "the axes look swapped: transpose the mask"),
        ((8, 12), "the mask looks resized: write it again at its image's size (nearest neighbour)"),
        ((4, 5), "check that image and mask belong together, and write the mask at its image's size"),
    ],
)
def test_a_shape_mismatch_names_both_shapes_and_the_likely_cause(shape, remedy):
    item = only(compare_geometry(CASE, Geometry((4, 6)), Geometry(shape)))
    assert (item.level, item.code) == ("error", "shape-mismatch")
    assert item.message == f"image 4 x 6, mask {shape[0]} x {shape[1]}; remedy: {remedy}"


def test_an_inspection_keeps_no_pixels(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 300)).astype(np.uint8)).save(tmp_path / "i.png")
    mask = np.zeros((300, 300), np.uint8)
    mask[10:40, 20:30] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    seen = inspect_case(Case("c", tmp_path / "i.png", tmp_path / "m.png", "train"), DATA, tmp_path)
    assert seen.findings == ()
    assert seen.image.mode == "uint8, 1 channel"
    assert seen.mask.classes == (90000 - 300, 300)
    assert seen.targets[0] == pytest.approx(300 / 90000)
    held = (*seen.image.__slots__, *seen.mask.__slots__)
    values = [getattr(seen.image, n, None) for n in held] + [getattr(seen.mask, n, None) for n in held]
    assert not any(isinstance(value, np.ndarray) for value in values)
    assert seen.targets.size == 7
