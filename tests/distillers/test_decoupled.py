"""Decoupled soft logits: published values, the paper's identity, saturation, ignored labels."""

import pytest
import torch

from preceptor.distillers.decoupled import DecoupledKL, decoupled_kl, decoupled_terms
from preceptor.distillers.logits import pixel_kl
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation


@pytest.fixture
def maps():
    draw = torch.Generator().manual_seed(0)
    student, teacher = 4 * torch.randn(2, 2, 5, 6, 7, generator=draw, dtype=torch.float64)
    return student, teacher, torch.randint(0, 5, (2, 6, 7), generator=draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_values_and_gradients(distiller_cases, dtype):
    for name in distiller_cases.of("DKD"):
        case, inputs = distiller_cases.cases[name], distiller_cases.inputs(name, dtype)
        hyper = case["hyper"]
        at_label = name in ("dkd_at_label", "dkd_seed_corrected")
        distiller = DecoupledKL(
            (),
            (),
            temperature=hyper["temperature"],
            alpha=hyper["alpha"],
            beta=hyper["beta"],
            at="label" if at_label else "logits",
        )
        one, two = (Segmentation(inputs[whose], {}) for whose in ("student", "teacher"))
        loss = distiller(one, two, inputs["labels"])["dkd"]
        assert loss.dtype == dtype
        distiller_cases.check(name, inputs, hyper["weight"] * loss)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_parts_weighted_by_the_teacher_are_the_whole(maps, temperature):
    student, teacher, labels = maps
    target, others = decoupled_terms(student, teacher, labels, temperature)
    label = torch.softmax(teacher / temperature, 1).gather(1, labels.unsqueeze(1)).squeeze(1)
    whole = (target + (1 - label) * others).mean() * temperature**2
    torch.testing.assert_close(whole, pixel_kl(student, teacher, temperature))


def test_two_classes_have_nothing_besides_the_target(maps):
    student, teacher, labels = maps
    two = student[:, :2].requires_grad_()
    assert not decoupled_terms(two, teacher[:, :2], labels.clamp(max=1))[1].any()
    torch.testing.assert_close(
        decoupled_kl(two, teacher[:, :2], labels.clamp(max=1), 2.0), pixel_kl(two, teacher[:, :2], 2.0)
    )


@pytest.mark.parametrize("scale", [80.0, 1e4, 1e20])
def test_saturated_logits_keep_finite_values_and_gradients(maps, scale):
    student, teacher, labels = maps
    student = (student * scale).float().requires_grad_()
    loss = decoupled_kl(student, (teacher * scale).float(), labels, 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_classes_may_be_renamed_with_their_labels(maps):
    student, teacher, labels = maps
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = decoupled_kl(student[:, order], teacher[:, order], order.argsort()[labels])
    torch.testing.assert_close(renamed, decoupled_kl(student, teacher, labels))
    assert abs(decoupled_kl(student[:, order], teacher[:, order], labels) - renamed) > 1e-2


def test_ignored_pixels_change_nothing_even_when_not_a_number(maps):
    student, teacher, labels = maps
    labels[:, :3] = 255
    spoilt = student.clone()
    spoilt[:, :, :3] = torch.nan
    spoilt.requires_grad_()
    loss = decoupled_kl(spoilt, teacher, labels)
    torch.testing.assert_close(loss, decoupled_kl(student[:, :, 3:], teacher[:, :, 3:], labels[:, 3:]))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()


def test_not_a_number_does_not_spread_when_logits_are_enlarged(maps):
    student, teacher, labels = maps
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels[:, :6] = 255
    student[:, :, :3] = torch.nan
    loss = DecoupledKL((), (), at="label")(Segmentation(student, {}), Segmentation(teacher, {}), labels)["dkd"]
    assert torch.isfinite(loss)


def test_missing_labels_are_asked_for(maps):
    student, teacher, _ = maps
    with pytest.raises(RecipeError, match="needs labels"):
        DecoupledKL((), ())(Segmentation(student, {}), Segmentation(teacher, {}))
