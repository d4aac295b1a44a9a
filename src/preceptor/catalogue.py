"""Everything that a recipe may name, in one place for people to read."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


@dataclass(frozen=True)
class Entry:
    """A name with its meaning in one line, and the options that a recipe may give it, with their defaults."""

    name: str
    line: str
    options: Mapping[str, Any] = field(default_factory=dict)


LAYOUTS = {
    "auto": "whichever of the others is recognised",
    "lvit": "{Train,Val,Test}_Folder with img, labelcol and {Train,Val,Test}_text.xlsx",
    "textfreekd": "{Train,Test} with Images and GTs; prompt/{train,test}.csv",
    "folders": "images and masks; optional reports.csv, groups.csv and splits.csv",
    "manifest": "a table cases.csv with a row for each case, as `preceptor check --write-manifest` makes it",
    "ssl4mis": "ACDC as HDF5: data/slices, volumes in data, and the lists train_slices, train, val, test",
    "transunet": "Synapse as TransUNet prepares it: train_npz slices, test_vol_h5 volumes, lists",
    "acdc": "the ACDC challenge's own folders: training and testing with NIfTI frames of each patient",
    "nnunet": "dataset.json, imagesTr, labelsTr and imagesTs with numbered channels",
    "volumes": "NIfTI volumes in images beside masks; optional groups.csv and splits.csv",
}

MASK_RULES = {
    "exact": "every stored value is declared in data.labels",
    "threshold": "two classes: foreground is above half of full scale (0/1 or 0/255 files)",
    "eq255": "two classes: foreground is 255 and nothing else, as in TextFreeKD and LanGuideMedSeg",
    "bilinear_gt0": "two classes: grey value resized in 8 bits, anything above 0, as in LViT and C2FVL",
}

SPLIT_RULES = {
    "given": "by the folders or tables; validation is cut from train where there is none",
    "random": "by a seed, all cases of a group together",
    "tail": "the first rows of train stay, the others validate, as published for the text data sets",
    "named": "by lists of groups, volumes or cases in the recipe, as published ones are",
}

AUGMENTATIONS = {
    "zoom": "[probability, low, high] of one factor for both axes",
    "rotate": "degrees to either side",
    "rotate_share": "probability of that rotation",
    "rot_flip": "probability of a random quarter turn and a random flip, instead of the rotation",
    "scale": "share by which the content grows or shrinks",
    "shift": "share of the side, in both directions",
    "flip_horizontal": "probability; side words of the report follow",
    "flip_vertical": "probability; height words of the report follow",
    "transpose": "probability; never for a report that names a side",
    "brightness": "summand to either side, in units of the normalised image",
    "contrast": "share to either side",
    "gamma": "share to either side in the exponent",
    "noise": "largest standard deviation",
    "reports": "rewrite: a flipped image's report is rewritten; forbid: an image is not flipped if its report tells",
    "variants": "fixed versions of each case, shown in turn; 0: a new one in every epoch",
}

METRICS = {
    "dice": "overlap, 2 TP / (2 TP + FP + FN), mean over cases",
    "iou": "overlap, TP / (TP + FP + FN), mean over cases",
    "precision": "share of the prediction that is right",
    "recall": "share of the reference that is found",
    "hd95": "95th percentile of the distances between the outlines, in mm, pixels or voxels",
    "assd": "mean distance between the outlines, in mm, pixels or voxels",
    "surface_dice": "share of the outlines that lie within evaluate.tolerance of each other",
    "dice_pooled": "Dice of all pixels of all cases together, as LanGuideMedSeg and TextFreeKD report it",
    "iou_pooled": "IoU of all pixels of all cases together",
    "dice_image_mean": "mean of the images' Dice as LViT and C2FVL report it",
    "iou_image_mean": "mean of the images' IoU as LViT and C2FVL report it",
    "dice_transunet": "Dice as TransUNet and MISSFormer report it: 1 for an invented structure, 0 for both empty",
    "hd95_transunet": "HD95 as they report it: 0, the best there is, for a missed or an invented structure",
    "dice_nan_ignore": "Dice as MONAI averages it: structures that the reference lacks are left out",
    "hd95_nan_ignore": "HD95 as MONAI averages it: structures that are absent or missed are left out",
}

_EXPLAINED = {"data.layout", "data.mask_rule", "data.split.rule", "teacher.privilege", "training.loss"}
"""Recipe keys whose choices have a section of their own."""


def catalogue() -> dict[str, list[Entry]]:
    """From kind to entries; the last kind, `choices`, has every other recipe key that takes one of a few words."""
    from preceptor.delivery.imports import ARCHITECTURES
    from preceptor.distillers import zoo as distillers
    from preceptor.learning.losses import LOSSES
    from preceptor.learning.privilege import PRIVILEGES
    from preceptor.matrix import read_matrix, shipped_matrices
    from preceptor.recipe import Recipe, read_recipe, shipped_recipes
    from preceptor.recipe_diffusion import read_diffusion_recipe, shipped_pretrainings
    from preceptor.segmentors import zoo as segmentors
    from preceptor.text.encoders import describe as encoders

    return {
        "segmentors": [Entry(name, line, _own_options(name)) for name, line in segmentors.describe()],
        "distillers": [
            Entry(name, _sentence(line), distillers.options_of(name)) for name, line in distillers.describe()
        ],
        "presets": [Entry(name, *_preset(parts)) for name, parts in distillers.PRESETS.items()],
        "privileges": [Entry(name, _first_sentence(privilege.view)) for name, privilege in PRIVILEGES.items()],
        "encoders": _entries([*encoders(), ("...", "Any other BERT, by Hugging Face id and revision, or by folder")]),
        "losses": [Entry(name, _first_sentence(loss)) for name, loss in LOSSES.items()],
        "layouts": _entries(LAYOUTS.items()),
        "mask-rules": _entries(MASK_RULES.items()),
        "split-rules": _entries(SPLIT_RULES.items()),
        "augmentations": _entries(AUGMENTATIONS.items()),
        "metrics": _entries(METRICS.items()),
        "recipes": [Entry(name, read_recipe(name).description) for name in shipped_recipes()],
        "matrices": [Entry(name, read_matrix(name).description) for name in shipped_matrices()],
        "pretrainings": [Entry(name, read_diffusion_recipe(name).description) for name in shipped_pretrainings()],
        "architectures": _entries(ARCHITECTURES.items()),
        "choices": [Entry(key, ", ".join(map(str, words))) for key, words in choices(Recipe) if key not in _EXPLAINED],
    }


def _preset(parts: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A preset's line, and its options by distiller: `cwd.temperature`."""
    weights = ", ".join(f"{name} {part.weight:g}" for name, part in parts.items())
    chosen = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.options.items()}
    return f"Published with the weights {weights}", chosen


