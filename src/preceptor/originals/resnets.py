"""FCN, U-Net and Attention U-Net on ResNets in our names, from checkpoints of MMSegmentation's layout.

Source of the names: the published configurations of mmseg-kd (specs of the segmentors, sections 2 and 3). Which ResNet,
stem and normalisation a checkpoint has is read from its tensors.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from preceptor.errors import RecipeError
from preceptor.originals.base import Original
from preceptor.originals.synapse import MMSEG_KD

_RENAMED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^neck\.decoder\.", "decoder."),
        (r"\.MultiAttentionBlock2D\.gate_block_1\.", ".gate.gates.0."),
        (r"\.MultiAttentionBlock2D\.gate_block_2\.", ".gate.gates.1."),
        (r"\.MultiAttentionBlock2D\.combine_gates\.", ".gate.combine."),
        (r"\.(gates\.\d)\.W\.", r".\1.out."),
        (r"\.upsample\.interp_upsample\.1\.", ".reduce."),
        (r"\.upsample\.", ".reduce."),
        (r"\.conv_block\.convs\.", ".convs."),
        (r"^((?:decoder|decode_head|auxiliary_head)\..*)\.bn\.", r"\1.norm."),
    )
]

_FCN_HEADS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^decode_head\.conv_seg\.", "head.pixels.classify."),
        (r"^decode_head\.", "head."),
        (r"^auxiliary_head\.convs\.0\.", "side_head.0."),
        (r"^auxiliary_head\.conv_seg\.", "side_head.1.classify."),
    )
]

_UNET_HEADS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^decode_head\.conv_seg\.", "head.classify."),
        (r"^auxiliary_head\.conv_seg\.", "side_head.classify."),
    )
]

_DEPTHS = {(2, 2): 18, (6, 2): 34, (6, 3): 50}
"""(blocks of stage 3, convolutions of a block) to depth."""

_STEMS = ("backbone.stem.0.weight", "backbone.conv1.weight")


def _rename_fcn(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    return {_named(key, [*_RENAMED, *_FCN_HEADS]): tensor for key, tensor in state.items()}, []


def _rename_unet(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    return {_named(key, [*_RENAMED, *_UNET_HEADS]): tensor for key, tensor in state.items()}, []


def _named(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        key = pattern.sub(replacement, key)
    return key


def _common(tensors: Mapping[str, Tensor], head: str) -> tuple[dict[str, Any], int]:
    """(arguments that all have, depth of the ResNet)."""
    stem = "plain" if "backbone.conv1.weight" in tensors else "v1c"
    first = tensors["backbone.conv1.weight" if stem == "plain" else "backbone.stem.0.weight"]
    width = tensors["backbone.layer1.0.conv1.weight"].shape[0]
    blocks = {key.split(".")[2] for key in tensors if key.startswith("backbone.layer3.")}
    convolutions = sum(f"backbone.layer1.0.conv{number}.weight" in tensors for number in (1, 2, 3))
    options: dict[str, Any] = {"stem": stem}
    if width != 64:
        options["width"] = width
    if any(key.startswith("side_head.") for key in tensors):
        options["auxiliary"] = True
    arguments = {
        "size": "base",
        "in_channels": first.shape[1],
        "classes": tensors[f"{head}.weight"].shape[0],
        "options": options,
    }
    depth = _DEPTHS.get((len(blocks), convolutions))
    if depth is None:
        raise RecipeError(
            "the checkpoint has a ResNet of another depth",
            where="backbone.layer3",
            found=f"{len(blocks)} blocks of {convolutions} convolutions",
            expected=", ".join(f"{count} of {each} (ResNet {known})" for (count, each), known in _DEPTHS.items()),
        )
    return arguments, depth


def _fcn(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    arguments, depth = _common(tensors, "head.pixels.classify")
    return {"name": _zoo_name("fcn", depth), **arguments}


def _unet(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    arguments, depth = _common(tensors, "head.classify")
    batch = "backbone.layer1.0.bn1.weight" in tensors
    arguments["options"] |= {
        "dilated": "decoder.2.reduce.conv.bias" in tensors,  # a 1x1 convolution without enlargement has a bias
        "norm": "batch" if batch else "instance",
        "slope": 0.0 if batch else 0.01,
        "convs": len({key.split(".")[3] for key in tensors if key.startswith("decoder.0.convs.")}),
    }
    return {"name": _zoo_name("unet", depth), **arguments}


def _attention_unet(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    arguments, depth = _common(tensors, "head.classify")
    arguments["options"] |= {"depth": depth}
    return arguments


def _zoo_name(family: str, depth: int) -> str:
    if depth not in (18, 50):
        raise RecipeError(
            f"{family} comes on other ResNets", where="backbone", found=f"ResNet {depth}", expected="ResNet 18 or 50"
        )
    return f"{family}_r{depth}"


_PREFIXES = ("architecture.", "module.", "")
"""A distilled student's checkpoint holds it under the first, beside its teacher."""

_GATE = "neck.decoder.0.MultiAttentionBlock2D.gate_block_1.theta.weight"

FCN = Original(
    segmentor="fcn_r18",
    line="FCN on ResNet 18 or 50 v1c at stride 8 (mmseg-kd)",
    prefixes=_PREFIXES,
    telling="decode_head.conv_cat.conv.weight",
    side_heads=("auxiliary_head.",),
    rename=_rename_fcn,
    arguments=_fcn,
    stems=_STEMS,
    notes=MMSEG_KD,
)
UNET = Original(
    segmentor="unet_r18",
    line="U-Net on ResNet 18 or 50 (mmseg-kd)",
    prefixes=_PREFIXES,
    telling="neck.decoder.0.conv_block.convs.0.conv.weight",
    lacks=(_GATE,),
    side_heads=("auxiliary_head.",),
    rename=_rename_unet,
    arguments=_unet,
    stems=_STEMS,
    notes=MMSEG_KD,
)
ATTENTION_UNET = Original(
    segmentor="attention_unet",
    line="U-Net on ResNet 18 with two grid gates for each skip (mmseg-kd)",
    prefixes=_PREFIXES,
    telling=_GATE,
    side_heads=("auxiliary_head.",),
    rename=_rename_unet,
    arguments=_attention_unet,
    stems=_STEMS,
    notes=MMSEG_KD,
)
