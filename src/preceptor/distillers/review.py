"""Knowledge review: every stage of the student, joined with its deeper stages, predicts the teacher's stage.

Source: Chen et al., CVPR 2021, arXiv 2104.09044: attention-based fusion (ABF) and the hierarchical context loss (HCL).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import FeaturePairs, deep_first, drawn_from, module_key, per_pair, resize
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

Norm = Literal["batch", "group"]
Normalise = Literal["none", "teacher_std", "layernorm"]


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of maps [B, C, H, W] and of their averages over 4 x 4, 2 x 2 and 1 x 1 parts (HCL).

    Grids as tall as the map or taller are left out; the others count 1/2, 1/4, 1/8 in that order beside the map's 1.
    The sum is divided by these weights' sum: 1.875 for H > 4, 1.75 for H of 3 and 4.
    """
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side < student.shape[-2]:
            weight /= 2
            pooled = F.adaptive_avg_pool2d(student - teacher, side)
            total, weights = total + weight * pooled.square().mean(), weights + weight
    return total / weights


class AttentionFusion(nn.Module):
    """Joins a stage with the map of the next deeper one, and predicts the teacher's stage from both (ABF).

    in_channels: of the student's stage; mid: of the maps handed on; out_channels: of the teacher's stage.
    deepest: there is no deeper stage to join.
    """

    def __init__(self, in_channels: int, mid: int, out_channels: int, *, deepest: bool, norm: Norm = "batch") -> None:
        super().__init__()
        narrow = nn.Conv2d(in_channels, mid, 1, bias=False)
        widen = nn.Conv2d(mid, out_channels, 3, padding=1, bias=False)
        for convolution in (narrow, widen):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.conv1 = nn.Sequential(narrow, _norm(norm, mid))
        self.conv2 = nn.Sequential(widen, _norm(norm, out_channels))
        self.att_conv = None if deepest else nn.Sequential(nn.Conv2d(2 * mid, 2, 1), nn.Sigmoid())

    def forward(self, feature: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(prediction [B, out_channels, *size], joined map [B, mid, *size]) of [B, in_channels, H, W].

        deeper: the joined map of the next deeper stage, [B, mid, h, w]; None for the deepest. size: the teacher's.
        """
        joined = self.conv1(feature)
        if self.att_conv is not None:
            assert deeper is not None
            deeper = resize(deeper, joined.shape[-2:], "nearest")
            share = self.att_conv(torch.cat([joined, deeper], dim=1))
            joined = joined * share[:, :1] + deeper * share[:, 1:]
        joined = resize(joined, size, "nearest")
        return self.conv2(joined), joined


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(math.gcd(32, channels), channels)


def normalised(teacher: Tensor, how: Normalise) -> Tensor:
    """A teacher's map [B, C, H, W] brought to unit scale, so that its magnitude does not set the loss.

    "teacher_std": divided by the standard deviation of all its values; "layernorm": every position standardised over
    the channels, as transformers hand tokens on.
    """
    if how == "teacher_std":
        return teacher / (teacher.var(correction=0) + 1e-12).sqrt()
    if how == "layernorm":
        variance, mean = torch.var_mean(teacher, dim=1, keepdim=True, correction=0)
        return (teacher - mean) / (variance + 1e-6).sqrt()
    return teacher


class Review(Distiller):
    """Stages joined from deep to shallow predict the teacher's (ReviewKD), before their last ReLU; published weight 1.

    mid: width of the joined maps; 0 is the published min(512, width of the student's deepest stage); 128 or 256 cost
    far less. norm: "group" where batches are small. normalise: see `normalised`. stage_weights: one factor a pair,
    from shallow to deep; left out, 1 each. The seed's setting is mid 512.

    Which stage is deeper than which does not depend on how pairs are written (`pairs.deep_first`).
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        mid: int = 0,
        norm: Norm = "batch",
        normalise: Normalise = "none",
        stage_weights: tuple[float, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mid < 0:
            raise RecipeError("out of range", where="distill.options.mid", found=mid, expected="1 or more, or 0")
        self.normalise = normalise
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=False, align=None, group="preact")
        deep = deep_first(self.features.pairs, student_taps)
        self.features.pairs = deep[::-1]
        self.weights = per_pair("stage_weights", stage_weights, self.features.pairs)
        deepest = deep[0][0]
        width = mid or min(512, deepest.channels)
        self.stages = nn.ModuleDict()
        with drawn_from(seed):
            for mine, theirs in deep:
                self.stages[module_key(mine.name)] = AttentionFusion(
                    mine.channels, width, theirs.channels, deepest=mine is deepest, norm=norm
                )

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps, from shallow to deep, times its weight."""
        pairs = self.features(student, teacher)
        joined, terms = None, {}
        with torch.autocast(student.logits.device.type, enabled=False):
            for weight, (tap, (mine, theirs)) in reversed(list(zip(self.weights, pairs.items(), strict=True))):
                wanted = normalised(theirs, self.normalise)
                predicted, joined = self.stages[module_key(tap)](mine, joined, tuple(theirs.shape[-2:]))
                terms[f"review/{tap}"] = weight * hierarchical_context(predicted, wanted)
        return dict(reversed(terms.items()))
