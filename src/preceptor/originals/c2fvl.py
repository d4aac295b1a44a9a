"""The official C2FVL in our names; its dimensions are read from the tensors' shapes.

Source: checkpoints of the official code of C2FVL (ICASSP 2023); specification of C2FVL, sections 4 and 6.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from preceptor.errors import RecipeError
from preceptor.originals.base import Original
from preceptor.segmentors.vit_weights import position_map

_USED = re.compile(
    r"^(inc|down\d\.nConvs\.\d|reconstruct\d)\.(conv|norm)\."
    r"|^up\d\.(nConvs\.\d\.(conv|norm)|vlab\.(conv_avg|linear_avg|conv_max|linear_max|bottleneck\.[02]))\."
    r"|^downVit\d?\.(embeddings\.|Encoder_blocks\.0\.)"
    r"|^downVit[123]\.CTBN\.(conv|norm)\."
    r"|^outc\d?\."
)
"""Everything else gets no gradient: encoders of the way up, text modules, and parts of blocks that nothing calls."""


def official_name(key: str) -> str:
    """Our name of an official parameter (without its checkpoint prefix); unknown names come back as they are."""
    for pattern, replacement in (
        (r"^inc\.", lambda _: "stem."),
        (r"^down(\d)\.nConvs\.(\d)\.", lambda m: f"downs.{int(m[1]) - 1}.{int(m[2]) + 1}."),
        (r"^downVit(\d?)\.", lambda m: f"tokens.{m[1] or 0}."),
        (r"\.embeddings\.patch_embeddings\.", lambda _: ".embed."),
        (r"\.embeddings\.position_embeddings$", lambda _: ".positions"),
        (r"\.Encoder_blocks\.0\.attn\.qkv\.", lambda _: ".attention.in_"),
        (r"\.Encoder_blocks\.0\.attn\.proj\.", lambda _: ".attention.out."),
        (r"\.Encoder_blocks\.0\.(?:mlp\.)?", lambda _: "."),
        (r"\.CTBN\.conv\.", lambda _: ".reduce."),
        (r"\.CTBN\.norm\.", lambda _: ".norm."),
        (r"^reconstruct(\d)\.", lambda m: f"rebuild.{int(m[1]) - 1}."),
        (r"^up(\d)\.", lambda m: f"ups.{4 - int(m[1])}."),
        (r"\.nConvs\.0\.", lambda _: ".join."),
        (r"\.nConvs\.1\.", lambda _: ".refine."),
        (r"^outc\.", lambda _: "head."),
        (r"^outc(\d)\.", lambda m: f"align.{4 - int(m[1])}."),
    ):
        key = re.sub(pattern, replacement, key)
    return key


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    dropped = [key for key in state if not _USED.search(key)]
    tensors = {official_name(key): state[key] for key in state if _USED.search(key)}
    try:
        tables = {key: position_map(tensors[key]) for key in tensors if key.endswith(".positions")}
    except ValueError as error:
        raise RecipeError("the position tables of the checkpoint fill no square", where="downVit") from error
    return {**tensors, **tables}, dropped


def _arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    width, in_channels = tensors["stem.conv.weight"].shape[:2]
    rows, columns = tensors["tokens.0.positions"].shape[2:]
    return {
        "size": "base",
        "in_channels": in_channels,
        "classes": max(2, tensors["head.weight"].shape[0]),
        "condition": {"kind": "attributes", "length": 1, "width": 8},
        "options": {"width": width, "image_size": [16 * rows, 16 * columns]},
    }


C2FVL = Original(
    segmentor="c2fvl",
    line="C2FVL, which multiplies by coded report attributes (ICASSP 2023, arXiv 2303.00279)",
    prefixes=("module.", ""),
    telling="downVit.embeddings.patch_embeddings.weight",
    rename=_rename,
    arguments=_arguments,
    stems=("stem.conv.weight",),
    notes={
        "preprocessing": {"size": 224, "resize": "bilinear", "antialias": False, "normalize": "unit"},
        "blue_first": True,
        "reads": "It is shown the eight coded attributes of C2FVL; how the authors' tables code them is not published.",
        "remarks": "the original takes interpolated mask values above 0 for foreground",
        "labels": {"background": 0, "foreground": 255},
    },
)
