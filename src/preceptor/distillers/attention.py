"""Attention transfer: where a stage is active, whatever its channels.

Source: Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928, in the form with a mean over positions.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import FeaturePairs, common_size, per_pair
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

Reduction = Literal["mean", "sum"]


def attention_map(feature: Tensor, p: int = 2) -> Tensor:
    """The mean over channels of |feature|^p of [B, C, H, W], as vectors [B, H * W] of Euclidean length 1.

    A map of zeros stays zero.
    """
    strength = feature.square() if p == 2 else feature.abs().pow(p)
    return F.normalize(strength.mean(dim=1).flatten(1), dim=1)


def attention_distance(student: Tensor, teacher: Tensor, p: int = 2, reduction: Reduction = "mean") -> Tensor:
    """Squared difference of the attention maps of [B, C, H, W] and [B, D, h, w], mean over the batch and positions.

    Where sizes differ, the larger feature itself is average-pooled (adaptively) to the smaller size, each side on its
    own. reduction "sum" adds positions up instead, so that the value (0 to 2) does not shrink with the map.
    """
    size = common_size(student, teacher, "smaller")
    mine, theirs = (
        attention_map(feature if feature.shape[-2:] == size else F.adaptive_avg_pool2d(feature, size), p)
        for feature in (student, teacher)
    )
    squares = (mine - theirs).square()
    return squares.mean() if reduction == "mean" else squares.sum(dim=1).mean()


class Attention(Distiller):
    """Distance of the attention maps (AT) of encoder stages, published with weight 1000, or 250 a stage of four.

    weights: one factor a pair, in the order of the pairs; left out, 1 each. p: the power of the activations.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        p: int = 2,
        reduction: Reduction = "mean",
        weights: tuple[float, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if p < 1:
            raise RecipeError("out of range", where="distill.options.p", found=p, expected="1 or more")
        self.p, self.reduction = p, reduction
        self.features = FeaturePairs(
            student_taps, teacher_taps, taps, adapt=False, align=None, group="encoder", seed=seed
        )
        self.weights = per_pair("weights", weights, self.features.pairs)

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps, times its weight."""
        pairs = self.features(student, teacher)
        with torch.autocast(student.logits.device.type, enabled=False):
            return {
                f"at/{tap}": weight * attention_distance(mine, theirs, self.p, self.reduction)
                for weight, (tap, (mine, theirs)) in zip(self.weights, pairs.items(), strict=True)
            }
