"""TextFreeKD's teacher and student (stages 1 and 2) and LanGuideMedSeg in our names.

Source of the names: specs of TextFreeKD, section 5. All dimensions are read from the tensors' shapes.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from preceptor.originals.base import Original

_RENAMED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.model\.embeddings\.", "encoder.stem."),
        (r"^encoder\.model\.encoder\.stages\.", "encoder.stages."),
        (r"^decoder16\.", "decoder.stages.0."),
        (r"^decoder8\.", "decoder.stages.1."),
        (r"^decoder4\.", "decoder.stages.2."),
        (r"^decoder1\.conv_block\.", "decoder.head.expand."),
        (r"^out\.conv\.conv\.", "decoder.head.classify."),
        (r"^convds2\.", "decoder.side_heads.0."),
        (r"^convds1\.", "decoder.side_heads.1."),
        (r"\.guide_layer\.norm1\.", ".layer.self_norm."),
        (r"\.guide_layer\.norm2\.", ".layer.cross_norm."),
        (r"\.guide_layer\.(self|cross)_attn_norm1?\.", r".layer.\1_out_norm."),
        (r"\.guide_layer\.(self|cross)_attn1?\.in_proj_", r".layer.\1_attention.in_"),
        (r"\.guide_layer\.(self|cross)_attn1?\.out_proj\.", r".layer.\1_attention.out."),
        (r"\.guide_layer\.scale1?$", ".layer.scale"),
        (r"\.guide_layer\.text_project\.0\.", ".layer.mix_tokens."),
        (r"\.guide_layer\.text_project\.2\.", ".layer.project."),
        (r"\.decoder\.transp_conv\.conv\.", ".up.upsample."),
        (r"\.decoder\.conv_block\.(conv[12])\.conv\.", r".up.\1."),
        (r"\.decoder\.conv_block\.(norm[12])\.", r".up.\1."),
    )
]

_DROPPED = re.compile(
    r"^text_encoder\."  # reports become features before any training
    r"|^encoder\.project_head\.|^encoder\.model\.layernorm\."  # no output depends on them
    r"|\.(vis|txt)_pos\.pe$"  # a fixed table, computed
)

_REPORTS = (
    "The published checkpoints read reports as the last hidden state of microsoft/BiomedVLP-CXR-BERT-specialized for "
    "24 tokens, padding included; features of another encoder give nonsense, and the package cannot notice."
)
_NOTES = {
    "transposed": True,
    "why_transposed": "the original code reads images as (width, height), and was trained on them",
    "preprocessing": {"size": 224, "resize": "bicubic", "antialias": False, "normalize": "zscore"},
    "labels": {"background": 0, "foreground": 255},
}


def official_name(key: str) -> str:
    """Our name of an official parameter (without its checkpoint prefix); unknown names come back as they are."""
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    dropped = [key for key in state if _DROPPED.search(key)]
    return {official_name(key): state[key] for key in state if not _DROPPED.search(key)}, dropped


def _arguments(variant: str | None) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """What `zoo.build` needs to make a network of these shapes; variant None is the report-free student."""

    def arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        stages = [tensors[f"decoder.stages.{index}.up.upsample.weight"] for index in range(3)]
        widths = [stages[2].shape[1], *(stage.shape[0] for stage in reversed(stages))]
        blocks = [re.match(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", key) for key in tensors]
        depths = [len({block[2] for block in blocks if block and block[1] == str(index)}) for index in range(4)]
        logits, head_width = tensors["decoder.head.classify.weight"].shape[:2]
        options: dict[str, Any] = {"widths": widths, "depths": depths, "head_width": head_width}
        if any(key.startswith("decoder.side_heads.") for key in tensors):
            options["deep_supervision"] = True
        condition = None
        if variant is not None:
            mixes = [tensors[f"decoder.stages.{index}.layer.mix_tokens.weight"] for index in range(3)]
            width = tensors["decoder.stages.0.layer.project.weight"].shape[1]
            options["report_tokens"] = [mix.shape[0] for mix in mixes]
            options["variant"] = variant
            condition = {"kind": "report", "length": mixes[0].shape[1], "width": width}
        return {
            "size": "base",
            "in_channels": tensors["encoder.stem.patch_embeddings.weight"].shape[1],
            "classes": max(int(logits), 2),
            "condition": condition,
            "options": options,
        }

    return arguments


def _original(
    line: str, variant: str | None, prefixes: tuple[str, ...], telling: str, lacks: tuple[str, ...]
) -> Original:
    return Original(
        segmentor="unguided" if variant is None else "guided",
        line=line,
        prefixes=prefixes,
        telling=f"decoder16.guide_layer.{telling}",
        lacks=tuple(f"decoder16.guide_layer.{key}" for key in lacks),
        side_heads=("convds",),
        rename=_rename,
        arguments=_arguments(variant),
        stems=("encoder.stem.patch_embeddings.weight",),
        notes=_NOTES if variant is None else {**_NOTES, "reads": _REPORTS},
    )


TEACHER = _original(
    "TextFreeKD's report-guided teacher (stage 1; IEEE TIM 2025, doi 10.1109/TIM.2025.3545506)",
    "textfreekd",
    ("model_teacher.", "model.", ""),
    "text_project.0.weight",
    ("scale",),
)
STUDENT = _original(
    "TextFreeKD's report-free student (stage 2; IEEE TIM 2025, doi 10.1109/TIM.2025.3545506)",
    None,
    ("model_student.", ""),
    "norm1.weight",
    ("text_project.0.weight",),
)
LANGUIDE = _original("LanGuideMedSeg's report-guided network (MICCAI 2023)", "languide", ("model.", ""), "scale", ())
