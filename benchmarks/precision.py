"""Dice after equal training in the default precision and in float32 NCHW, so that the faster step is known to learn.

The student is trained on generated films (`phantoms`) as a control, without a teacher: same seed, cases, order,
augmentation and number of steps, in the library's loop. Judged is the last epoch on the held-out films.
"""

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.scene import LOSS, Setting
from benchmarks.table import Row
from preceptor.data.layouts import read_cases
from preceptor.data.loading import EvaluationLoader, TrainingLoader
from preceptor.data.phantoms import write_phantoms
from preceptor.data.shelf import Shelf, build_shelf
from preceptor.data.transforms import Preprocessing
from preceptor.learning.arm import build_network
from preceptor.learning.privilege import none
from preceptor.learning.tasks import Supervised
from preceptor.learning.training import Training, make_fabric
from preceptor.progress import Progress
from preceptor.recipe import TrainingRecipe
from preceptor.recipe_data import AugmentRecipe, DataRecipe, PhantomRecipe

PIXELS = 128
CASES, EPOCHS, SEEDS = 240, 20, 3
LABELS: dict[str, int | str | list[int]] = {"background": 0, "infection": 255}
NETWORK = {"name": "unguided", "size": "tiny", "options": {}, "in_channels": 1, "classes": 2, "condition": None}
AUGMENT = AugmentRecipe(zoom=[0.3, 0.9, 1.15], shift=0.03, brightness=0.1, contrast=0.1)
PLAIN = {"precision": "float32", "channels_last": False}


def rows(setting: Setting) -> Iterator[Row]:
    cases, epochs, seeds = (24, 2, 1) if setting.quick else (CASES, EPOCHS, SEEDS)
    train, held_out = _shelves(setting, cases)
    found = [
        [_trained(setting, seed, epochs, train, held_out, change) for seed in range(seeds)] for change in ({}, PLAIN)
    ]
    gains = [a - b for a, b in zip(*found, strict=True)]
    own, theirs = (statistics.mean(scores) for scores in found)
    name = (
        f"Dice after equal training ({len(train)} films, {epochs} epochs; mean of {seeds} seeds, range of differences)"
    )
    yield Row(name, own, theirs, "Dice", own - theirs, min(gains), max(gains), "difference")


def _shelves(setting: Setting, cases: int) -> tuple[Shelf, Shelf]:
    root = setting.folder / "phantoms"
    write_phantoms(root, PhantomRecipe(cases=cases, size=PIXELS, seed=setting.seed))
    data = DataRecipe(root=str(root), layout="folders", labels=LABELS, image_size=PIXELS, channels=1)
    found = read_cases(data)
    prepared = Preprocessing.from_recipe(data)
    train, test = (
        build_shelf(found.of(split), prepared, LABELS, data.mask_rule, setting.folder / "shelf")
        for split in ("train", "test")
    )
    return train, test


def _trained(setting: Setting, seed: int, epochs: int, train: Shelf, held_out: Shelf, change: dict[str, Any]) -> float:
    settings = TrainingRecipe(epochs=epochs, batch_size=16, lr=1e-3, patience=0, validate_every=epochs, **change)
    task = Supervised(build_network(NETWORK, seed), none, LOSS)
    loader = TrainingLoader(train, {}, AUGMENT, settings.batch_size, seed)
    folder = setting.folder / f"precision-{settings.precision}-{seed}"
    judge = EvaluationLoader(held_out, {}, settings.batch_size)
    position = Training(make_fabric(settings), task, loader, judge, settings, folder, seed, Progress(), "student").run()
    return position.history[-1]["val_dice_pooled"]
