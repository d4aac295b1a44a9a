"""Soft logits: the divergence of the class probabilities of every pixel, and what all logit distillers share.

Sources: Hinton et al. 2015, arXiv 1503.02531 (`kd`); Sun et al., CVPR 2024, arXiv 2403.01427 (standardised logits).
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.base import Distiller, full_precision
from preceptor.distillers.pairs import Align, Interpolation, to_one_grid
from preceptor.errors import RecipeError
from preceptor.recipe_data import IGNORED
from preceptor.segmentors.base import Segmentation, Tap

At = Literal["native", "input"]
"""Which logits: as the head computes them, at its own stride, or enlarged to the size of the image."""

Reduction = Literal["pixel", "element", "image"]
"""What a sum over classes and pixels is divided by: the pixels, pixels x classes, or the images alone."""


def pixel_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    valid: Tensor | None = None,
    reduction: Reduction = "pixel",
) -> Tensor:
    """KL(teacher || student) of softmax over channels [B, C, H, W] at every pixel, times T^2; a scalar.

    valid: [B, H, W] bool; others take no part, whatever they hold. Zero where no pixel is valid. reduction: mean over
    valid pixels, the same divided by C, or the sum divided by B.
    """
    batch, classes = student.shape[:2]
    if valid is not None:
        student, teacher = zero_elsewhere(student, valid), zero_elsewhere(teacher, valid)
    total = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        log_target=True,
        reduction="sum",
    )
    if reduction == "image":
        return total * (temperature**2 / batch)
    pixels = student[:, 0].numel() if valid is None else valid.sum().clamp(min=1)
    return total / pixels * (temperature**2 / (classes if reduction == "element" else 1))


def standardised(logits: Tensor) -> Tensor:
    """Logits [B, C, H, W] less their mean and divided by their standard deviation over the classes of each pixel.

    The deviation is that of a sample (C - 1), as in the authors' code. 1e-6 is added to its square, so that logits
    that are all equal become zero and pass on a bounded gradient.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    # Five times as fast on processors as `torch.var_mean` along channels.
    variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    return centred * torch.rsqrt(variance + 1e-6)


def class_logits(logits: Tensor) -> Tensor:
    """Logits [B, C, H, W] with C >= 2: a single foreground logit z becomes (0, z), which has the same probability."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def labels_at(target: Tensor, size: tuple[int, int]) -> Tensor:
    """The label map [B, H, W] at `size` by nearest neighbour, index floor(i * scale)."""
    if tuple(target.shape[-2:]) == tuple(size):
        return target
    return F.interpolate(target.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).to(target.dtype)


def valid_pixels(labels: Tensor | None) -> Tensor | None:
    """[B, H, W] bool: where labels [B, H, W] are not ignored; None without labels and, on processors, where all count.

    A loss without a mask takes fewer passes. Elsewhere than on processors one would wait for the device's answer.
    """
    if labels is None:
        return None
    valid = labels != IGNORED
    return None if labels.device.type == "cpu" and bool(valid.all()) else valid


def zero_elsewhere(logits: Tensor, valid: Tensor) -> Tensor:
    """Logits [B, C, H, W] with 0 where `valid` [B, H, W] is false, whatever they hold there."""
    # On processors `masked_fill`, which copies first, takes half as long again.
    return torch.where(valid.unsqueeze(1), logits, 0.0)


def comparable_logits(student: Segmentation, teacher: Segmentation, at: At = "native") -> tuple[Tensor, Tensor]:
    """Both logits in at least float32 and with as many classes (>= 2), each on its grid; the teacher's are detached.

    Raises RecipeError where the numbers of classes differ.
    """
    one, two = (student.native, teacher.native) if at == "native" else (student.logits, teacher.logits)
    mine, theirs = class_logits(full_precision(one)), class_logits(full_precision(two.detach()))
    if mine.shape[1] != theirs.shape[1]:
        raise RecipeError(
            "student and teacher do not predict the same classes",
            where="distill",
            found=f"{mine.shape[1]} classes of the student, {theirs.shape[1]} of the teacher",
            remedy="take a teacher that was trained on the same labels",
        )
    return mine, theirs


def paired_logits(
    student: Segmentation,
    teacher: Segmentation,
    align: Align = "smaller",
    at: At = "native",
    interpolation: Interpolation = "bilinear",
    target: Tensor | None = None,
    standardise: bool = False,
) -> tuple[Tensor, Tensor]:
    """`comparable_logits` on one grid, then `standardised` where asked. target: [B, H, W], as `silenced` takes it."""
    mine, theirs = comparable_logits(student, teacher, at)
    if target is not None and (standardise or mine.shape[-2:] != theirs.shape[-2:]):
        mine, theirs = silenced(mine, target), silenced(theirs, target)
    mine, theirs = to_one_grid(mine, theirs, align, interpolation)
    return (standardised(mine), standardised(theirs)) if standardise else (mine, theirs)


def silenced(logits: Tensor, target: Tensor) -> Tensor:
    """Logits [B, C, h, w] with 0 for what is not finite at the ignored pixels of the label map [B, H, W].

    Resizing would otherwise spread it to pixels that count, and a standard deviation to gradients.
    """
    valid = valid_pixels(labels_at(target, (logits.shape[-2], logits.shape[-1])))
    return logits if valid is None else torch.where(valid.unsqueeze(1) | torch.isfinite(logits), logits, 0.0)


class LogitDistiller(Distiller):
    """Base of what compares logits; a subclass has a `name` and implements `compare`."""

    name: ClassVar[str]

    def __init__(
        self,
        taps: dict[str, str] | None,
        *,
        temperature: float,
        align: Align = "smaller",
        interpolation: Interpolation = "bilinear",
        at: At = "native",
        standardise: bool = False,
    ) -> None:
        super().__init__()
        if taps is not None:
            raise RecipeError("this distiller compares logits and takes no taps", where="distill.taps", found=taps)
        self.temperature, self.align, self.interpolation, self.at = temperature, align, interpolation, at
        self.standardise = standardise

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """One loss, by the distiller's name. Pixels of `target` [B, H, W] with the label 255 take no part."""
        with torch.autocast(student.logits.device.type, enabled=False):
            mine, theirs = self.logits(student, teacher, target)
            labels = None if target is None else labels_at(target, (mine.shape[-2], mine.shape[-1]))
            return {self.name: self.compare(mine, theirs, labels)}

    def logits(self, student: Segmentation, teacher: Segmentation, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The logits that are compared, [B, C, h, w] each."""
        return paired_logits(student, teacher, self.align, self.at, self.interpolation, target, self.standardise)

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        """The loss between logits [B, C, h, w]; labels: [B, h, w] on the same grid, with 255 for what is ignored."""
        raise NotImplementedError


class PixelKL(LogitDistiller):
    """Soft logits (KD): KL divergence of the class probabilities of every pixel, mean per pixel, times T^2.

    standardise: z-score the logits of each pixel over its classes first (CVPR 2024; temperature 2, weight about 9).
    reduction: element divides by the number of classes too, image by the images alone. Weight 1 to 10 / classes.
    """

    name = "kd"

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        temperature: float = 2.0,
        standardise: bool = False,
        reduction: Reduction = "pixel",
        at: At = "native",
        align: Align = "smaller",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__(
            taps, temperature=temperature, align=align, interpolation=interpolation, at=at, standardise=standardise
        )
        self.reduction: Reduction = reduction

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        return pixel_kl(student, teacher, self.temperature, valid_pixels(labels), self.reduction)
