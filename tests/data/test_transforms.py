"""Claims about the preparation of images."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.data.readers import Geometry, Picture, read_image
from preceptor.data.transforms import Preprocessing, is_grey
from preceptor.errors import DataError, StorageError
from preceptor.recipe_data import DataRecipe

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import fill  # noqa: E402

CASES = json.loads((GOLDEN / "text_data.json").read_text())
OFFICIAL = {"resize": "bicubic", "antialias": False, "normalize": "zscore"}


def picture(pixels: np.ndarray) -> Picture:
    return Picture(pixels, Geometry(pixels.shape[:2], None, "PNG", None, None))


@pytest.mark.parametrize("case", [c for c in CASES["preparation"] if "array" in c["image"]], ids=lambda c: c["case"])
def test_images_are_prepared_as_by_textfreekd(case: dict) -> None:
    pixels = np.floor(fill.array(case["image"]["array"], tuple(case["image"]["shape"]), 0, 256)).astype(np.uint8)
    expected = case["expected"]["textfreekd_image"]
    reference = np.load(GOLDEN / "text_data.npz")[expected["npz"]].reshape(expected["shape"]).swapaxes(-1, -2)
    ours = Preprocessing((case["size"],) * 2, expected["shape"][0], **OFFICIAL).apply(picture(pixels)).numpy()
    tolerance = CASES["tolerance"]
    np.testing.assert_allclose(
        ours, reference, atol=tolerance["textfreekd_image_atol"], rtol=tolerance["textfreekd_image_rtol"]
    )


@pytest.mark.parametrize("side", [16, 11, 40])
def test_a_constant_image_becomes_zero_also_when_it_is_resized(side: int) -> None:
    for level in (77, 0, 255):
        result = Preprocessing((16, 16), 1).apply(picture(np.full((side, side), level, np.uint8)))
        assert torch.equal(result, torch.zeros(1, 16, 16))


def test_zscore_gives_each_channel_mean_zero_and_deviation_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 60_000, (50, 40, 3)).astype(np.uint16)
    result = Preprocessing((32, 24), 3).apply(picture(pixels))
    assert result.shape == (3, 32, 24)
    assert result.dtype == torch.float32
    assert torch.allclose(result.mean(dim=(1, 2)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(result.std(dim=(1, 2), correction=0), torch.ones(3), atol=1e-5)


def test_unit_uses_the_range_of_unsigned_types_and_the_pictures_own_range_otherwise() -> None:
    settings = {"channels": 1, "normalize": "unit"}
    for kind in (np.uint8, np.uint16):
        pixels = np.full((4, 4), np.iinfo(kind).max // 5, kind)
        assert torch.allclose(Preprocessing((4, 4), **settings).apply(picture(pixels)), torch.tensor(0.2), atol=1e-5)
    hounsfield = np.linspace(-1000, 1000, 16).reshape(4, 4).astype(np.int16)
    result = Preprocessing((4, 4), **settings).apply(picture(hounsfield))
    assert (float(result.min()), float(result.max())) == (0.0, 1.0)
    assert torch.equal(Preprocessing((2, 2), **settings).apply(picture(np.full((2, 2), 7.0))), torch.zeros(1, 2, 2))


def test_grey_is_repeated_and_colour_is_weighted() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    repeated = Preprocessing((4, 4), 3, normalize="unit").apply(picture(grey))
    assert torch.equal(repeated[0], repeated[2])
    red = np.zeros((4, 4, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, 128
    one = Preprocessing((4, 4), 1, normalize="unit").apply(picture(red))
    assert torch.allclose(one, torch.tensor(0.299))
    with pytest.raises(DataError, match=r"scan\.tif.*channels that cannot"):
        Preprocessing((4, 4), 5).apply(picture(red), where="scan.tif")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float) -> None:
    pixels = np.ones((4, 4), np.float32)
    pixels[1, 2] = bad
    with pytest.raises(DataError, match=r"film.nii.*not finite") as caught:
        Preprocessing((4, 4)).apply(picture(pixels), where="film.nii")
    assert "1 of 16" in str(caught.value)


@pytest.mark.parametrize("pixels", [np.zeros((2, 3, 4, 5)), np.zeros((0, 4)), np.zeros((4, 4), complex)])
def test_what_is_no_picture_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(DataError):
        Preprocessing((4, 4)).apply(picture(pixels))


def test_antialiasing_averages_what_a_reduction_would_skip() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    smooth = Preprocessing((8, 8), 1, "bilinear", True, "unit").apply(picture(stripes))
    assert torch.allclose(smooth, torch.tensor(0.5), atol=0.02)


def test_settings_survive_the_way_through_a_package() -> None:
    settings = Preprocessing.from_recipe(DataRecipe(image_size=[96, 64], channels=1, antialias=False))
    assert Preprocessing.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    "change", [{"size": [8]}, {"size": None}, {"resize": "lanczos"}, {"extra": 1}, {"channels": "x"}, {"size": [0, 4]}]
)
def test_settings_that_are_not_understood_are_refused(change: dict) -> None:
    with pytest.raises(StorageError):
        Preprocessing.from_dict(Preprocessing((8, 8)).to_dict() | change)


def test_grey_pictures_are_recognised_with_and_without_colour_channels() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert is_grey(grey)
    assert is_grey(np.stack([grey] * 3, -1))
    assert not is_grey(np.stack([grey, grey, grey + 1], -1))
    assert not is_grey(np.zeros((4, 4, 2)))


def test_values_are_cut_off_before_all_else() -> None:
    pixels = np.array([[-1000, -125], [75, 3000]], np.int16)
    plain = Preprocessing((2, 2), 1, normalize="none", clip=(-125.0, 275.0)).apply(picture(pixels))
    assert plain.tolist() == [[[-125, -125], [75, 275]]]
    unit = Preprocessing((2, 2), 1, normalize="unit", clip=(-125.0, 275.0)).apply(picture(pixels))
    assert unit.tolist() == [[[0, 0], [0.5, 1]]]


def test_stored_values_pass_as_they_are() -> None:
    pixels = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    result = Preprocessing((8, 8), 1, normalize="none").apply(picture(pixels))
    assert np.array_equal(result[0].numpy(), pixels)


def test_a_slice_is_scaled_as_its_volume_and_a_picture_as_itself(tmp_path: Path) -> None:
    volume = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    np.savez(tmp_path / "v.npz", image=volume)
    settings = Preprocessing((4, 4), 1, normalize="volume_minmax")
    upper = settings.apply(read_image(tmp_path / "v.npz", 1)).numpy()
    np.testing.assert_allclose(upper[0], volume[1] / 31, atol=1e-6)
    alone = settings.apply(picture(volume[1])).numpy()
    assert (alone.min(), alone.max()) == (0, 1)


def test_a_volume_keeps_its_scale_through_a_resize_and_three_channels(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", image=np.stack([np.full((6, 6), 10.0), np.full((6, 6), 30.0), np.zeros((6, 6))]))
    settings = Preprocessing((4, 4), 3, normalize="volume_percentile")
    result = settings.apply(read_image(tmp_path / "v.npz", 0))
    assert torch.allclose(result, torch.full((3, 4, 4), 1 / 3), atol=1e-5)


def test_settings_of_earlier_versions_are_read_and_written_as_before() -> None:
    old = {"size": [8, 8], "channels": 3, "resize": "bicubic", "antialias": True, "normalize": "zscore"}
    assert Preprocessing.from_dict(old).to_dict() == old


def test_clipping_survives_the_way_through_a_package() -> None:
    settings = Preprocessing.from_recipe(DataRecipe(image_size=8, clip=[-125, 275], normalize="volume_minmax"))
    assert Preprocessing.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.clip == (-125, 275)
    for clip in ([275, -125], [1], ["a", "b"], 3):
        with pytest.raises(StorageError):
            Preprocessing.from_dict({**settings.to_dict(), "clip": clip})


def test_symmetric_brings_the_nominal_range_to_minus_one_and_one():
    def shown(pixels, **settings):
        picture = Picture(pixels, Geometry(pixels.shape))
        return Preprocessing((2, 2), 1, normalize="symmetric", **settings).apply(picture)[0].tolist()

    assert shown(np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)) == [[-1.0, 0.0], [-0.5, 1.0]]
    assert shown(np.array([[0, 255], [255, 0]], np.uint8)) == [[-1.0, 1.0], [1.0, -1.0]]
    assert shown(np.array([[-125, 75], [275, 900]], np.int16), clip=(-125.0, 275.0)) == [[-1.0, 0.0], [1.0, 1.0]]
