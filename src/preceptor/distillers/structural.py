"""Structural knowledge: how similar every two parts of a map are.

Source: Liu et al., CVPR 2019, arXiv 1903.04197, its pairwise part. The adversarial part is left out as unstable.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import Align, FeaturePairs
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

MOST_NODES = 1024
"""Similarities take memory with the square of the nodes: 4 MiB an image at this number."""


def pooling(height: int, width: int, pool: int | Literal["half"] = 2) -> tuple[int, int]:
    """The kernel, and stride, that makes nodes of a map: `pool`, or half of the map for 2 x 2 nodes.

    Enlarged until at most MOST_NODES nodes are left.
    """
    if pool == "half":
        return -(-height // 2), -(-width // 2)
    while -(-height // pool) * -(-width // pool) > MOST_NODES:
        pool += 1
    return min(pool, height), min(pool, width)


def similarities(feature: Tensor, detach_norm: bool = False) -> Tensor:
    """Cosines between all positions of [B, C, H, W], as [B, N, N] with N = H * W.

    detach_norm: lengths count as constants in the gradient, as in the original's code.
    """
    nodes = feature.flatten(2)
    length = torch.linalg.vector_norm(nodes, dim=1, keepdim=True).clamp_min(1e-12)
    nodes = nodes / (length.detach() if detach_norm else length)
    return nodes.transpose(1, 2) @ nodes


def structural_distance(
    student: Tensor, teacher: Tensor, pool: int | Literal["half"] = 2, detach_norm: bool = False
) -> Tensor:
    """Mean squared difference of the similarities of the max-pooled maps [B, C, H, W] and [B, D, H, W] (0 to 4)."""
    kernel = pooling(student.shape[-2], student.shape[-1], pool)
    mine, theirs = (
        similarities(F.max_pool2d(feature, kernel, kernel, ceil_mode=True), detach_norm)
        for feature in (student, teacher)
    )
    return F.mse_loss(mine, theirs)


class Structural(Distiller):
    """Difference of the similarities between all parts of a map (pairwise SKD), published with weight 1 beside kd.

    pool: the side of a part in positions of the feature, or "half" for parts of half the map as published first.
    detach_norm: true leaves the lengths out of the gradient. Channels may differ; there are no adapters.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        pool: int | Literal["half"] = 2,
        detach_norm: bool = False,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if pool != "half" and (not isinstance(pool, int) or pool < 1):
            raise RecipeError("out of range", where="distill.options.pool", found=pool, expected="1 or more, or half")
        self.pool, self.detach_norm = pool, detach_norm
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=False, align=align, seed=seed)

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return {
                f"skd/{tap}": structural_distance(mine, theirs, self.pool, self.detach_norm)
                for tap, (mine, theirs) in self.features(student, teacher).items()
            }
