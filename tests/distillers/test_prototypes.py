"""Variation within classes: against a slow loop, absent classes, ignored labels."""

import pytest
import torch
from torch import Tensor

from preceptor.distillers.prototypes import ClassVariation, class_variation, variation_distance
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape: int, seed: int = 2) -> Tensor:
    """Classes 0, 1 and 3 of 4, and some 255; the first image lacks class 3."""
    made = torch.tensor([0, 1, 3, 255])[torch.randint(4, shape, generator=torch.Generator().manual_seed(seed))]
    made[0][made[0] == 3] = 0
    return made


def slowly(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """The definition, image by image, class by class and position by position."""
    terms = []
    for one, two, classes in zip(student, teacher, target, strict=True):
        for value in classes.unique():
            if value == 255:
                continue
            rows, columns = torch.where(classes == value)
            sides = []
            for feature in (one, two):
                vectors = feature[:, rows, columns]
                mean = vectors.mean(dim=1)
                sides.append([v @ mean / (v.norm() * mean.norm()) for v in vectors.T])
            terms += [(mine - theirs) ** 2 for mine, theirs in zip(*sides, strict=True)]
    return torch.stack(terms).mean()


def test_value_and_gradient_equal_the_definition():
    student, teacher, target = draw(3, 5, 6, 7).requires_grad_(), draw(3, 4, 6, 7, seed=1), labels(3, 6, 7)
    loss, expected = variation_distance(student, teacher, target, 4), slowly(student, teacher, target)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (loss, expected)))


def test_ignored_positions_change_nothing_even_when_not_a_number():
    student, teacher, target = draw(2, 5, 6, 7), draw(2, 4, 6, 7, seed=1), labels(2, 6, 7)
    ignored = (target == 255).unsqueeze(1)
    spoilt = torch.where(ignored, torch.nan, student).requires_grad_()
    loss = variation_distance(spoilt, torch.where(ignored, torch.nan, teacher), target, 4)
    torch.testing.assert_close(loss, variation_distance(student, teacher, target, 4))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()
    assert class_variation(student, target, 4)[target == 255].abs().max() == 0


def test_no_label_at_all_gives_zero():
    feature = draw(1, 3, 4, 4).requires_grad_()
    loss = variation_distance(feature, -feature, torch.full((1, 4, 4), 255), 2)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(feature.grad).all()


def test_a_class_of_equal_vectors_varies_not():
    target = labels(2, 6, 7)
    feature = draw(4, 5)[target.clamp(max=3)].permute(0, 3, 1, 2)
    torch.testing.assert_close(class_variation(feature, target, 4), (target != 255).double())


def test_labels_reach_the_feature_by_nearest_neighbour():
    taps = (Tap("up", 3, 2),)
    one, two = (Segmentation(torch.zeros(2, 4, 8, 8), {"up": draw(2, 3, 4, 4, seed=seed)}) for seed in (0, 1))
    target = labels(2, 8, 8)
    loss = ClassVariation(taps, taps)(one, two, target)["ifvd/up"]
    torch.testing.assert_close(loss, variation_distance(one.features["up"], two.features["up"], target[:, ::2, ::2], 4))


def test_labels_are_needed():
    taps = (Tap("up", 3, 2),)
    network = Segmentation(torch.zeros(2, 4, 8, 8), {"up": draw(2, 3, 4, 4)})
    with pytest.raises(RecipeError, match="needs labels"):
        ClassVariation(taps, taps)(network, network)
