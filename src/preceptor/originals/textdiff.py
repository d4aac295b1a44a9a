"""TextDiff's pixel classifier in our names; its frozen U-Net is a checkpoint of its own.

Source of the names: specs of TextDiff, section 6. All dimensions are read from the tensors' shapes but the report's
length and the channels of an attention head, which no tensor tells: 10 tokens, 64 channels.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from preceptor.originals.base import Original

_LENGTH, _HEAD_WIDTH = 10, 64
_BLOCKS = {3072: "qata", 1536: "monuseg"}
"""Channels of the deepest map to the set of blocks."""

_RENAMED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^cross1\.", "classifier.fuse.0."),
        (r"\.norm([12])\.", r".attn\1.norm."),
        (r"\.norm3\.", ".norm."),
        (r"\.ff\.net\.2\.", ".project."),
        (r"\.to_out\.0\.", ".to_out."),
        (r"\.to_out\.1\.", ".out_norm."),
        (r"^decodes\.0\.", "classifier.join."),
        (r"^decodes\.1\.", "classifier.norm1."),
        (r"^decodes\.3\.", "classifier.refine."),
        (r"^decodes\.4\.", "classifier.norm2."),
        (r"^decodes\.6\.", "classifier.head."),
        (r"^down1\.", "classifier.reduce.0."),
        (r"^down2\.", "classifier.reduce.1."),
    )
]


def official_name(key: str) -> str:
    """Our name of an official parameter (without its checkpoint prefix); unknown names come back as they are."""
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    return {official_name(key): tensor for key, tensor in state.items()}, []


def _arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    inner, text_width = tensors["classifier.fuse.0.attn1.to_k.weight"].shape
    deepest = tensors["classifier.reduce.0.weight"].shape[1]
    return {
        "size": "base",
        "in_channels": 3,
        "classes": tensors["classifier.head.weight"].shape[0],
        "condition": {"kind": "report", "length": _LENGTH, "width": text_width},
        "options": {
            "blocks": _BLOCKS.get(deepest, "monuseg"),
            "width": tensors["classifier.reduce.0.weight"].shape[0],
            "decoder_widths": [tensors[f"classifier.{name}.weight"].shape[0] for name in ("norm1", "norm2")],
            "heads": inner // _HEAD_WIDTH,
            "head_width": _HEAD_WIDTH,
            "bgr": True,
        },
    }


TEXTDIFF = Original(
    segmentor="textdiff",
    line="TextDiff's pixel classifier, without its frozen U-Net (MICCAI 2024, arXiv 2407.05323)",
    prefixes=("module.", ""),
    telling="cross1.attn1.to_q.weight",
    rename=_rename,
    arguments=_arguments,
    beside={"diffusion": "the frozen U-Net, 256x256_diffusion_uncond.pt after `--architecture diffusion`"},
    notes={
        "reads": "It reads reports as the last hidden state of emilyalsentzer/Bio_ClinicalBERT for 10 tokens, padding "
        "included; features of another encoder give nonsense, and the package cannot notice.",
        "preprocessing": {"size": 256, "resize": "bilinear", "antialias": False, "normalize": "symmetric"},
        "labels": {"background": 0, "foreground": 1},
    },
)
