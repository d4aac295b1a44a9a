"""Hints: the student's feature, adapted to the teacher's width, predicts the teacher's feature.

Sources: Romero et al., ICLR 2015, arXiv 1412.6550; the option "pearson" is Cao et al., NeurIPS 2022, arXiv 2207.02039.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import Align, FeaturePairs, drawn_from, module_key
from preceptor.segmentors.base import Segmentation, Tap

Normalise = Literal["none", "pearson"]


def standardised(feature: Tensor) -> Tensor:
    """[B, C, H, W] with mean 0 and variance 1 of every channel over batch and positions; constant channels are 0."""
    variance, mean = torch.var_mean(feature, dim=(0, 2, 3), keepdim=True, correction=0)
    return (feature - mean) / (variance + 1e-12).sqrt()


def hint_distance(student: Tensor, teacher: Tensor, normalise: Normalise = "none") -> Tensor:
    """Mean squared difference of [B, C, H, W].

    "pearson": half of it after standardising every channel, which is 1 - r averaged over channels, r being Pearson's
    correlation of student and teacher (0 to 2), whatever their scales.
    """
    if normalise == "pearson":
        return F.mse_loss(standardised(student), standardised(teacher)) / 2
    return F.mse_loss(student, teacher)


class Hint(Distiller):
    """Mean squared error of features, after a 1x1 convolution where widths differ (FitNet); usual weight 1 to 10.

    batch_norm: normalise what the convolution gives. normalise "pearson" compares standardised channels (PKD).
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        batch_norm: bool = False,
        normalise: Normalise = "none",
        align: Align = "teacher",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=True, align=align, seed=seed)
        with drawn_from(seed):
            self.norms = nn.ModuleDict(
                {
                    module_key(mine.name): nn.BatchNorm2d(theirs.channels)
                    for mine, theirs in self.features.pairs
                    if batch_norm and module_key(mine.name) in self.features.adapters
                }
            )

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps."""
        losses = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            for tap, (mine, theirs) in self.features(student, teacher).items():
                key = module_key(tap)
                adapted = self.norms[key](mine) if key in self.norms else mine
                losses[f"fitnet/{tap}"] = hint_distance(adapted, theirs, self.normalise)
        return losses
