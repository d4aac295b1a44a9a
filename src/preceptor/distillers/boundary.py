"""Soft logits along the contours, where segmentations differ most.

Source: the boundary term of ACF-BCKD, for planar images; its loop over classes and images is one sum here.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.logits import IGNORED, At, LogitDistiller, zero_elsewhere
from preceptor.distillers.pairs import Align, Interpolation
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Tap


def boundary_pixels(labels: Tensor, classes: int) -> Tensor:
    """[B, C, H, W] bool: where some but not all of the (up to eight) neighbours of a pixel have the class.

    labels: [B, H, W] int64; pixels with the label 255 are neither boundary nor neighbour, nor is what lies outside
    the image. Both sides of a contour are taken.
    """
    valid = labels != IGNORED
    known = torch.arange(classes, device=labels.device).reshape(1, -1, 1, 1)
    # Sums of bytes: as a convolution of floats it takes four times as long on processors.
    maps = torch.cat([labels.unsqueeze(1) == known, valid.unsqueeze(1)], dim=1).to(torch.uint8)
    above, here, below = _shifted(maps, 2)
    left, middle, right = _shifted(above + here + below, 3)
    counts = left + middle + right - maps
    having, neighbours = counts[:, :-1], counts[:, -1:]
    return (having > 0) & (having < neighbours) & valid.unsqueeze(1)


def _shifted(maps: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The neighbours before, the maps themselves, and the neighbours behind along an axis; 0 outside."""
    length = maps.shape[axis]
    padded = F.pad(maps, (0, 0, 1, 1) if axis == 2 else (1, 1))
    before, here, behind = (padded.narrow(axis, start, length) for start in range(3))
    return before, here, behind


def boundary_kl(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """KL(teacher || student) over the classes of logits [B, C, H, W] at the boundary of each class, times T^2.

    A contour is the boundary of one class in one image. mean: per pixel of each contour, then over contours; sum: per
    element (pixel and class) of each contour, then summed over contours, as published. labels: [B, H, W] int64, 255
    for pixels that take no part, whatever they hold. 0 where there is no contour.
    """
    classes = student.shape[1]
    contours = boundary_pixels(labels, classes)
    sizes = contours.sum(dim=(2, 3), keepdim=True)
    weights = (contours / sizes.clamp(min=1)).sum(dim=1)
    divergence = F.kl_div(
        F.log_softmax(zero_elsewhere(student, weights > 0) / temperature, dim=1),
        F.log_softmax(zero_elsewhere(teacher, weights > 0) / temperature, dim=1),
        log_target=True,
        reduction="none",
    )
    total = (divergence.sum(dim=1) * weights).sum() * temperature**2
    return total / ((sizes > 0).sum().clamp(min=1) if reduction == "mean" else classes)


class BoundaryKL(LogitDistiller):
    """Soft logits along the contours of the labels (boundary KD): KL over classes, mean over contours, times T^2.

    reduction: sum adds the contours of all classes and images up and divides by the classes, as published.
    standardise: z-score the logits of each pixel over its classes first.
    """

    name = "boundary"

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        temperature: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        standardise: bool = False,
        at: At = "native",
        align: Align = "smaller",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__(
            taps, temperature=temperature, align=align, interpolation=interpolation, at=at, standardise=standardise
        )
        self.reduction: Literal["mean", "sum"] = reduction

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise RecipeError("this distiller needs labels", where="distill.name", found="boundary", remedy="take kd")
        return boundary_kl(student, teacher, labels, self.temperature, self.reduction)
