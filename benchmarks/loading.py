"""Batches handed out against batches consumed, from colour pictures of 1000 x 1000 pixels.

Ours reads a shelf: each picture was decoded and resized once. The baseline of the second row decodes and resizes each
picture in every epoch. Both augment alike and work in one process. The step that consumes is the smallest student's.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import Times, in_turn, middle
from benchmarks.scene import BATCH, SIDE, Setting, batch, plain_loop, student
from benchmarks.table import Row
from preceptor.data.augmentation import augment_batch, draw_augmentation
from preceptor.data.case import Case
from preceptor.data.loading import Batch, TrainingLoader
from preceptor.data.readers import Geometry, Picture
from preceptor.data.shelf import Shelf, build_shelf
from preceptor.data.transforms import Preprocessing
from preceptor.recipe_data import AugmentRecipe

SOURCE = 1000
"""Height and width of the files in pixels."""
PREPARED = Preprocessing((SIDE, SIDE), channels=3)
AUGMENT = AugmentRecipe(zoom=[0.5, 0.8, 1.3], rotate=15.0, flip_horizontal=0.5, brightness=0.2, contrast=0.2)
LABELS = {"background": 0, "lesion": 255}
AT_LEAST = 2.0


def rows(setting: Setting) -> Iterator[Row]:
    cases = draw_cases(setting)
    began = time.perf_counter()
    shelf = _shelf(setting, cases)
    building = len(cases) / (time.perf_counter() - began)
    rounds = 3 if setting.quick else 9
    loader, naive, shown = _loader(setting, shelf), NaiveLoader(cases, setting.seed), batch(setting)
    loop = plain_loop(setting, student(setting, "tiny"))
    steps = len(cases) // BATCH

    def consume() -> None:
        for _ in range(steps):
            loop.step(shown.image, shown.mask)

    times = in_turn(lambda: _drain(loader), consume, rounds)
    yield _throughput("loader against the tiny student's step", times, len(cases), at_least=AT_LEAST)
    times = in_turn(lambda: _drain(loader), lambda: _drain(naive), max(2, rounds // 3), warm=1)
    yield _throughput("loader against decoding in every epoch", times, len(cases), weigh=True)
    yield Row("decoding and resizing once", building, 0.0, "cases/s", building, building, building, "value")


def _throughput(name: str, times: Times, cases: int, at_least: float | None = None, weigh: bool = False) -> Row:
    speeds = [[cases / second for second in seconds] for seconds in (times.ours, times.baseline)]
    value, low, high = middle([a / b for a, b in zip(*speeds, strict=True)])
    ours, baseline = (middle(values)[0] for values in speeds)
    return Row(name, ours, baseline, "cases/s", value, low, high, at_least=at_least, weigh=weigh)


def _drain(loader: Iterable[Batch]) -> None:
    for _batch in loader:
        pass


def draw_cases(setting: Setting) -> list[Case]:
    """PNG files with the grain and the soft shades of a photograph, and masks; those that exist are kept."""
    numbers = torch.Generator().manual_seed(setting.seed)
    folder = setting.folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for index in range(2 * BATCH if setting.quick else 6 * BATCH):
        image, stored = folder / f"{index}.png", folder / f"{index}-mask.png"
        cases.append(Case(f"case-{index}", image, stored, "train"))
        if stored.exists():
            continue
        shades = torch.nn.functional.interpolate(
            torch.rand(1, 3, 12, 12, generator=numbers), (SOURCE, SOURCE), mode="bicubic"
        )[0]
        mask = (shades[0] > 0.5).numpy()
        grain = 0.02 * torch.randn(3, SOURCE, SOURCE, generator=numbers)
        pixels = ((shades + grain).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(image, compress_level=3)
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(stored)
    return cases


def _shelf(setting: Setting, cases: list[Case]) -> Shelf:
    return build_shelf(cases, PREPARED, LABELS, "exact", setting.folder / "shelf")


def _loader(setting: Setting, shelf: Shelf) -> TrainingLoader:
    return TrainingLoader(shelf, {}, AUGMENT, BATCH, setting.seed)


class NaiveLoader:
    """Decodes and resizes every picture in every epoch; the pictures are changed as ours are."""

    def __init__(self, cases: list[Case], seed: int) -> None:
        self.cases, self.seed, self.epoch = cases, seed, 0

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.cases)).tolist()
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            image = torch.stack([_decoded(self.cases[index].image) for index in chosen])
            mask = torch.stack([_decoded_mask(self.cases[index].mask) for index in chosen])
            draws = [draw_augmentation(AUGMENT, self.seed, self.epoch, index) for index in chosen]
            image, changed = augment_batch(image, mask, draws, PREPARED.resize)
            assert changed is not None
            yield Batch(image, changed.long(), [self.cases[index].name for index in chosen])


def _decoded(path: Path) -> torch.Tensor:
    pixels = np.asarray(Image.open(path))
    return PREPARED.apply(Picture(pixels, Geometry((SOURCE, SOURCE), None, "PNG", None, None)))


def _decoded_mask(path: Path | None) -> torch.Tensor:
    assert path is not None
    small = Image.open(path).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(small) == 255).byte()


def prepare(setting: Setting) -> None:
    """The files, and the shelf of them."""
    _shelf(setting, draw_cases(setting))


def ours(setting: Setting, steps: int) -> None:
    """For the measurement of memory: epochs of our loader."""
    loader = _loader(setting, _shelf(setting, draw_cases(setting)))
    for _ in range(steps):
        _drain(loader)


def baseline(setting: Setting, steps: int) -> None:
    """Epochs of the naive loader."""
    loader = NaiveLoader(draw_cases(setting), setting.seed)
    for _ in range(steps):
        _drain(loader)
