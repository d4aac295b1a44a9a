"""The validation score counts what it should: foreground of all cases, without the pixels that take no part."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from preceptor.data.case import Case
from preceptor.data.loading import EvaluationLoader
from preceptor.data.shelf import build_shelf
from preceptor.data.transforms import Preprocessing
from preceptor.learning.losses import dice_ce
from preceptor.learning.privilege import none
from preceptor.learning.tasks import Supervised
from preceptor.learning.validation import Validation, batch_dice, overlap_counts
from preceptor.segmentors.base import Segmentation, Segmentor

SIDE = 16
GOLDEN = Path(__file__).parent.parent / "golden" / "sikd_textdiff_losses"
SIKD = [
    case
    for case in json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))["cases"]
    if case["group"] == "sikd_validation_metric"
]


class Fixed(Segmentor):
    """Answers with the same logits, whatever it is shown."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.in_channels, self.classes, self.divisor, self.taps = 1, logits.shape[1], 1, ()
        self.logits = nn.Parameter(logits)

    def forward(self, image: torch.Tensor, condition: torch.Tensor | None = None) -> Segmentation:
        return Segmentation(self.logits.expand(len(image), -1, -1, -1), {})


@pytest.fixture
def shelf(tmp_path) -> Any:
    """Two cases whose right half is stored as 9, which is to be ignored."""
    from PIL import Image

    noise, cases = np.random.default_rng(0), []
    for name in ("a", "b"):
        mask = noise.integers(0, 3, (SIDE, SIDE)).astype(np.uint8)
        mask[:, SIDE // 2 :] = 9
        for ending, pixels in (("", noise.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)), ("_mask", mask)):
            Image.fromarray(pixels).save(tmp_path / f"{name}{ending}.png")
        cases.append(Case(name, tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png", "val"))
    labels = {"background": 0, "one": 1, "two": 2}
    return build_shelf(cases, Preprocessing((SIDE, SIDE), 1), labels, "exact", tmp_path / "cache", ignore=[9])


def test_what_is_found_where_the_mask_is_to_be_ignored_changes_neither_loss_nor_score(shelf) -> None:
    validate = Validation(Fabric(accelerator="cpu"), EvaluationLoader(shelf, {}, 2), lambda batch: batch)
    logits = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    changed, seen = logits.clone(), logits.clone()
    changed[..., SIDE // 2 :] *= -10
    seen[..., : SIDE // 2] *= -10
    first, second, third = (validate(Supervised(Fixed(answer), none, dice_ce)) for answer in (logits, changed, seen))
    assert first == pytest.approx(second)
    assert all(first[name] != pytest.approx(third[name]) for name in first)
    (batch,) = EvaluationLoader(shelf, {}, 2)
    task = Supervised(Fixed(changed), none, dice_ce)
    task(batch)["loss"].backward()
    gradient = task.network.logits.grad
    assert gradient[..., SIDE // 2 :].abs().max() == 0
    assert gradient[..., : SIDE // 2].abs().min() > 0


def test_pixels_are_counted_by_case_and_class() -> None:
    mask = torch.tensor([[[0, 1, 1, 255]], [[1, 1, 0, 0]]])
    found = torch.tensor([[[1, 1, 0, 1]], [[0, 0, 0, 0]]])
    logits = nn.functional.one_hot(found, 2).permute(0, 3, 1, 2).float()
    inter, size = overlap_counts(logits, mask, 2)
    assert inter.tolist() == [[0, 1], [2, 0]]
    assert size.tolist() == [[2, 4], [6, 2]]


@pytest.mark.parametrize("case", SIKD, ids=[case["name"] for case in SIKD])
def test_the_dice_of_a_batch_is_that_of_sikd_s_validation(case: dict) -> None:
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        found, mask = (
            torch.from_numpy(arrays[case["inputs"][name]["npz"]])[:, 0].long() for name in ("prediction", "target")
        )
    logits = nn.functional.one_hot(found, 4).permute(0, 3, 1, 2).float()
    official = case["expected"]["official"]
    assert batch_dice(*overlap_counts(logits, mask, 4)).item() == pytest.approx(official, rel=1e-6)
