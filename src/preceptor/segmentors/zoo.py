"""The dictionary from a segmentor's name to its builder."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from preceptor import plugins
from preceptor.errors import RecipeError
from preceptor.segmentors.attention_unet import AttentionUNet
from preceptor.segmentors.base import Condition, Segmentor, Size
from preceptor.segmentors.c2fvl import C2FVL, C2FVLFree
from preceptor.segmentors.fcn import FcnR18, FcnR50
from preceptor.segmentors.guided import Guided
from preceptor.segmentors.mednext import MedNeXt
from preceptor.segmentors.missformer import MISSFormer
from preceptor.segmentors.monai_network import monai_network
from preceptor.segmentors.sikd_unet import PlainUNet
from preceptor.segmentors.swin_unetr import SwinUNETR
from preceptor.segmentors.textdiff import TextDiff, TextDiffFree
from preceptor.segmentors.transunet import TransUNet
from preceptor.segmentors.unet import UNetR18, UNetR50
from preceptor.segmentors.unguided import Unguided

SEGMENTORS: dict[str, Callable[..., Segmentor]] = {
    "guided": Guided,
    "unguided": Unguided,
    "fcn_r18": FcnR18,
    "fcn_r50": FcnR50,
    "unet_r18": UNetR18,
    "unet_r50": UNetR50,
    "attention_unet": AttentionUNet,
    "plain_unet": PlainUNet,
    "missformer": MISSFormer,
    "transunet": TransUNet,
    "mednext": MedNeXt,
    "swin_unetr": SwinUNETR,
    "c2fvl": C2FVL,
    "c2fvl_free": C2FVLFree,
    "textdiff": TextDiff,
    "textdiff_free": TextDiffFree,
    "monai": monai_network,
}
"""Name to builder: keyword arguments in_channels, classes, size, its options, and `condition` where it takes one.

A name can be added from Python, `SEGMENTORS["mine"] = build`, for the process that does so. For recipes run from the
command line, on several devices or elsewhere, an installed package brings it: an entry point `mine` of the group
`preceptor.segmentors` that is such a builder.
"""

_LINES = {
    "guided": "TextFreeKD's teacher (variant languide: LanGuideMedSeg): ConvNeXt, decoder guided by the report",
    "unguided": "TextFreeKD's report-free student: the same encoder and decoder, from the image alone",
    "fcn_r18": "FCN on a dilated ResNet 18: a head of 3x3 convolutions at stride 8",
    "fcn_r50": "FCN on a dilated ResNet 50: a head of 3x3 convolutions at stride 8",
    "unet_r18": "U-Net decoder on a dilated ResNet 18, answering at stride 4",
    "unet_r50": "U-Net decoder on a plain ResNet 50 with instance norm, answering at stride 4",
    "attention_unet": "U-Net on a dilated ResNet 18 whose skips are gated by the deeper map",
    "plain_unet": "U-Net of 3x3 convolutions at the input's size, with skips (SIKD's student) or without (its teacher)",
    "missformer": "MISSFormer: hierarchical transformer whose stages attend to each other in a bridge",
    "transunet": "TransUNet: a ResNet and a vision transformer encode, a cascade with skips decodes",
    "mednext": "MedNeXt: a U-Net of ConvNeXt-like blocks, down and up paths included (needs MONAI)",
    "swin_unetr": "Swin UNETR: a Swin transformer encodes, convolution blocks decode (needs MONAI)",
    "c2fvl": "C2FVL: a U-Net with token encoders whose skips are multiplied by coded report attributes",
    "c2fvl_free": "C2FVL's network without attributes, from the image alone: its report-free student",
    "textdiff": "TextDiff: pixels classified by a frozen diffusion U-Net's features and the report (needs diffusers)",
    "textdiff_free": "TextDiff without its text: the same features and classifier, image alone (needs diffusers)",
    "monai": "any two-dimensional segmentation network of MONAI, by its class name (needs MONAI)",
}

_COMMON = ("in_channels", "classes", "size", "condition")


def describe() -> list[tuple[str, str]]:
    """(name, one line) of every segmentor: ours, those added from Python, and those of installed packages."""
    ours = [
        (name, _LINES.get(name, (builder.__doc__ or "").partition("\n")[0])) for name, builder in SEGMENTORS.items()
    ]
    others = [name for name in plugins.names(plugins.SEGMENTORS) if name not in SEGMENTORS]
    return [*ours, *((name, "of an installed package") for name in others)]


def options(name: str) -> dict[str, Any]:
    """The options of a segmentor with their defaults. Raises RecipeError for an unknown name."""
    parameters = inspect.signature(_builder(name)).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in _COMMON}


def build(
    name: str,
    *,
    in_channels: int,
    classes: int,
    size: Size = "base",
    condition: Condition | None = None,
    **chosen: Any,
) -> Segmentor:
    """A fresh segmentor by name. `condition` reaches only those that take one.

    Raises RecipeError for an unknown name or option, with the nearest valid one, and for a missing condition.
    """
    builder = _builder(name)
    known = options(name)
    for option in chosen:
        if option not in known:
            raise RecipeError(
                f"the segmentor {name} has no such option",
                where=f"segmentor {name}",
                found=option,
                remedy=_nearest(option, known),
            )
    given: dict[str, Any] = {"in_channels": in_channels, "classes": classes, "size": size, **chosen}
    if "condition" in inspect.signature(builder).parameters:
        if condition is None:
            raise RecipeError(
                "this segmentor reads reports or attributes of them, but is shown none",
                where=f"segmentor {name}",
                remedy="set the privilege `report` or `attributes`, or choose a segmentor that needs the image alone",
            )
        given["condition"] = condition
    return builder(**given)


def _builder(name: str) -> Callable[..., Segmentor]:
    builder = SEGMENTORS.get(name) or plugins.load(plugins.SEGMENTORS, name)
    if builder is None:
        known = dict.fromkeys([*SEGMENTORS, *plugins.names(plugins.SEGMENTORS)])
        raise RecipeError("there is no such segmentor", where="segmentor", found=name, remedy=_nearest(name, known))
    return builder


def _nearest(name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
