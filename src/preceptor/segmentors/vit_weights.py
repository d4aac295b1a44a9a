"""Published weights of hybrid vision transformers for TransUNet's encoder: Flax arrays (npz) or timm's names.

Flax: `R50+ViT-B_16.npz` and its kin, as google-research/vision_transformer wrote them (spec segmentors, section 7).
timm: `vit_base_r50_s16_224` and its kin as safetensors. Both read here without the libraries that wrote them.
"""

import contextlib
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from preceptor.errors import RecipeError, StorageError, UserError
from preceptor.storage import read_tensors

Turn = Callable[[Tensor], Tensor]
Rule = tuple[re.Pattern[str], tuple[str, ...], Turn]
"""Our name, the file's names (of several, the tensors follow each other), and what is done to each tensor."""


def position_map(table: Tensor) -> Tensor:
    """[1, N, width] or [1, 1 + N, width] with a class token first, N a square number, as [1, width, side, side].

    Raises ValueError for another number of positions.
    """
    for skipped in (1, 0):
        side = math.isqrt(table.shape[1] - skipped)
        if side > 0 and side * side == table.shape[1] - skipped:
            return table[:, skipped:].transpose(1, 2).unflatten(2, (side, side))
    raise ValueError("the positions fill no square")


def resized(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """[1, width, H, W] on another grid: bilinear, corners aligned."""
    return functional.interpolate(positions, size=grid, mode="bilinear", align_corners=True)


def _kernels(array: Tensor) -> Tensor:
    return array.permute(3, 2, 0, 1)


def _linear(array: Tensor) -> Tensor:
    return array.flatten(1).t()


def _linear_from_heads(array: Tensor) -> Tensor:
    return array.flatten(0, -2).t()


def _same(array: Tensor) -> Tensor:
    return array


def _rules(*rules: tuple[str, str | tuple[str, ...], Turn]) -> tuple[Rule, ...]:
    return tuple(
        (re.compile(ours), (theirs,) if isinstance(theirs, str) else theirs, turn) for ours, theirs, turn in rules
    )


def _scale_and_bias(ours: str, theirs: str) -> tuple[tuple[str, str, Turn], tuple[str, str, Turn]]:
    return (rf"{ours}\.weight", rf"{theirs}/scale", torch.flatten), (rf"{ours}\.bias", rf"{theirs}/bias", torch.flatten)


_UNIT, _FLAX_UNIT = r"stem\.body\.block(\d+)\.unit(\d+)", r"block\1/unit\2"
_LAYER, _FLAX_LAYER = r"layers\.(\d+)", r"Transformer/encoderblock_\1"
_FLAX_ATTENTION = rf"{_FLAX_LAYER}/MultiHeadDotProductAttention_1"
_TIMM_UNIT = r"patch_embed.backbone.stages.{\1}.blocks.{\2}"

FLAX = _rules(
    (r"stem\.root\.conv\.weight", "conv_root/kernel", _kernels),
    *_scale_and_bias(r"stem\.root\.gn", "gn_root"),
    (rf"{_UNIT}\.conv(\d)\.weight", rf"{_FLAX_UNIT}/conv\3/kernel", _kernels),
    *_scale_and_bias(rf"{_UNIT}\.gn(\d)", rf"{_FLAX_UNIT}/gn\3"),
    (rf"{_UNIT}\.downsample\.weight", rf"{_FLAX_UNIT}/conv_proj/kernel", _kernels),
    *_scale_and_bias(rf"{_UNIT}\.gn_proj", rf"{_FLAX_UNIT}/gn_proj"),
    (r"patch\.weight", "embedding/kernel", _kernels),
    (r"patch\.bias", "embedding/bias", torch.flatten),
    ("positions", "Transformer/posembed_input/pos_embedding", position_map),
    *_scale_and_bias(rf"{_LAYER}\.attention_norm", rf"{_FLAX_LAYER}/LayerNorm_0"),
    *_scale_and_bias(rf"{_LAYER}\.mlp_norm", rf"{_FLAX_LAYER}/LayerNorm_2"),
    *(
        (
            rf"{_LAYER}\.attention\.in_{ours}",
            tuple(rf"{_FLAX_ATTENTION}/{part}/{theirs}" for part in ("query", "key", "value")),
            turn,
        )
        for ours, theirs, turn in (("weight", "kernel", _linear), ("bias", "bias", torch.flatten))
    ),
    (rf"{_LAYER}\.attention\.out\.weight", rf"{_FLAX_ATTENTION}/out/kernel", _linear_from_heads),
    (rf"{_LAYER}\.attention\.out\.bias", rf"{_FLAX_ATTENTION}/out/bias", torch.flatten),
    *(
        (rf"{_LAYER}\.fc{index + 1}\.{ours}", rf"{_FLAX_LAYER}/MlpBlock_3/Dense_{index}/{theirs}", turn)
        for index in (0, 1)
        for ours, theirs, turn in (("weight", "kernel", _linear), ("bias", "bias", torch.flatten))
    ),
    *_scale_and_bias("norm", "Transformer/encoder_norm"),
)

TIMM = _rules(
    (r"stem\.root\.conv\.weight", "patch_embed.backbone.stem.conv.weight", _same),
    (r"stem\.root\.gn\.(.+)", r"patch_embed.backbone.stem.norm.\1", _same),
    (rf"{_UNIT}\.conv(\d)\.weight", rf"{_TIMM_UNIT}.conv\3.weight", _same),
    (rf"{_UNIT}\.gn(\d)\.(.+)", rf"{_TIMM_UNIT}.norm\3.\4", _same),
    (rf"{_UNIT}\.downsample\.weight", rf"{_TIMM_UNIT}.downsample.conv.weight", _same),
    (rf"{_UNIT}\.gn_proj\.(.+)", rf"{_TIMM_UNIT}.downsample.norm.\3", _same),
    (r"patch\.(.+)", r"patch_embed.proj.\1", _same),
    ("positions", "pos_embed", position_map),
    (rf"{_LAYER}\.attention_norm\.(.+)", r"blocks.\1.norm1.\2", _same),
    (rf"{_LAYER}\.mlp_norm\.(.+)", r"blocks.\1.norm2.\2", _same),
    (rf"{_LAYER}\.attention\.in_(.+)", r"blocks.\1.attn.qkv.\2", _same),
    (rf"{_LAYER}\.attention\.out\.(.+)", r"blocks.\1.attn.proj.\2", _same),
    (rf"{_LAYER}\.(fc\d)\.(.+)", r"blocks.\1.mlp.\2.\3", _same),
    (r"norm\.(.+)", r"norm.\1", _same),
)
"""Its stages and blocks are counted from 0: a number in braces is one less than ours."""

_ENCODER = re.compile(r"conv_root/|gn_root/|block\d+/|embedding/|Transformer/|patch_embed\.|pos_embed|blocks\.|norm\.")
"""How the names of what an encoder needs begin; what else a file holds (class token, heads) is passed over."""


def encoder_state(source: str, own: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The state of TransUNet's encoder from published weights.

    source: an npz file in Flax's layout, a safetensors file with timm's names, or a folder that holds
    `model.safetensors`. own: name to shape of the encoder's state. The position table is resized to its grid.
    Raises UserError where there is no such file, StorageError for a damaged one, and RecipeError, listing the file's
    names, where tensors are missing, have other shapes, or belong to a larger encoder.
    """
    with _opened(source) as (found, rules):
        state: dict[str, Tensor] = {}
        used: set[str] = set()
        faults: list[str] = []
        for name, shape in own.items():
            keys, turn = _keys(name, rules)
            used.update(keys)
            missing = [key for key in keys if key not in found]
            faults += [f"missing: {key}" for key in missing]
            if missing:
                continue
            tensors = [found[key].float() for key in keys]
            try:
                tensor = torch.cat([turn(tensor) for tensor in tensors])
                if name == "positions" and tensor.shape[1] == shape[1]:
                    tensor = resized(tensor, (shape[2], shape[3]))
            except (RuntimeError, IndexError, ValueError):
                tensor = None
            if tensor is None or tensor.shape != shape:
                shapes = " + ".join(str(tuple(item.shape)) for item in tensors)
                faults.append(f"{' + '.join(keys)}: {shapes} does not fit {name} {tuple(shape)}")
            else:
                state[name] = tensor.contiguous()
        faults += [f"not known: {key}" for key in found if _ENCODER.match(key) and key not in used]
    if faults:
        raise RecipeError(
            "the pretrained weights are not those of this encoder",
            where=source,
            offenders=faults,
            remedy="choose the size that fits (base for R50+ViT-B/16), or set stem_width, units, width, depth and "
            "heads; weights for 3 channels serve images of 1 channel as well",
        )
    return state


def _keys(name: str, rules: Iterable[Rule]) -> tuple[tuple[str, ...], Turn]:
    for pattern, templates, turn in rules:
        match = pattern.fullmatch(name)
        if match:
            named = (match.expand(template) for template in templates)
            return tuple(re.sub(r"\{(\d+)\}", lambda one: str(int(one[1]) - 1), key) for key in named), turn
    raise KeyError(name)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[tuple[Mapping[str, Tensor], tuple[Rule, ...]]]:
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise UserError(
            "the pretrained weights cannot be had",
            where=source,
            found="no such file",
            expected="an npz file in Flax's layout, a safetensors file with timm's names, or a folder with "
            "model.safetensors",
            remedy="download the weights and name their file, or leave `pretrained` out",
        )
    if path.suffix != ".npz":
        tensors, _ = read_tensors(path)
        yield {re.sub(r"^(timm_model|model|module)\.", "", name): tensor for name, tensor in tensors.items()}, TIMM
        return
    try:
        with zipfile.ZipFile(path):  # or else numpy would take a single array, or a pickle, for what it is
            pass
        with np.load(path, allow_pickle=False) as arrays:
            yield _Arrays(arrays), FLAX
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StorageError(
            "the weights file is damaged or is no npz file of plain arrays", where=path, found=str(error)
        ) from error


class _Arrays(Mapping[str, Tensor]):
    """The arrays of an npz file as tensors, each read when it is asked for."""

    def __init__(self, arrays: Any) -> None:
        self.arrays = arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.arrays[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays.files)

    def __len__(self) -> int:
        return len(self.arrays.files)
