"""Contours: which pixels they are, and the loss along them."""

import pytest
import torch

from preceptor.distillers.boundary import BoundaryKL, boundary_kl, boundary_pixels
from preceptor.distillers.logits import pixel_kl
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation


def ring_by_hand(labels, classes):
    """The definition, pixel by pixel."""
    batch, height, width = labels.shape
    found = torch.zeros(batch, classes, height, width, dtype=torch.bool)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                ring = [
                    labels[b, v, u].item()
                    for v in range(max(y - 1, 0), min(y + 2, height))
                    for u in range(max(x - 1, 0), min(x + 2, width))
                    if (v, u) != (y, x) and labels[b, v, u] != 255
                ]
                for c in range(classes):
                    found[b, c, y, x] = labels[b, y, x] != 255 and 0 < ring.count(c) < len(ring)
    return found


@pytest.fixture
def scene():
    draw = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 9, 8, dtype=torch.int64)
    labels[0, 2:6, 3:7], labels[0, 4:8, :3], labels[1, :, 5:] = 1, 2, 1
    return *torch.randn(2, 2, 3, 9, 8, generator=draw), labels


def test_contours_are_the_definition(scene):
    labels = scene[2]
    labels[0, :3, :2] = 255
    assert torch.equal(boundary_pixels(labels, 3), ring_by_hand(labels, 3))


def test_both_sides_of_a_contour_are_taken_and_the_edge_of_the_image_is_none():
    labels = torch.zeros(1, 5, 6, dtype=torch.int64)
    assert not boundary_pixels(labels, 2).any()
    labels[:, :, 3:] = 1
    assert boundary_pixels(labels, 2)[0, 1].any(0).tolist() == [False, False, True, True, False, False]


def test_loss_is_the_loop_over_images_and_classes(scene):
    student, teacher, labels = scene
    parts = []
    for image in range(2):
        for contour in boundary_pixels(labels, 3)[image]:
            if contour.any():
                one = slice(image, image + 1)
                parts.append(pixel_kl(student[one], teacher[one], 2.0, contour.unsqueeze(0)))
    parts = torch.stack(parts)
    torch.testing.assert_close(boundary_kl(student, teacher, labels, 2.0), parts.mean())
    torch.testing.assert_close(boundary_kl(student, teacher, labels, 2.0, "sum"), parts.sum() / 3)


def test_pixels_away_from_contours_and_ignored_ones_change_nothing(scene):
    student, teacher, labels = scene
    labels[1, :4] = 255
    away = ~boundary_pixels(labels, 3).any(dim=1, keepdim=True)
    spoilt = torch.where(away, torch.nan, student).requires_grad_()
    loss = boundary_kl(spoilt, teacher, labels)
    torch.testing.assert_close(loss, boundary_kl(student, teacher, labels))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()


def test_an_image_of_one_class_has_no_loss(scene):
    student, teacher, labels = scene
    assert boundary_kl(student, teacher, torch.zeros_like(labels)) == 0


def test_missing_labels_are_asked_for(scene):
    with pytest.raises(RecipeError, match="needs labels"):
        BoundaryKL((), ())(Segmentation(scene[0], {}), Segmentation(scene[1], {}))
