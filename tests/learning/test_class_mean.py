"""Class means are the published ones; they need the mask, and show nothing of the texture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.data.loading import Batch
from preceptor.errors import DataError
from preceptor.learning.class_mean import class_mean, class_means

GOLDEN = Path(__file__).parent.parent / "golden" / "sikd_textdiff_losses"
CASES = {
    case["name"]: case
    for case in json.loads(GOLDEN.with_suffix(".json").read_text())["cases"]
    if case["group"] == "class_mean"
}


@pytest.mark.parametrize("name", CASES)
def test_painting_equals_the_original(name: str) -> None:
    case = CASES[name]
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        image, label = (torch.from_numpy(arrays[case["inputs"][key]["npz"]]) for key in ("image", "label"))
        expected = torch.from_numpy(arrays[case["expected"]["painted"]["npz"]])
    found = class_means(image, label[:, 0], case["inputs"]["classes"])
    torch.testing.assert_close(found, expected, **case["tolerance"])
    batch = Batch(image, label[:, 0].long(), ["a", "b"])
    torch.testing.assert_close(class_mean(batch)[0], expected, **case["tolerance"])


@pytest.fixture
def batch() -> Batch:
    numbers = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (2, 8, 6), generator=numbers)
    mask[0, 0, 0] = 255
    return Batch(torch.rand(2, 2, 8, 6, generator=numbers), mask, ["a", "b"])


def test_each_class_has_its_one_value_in_each_image_and_channel(batch: Batch) -> None:
    found, condition = class_mean(batch)
    assert condition is None
    assert batch.mask is not None
    for image, painted, mask in zip(batch.image, found, batch.mask, strict=True):
        for label in range(3):
            mean = image[:, mask == label].double().mean(1, keepdim=True)
            assert (painted[:, mask == label] - mean).abs().max() < 1e-6
    assert torch.equal(found[0, :, 0, 0], batch.image[0, :, 0, 0])


def test_moving_pixels_within_a_class_changes_nothing(batch: Batch) -> None:
    assert batch.mask is not None
    image = batch.image.clone()
    inside = batch.mask[1] == 1
    image[1][:, inside] = image[1][:, inside].flip(-1)
    assert not torch.equal(image, batch.image)
    torch.testing.assert_close(class_mean(Batch(image, batch.mask, ["a", "b"]))[0], class_mean(batch)[0])


def test_reduced_precision_is_painted_in_float32_and_double_in_double(batch: Batch) -> None:
    assert batch.mask is not None
    for kind, expected in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2):
        assert class_means(batch.image.to(kind), batch.mask).dtype == expected


def test_without_masks_there_is_nothing_to_see(batch: Batch) -> None:
    with pytest.raises(DataError, match="class means got images without reference masks"):
        class_mean(Batch(batch.image, None, batch.cases))
