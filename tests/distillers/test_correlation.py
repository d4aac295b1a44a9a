"""Correlation of probabilities: published values, what it does not see, what is left out."""

import pytest
import torch

from preceptor.distillers.correlation import Correlation, correlation, correlation_terms
from preceptor.segmentors.base import Segmentation


@pytest.fixture
def maps():
    return 3 * torch.randn(2, 2, 5, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_values_and_gradients(distiller_cases, dtype):
    for name in distiller_cases.of("DIST"):
        hyper, inputs = distiller_cases.cases[name]["hyper"], distiller_cases.inputs(name, dtype)
        distiller = Correlation(
            (), (), temperature=hyper["temperature"], beta=hyper["beta"], gamma=hyper["gamma"], align="teacher"
        )
        one, two = (Segmentation(inputs[whose], {}) for whose in ("student", "teacher"))
        loss = distiller(one, two, inputs.get("labels"))["dist"]
        assert loss.dtype == dtype
        distiller_cases.check(name, inputs, hyper["weight"] * loss)


def test_scale_and_shift_of_each_pixels_probabilities_are_not_seen_within_pixels(maps):
    p, teacher = torch.softmax(maps[0], 1), maps[1]
    flatter = (0.4 * p + 0.6 / 5).log()
    sharper = correlation_terms(maps[0], teacher)
    torch.testing.assert_close(correlation_terms(flatter, teacher), sharper)
    mixed = torch.linspace(0.2, 1, 7, dtype=torch.float64)
    one = (mixed * p + (1 - mixed) / 5).log()
    torch.testing.assert_close(correlation_terms(one, teacher)[0], sharper[0])
    assert abs(correlation_terms(one, teacher)[1] - sharper[1]) > 1e-3


def test_equal_logits_cost_nothing_and_opposite_ones_most(maps):
    assert correlation(maps[0], maps[0]) < 1e-6
    one = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(correlation(one, one.flip(1)), torch.tensor(4.0))


def test_pixels_of_the_batch_are_pooled_unless_told_otherwise(maps):
    student, teacher = maps
    pooled, single = (correlation_terms(student, teacher, per_image=flag)[1] for flag in (False, True))
    alone = torch.stack([correlation_terms(student[i : i + 1], teacher[i : i + 1])[1] for i in range(2)])
    torch.testing.assert_close(single, alone.mean())
    assert abs(pooled - single) > 1e-3


@pytest.mark.parametrize("per_image", [False, True])
def test_ignored_pixels_change_nothing_even_when_not_a_number(maps, per_image):
    student, teacher = maps
    valid = torch.ones(2, 6, 7, dtype=torch.bool)
    valid[:, :2] = False
    spoilt = torch.where(valid.unsqueeze(1), student, torch.nan).requires_grad_()
    loss = correlation(spoilt, teacher, valid=valid, per_image=per_image)
    rest = correlation(student[:, :, 2:], teacher[:, :, 2:], per_image=per_image)
    torch.testing.assert_close(loss, rest)
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()


def test_an_image_without_valid_pixels_is_left_out(maps):
    student, teacher = maps
    valid = torch.zeros(2, 6, 7, dtype=torch.bool)
    valid[0] = True
    for options in ({}, {"per_image": True}, {"per_image": True, "skip_constant": False}):
        loss = correlation(student, teacher, valid=valid, **options)
        torch.testing.assert_close(loss, correlation(student[:1], teacher[:1], **options))
    assert correlation(student, teacher, valid=torch.zeros_like(valid)) == 0


def test_a_class_that_the_teacher_sees_nowhere_is_left_out(maps):
    student, teacher = maps
    teacher[:, 0] = -60.0
    inter, intra = correlation_terms(student, teacher)
    kept = correlation_terms(student, teacher, skip_constant=False)
    torch.testing.assert_close(inter, kept[0])
    torch.testing.assert_close(1 - kept[1], (1 - intra) * 4 / 5, atol=1e-3, rtol=0)


def test_constant_logits_pass_on_a_small_gradient(maps):
    student = torch.zeros(2, 5, 6, 7, requires_grad=True)
    correlation(student, maps[1].float()).backward()
    assert student.grad.abs().max() < 1
