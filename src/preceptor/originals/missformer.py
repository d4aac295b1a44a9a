"""The official MISSFormer in our names; its dimensions are read from the tensors' shapes.

Source: checkpoints of the official code of MISSFormer (IEEE TMI 2023); specs of the segmentors, section 6.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from preceptor.originals.base import Original
from preceptor.originals.synapse import LABELS

_UNUSED = re.compile(
    r"^decoder_3\.(concat_linear|layer_former_\d)\."  # the coarsest decoder stage only expands
    r"|\.(mlp|mixffn\d)\.norm[23]\."  # of the mix-FFN's three norms, one is used
)

_DECODER_OF = {"decoder_2": "decoder.0", "decoder_1": "decoder.1", "decoder_0": "decoder.2"}
_EXPAND_OF = {"decoder_3": "expand.0", "decoder_2": "expand.1", "decoder_1": "expand.2", "decoder_0": "expand.3"}


def official_name(key: str) -> str:
    """Our name of an official parameter (without its checkpoint prefix); unknown names come back as they are."""
    for pattern, replacement in (
        (r"^backbone\.patch_embed(\d)\.", lambda m: f"encoder.{int(m[1]) - 1}.embed."),
        (r"^backbone\.block(\d)\.", lambda m: f"encoder.{int(m[1]) - 1}.blocks."),
        (r"^backbone\.norm(\d)\.", lambda m: f"encoder.{int(m[1]) - 1}.norm."),
        (r"^bridge\.bridge_layer(\d)\.", lambda m: f"bridge.layers.{int(m[1]) - 1}."),
        (r"\.scale_reduce\.sr(\d)\.", lambda m: f".reduce.{m[1]}."),
        (r"\.scale_reduce\.norm\.", lambda _: ".norm."),
        (r"\.(mlp|mixffn\d)\.norm1\.", lambda m: f".{m[1]}.norm."),
        (r"\.mixffn(\d)\.", lambda m: f".ffns.{int(m[1]) - 1}."),
        (r"\.dwconv\.dwconv\.", lambda _: ".dwconv."),
        (r"^decoder_0\.last_layer\.", lambda _: "head."),
        (r"^(decoder_[0-3])\.layer_up\.", lambda m: f"{_EXPAND_OF[m[1]]}."),
        (r"^(decoder_[0-2])\.concat_linear\.", lambda m: f"{_DECODER_OF[m[1]]}.concat_linear."),
        (r"^(decoder_[0-2])\.layer_former_(\d)\.", lambda m: f"{_DECODER_OF[m[1]]}.blocks.{int(m[2]) - 1}."),
    ):
        key = re.sub(pattern, replacement, key)
    return key


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    dropped = [key for key in state if _UNUSED.search(key)]
    tensors = {official_name(key): state[key] for key in state if not _UNUSED.search(key)}
    tensors["head.weight"] = tensors["head.weight"].flatten(1)  # a 1x1 convolution there, a linear layer here
    return tensors, dropped


def _arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Heads cannot be seen in the shapes: as published, every head is as wide as a token of the bridge."""
    widths = [tensors[f"encoder.{stage}.embed.proj.weight"].shape[0] for stage in range(4)]
    bridge_width = tensors["bridge.layers.0.attn.q.weight"].shape[0]
    hidden = tensors["encoder.0.blocks.0.mlp.fc1.weight"].shape[0]
    reductions = [tensors.get(f"encoder.{stage}.blocks.0.attn.sr.weight") for stage in range(4)]
    return {
        "size": "base",
        "in_channels": tensors["encoder.0.embed.proj.weight"].shape[1],
        "classes": tensors["head.weight"].shape[0],
        "options": {
            "widths": widths,
            "depths": [_count(tensors, rf"encoder\.{stage}\.blocks\.(\d+)\.") for stage in range(4)],
            "heads": [max(width // bridge_width, 1) for width in widths],
            "reductions": [1 if kernel is None else kernel.shape[-1] for kernel in reductions],
            "bridge_layers": _count(tensors, r"bridge\.layers\.(\d+)\."),
            "bridge_width": bridge_width,
            "decoder_depth": _count(tensors, r"decoder\.0\.blocks\.(\d+)\."),
            "expansion": hidden // widths[0],
        },
    }


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for key in tensors if (found := re.match(pattern, key))})


MISSFORMER = Original(
    segmentor="missformer",
    line="MISSFormer (IEEE TMI 2023, arXiv 2109.07162)",
    prefixes=("module.", "model.", "backbone.", ""),
    telling="bridge.bridge_layer1.attn.scale_reduce.sr0.weight",
    rename=_rename,
    arguments=_arguments,
    stems=("encoder.0.embed.proj.weight",),
    in_channels=1,
    notes={
        "preprocessing": {"size": 224, "resize": "bicubic", "antialias": False, "normalize": "symmetric"},
        "labels": LABELS,
    },
)
