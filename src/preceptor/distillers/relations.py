"""Relations instead of values: similarities between tokens, and where the feature is strong.

Source: the alternatives `skd` (here `token_skd`) and `imd` of TextFreeKD's code; neither needs equal channels, so
neither has adapters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import Align, FeaturePairs, tokens
from preceptor.segmentors.base import Segmentation, Tap


def token_similarity(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Frobenius norm of the difference of the cosine similarity matrices [N, N] of tokens [B, N, C], times T^2.

    Per sample, mean over the batch. The temperature acts as that factor only, as published. Memory: B * N^2.
    """
    mine, theirs = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    difference = mine @ mine.transpose(1, 2) - theirs @ theirs.transpose(1, 2)
    return torch.linalg.vector_norm(difference, dim=(1, 2)).mean() * temperature**2


def token_importance(student: Tensor, teacher: Tensor) -> Tensor:
    """L2 distance of the importance maps of tokens [B, N, C], mean over the batch.

    An importance map is the sum over channels, L2-normalised over the N positions.
    """
    mine, theirs = F.normalize(student.sum(dim=-1), dim=-1), F.normalize(teacher.sum(dim=-1), dim=-1)
    return torch.linalg.vector_norm(mine - theirs, dim=-1).mean()


class TokenSimilarity(Distiller):
    """Difference of token-to-token cosine similarities (its SKD); TextFreeKD notes a temperature of 10."""

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        temperature: float = 1.0,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=False, align=align, seed=seed)

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return {
                f"token_skd/{tap}": token_similarity(tokens(mine), tokens(theirs), self.temperature)
                for tap, (mine, theirs) in self.features(student, teacher).items()
            }


class TokenImportance(Distiller):
    """Distance of the maps of summed channels (IMD), mean over the pairs of taps."""

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
        """One loss a pair of taps, each divided by the number of pairs: their sum is the published mean."""
        pairs = self.features(student, teacher)
        return {
            f"imd/{tap}": token_importance(tokens(mine), tokens(theirs)) / len(pairs)
            for tap, (mine, theirs) in pairs.items()
        }
