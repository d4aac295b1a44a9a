"""Pairwise similarities: against a slow loop, the pooling, the cap on nodes, the gradient of the lengths."""

import pytest
import torch
from torch import Tensor

from preceptor.distillers.structural import MOST_NODES, Structural, pooling, similarities, structural_distance
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slowly(student: Tensor, teacher: Tensor, height: int, width: int) -> Tensor:
    """The definition, node by node and pair by pair."""

    def nodes(image: Tensor) -> list[Tensor]:
        found = []
        for top in range(0, image.shape[1], height):
            for left in range(0, image.shape[2], width):
                part = image[:, top : top + height, left : left + width]
                largest = torch.stack([channel.max() for channel in part])
                found.append(largest / largest.square().sum().sqrt())
        return found

    total, count = torch.zeros((), dtype=torch.float64), 0
    for one, two in zip(student, teacher, strict=True):
        mine, theirs = nodes(one), nodes(two)
        for i in range(len(mine)):
            for j in range(len(mine)):
                total = total + ((mine[i] * mine[j]).sum() - (theirs[i] * theirs[j]).sum()) ** 2
                count += 1
    return total / count


@pytest.mark.parametrize(
    ("size", "pool", "kernel"),
    [((4, 6), 2, (2, 2)), ((5, 7), 2, (2, 2)), ((5, 4), 1, (1, 1)), ((5, 8), "half", (3, 4)), ((3, 2), 9, (3, 2))],
)
def test_value_and_gradient_equal_the_definition(size, pool, kernel):
    student, teacher = draw(2, 3, *size).requires_grad_(), draw(2, 5, *size, seed=1)
    assert pooling(*size, pool) == kernel
    loss, expected = structural_distance(student, teacher, pool), slowly(student, teacher, *kernel)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (loss, expected)))


def test_half_the_map_leaves_two_by_two_nodes():
    for size in ((2, 2), (7, 8), (32, 48)):
        height, width = pooling(*size, "half")
        assert (-(-size[0] // height), -(-size[1] // width)) == (2, 2)


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (128, 256), (1, 4000), (512, 512)])
def test_nodes_are_capped(size):
    height, width = pooling(*size, 2)
    count = -(-size[0] // height) * -(-size[1] // width)
    assert MOST_NODES / 3 < count <= MOST_NODES


def test_detached_lengths_change_the_gradient_and_not_the_value():
    student, teacher = draw(1, 3, 4, 4).requires_grad_(), draw(1, 3, 4, 4, seed=1)
    one, two = (structural_distance(student, teacher, detach_norm=detach) for detach in (False, True))
    torch.testing.assert_close(one, two)
    full, part = (torch.autograd.grad(loss, student)[0] for loss in (one, two))
    assert not torch.allclose(full, part)
    radial = (full * student).sum()  # nothing to gain from scaling the feature, unless the length is held constant
    assert abs(radial) < 1e-12 < abs((part * student).sum())


def test_a_map_of_zeros_is_similar_to_nothing():
    feature = torch.zeros(1, 3, 2, 2, requires_grad=True)
    found = similarities(feature)
    found.sum().backward()
    assert found.abs().max() == 0
    assert torch.isfinite(feature.grad).all()


def test_widths_may_differ_without_adapters():
    distiller = Structural((Tap("up", 3, 2),), (Tap("up", 8, 1),))
    student, teacher = (
        Segmentation(torch.zeros(2, 2, 8, 8), {"up": draw(2, width, side, side)}) for width, side in ((3, 4), (8, 8))
    )
    assert distiller(student, teacher)["skd/up"] > 0
    assert not list(distiller.parameters())


@pytest.mark.parametrize("pool", [0, -1, "third"])
def test_a_pool_that_makes_no_parts_is_refused(pool):
    with pytest.raises(RecipeError, match="1 or more, or half"):
        Structural((Tap("up", 3, 2),), (Tap("up", 3, 2),), pool=pool)