def _own_options(name: str) -> dict[str, Any]:
    """A segmentor's options without `pretrained`, which has a key of its own."""
    from preceptor.segmentors import zoo

    return {key: value for key, value in zoo.options(name).items() if key != "pretrained"}


def choices(part: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every key at or below a part of the recipe that takes one of a few words, with these words."""
    for name, info in part.model_fields.items():
        for kind in _leaves(info.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from choices(kind, f"{prefix}{name}.")
            elif get_origin(kind) is Literal:
                yield f"{prefix}{name}", get_args(kind)


def _leaves(kind: Any) -> Iterator[Any]:
    """A type's members: of `A | None` and of `list[A]`, A."""
    if get_origin(kind) is Literal or not get_args(kind):
        yield kind
        return
    for inner in get_args(kind):
        yield from _leaves(inner)


def render(sections: Mapping[str, list[Entry]], width: int | None = None) -> str:
    """The sections as text: names and meanings side by side, options below. width: in characters; None: unwrapped."""
    return "\n\n".join("\n".join([title, *_lines(entries, width)]) for title, entries in sections.items())


def _lines(entries: list[Entry], width: int | None) -> Iterator[str]:
    names = max(len(entry.name) for entry in entries)
    room = 10_000 if width is None else max(40, width - names - 4)
    for entry in entries:
        told = ", ".join(f"{name}={_value(value)}" for name, value in entry.options.items())
        texts = [entry.line, f"options: {told}"] if told else [entry.line]
        name = entry.name
        for line in (line for text in texts for line in textwrap.wrap(text, room)):
            yield f"  {name:{names}s}  {line}"
            name = ""


def _value(value: Any) -> str:
    """As a recipe would write it."""
    return value if isinstance(value, str) else json.dumps(value)


def _entries(lines: Iterable[tuple[str, str]]) -> list[Entry]:
    return [Entry(name, line[:1].upper() + line[1:]) for name, line in lines]


def _first_sentence(function: object) -> str:
    return _sentence(function.__doc__ or "")


def _sentence(text: str) -> str:
    return re.split(r"\.(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
