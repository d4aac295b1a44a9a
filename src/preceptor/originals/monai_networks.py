"""The original MedNeXt and MONAI's Swin UNETR, both in two dimensions, in our names.

Source of the names: specs of the segmentors, sections 4 and 5. All dimensions are read from the tensors' shapes.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from preceptor.errors import RecipeError
from preceptor.originals.base import Original
from preceptor.originals.synapse import MMSEG_KD

_PREFIXES = ("architecture.backbone.", "backbone.", "architecture.", "model.", "module.", "")
"""A student that was distilled stands beside its teacher under the first; the others are those of common trainers."""


def official_name(key: str) -> str:
    """Our name of a parameter of the original MedNeXt, whose decoder counts its levels from the shallowest."""
    for pattern, replacement in (
        (r"^enc_block_(\d)\.", lambda m: f"enc_stages.{m[1]}."),
        (r"^down_(\d)\.", lambda m: f"down_blocks.{m[1]}."),
        (r"^up_(\d)\.", lambda m: f"up_blocks.{3 - int(m[1])}."),
        (r"^dec_block_(\d)\.", lambda m: f"dec_stages.{3 - int(m[1])}."),
        (r"^out_([1-4])\.", lambda m: f"out_blocks.{4 - int(m[1])}."),
    ):
        key = re.sub(pattern, replacement, key)
    return key


def _rename_mednext(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    dropped = [key for key in state if key == "dummy_tensor"]  # helps its gradient checkpointing alone
    return {official_name(key): state[key] for key in state if key not in dropped}, dropped


def _mednext(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    stem = tensors["stem.weight"]
    _require_two_dimensions(stem)
    levels = [f"enc_stages.{k}" for k in range(4)] + ["bottleneck"] + [f"dec_stages.{k}" for k in range(4)]
    expanding = [tensors[f"{level}.0.conv2.weight"].shape for level in levels]
    return {
        "size": "base",
        "in_channels": stem.shape[1],
        "classes": tensors["out_0.conv_out.weight"].shape[1],
        "options": {
            "width": stem.shape[0],
            "kernel_size": tensors["enc_stages.0.0.conv1.weight"].shape[-1],
            "expansion": [shape[0] // shape[1] for shape in expanding],
            "blocks": [_blocks(tensors, level) for level in levels],
            "residual": "down_blocks.0.res_conv.weight" in tensors,
            "auxiliary": any(key.startswith("out_blocks.") for key in tensors),
        },
    }


def _rename_swin(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    dropped = [key for key in state if key.endswith(".relative_position_index")]  # computed
    return {key: state[key] for key in state if key not in dropped}, dropped


def _swin(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    embed = tensors["swinViT.patch_embed.proj.weight"]
    _require_two_dimensions(embed)
    stages = [f"swinViT.layers{k}.0.blocks" for k in range(1, 5)]
    tables = [tensors[f"{stage}.0.attn.relative_position_bias_table"] for stage in stages]
    return {
        "size": "base",
        "in_channels": embed.shape[1],
        "classes": tensors["out.conv.conv.weight"].shape[0],
        "options": {
            "feature_size": embed.shape[0],
            "depths": [_blocks(tensors, stage) for stage in stages],
            "heads": [table.shape[1] for table in tables],
            "window_size": (math.isqrt(len(tables[0])) + 1) // 2,  # a table has (2 w - 1)^2 rows
        },
    }


def _blocks(tensors: Mapping[str, Tensor], level: str) -> int:
    """How many numbered modules stand under `level`."""
    start = f"{level}."
    return len({key.removeprefix(start).partition(".")[0] for key in tensors if key.startswith(start)})


def _require_two_dimensions(kernel: Tensor) -> None:
    if kernel.ndim != 4:
        raise RecipeError(
            "the checkpoint is of a network for volumes, whose kernels do not fit images",
            found=f"a kernel of shape {tuple(kernel.shape)}",
            expected="four dimensions",
        )


MEDNEXT = Original(
    segmentor="mednext",
    line="MedNeXt in two dimensions, of any variant (MICCAI 2023)",
    prefixes=_PREFIXES,
    telling="enc_block_0.0.conv1.weight",
    side_heads=tuple(f"out_{level}." for level in range(1, 5)),
    rename=_rename_mednext,
    arguments=_mednext,
    stems=("stem.weight",),
    notes=MMSEG_KD,
)
SWIN_UNETR = Original(
    segmentor="swin_unetr",
    line="MONAI's Swin UNETR in two dimensions",
    prefixes=_PREFIXES,
    telling="swinViT.layers1.0.blocks.0.attn.qkv.weight",
    rename=_rename_swin,
    arguments=_swin,
    stems=(
        "swinViT.patch_embed.proj.weight",
        "encoder1.layer.conv1.conv.weight",
        "encoder1.layer.conv3.conv.weight",
    ),
    notes=MMSEG_KD,
)
