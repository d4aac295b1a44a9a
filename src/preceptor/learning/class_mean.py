"""The privilege of SIKD: the image repainted so that each class shows its mean intensity, and shape alone is left.

Source: specification of SIKD, section 2 ("Shape-intensity knowledge distillation for robust medical image
segmentation", Frontiers of Computer Science 2025). It is computed on the augmented batch and never stored.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from preceptor.errors import DataError
from preceptor.learning.losses import IGNORED

if TYPE_CHECKING:
    from preceptor.data.loading import Batch

TINY = 1e-8
"""Added to the number of a class's pixels, as published."""


def class_means(image: Tensor, labels: Tensor, classes: int = IGNORED) -> Tensor:
    """Every pixel of [B, C, H, W] becomes the mean of its class in its own image and channel.

    labels: [B, H, W] of an integer type. Pixels whose label is not in 0..classes-1 keep their value and count in no
    mean. Returns the same shape in at least float32. Sums are in float64, so that their order, which differs from run
    to run on an accelerator, does not show.
    """
    values = image.to(torch.promote_types(image.dtype, torch.float32)).flatten(2)
    exact = values.dtype if image.device.type == "mps" else torch.float64  # which has no float64
    labels = labels.flatten(1).unsqueeze(1).long()
    belongs = (labels >= 0) & (labels < classes)
    places = labels.where(belongs, classes)  # the others share a place of their own
    count = values.new_zeros(len(values), 1, classes + 1, dtype=exact)
    count.scatter_add_(2, places, torch.ones_like(places, dtype=exact))
    everywhere = places.expand_as(values)
    total = values.new_zeros(*values.shape[:2], classes + 1, dtype=exact)
    total.scatter_add_(2, everywhere, values.to(exact))
    painted = (total / (count + TINY)).to(values.dtype).gather(2, everywhere)
    return painted.where(belongs, values).reshape(image.shape)


def class_mean(batch: "Batch") -> tuple[Tensor, None]:
    """The image [B, C, H, W] repainted with the mean intensity of each class, which takes the mask to see.

    The background is repainted like any class; pixels to be ignored keep their intensity. Raises DataError where the
    batch has no masks.
    """
    if batch.mask is None:
        raise DataError(
            "a network that is shown class means got images without reference masks",
            where=", ".join(batch.cases[:3]),
            remedy="give masks with the images, or use the student, which needs the image alone",
        )
    return class_means(batch.image, batch.mask), None
