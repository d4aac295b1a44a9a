"""Hints: the plain and the standardised error, adapters and grids."""

import numpy as np
import torch
import torch.nn.functional as F

from preceptor.distillers.hint import Hint, hint_distance
from preceptor.segmentors.base import Segmentation, Tap


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(channels: int, size: tuple[int, int], seed: int) -> Segmentation:
    return Segmentation(draw(2, 3, 8, 12), {"up": draw(2, channels, *size, seed=seed).requires_grad_()})


def test_the_error_is_that_of_the_adapted_feature_on_the_teachers_grid():
    student, teacher = network(4, (4, 6), 1), network(5, (8, 12), 2)
    distiller = Hint((Tap("up", 4, 2),), (Tap("up", 5, 1),))
    adapted = distiller.features.adapters["up"](student.features["up"])
    expected = F.mse_loss(
        F.interpolate(adapted, size=(8, 12), mode="bilinear", align_corners=False), teacher.features["up"]
    )
    torch.testing.assert_close(distiller(student, teacher)["fitnet/up"], expected)


def test_pearson_is_one_less_the_mean_correlation_of_the_channels():
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    rows = [feature.transpose(0, 1).reshape(3, -1).numpy() for feature in (student, teacher)]
    correlations = [np.corrcoef(one, two)[0, 1] for one, two in zip(*rows, strict=True)]
    torch.testing.assert_close(
        hint_distance(student, teacher, "pearson").item(), 1 - np.mean(correlations), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        hint_distance(7 * student + 2, teacher, "pearson"), hint_distance(student, teacher, "pearson")
    )


def test_a_constant_channel_has_a_finite_gradient_under_pearson():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    hint_distance(student, draw(2, 3, 4, 4), "pearson").backward()
    assert torch.isfinite(student.grad).all()


def test_batch_norm_follows_the_adapter_and_learns():
    student, teacher = network(4, (4, 6), 1), network(5, (4, 6), 2)
    distiller = Hint((Tap("up", 4, 2),), (Tap("up", 5, 2),), batch_norm=True)
    loss = distiller(student, teacher)["fitnet/up"]
    adapted = distiller.features.adapters["up"](student.features["up"])
    torch.testing.assert_close(
        loss, F.mse_loss(F.batch_norm(adapted, None, None, training=True), teacher.features["up"])
    )
    loss.backward()
    assert all(p.grad is not None for p in distiller.parameters())
    assert len(list(distiller.parameters())) == 4
