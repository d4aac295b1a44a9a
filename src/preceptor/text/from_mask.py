"""Attributes and a sentence made from a reference mask, for data sets without reports.

Such text is derived from the ground truth: it tells a teacher where the answer is, as a radiologist's report would at
best, and it must never be shown to a network that is judged as if it had read a real report.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from preceptor.text.attributes import ATTRIBUTES, THIRDS, sentence

ORIGIN = "derived from the reference mask, not written by a radiologist"


@dataclass(frozen=True)
class MaskReport:
    """What a mask says in words. origin: belongs beside the text wherever it is kept or shown."""

    text: str
    attributes: dict[str, int]
    origin: str = ORIGIN


def report_from_mask(
    mask: np.ndarray,
    *,
    patient_left: Literal["image_right", "image_left"] = "image_right",
    smallest_area: int = 1,
) -> MaskReport:
    """Describe the foreground of a mask [H, W] in the QaTa style, by halves and thirds of the image.

    number: connected areas (8 neighbours) of at least `smallest_area` pixels; smaller ones count for nothing. A third
    of a side is infected where any pixel of an area lies in it. patient_left: "image_right" is the convention of
    radiographs and axial slices. The middle column of an odd width counts as image left.
    """
    from scipy import ndimage

    if mask.ndim != 2:
        raise ValueError(f"a mask is [H, W], not {mask.shape}")
    labels, count = ndimage.label(mask > 0, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.flatnonzero(areas >= max(smallest_area, 1))
    kept = kept[kept > 0]
    rows, columns = np.nonzero(np.isin(labels, kept))
    height, width = mask.shape
    third = rows * len(THIRDS) // height
    on_image_right = columns >= (width + 1) // 2
    is_left = on_image_right if patient_left == "image_right" else ~on_image_right
    attributes = dict.fromkeys(ATTRIBUTES, 0)
    for side, there in (("l", is_left), ("r", ~is_left)):
        for place, name in enumerate(THIRDS):
            attributes[side + name] = int(np.any(there & (third == place)))
    sides = [any(attributes[side + name] for name in THIRDS) for side in "lr"]
    attributes["bilateral"] = int(all(sides))
    attributes["number"] = len(kept)
    return MaskReport(sentence(attributes), attributes)
