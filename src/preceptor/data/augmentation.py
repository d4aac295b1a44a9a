"""Random changes of training cases: drawn as a pure function of (seed, epoch, case), applied with one resampling.

Where a recipe limits the variants of a case, these are pure functions of (variant, case), the same for every seed, and
a seed gives only the order in which they come; so what is computed once of a variant serves every seed.

Flips and transpositions are exact permutations of pixels; zoom, rotation, scale and shift are one affine resampling
with edge padding; then contrast, brightness, gamma and noise act in units of the normalised image. A case that draws
nothing comes out bit by bit as it went in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.data.case import Case
from preceptor.recipe_data import AugmentRecipe
from preceptor.text.sides import can_mirror, mentions_side, mirror

WORD = 2**64
LEVEL = 45.0
"""Degrees of rotation beyond which what was above lies to the side."""
VARIANTS = 0
"""The seed that the fixed variants of all runs are drawn from."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What happens to one case in one epoch; the default is nothing.

    zoom: magnification (above 1 enlarges the content). angle: degrees, counter-clockwise as seen. shift: (down, right)
    as shares of the side. contrast, brightness: factor - 1 and summand. gamma: exponent. noise: standard deviation,
    of a field that `noise_seed` determines.
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    transpose: bool = False
    zoom: float = 1.0
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0

    @property
    def permutes(self) -> bool:
        """Whether pixels change places without interpolation."""
        return self.flip_horizontal or self.flip_vertical or self.transpose

    @property
    def resamples(self) -> bool:
        """Whether pixels must be interpolated."""
        return (self.zoom, self.angle, self.shift) != (1.0, 0.0, (0.0, 0.0))

    @property
    def recolours(self) -> bool:
        """Whether values change where they are."""
        return (self.contrast, self.brightness, self.gamma, self.noise) != (0.0, 0.0, 1.0, 0.0)


