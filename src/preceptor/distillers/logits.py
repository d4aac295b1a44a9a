"""Soft logits: the divergence of the class probabilities of every pixel.

Sources: Hinton et al. 2015, arXiv 1503.02531; the scale is that of TextFreeKD's `kl` alternative: mean per pixel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller
from preceptor.distillers.pairs import Align, to_one_grid
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

IGNORED = 255
"""The label of pixels that take no part."""


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of softmax over channels [B, C, H, W] at every pixel, mean over pixels, times T^2.

    valid: [B, H, W] bool; others take no part, whatever they hold. Zero where no pixel is valid.
    """
    if valid is not None:
        keep = valid.unsqueeze(1)
        student, teacher = torch.where(keep, student, 0.0), torch.where(keep, teacher, 0.0)
    mine = F.log_softmax(student / temperature, dim=1)
    theirs = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(mine, theirs, log_target=True, reduction="none").sum(dim=1)
    if valid is None:
        return divergence.mean() * temperature**2
    return divergence.sum() / valid.sum().clamp(min=1) * temperature**2


def class_logits(logits: Tensor) -> Tensor:
    """Logits [B, C, H, W] with C >= 2: a single foreground logit z becomes (0, z), which has the same probability."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def paired_logits(student: Segmentation, teacher: Segmentation, align: Align) -> tuple[Tensor, Tensor]:
    """Both logits in float32, with as many classes, on one grid; the teacher's carry no gradient.

    Raises RecipeError where the numbers of classes differ.
    """
    mine, theirs = class_logits(student.logits.float()), class_logits(teacher.logits.detach().float())
    if mine.shape[1] != theirs.shape[1]:
        raise RecipeError(
            "student and teacher do not predict the same classes",
            where="distill",
            found=f"{mine.shape[1]} classes of the student, {theirs.shape[1]} of the teacher",
            remedy="take a teacher that was trained on the same labels",
        )
    return to_one_grid(mine, theirs, align)


def valid_pixels(target: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """[B, h, w] bool: where the label map [B, H, W] is not ignored, at `size` by nearest neighbour; None for no map."""
    if target is None:
        return None
    valid = target != IGNORED
    if tuple(valid.shape[-2:]) == tuple(size):
        return valid
    return F.interpolate(valid.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1) > 0


class PixelKL(Distiller):
    """KL divergence of the class probabilities of every pixel, mean per pixel, times T^2; ignored labels left out."""

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
        if taps is not None:
            raise RecipeError("this distiller compares logits and takes no taps", where="distill.taps", found=taps)
        self.temperature, self.align = temperature, align

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss, `kl`."""
        with torch.autocast(student.logits.device.type, enabled=False):
            mine, theirs = paired_logits(student, teacher, self.align)
            valid = valid_pixels(target, (mine.shape[-2], mine.shape[-1]))
            return {"kl": pixel_kl(mine, theirs, self.temperature, valid)}
