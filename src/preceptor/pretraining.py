"""The folder of a diffusion U-Net's pre-training: what it was made with, what may change, and what is done already."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from preceptor.data.case import write_manifest
from preceptor.environment import environment
from preceptor.errors import RecipeError
from preceptor.learning.diffusion_pictures import decode_pictures, pictures_of
from preceptor.learning.diffusion_training import WEIGHTS, DiffusionTraining
from preceptor.progress import Progress, callback
from preceptor.recipe_diffusion import DiffusionRecipe, read_diffusion_recipe
from preceptor.resuming import differences, fingerprints, is_among, locked, require_same_data
from preceptor.segmentors.diffusion import SHAPES, DiffusionShape, diffusion_unet
from preceptor.storage import read_json, write_json, write_text

CHANGEABLE = (
    "description",
    "data.root",
    "data.licence",
    "data.source",
    "steps",
    "device",
    "validate_every",
    "sample_every",
    "samples",
    "sample_steps",
    "checkpoint_minutes",
    "bad_steps",
)
"""Settings that may differ when a pre-training goes on; of `data.root`, the content of the pictures is compared."""

DIM = -0.75
"""Pictures whose values all lie below use less than an eighth of their type's range, as twelve of sixteen bits do."""


@dataclass(frozen=True)
class Pretrained:
    """A finished pre-training. loss: the last line of `validation.csv`, see `DiffusionTraining`."""

    weights: Path
    steps: int
    loss: dict[str, float]


def pretrain_diffusion(settings: DiffusionRecipe, out: Path | str, progress: Progress | None = None) -> Pretrained:
    """Train a diffusion U-Net into the folder `out`, or go on with what stands there.

    Raises UserError for what a user can mend: settings or pictures that changed, pictures that cannot be used.
    """
    folder, progress = Path(out), progress or Progress()
    shape = shape_of(settings)
    with locked(folder):
        _require_same_settings(folder, settings)
        done = folder / "done.json"
        if done.is_file() and (folder / WEIGHTS).is_file() and read_json(done)["steps"] == settings.steps:
            return _pretrained(folder)
        train, held_out = pictures_of(settings.data, folder)
        cases = (*train, *held_out)
        if (folder / "data.json").exists():
            require_same_data(read_json(folder / "data.json"), fingerprints(cases), Path(settings.data.root))
        numbers = 20 * parameter_count(shape)  # weight, average, gradient and Adam's two moments, in float32
        progress.note(
            f"{len(train)} pictures to learn from, {len(held_out)} held out; a U-Net of {parameter_count(shape):,} "
            f"parameters, {numbers / 2**20:.0f} MiB with its optimiser, and the maps of {settings.batch_size} crops"
        )
        pool = decode_pictures(
            cases,
            settings,
            shape.image_size,
            callback(progress, "decode pictures"),
            lambda size: progress.note(f"the pictures take about {size / 2**20:.0f} MiB of memory"),
        )
        if all(picture.dtype != np.uint8 and picture.max() < DIM for picture in pool.pictures):
            progress.note("all pictures are nearly black: data.clip=[low, high] says which stored values they span")
        learned, judged = pool.part(slice(len(train))), pool.part(slice(len(train), None))
        write_json(folder / "data.json", fingerprints(cases))
        write_manifest(folder / "cases.csv", cases)
        write_text(folder / "settings.yaml", settings.to_yaml())
        write_json(folder / "environment.json", environment())
        done.unlink(missing_ok=True)
        DiffusionTraining(settings, shape, learned, judged if len(judged) else None, folder, progress).run()
        return _pretrained(folder)


def shape_of(settings: DiffusionRecipe) -> DiffusionShape:
    """The U-Net's shape: the named one with the settings' own dimensions. Raises RecipeError for an impossible one."""
    names = ("image_size", "widths", "layers", "attention", "head_width", "groups")
    own = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    # The variance of DDPM is fixed; only the network of guided diffusion learns it.
    return DiffusionShape(
        **{**vars(SHAPES[settings.shape]), "channels": settings.data.channels, "learn_sigma": False, **own}
    )


def parameter_count(shape: DiffusionShape) -> int:
    """How many numbers a U-Net learns."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in diffusion_unet(shape).parameters())


def _pretrained(folder: Path) -> Pretrained:
    done = read_json(folder / "done.json")
    return Pretrained(folder / WEIGHTS, done["steps"], done["loss"])


def _require_same_settings(folder: Path, settings: DiffusionRecipe) -> None:
    """Refuse a folder whose settings differ in what was learned; before the first checkpoint, nothing was."""
    path = folder / "settings.yaml"
    begun = any((folder / "checkpoints").glob("*.safetensors"))
    if not path.exists() or not begun:
        (folder / "data.json").unlink(missing_ok=True)
        return
    changed = differences(read_diffusion_recipe(path).plain(), settings.plain())
    refused = [line for line in changed if not is_among(line, CHANGEABLE)]
    done = folder / "done.json"
    if done.is_file() and read_json(done)["steps"] > settings.steps:
        refused.append(f"steps: {read_json(done)['steps']} are done already -> {settings.steps}")
    if refused:
        raise RecipeError(
            "the pre-training in this folder was begun with other settings",
            where=folder,
            offenders=refused,
            remedy="undo the change, or name another folder with --out",
        )