def stream(seed: int, epoch: int, index: int, purpose: int) -> np.random.Generator:
    """Random numbers that depend on the arguments alone: the counter-based generator Philox.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The lower half of the counter runs, the upper
    half names epoch and case, so that streams never overlap.
    """
    key = np.array([seed % WORD, purpose], dtype=np.uint64)
    counter = np.array([0, 0, index % WORD, epoch % WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def draw_augmentation(recipe: AugmentRecipe, seed: int, epoch: int, case_index: int) -> Draw:
    """The random change of one case in one epoch: a pure function of its arguments.

    Every number is drawn whether it is used or not, so that switching one change on leaves the others as they were.
    """
    numbers = stream(seed, epoch, case_index, purpose=1)
    u = numbers.random(12).tolist()
    chance, low, high = recipe.zoom
    zoom = low + (high - low) * u[1] if u[0] < chance else 1.0
    gamma = recipe.gamma * _signed(u[9])
    draw = Draw(
        flip_horizontal=u[2] < recipe.flip_horizontal,
        flip_vertical=u[3] < recipe.flip_vertical,
        transpose=u[4] < recipe.transpose,
        zoom=zoom * max(1.0 + recipe.scale * _signed(u[5]), 0.05),
        angle=recipe.rotate * _signed(u[6]),
        shift=(recipe.shift * _signed(u[7]), recipe.shift * _signed(u[8])),
        # the exponents g and 1 / g are equally likely, and none is below zero
        gamma=1.0 + gamma if gamma >= 0 else 1.0 / (1.0 - gamma),
        contrast=recipe.contrast * _signed(u[10]),
        brightness=recipe.brightness * _signed(u[11]),
        noise=recipe.noise * float(numbers.random()),
        noise_seed=int(numbers.integers(2**62)),
    )
    v = numbers.random(4).tolist()
    if v[0] < recipe.rot_flip:
        return replace(_turned_and_flipped(draw, int(4 * v[1]), across=v[2] < 0.5), angle=0.0)
    return draw if v[3] < recipe.rotate_share else replace(draw, angle=0.0)


def draw_variant(recipe: AugmentRecipe, variant: int, case_index: int) -> Draw:
    """The random change that is one of a case's fixed variants, from 0 on: the same in every run."""
    return draw_augmentation(recipe, VARIANTS, variant, case_index)


def variant_at(variants: int, seed: int, epoch: int, case_index: int) -> int:
    """Which of its `variants` a case shows in an epoch: each once in every so many epochs, in an order by the seed."""
    turn, place = divmod(epoch, variants)
    return int(stream(seed, turn, case_index, purpose=3).permutation(variants)[place])


def _turned_and_flipped(draw: Draw, quarters: int, across: bool) -> Draw:
    """`draw`, then so many quarter turns counter-clockwise, then a flip left to right (`across`) or upside down.

    A quarter turn is a transposition and then a flip upside down; three are one and then a flip left to right.
    """
    first, second = draw.flip_horizontal, draw.flip_vertical
    if quarters % 2:
        first, second = second, first
    return replace(
        draw,
        transpose=draw.transpose != bool(quarters % 2),
        flip_horizontal=first ^ (quarters >= 2) ^ across,
        flip_vertical=second ^ (quarters in (1, 2)) ^ (not across),
    )


def _signed(uniform: float) -> float:
    return 2.0 * uniform - 1.0


def respect_report(draw: Draw, report: str | None, rule: str) -> Draw:
    """`draw` without what would make the case's report wrong.

    Transposing swaps sides with heights, which no words follow: never for a report that mentions a side. Flips along a
    mentioned axis are dropped under "forbid"; under "rewrite" those stay that words can follow, and `shown_report`
    gives the words. A rotation of such a report's image by more than LEVEL degrees is dropped. This depends on the case
    alone, so that arms with and without reports see the same images.
    """
    turned = abs(draw.angle) > LEVEL
    if not (report and (draw.permutes or turned)):
        return draw
    mentioned = mentions_side(report)
    horizontal, vertical = "horizontal" in mentioned, "vertical" in mentioned
    if rule == "rewrite":
        horizontal, vertical = not can_mirror(report, True, False), not can_mirror(report, False, True)
    return replace(
        draw,
        angle=0.0 if turned and mentioned else draw.angle,
        transpose=draw.transpose and not mentioned,
        flip_horizontal=draw.flip_horizontal and not horizontal,
        flip_vertical=draw.flip_vertical and not vertical,
    )


def respect_case(draw: Draw, case: Case, rule: str) -> Draw:
    """`draw` without what would make the report or the coded attributes of the case wrong, see `respect_report`."""
    return respect_report(respect_report(draw, case.report, rule), case.attributes, rule)


def shown_report(draw: Draw, report: str | None) -> str:
    """The report that fits the changed image; "" for a case without one."""
    if not report or not (draw.flip_horizontal or draw.flip_vertical):
        return report or ""
    return mirror(report, draw.flip_horizontal, draw.flip_vertical)


def report_variants(cases: Iterable[Case], augment: AugmentRecipe) -> list[str]:
    """Every report that a loader may ask features for: the given ones and their mirrored forms, without repetition."""
    across = [False, True] if augment.flip_horizontal > 0 or augment.rot_flip > 0 else [False]
    down = [False, True] if augment.flip_vertical > 0 or augment.rot_flip > 0 else [False]
    drawn = [Draw(flip_horizontal=h, flip_vertical=v) for h in across for v in down]
    texts = (shown_report(respect_case(draw, case, augment.reports), case.report) for case in cases for draw in drawn)
    return list(dict.fromkeys(texts))


def augment_batch(
    image: Tensor, mask: Tensor | None, draws: Sequence[Draw], interpolation: str = "bilinear"
) -> tuple[Tensor, Tensor | None]:
    """Apply one draw to each case; the inputs stay as they are.

    image: [B, C, H, W] float, normalised. mask: [B, H, W] of an integer type, or None. interpolation: of the image,
    "bilinear" or "bicubic"; masks take the nearest label. Transposing needs H == W.
    """
    image, mask = image.clone(), mask if mask is None else mask.clone()
    for number, draw in enumerate(draws):  # case by case: one case stays in the processor's cache, a batch does not
        if draw.permutes or draw.resamples:
            grid = _grid(draw, *image.shape[-2:]) if draw.resamples else None
            image[number] = _moved(image[number], draw, grid, interpolation)
            if mask is not None:
                mask[number] = _moved(mask[number, None], draw, grid, "nearest")[0]
        if draw.recolours:
            image[number] = _recoloured(image[number], draw)
    return image, mask


def _moved(array: Tensor, draw: Draw, grid: Tensor | None, mode: str) -> Tensor:
    """[C, H, W] after flips and transposition, which are exact, and then one resampling."""
    array = array.transpose(-1, -2) if draw.transpose else array
    axes = [axis for axis, flip in ((-1, draw.flip_horizontal), (-2, draw.flip_vertical)) if flip]
    if grid is None:
        return array.flip(axes) if axes else array.clone()  # never a view: it is written where the source lies
    values = array.flip(axes).float()[None]
    return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)[0].to(array.dtype)


def _grid(draw: Draw, height: int, width: int) -> Tensor:
    """Where each output pixel comes from, [1, H, W, 2] as (x, y) in the units of `grid_sample`: half sides."""
    cos, sin = math.cos(math.radians(draw.angle)) / draw.zoom, math.sin(math.radians(draw.angle)) / draw.zoom
    down, right = (2.0 * share for share in draw.shift)
    x = (torch.arange(width) * 2 + 1) / width - 1 - right
    y = ((torch.arange(height) * 2 + 1) / height - 1 - down)[:, None]
    # a rotation acts on pixels: hence the ratio of the sides
    return torch.stack([cos * x - (sin * height / width) * y, (sin * width / height) * x + cos * y], dim=-1)[None]


def _recoloured(image: Tensor, draw: Draw) -> Tensor:
    if draw.gamma != 1.0:
        low, high = torch.aminmax(image)
        span = (high - low).clamp_min(1e-6)
        # x ** gamma, three times as fast; the lowest value, whose logarithm is -inf, comes back as 0
        image = ((image - low) / span).log_().mul_(draw.gamma).exp_().mul_(span).add_(low)
    factor = 1.0 + draw.contrast
    if (factor, draw.brightness) != (1.0, 0.0):
        image = image * factor + (image.mean() * (1.0 - factor) + draw.brightness)
    if draw.noise != 0.0:
        numbers = torch.Generator().manual_seed(draw.noise_seed)
        # one field for all channels: a grey picture stays grey
        image = torch.add(image, torch.randn(image.shape[-2:], generator=numbers), alpha=draw.noise)
    return image
