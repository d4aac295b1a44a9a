"""Decoupled soft logits: what the teacher knows of the true class apart from what it knows of the others.

Source: Zhao et al., CVPR 2022, arXiv 2203.08679, for every pixel; all probabilities stay in the log domain.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.distillers.logits import (
    LogitDistiller,
    comparable_logits,
    silenced,
    standardised,
    valid_pixels,
    zero_elsewhere,
)
from preceptor.distillers.pairs import Align, Interpolation, resize
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

NONE = -1e30
"""The logit of a class that is left out."""


def decoupled_terms(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(TCKD, NCKD) of logits [B, C, H, W] at every pixel, each [B, H, W] and without the factor T^2.

    TCKD: KL(teacher || student) of the true class against the rest; NCKD: the same among the other classes, 0 for
    C = 2. labels: [B, H, W] int64 in 0..C-1. TCKD + (1 - teacher's probability of the label) * NCKD is the KL of all
    classes (equation 6 of the paper).
    """
    place = labels.unsqueeze(1)
    margin, log_q = _margin_and_rest(student / temperature, place)
    their_margin, log_p = _margin_and_rest(teacher / temperature, place)
    target = _binary_kl(margin, their_margin)
    if student.shape[1] == 2:
        return target.squeeze(1), torch.zeros_like(target).squeeze(1)
    return target.squeeze(1), (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _margin_and_rest(logits: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """(the logit of the label against all others together, the log-probabilities among the others).

    logits: [B, C, H, W]; place: the labels, [B, 1, H, W], as the margin is. At the label the log-probability is so low
    that the probability is 0, but finite, so that differences of two are.
    """
    rest = logits.scatter(1, place, NONE)
    total = torch.logsumexp(rest, 1, keepdim=True)
    return logits.gather(1, place) - total, rest - total


def _binary_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the probabilities sigmoid(x) and 1 - sigmoid(x).

    It is the same with both signs changed. Where the teacher's is positive, no large terms cancel in this form.
    """
    size, other = teacher.abs(), torch.where(teacher < 0, -student, student)
    return F.logsigmoid(size) - F.logsigmoid(other) + (-size).sigmoid() * (other - size)


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """T^2 * (alpha TCKD + beta NCKD) of logits [B, C, H, W], mean over the pixels whose label is not 255; a scalar.

    labels: [B, H, W] int64 in 0..C-1, or 255 for pixels that take no part, whatever they hold. Zero where none is left.
    """
    valid = valid_pixels(labels)
    if valid is not None:
        student, teacher = zero_elsewhere(student, valid), zero_elsewhere(teacher, valid)
        labels = torch.where(valid, labels, 0)
    target, others = decoupled_terms(student, teacher, labels, temperature)
    pixels = labels.numel() if valid is None else valid.sum().clamp(min=1)
    return (alpha * target + beta * others).sum() / pixels * temperature**2


class DecoupledKL(LogitDistiller):
    """Decoupled soft logits (DKD): alpha times the true class against the rest, beta times the rest among itself.

    at: logits takes labels by nearest neighbour at the native logits; label enlarges the logits to the label map.
    standardise: z-score the logits of each pixel over its classes first. Mean per pixel, times T^2.
    """

    name = "dkd"

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        standardise: bool = False,
        at: Literal["logits", "label"] = "logits",
        align: Align = "smaller",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__(
            taps,
            temperature=temperature,
            align=align,
            interpolation=interpolation,
            at="native" if at == "logits" else "input",
            standardise=standardise,
        )
        self.alpha, self.beta = alpha, beta

    def logits(self, student: Segmentation, teacher: Segmentation, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """At the native size, or at the size of the label map. Raises RecipeError where there is no label map."""
        if target is None:
            raise RecipeError("this distiller needs labels", where="distill.name", found="dkd", remedy="take kd")
        if self.at == "native":
            return super().logits(student, teacher, target)
        mine, theirs = comparable_logits(student, teacher, "input")
        size = (target.shape[-2], target.shape[-1])
        mine = resize(silenced(mine, target), size, self.interpolation)
        theirs = resize(silenced(theirs, target), size, self.interpolation)
        return (standardised(mine), standardised(theirs)) if self.standardise else (mine, theirs)

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return decoupled_kl(student, teacher, labels, self.temperature, self.alpha, self.beta)
