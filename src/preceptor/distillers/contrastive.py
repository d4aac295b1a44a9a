"""Contrast of tokens: each token finds its counterpart among all tokens of the sample.

Source: the `cta` loss of TextFreeKD's code. There it joins an image and a text half; a student without text has only
the image half.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import Align, FeaturePairs, tokens
from preceptor.segmentors.base import Segmentation, Tap


def token_contrast(original: Tensor, after: Tensor, temperature: float = 1.0) -> Tensor:
    """Symmetric InfoNCE of tokens [B, S, C]: `after[i]` against all of `original`, and the other way round.

    Logits are cosine similarities divided by the temperature, the target is the token at the same place; mean over
    batch and tokens, average of both directions. 1.0 is what the original computes (its 0.07 is never applied).
    """
    similarity = F.normalize(after, dim=-1) @ F.normalize(original, dim=-1).transpose(1, 2) / temperature
    batch, count, _ = similarity.shape
    place = torch.arange(count, device=similarity.device).expand(batch, count)
    return (F.cross_entropy(similarity, place) + F.cross_entropy(similarity.transpose(1, 2), place)) / 2


def cross_modal_alignment(
    image_original: Tensor,
    image_after: Tensor,
    text_original: Tensor,
    text_after: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Average of `token_contrast` on image tokens and on text tokens; the originals carry no gradient."""
    image = token_contrast(image_original.detach(), image_after, temperature)
    text = token_contrast(text_original.detach(), text_after, temperature)
    return (image + text) / 2


class TokenContrast(Distiller):
    """Symmetric InfoNCE between the tokens of student and teacher (the image half of CTA).

    official_temperature: true leaves the temperature out, as TextFreeKD's code does, which stores but never applies it.
    """

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        temperature: float = 0.07,
        official_temperature: bool = False,
        align: Align = "smaller",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = 1.0 if official_temperature else temperature
        self.features = FeaturePairs(student_taps, teacher_taps, taps, adapt=True, align=align, seed=seed)

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss a pair of taps."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return {
                f"cta/{tap}": token_contrast(tokens(theirs), tokens(mine), self.temperature)
                for tap, (mine, theirs) in self.features(student, teacher).items()
            }
