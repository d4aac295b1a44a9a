"""SIKD's student and teacher in our names (specification of SIKD, section 3).

Their keys are the same; that the teacher has no skips shows in the inputs of its decoder blocks alone.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from preceptor.errors import RecipeError
from preceptor.originals.base import Original

_BLOCK = re.compile(r"(Conv|Up_conv|Up)(\d)\.(?:conv|up)\.(.+)")
_FOLDERS = {"Conv": ("encoder", 1), "Up": ("ups", 2), "Up_conv": ("decoder", 2)}
"""Of our name, and the number that the original's blocks begin with."""


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    return {_named(key): tensor for key, tensor in state.items()}, []


def _named(key: str) -> str:
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key.replace("Conv_1x1.", "head.")
    folder, first = _FOLDERS[match[1]]
    return f"{folder}.{int(match[2]) - first}.{match[3]}"


def _arguments(skips: bool) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    def arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        first, joined = tensors["encoder.0.0.weight"], tensors["decoder.0.0.weight"]
        width = int(first.shape[0])
        if (joined.shape[1] == 2 * width) != skips:
            raise RecipeError(
                "the checkpoint is the other network of SIKD",
                where="Up_conv2.conv.0.weight",
                found=f"a decoder {'without' if skips else 'with'} skips",
                expected=f"a decoder {'with' if skips else 'without'} skips",
                remedy=f"name it sikd-{'teacher' if skips else 'student'}",
            )
        return {
            "size": "base",
            "in_channels": int(first.shape[1]),
            "classes": int(tensors["head.weight"].shape[0]),
            "options": {"skips": skips, **({} if width == 64 else {"width": width})},
        }

    return arguments


def _original(line: str, skips: bool, **notes: Any) -> Original:
    return Original(
        segmentor="plain_unet",
        line=line,
        prefixes=("model_state.module.", "model_state.", "module.", "model.", ""),
        telling="Up_conv2.conv.0.weight",
        rename=_rename,
        arguments=_arguments(skips),
        stems=("encoder.0.0.weight",),
        notes={
            "preprocessing": {"size": 256, "resize": "bilinear", "antialias": True, "normalize": "volume_percentile"},
            "labels": {"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3},
            **notes,
        },
    )


STUDENT = _original("SIKD's student, a U-Net", True)
TEACHER = _original("SIKD's teacher, a U-Net without skips that is shown class means", False, needs="class_mean")
