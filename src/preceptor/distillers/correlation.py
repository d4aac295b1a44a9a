"""Correlation instead of equality: what a much stronger teacher ranks, not the exact probabilities.

Source: Huang et al., NeurIPS 2022, arXiv 2205.10536 (DIST), in the form of its segmentation code: rows are pixels,
columns are classes, and the pixels of the batch are pooled.
"""

import torch
from torch import Tensor

from preceptor.distillers.logits import At, LogitDistiller, valid_pixels, zero_elsewhere
from preceptor.distillers.pairs import Align, Interpolation
from preceptor.segmentors.base import Tap

CONSTANT = 1e-6
"""The standard deviation below which a row or column counts as constant."""


def correlation_terms(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    valid: Tensor | None = None,
    per_image: bool = False,
    skip_constant: bool = True,
) -> tuple[Tensor, Tensor]:
    """(inter, intra), each 1 - mean Pearson correlation of softmax(logits [B, C, H, W] / T), between 0 and 2.

    inter: of every pixel's classes, mean over pixels; intra: of every class's pixels, all images together or
    per_image, mean over classes. valid: [B, H, W] bool; other pixels take no part, whatever they hold.
    skip_constant: leave out the pixels and classes where either side's standard deviation is below 1e-6 (such as a
    class that the teacher sees nowhere): their correlation is noise. 0 where nothing is left.
    """
    if valid is None:
        rows = torch.ones((), dtype=torch.bool, device=student.device)
    else:
        rows = valid.unsqueeze(1)
        student, teacher = zero_elsewhere(student, valid), zero_elsewhere(teacher, valid)
    p, q = torch.softmax(student / temperature, dim=1), torch.softmax(teacher / temperature, dim=1)
    classes = p.shape[1]  # over which the probabilities of a pixel sum to 1
    inter = _distance(p - 1 / classes, q - 1 / classes, (1,), rows, classes, skip_constant)
    pixels = (2, 3) if per_image else (0, 2, 3)
    if valid is None:
        size: Tensor | int = p[:, :1].numel() // (len(p) if per_image else 1)
        p, q = p - p.mean(pixels, keepdim=True), q - q.mean(pixels, keepdim=True)
        columns = rows
    else:
        size = rows.sum(pixels, keepdim=True)
        p, q = _centred(p, rows, pixels, size), _centred(q, rows, pixels, size)
        columns = size > 0
    return inter, _distance(p, q, pixels, columns, size, skip_constant)


def _centred(values: Tensor, rows: Tensor, dims: tuple[int, ...], size: Tensor) -> Tensor:
    """Less the mean over `dims` of what `rows` keeps, and 0 elsewhere."""
    mean = torch.where(rows, values, 0.0).sum(dims, keepdim=True) / size.clamp(min=1)
    return torch.where(rows, values - mean, 0.0)


def _distance(
    one: Tensor, two: Tensor, dims: tuple[int, ...], kept: Tensor, size: Tensor | int, skip_constant: bool
) -> Tensor:
    """1 - mean correlation of centred values along `dims`, of which `size` count; of those that `kept` marks."""
    # The clamp keeps the gradient of a constant finite; `vector_norm` takes three times as long on processors.
    norms = [(values * values).sum(dims, keepdim=True).clamp_min(1e-30).sqrt() for values in (one, two)]
    correlation = (one * two).sum(dims, keepdim=True) / (norms[0] * norms[1] + 1e-8)
    if skip_constant:
        least = CONSTANT * size**0.5
        kept = kept & (norms[0] > least) & (norms[1] > least)
    kept = kept.expand_as(correlation)
    return torch.where(kept, 1 - correlation, 0.0).sum() / kept.sum().clamp(min=1)


def correlation(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    valid: Tensor | None = None,
    *,
    per_image: bool = False,
    skip_constant: bool = True,
) -> Tensor:
    """T^2 * (beta inter + gamma intra) of logits [B, C, H, W]; a scalar. The rest as in `correlation_terms`."""
    inter, intra = correlation_terms(student, teacher, temperature, valid, per_image, skip_constant)
    return (beta * inter + gamma * intra) * temperature**2


class Correlation(LogitDistiller):
    """Correlation of class probabilities (DIST): within each pixel (beta) and within each class (gamma), times T^2.

    per_image: correlate a class within each image instead of over the batch. skip_constant: leave out pixels and
    classes that hardly vary, whose correlation is noise.
    """

    name = "dist"

    def __init__(
        self,
        student_taps: tuple[Tap, ...],
        teacher_taps: tuple[Tap, ...],
        taps: dict[str, str] | None = None,
        *,
        temperature: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        per_image: bool = False,
        skip_constant: bool = True,
        at: At = "native",
        align: Align = "smaller",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__(taps, temperature=temperature, align=align, interpolation=interpolation, at=at)
        self.beta, self.gamma, self.per_image, self.skip_constant = beta, gamma, per_image, skip_constant

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        return correlation(
            student,
            teacher,
            self.temperature,
            self.beta,
            self.gamma,
            valid_pixels(labels),
            per_image=self.per_image,
            skip_constant=self.skip_constant,
        )
