"""Prototypes: how far every position is from the mean of its class.

Source: Wang et al., ECCV 2020 (intra-class feature variation distillation, IFVD).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.logits import IGNORED, labels_at
from preceptor.distillers.pairs import Align, FeaturePairs
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap


def class_variation(feature: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Cosine between every position of [B, C, H, W] and the mean feature of its class in that image: [B, H, W].

    labels: [B, H, W] int64 in 0..classes-1 or 255, where the answer is 0 and the feature counts for no mean.
    Classes that an image lacks are fine.
    """
    valid = (labels != IGNORED).flatten(1)
    place = torch.where(valid, labels.flatten(1), 0)
    vectors = torch.where(valid.unsqueeze(1), feature.flatten(2), 0.0)
    # Products with the one-hot labels [B, N, classes]: no loop over classes, and the same sums on every device.
    member = F.one_hot(place, classes).to(vectors.dtype) * valid.unsqueeze(2)
    means = vectors @ member / member.sum(dim=1, keepdim=True).clamp_min(1)
    products = (vectors.transpose(1, 2) @ means).gather(2, place.unsqueeze(2)).squeeze(2)
    length = torch.linalg.vector_norm(vectors, dim=1).clamp_min(1e-8)
    mean_length = torch.linalg.vector_norm(means, dim=1).clamp_min(1e-8).gather(1, place)
    return (products / (length * mean_length)).reshape(labels.shape)


def variation_distance(student: Tensor, teacher: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Squared difference of `class_variation`, mean over the positions with a label; 0 where there are none."""
    mine, theirs = (class_variation(feature, labels, classes) for feature in (student, teacher))
    return (mine - theirs).square().sum() / (labels != IGNORED).sum().clamp_min(1)


class ClassVariation(Distiller):
    """Difference of the cosines between positions and their class's mean (IFVD), published with weight 200.

    The labels reach the feature's grid by nearest neighbour. Channels may differ; there are no adapters.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=False, align=align, seed=seed)

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps. Labels of 255 are left out. Raises RecipeError where there is no label map."""
        if target is None:
            raise RecipeError("this distiller needs labels", where="distill.name", found="ifvd", remedy="take skd")
        classes = max(2, student.logits.shape[1])  # a single logit is a foreground's
        losses = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            for tap, (mine, theirs) in self.features(student, teacher).items():
                here = labels_at(target, (mine.shape[-2], mine.shape[-1]))
                losses[f"ifvd/{tap}"] = variation_distance(mine, theirs, here, classes)
        return losses
