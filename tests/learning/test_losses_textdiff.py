"""TextDiff's loss, on its raw logits as published and on probabilities, with its gradients."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.learning.losses import segmentation_loss

GOLDEN = Path(__file__).parent.parent / "golden" / "sikd_textdiff_losses"
CASES = [
    case
    for case in json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))["cases"]
    if case["group"] == "textdiff_loss"
]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_loss_and_gradient_equal_the_original(case: dict) -> None:
    arrays = np.load(GOLDEN.with_suffix(".npz"), allow_pickle=False)
    logits = torch.from_numpy(arrays[case["inputs"]["logits"]["npz"]]).requires_grad_()
    target = torch.from_numpy(arrays[case["inputs"]["target"]["npz"]]).long()
    name = "textdiff" if case["name"].endswith("raw_logits") else "textdiff_softmax"
    value = segmentation_loss(name)(logits, target)
    value.backward()
    torch.testing.assert_close(value.item(), case["expected"]["total"], **case["tolerance"])
    expected = torch.from_numpy(arrays[case["expected"]["grad_logits"]["npz"]])
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-7)


def test_every_case_is_here() -> None:
    assert len(CASES) >= 6
