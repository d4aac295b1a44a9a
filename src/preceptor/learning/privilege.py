"""Privileged information: what a network is shown while training besides the plain image (Vapnik and Vashist, 2009).

A privilege turns an augmented batch into (image, condition). `none` is all that a student ever gets.
"""

from collections.abc import Callable

from torch import Tensor

from preceptor.data.loading import Batch
from preceptor.errors import DataError

View = tuple[Tensor, Tensor | None]


def none(batch: Batch) -> View:
    """The image [B, C, H, W] alone."""
    return batch.image, None


def report(batch: Batch) -> View:
    """The image and its report's token features [B, L, D].

    Raises DataError where the batch has no features, so that a privileged network never sees silent zeros.
    """
    if batch.report is None:
        raise DataError(
            "a network that is shown reports got images without report features",
            where=", ".join(batch.cases[:3]),
            remedy="give the reports with the images, or use the report-free student",
        )
    return batch.image, batch.report


PRIVILEGES: dict[str, Callable[[Batch], View]] = {"none": none, "report": report}
"""From the name in a recipe to the view. Each takes a batch and gives (image, condition)."""
