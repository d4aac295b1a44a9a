"""Soft logits: published values, ignored labels, one-channel networks."""

import pytest
import torch

from preceptor.distillers.logits import PixelKL, class_logits, labels_at, pixel_kl, valid_pixels
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, probabilities

REDUCTIONS = {None: "pixel", "mean": "element", "batchmean": "image"}
"""What the golden cases call them."""


def test_value_and_gradient_equal_the_original(loss_cases):
    for case in loss_cases.of("pixel_kl"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, pixel_kl(inputs["student"], inputs["teacher"], case["config"]["T"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_values_and_gradients(distiller_cases, dtype):
    for name in distiller_cases.of("KD"):
        hyper, inputs = distiller_cases.cases[name]["hyper"], distiller_cases.inputs(name, dtype)
        align, _, way = hyper.get("resize", "student to teacher").partition(", ")
        distiller = PixelKL(
            (),
            (),
            temperature=hyper["temperature"],
            reduction=REDUCTIONS[hyper.get("reduction")],
            align="teacher" if align == "student to teacher" else "smaller",
            interpolation=way or "bilinear",
        )
        one, two = (Segmentation(inputs[whose], {}) for whose in ("student", "teacher"))
        loss = distiller(one, two, inputs.get("labels"))["kd"]
        assert loss.dtype == dtype
        distiller_cases.check(name, inputs, hyper["weight"] * loss)


def test_ignored_pixels_change_nothing_even_when_not_a_number():
    student, teacher = torch.randn(2, 2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 6, 5, dtype=torch.bool)
    valid[:, :2] = False
    spoilt = torch.where(valid.unsqueeze(1), student, torch.nan).requires_grad_()
    loss = pixel_kl(spoilt, teacher, valid=valid)
    torch.testing.assert_close(loss, pixel_kl(student[:, :, 2:], teacher[:, :, 2:]))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()


def test_no_valid_pixel_gives_zero():
    logits = torch.randn(1, 2, 4, 4)
    assert pixel_kl(logits, -logits, valid=torch.zeros(1, 4, 4, dtype=torch.bool)) == 0


def test_a_single_logit_keeps_its_probabilities():
    logits = torch.linspace(-9, 9, 16).reshape(1, 1, 4, 4)
    torch.testing.assert_close(torch.softmax(class_logits(logits), dim=1), probabilities(logits))


def test_label_map_follows_the_grid_of_the_logits():
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[:, :, :4] = 255
    assert valid_pixels(labels_at(target, (4, 4))).tolist() == [[[False, False, True, True]] * 4]


def test_nothing_is_masked_where_every_pixel_counts():
    assert valid_pixels(None) is None
    assert valid_pixels(torch.zeros(1, 4, 4, dtype=torch.int64)) is None


def test_different_classes_are_refused():
    two, three = Segmentation(torch.zeros(1, 2, 4, 4), {}), Segmentation(torch.zeros(1, 3, 4, 4), {})
    with pytest.raises(RecipeError, match="2 classes of the student, 3 of the teacher"):
        PixelKL((), ())(two, three)


def test_taps_are_refused():
    with pytest.raises(RecipeError, match="takes no taps"):
        PixelKL((), (), {"a": "a"})
