"""Cases to look at: the image with the contours of the reference and of each arm's prediction over it.

Each image is embedded once, small, and shared by its panels; contours are vector paths, so that they stay sharp.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.case import Case
from preceptor.data.masks import decode_mask
from preceptor.data.readers import read_image, read_mask
from preceptor.errors import UserError
from preceptor.recipe import DataRecipe

SIDE = 360
"""Longest side of an embedded image, in pixels."""
PATH_LIMIT = 24_000
"""Longest contour, in characters of its path; a finer one is drawn coarser."""
WORST = 10


@dataclass(frozen=True)
class Panel:
    """One arm's prediction of a case: contours a class, the Dice of the seed shown and the mean over seeds."""

    arm: str
    contours: tuple[str, ...]
    dice: float
    mean_dice: float
    kind: str


@dataclass(frozen=True)
class Showcase:
    """A case as it is shown. image: data URI, or "" with `trouble` saying why it is missing."""

    name: str
    place: str
    report: str
    image: str = ""
    width: int = SIDE
    height: int = SIDE
    reference: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = field(default=())
    trouble: str = ""


def choose(dice: Mapping[str, float], present: Mapping[str, bool], worst: int = WORST) -> list[tuple[str, str]]:
    """(place, case) of the best, the median and the ten worst cases, no case twice.

    dice: of each case, by the arm that decides. present: whether the reference has foreground; best and median are
    chosen among those where it does, since an empty picture left empty shows nothing.
    """
    ranked = sorted(dice, key=lambda case: (-dice[case], case))
    shown = [case for case in ranked if present.get(case)] or ranked
    chosen: dict[str, str] = {}
    if shown:
        chosen[shown[0]] = "Best"
        chosen.setdefault(shown[len(shown) // 2], "Median")
    for index, case in enumerate(list(reversed(ranked))[:worst], start=1):
        chosen.setdefault(case, f"Worst {index}" if index > 1 else "Worst")
    return [(place, case) for case, place in chosen.items()]


def showcase(
    case: Case, place: str, data: DataRecipe, predictions: Mapping[str, Path], scores: Mapping[str, Mapping[str, Any]]
) -> Showcase:
    """The panels of a case. predictions: PNG of class indices an arm; scores: dice, mean_dice and kind an arm.

    A picture that is gone or damaged leaves a note in its place, never an error: the numbers stand without it.
    """
    report = case.report or ""
    try:
        picture = eight_bit(read_image(case.image, case.slice).pixels)
        size = _size(picture.shape[:2])
        classes = range(1, max(len(data.labels), 2))
        reference: tuple[str, ...] = ()
        if case.mask is not None:
            stored = read_mask(case.mask, case.slice).pixels
            mask = decode_mask(stored, data.labels, data.mask_rule, case.mask)
            reference = tuple(contour(mask == index, size) for index in classes)
        panels = []
        for arm, path in predictions.items():
            found = read_mask(path).pixels if path.is_file() else None
            drawn = () if found is None else tuple(contour(found == index, size) for index in classes)
            panels.append(Panel(arm, drawn, **scores[arm]))
    except (UserError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        return Showcase(case.name, place, report, trouble=f"The picture could not be shown: {first}")
    height, width = size
    return Showcase(case.name, place, report, embed(picture, size), width, height, reference, tuple(panels))


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] for looking at; other types are spread over their 0.5 to 99.5 percentiles."""
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint8:
        return pixels
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = np.percentile(values, [0.5, 99.5])
    return (255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)


def embed(picture: np.ndarray, size: tuple[int, int], quality: int = 80) -> str:
    """A picture as a JPEG data URI of `size` (height, width)."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture)).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def contour(mask: np.ndarray, size: tuple[int, int]) -> str:
    """SVG path of the outline of a bool mask [H, W], in the coordinates of an image of `size`; "" for an empty mask."""
    from contourpy import contour_generator
    from PIL import Image

    if not mask.any():
        return ""
    share = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BOX)
    padded = np.pad(np.asarray(share), 1)
    lines = contour_generator(z=padded, name="serial").lines(0.5)
    for gap in (0.6, 1.2, 2.4, 4.8, 9.6):
        path = "".join(_path(np.asarray(line) - 0.5, gap) for line in lines)
        if len(path) <= PATH_LIMIT:
            break
    return path


def _path(points: np.ndarray, gap: float) -> str:
    """Points [N, 2] of a closed line, those nearer than `gap` to the last kept one left out."""
    kept = [points[0]]
    for point in points[1:-1]:
        if np.abs(point - kept[-1]).sum() >= gap:
            kept.append(point)
    if len(kept) < 3:
        kept = [points[0], points[len(points) // 3], points[2 * len(points) // 3]]
    return "M" + "L".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in kept) + "Z"


def _size(shape: Sequence[int]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
