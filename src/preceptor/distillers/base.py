"""The contract of every distiller: a loss between what teacher and student return."""

import torch
from torch import Tensor, nn

from preceptor.segmentors.base import Segmentation


class Distiller(nn.Module):
    """Base of the distillers; a subclass may own adapters, which train with the student and are never shipped.

    Built by name through `preceptor.distillers.zoo.build(name, student_taps=..., teacher_taps=..., **options)`.
    """

    def forward(self, student: Segmentation, teacher: Segmentation, target: Tensor | None = None) -> dict[str, Tensor]:
        """Named scalar losses in float32. The teacher's tensors carry no gradient. target: [B, H, W] int64 or None."""
        raise NotImplementedError


def full_precision(tensor: Tensor) -> Tensor:
    """At least float32: half precisions are cast up, float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
