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
from preceptor.recipe_data import DataRecipe

SIDE = 360
"""Longest side of an embedded image, in pixels."""
PATH_LIMIT = 48_000
"""Longest contour of a case, in characters of its path; a longer one is drawn coarser."""
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
    """A case as it is shown. image: data URI, or "" with `trouble` saying why it is missing. Contours: one a class."""

    name: str
    place: str
    report: str
    image: str = ""
    width: int = SIDE
    height: int = SIDE
    reference: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = field(default=())
    trouble: str = ""

    @property
    def dense(self) -> bool:
        """Whether there is so much to outline that thin lines are needed."""
        return max((len(path) for path in self.reference), default=0) > 6000


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
        middle = shown[len(shown) // 2]
        chosen[middle] = _both(chosen.get(middle), "Median")
    for index, case in enumerate(list(reversed(ranked))[:worst], start=1):
        chosen[case] = _both(chosen.get(case), f"Worst {index}" if index > 1 else "Worst")
    return [(place, case) for case, place in chosen.items()]


def _both(place: str | None, further: str) -> str:
    return further if place is None else f"{place}, {further.lower()}"


def showcase(
    case: Case,
    place: str,
    data: DataRecipe,
    predictions: Mapping[str, Path],
    scores: Mapping[str, Mapping[str, Any]],
    title: str = "",
) -> Showcase:
    """The panels of a case. predictions: PNG of class indices an arm; scores: dice, mean_dice and kind an arm; title:
    what it is called, its name where left out.

    A picture that is gone or damaged leaves a note in its place, never an error: the numbers stand without it.
    """
    title, report = title or case.name, case.report or ""
    try:
        picture = eight_bit(read_image(case.image, case.slice).pixels)
        size = _size(picture.shape[:2])
        classes = range(1, max(len(data.labels), 2))
        limit = PATH_LIMIT // len(classes)
        reference: tuple[str, ...] = ()
        if case.mask is not None:
            stored = read_mask(case.mask, case.slice).pixels
            mask = decode_mask(stored, data.labels, data.mask_rule, case.mask, data.ignore)
            reference = tuple(contour(mask == index, size, limit) for index in classes)
        panels = []
        for arm, path in predictions.items():
            found = read_mask(path).pixels if path.is_file() else None
            drawn = () if found is None else tuple(contour(found == index, size, limit) for index in classes)
            panels.append(Panel(arm, drawn, **scores[arm]))
    except (UserError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        return Showcase(title, place, report, trouble=f"The picture could not be shown: {first}")
    height, width = size
    return Showcase(title, place, report, embed(picture, size), width, height, reference, tuple(panels))


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


def contour(mask: np.ndarray, size: tuple[int, int], limit: int = PATH_LIMIT) -> str:
    """SVG path round a bool mask [H, W], in quarters of a pixel of an image of `size`; "" for an empty mask.

    An outline of more than `limit` characters is drawn with fewer points, and one that is still longer (noise) from a
    coarser mask.
    """
    path = ""
    for shrink, gaps in ((1, (0.6, 1.2, 2.4)), (3, (2.4,)), (9, (4.8,)), (27, (9.6,))):
        lines = _lines(mask, size, shrink) if mask.any() else []
        for gap in gaps:
            path = "".join(_ring(line, 4 * gap) for line in lines)
            if len(path) <= limit:
                return path
    return path


def _lines(mask: np.ndarray, size: tuple[int, int], shrink: int) -> list[np.ndarray]:
    """Closed lines round the mask, each [N, 2] of (x, y) in quarter pixels, on a grid `shrink` times as coarse."""
    from contourpy import contour_generator
    from PIL import Image

    height, width = (max(1, round(side / shrink)) for side in size)
    share = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    scale = 4 * np.array([size[1] / width, size[0] / height])
    grid = np.pad(np.asarray(share), 1)
    level = min(0.5, float(grid.max()) / 2)  # so that specks smaller than a pixel of the grid do not vanish
    lines = contour_generator(z=grid, name="serial").lines(level)
    return [np.clip((np.asarray(line) - 0.5) * scale, 0, [4 * size[1], 4 * size[0]]) for line in lines]


def _ring(points: np.ndarray, gap: float) -> str:
    """A closed line, one point kept for each `gap` of its length, as a relative path of whole numbers.

    A ring too small for that is a dot: a path that cannot be parsed would end the drawing of all that follow.
    """
    steps = np.abs(np.diff(points, axis=0)).sum(axis=1)
    kept = np.flatnonzero(np.diff(np.floor(np.cumsum(steps) / gap), prepend=-1.0))
    whole = np.rint(points[kept]).astype(int)
    moves = np.diff(whole, axis=0)
    moves = moves[moves.any(axis=1)]
    if len(moves) < 2:
        x, y = np.rint(points.mean(axis=0)).astype(int)
        return f"M{x - 1} {y - 1}h2v2h-2z"
    return f"M{whole[0, 0]} {whole[0, 1]}l" + " ".join(f"{x} {y}" for x, y in moves).replace(" -", "-") + "z"


def _size(shape: Sequence[int]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
