"""TransUNet with a hybrid encoder (R50-ViT-B/16 and its kin) in our names.

Source of the names: specs of the segmentors, section 7. All dimensions are read from the tensors' shapes but the
number of heads, which no tensor tells: 64 channels a head, as in every published configuration.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from preceptor.errors import RecipeError
from preceptor.originals.base import Original
from preceptor.originals.synapse import LABELS
from preceptor.segmentors.vit_weights import position_map

_HEAD_WIDTH = 64

_RENAMED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^transformer\.embeddings\.hybrid_model\.", "encoder.stem."),
        (r"^transformer\.embeddings\.patch_embeddings\.", "encoder.patch."),
        (r"^transformer\.embeddings\.position_embeddings$", "encoder.positions"),
        (r"^transformer\.encoder\.encoder_norm\.", "encoder.norm."),
        (r"^transformer\.encoder\.layer\.(\d+)\.", r"encoder.layers.\1."),
        (r"\.ffn_norm\.", ".mlp_norm."),
        (r"\.ffn\.(fc\d)\.", r".\1."),
        (r"\.attn\.out\.", ".attention.out."),
        (r"^segmentation_head\.0\.", "head."),
    )
]

_PROJECTED = re.compile(r"\.attn\.query\.(weight|bias)$")


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if re.search(r"\.attn\.(key|value)\.", key):
            continue  # joined to the query
        name = key
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        if _PROJECTED.search(key):
            name = _PROJECTED.sub(r".attention.in_\1", name)
            tensor = torch.cat([tensor, *(state[key.replace(".query.", f".{part}.")] for part in ("key", "value"))])
        if name == "encoder.positions":
            try:
                tensor = position_map(tensor)
            except (ValueError, IndexError, RuntimeError) as error:
                raise RecipeError(
                    "the position table is that of no square image", where=key, found=tuple(tensor.shape)
                ) from error
        tensors[name] = tensor
    return tensors, []


def _arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    units = [_count(tensors, rf"encoder\.stem\.body\.block{stage}\.unit(\d+)\.") for stage in (1, 2, 3)]
    positions = tensors["encoder.positions"]
    width = positions.shape[1]
    widths = [tensors["decoder.conv_more.0.weight"].shape[0]]
    widths += [tensors[f"decoder.blocks.{index}.conv1.0.weight"].shape[0] for index in range(4)]
    joined = [tensors[f"decoder.blocks.{index}.conv1.0.weight"].shape[1] for index in range(3)]
    return {
        "size": "base",
        "in_channels": 1,
        "classes": tensors["head.weight"].shape[0],
        "options": {
            "image_size": [16 * side for side in positions.shape[2:]],
            "stem_width": tensors["encoder.stem.root.conv.weight"].shape[0],
            "units": units,
            "width": width,
            "depth": _count(tensors, r"encoder\.layers\.(\d+)\."),
            "heads": max(width // _HEAD_WIDTH, 1),
            "decoder_widths": widths,
            "skips": sum(both > before for both, before in zip(joined, widths, strict=False)),
        },
    }


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = re.compile(pattern)
    return len({match[1] for match in map(found.match, tensors) if match})


TRANSUNET = Original(
    segmentor="transunet",
    line="TransUNet R50-ViT-B/16 (Chen et al. 2021, arXiv 2102.04306)",
    prefixes=("module.", "model.", ""),
    telling="transformer.embeddings.hybrid_model.root.conv.weight",
    rename=_rename,
    arguments=_arguments,
    in_channels=1,
    notes={
        "channels": "the same weights serve images of one channel, read as if repeated, and of three",
        "preprocessing": {"size": 224, "resize": "bicubic", "antialias": False, "normalize": "none"},
        "labels": LABELS,
    },
)
"""Its stem keeps its three input channels: kernels that are standardised cannot be summed beforehand."""
