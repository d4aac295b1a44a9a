"""Guided diffusion's unconditional U-Nets (the 256x256 ImageNet checkpoint and its kin) in diffusers' names.

Source of the names: specs of TextDiff, sections 2 and 3. Everything but the size of the images is read from the
tensors' shapes; the rows of the joined query, key and value belong to a head each, its 64 queries first.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from preceptor.errors import RecipeError
from preceptor.segmentors.diffusion import DiffusionShape, diffusion_unet

_PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
}
"""Of a residual block, and the last two of an attention."""

_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def convert_diffusion(
    state: Mapping[str, Tensor], *, image_size: int | None = None, head_width: int = 64
) -> tuple[DiffusionShape, dict[str, Tensor]]:
    """A guided-diffusion state dict -> (shape, tensors in diffusers' names), every name and shape checked.

    image_size, head_width: which no tensor tells. Left out, the size is the one that guided diffusion trains so many
    levels on (6 levels: 256 pixels, 7: 512, and so on), and a head has 64 channels.
    Raises RecipeError where it is another network's, lists all keys at fault.
    """
    try:
        shape = _shape(state, image_size, head_width)
        modules = dict(_modules(shape))
        tensors: dict[str, Tensor] = {}
        unknown = []
        for key, tensor in state.items():
            module, part, kind = _split(key)
            if module in modules:
                tensors |= _renamed(modules[module], part, kind, tensor, head_width)
            elif module in _ENDS:
                tensors[f"{_ENDS[module]}.{kind}"] = tensor
            else:
                unknown.append(key)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise RecipeError(
            "the checkpoint is no whole guided-diffusion U-Net", found=f"{type(error).__name__}: {error}"
        ) from error
    with torch.device("meta"):
        expected = diffusion_unet(shape).state_dict()
    faults = [f"not known: {key}" for key in (*unknown, *(name for name in tensors if name not in expected))]
    faults += [f"missing: {name}" for name in expected if name not in tensors]
    faults += [
        f"{name}: {tuple(tensors[name].shape)} in place of {tuple(wanted.shape)}"
        for name, wanted in expected.items()
        if name in tensors and tensors[name].shape != wanted.shape
    ]
    if faults:
        remedy = "it was trained with classes; take an unconditional one" if "label_emb.weight" in state else ""
        raise RecipeError(
            "the checkpoint is no whole unconditional guided-diffusion U-Net", offenders=faults, remedy=remedy
        )
    return shape, {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _split(key: str) -> tuple[str, str, str]:
    """(module, part of it, weight or bias) of a key; the part of a module without parts is empty."""
    name, _, kind = key.rpartition(".")
    if name in _ENDS:
        return name, "", kind
    found = re.match(r"((?:input|output)_blocks\.\d+\.\d+|middle_block\.\d+)\.(.+)$", name)
    return (found[1], found[2], kind) if found else (name, "", kind)


def _renamed(module: str, part: str, kind: str, tensor: Tensor, head_width: int) -> dict[str, Tensor]:
    if part == "qkv":
        rows = tensor.flatten(1) if tensor.ndim == 3 else tensor
        heads = rows.unflatten(0, (-1, 3, head_width))
        return {f"{module}.to_{name}.{kind}": heads[:, n].flatten(0, 1) for n, name in enumerate("qkv")}
    if part == "proj_out":
        tensor = tensor.flatten(1) if tensor.ndim == 3 else tensor
    return {f"{module}.{_PARTS.get(part, part)}.{kind}": tensor}


def _shape(state: Mapping[str, Tensor], image_size: int | None, head_width: int) -> DiffusionShape:
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("output_blocks."))
    ups = (re.match(r"output_blocks\.\d+\.[12]\.in_layers\.0\.weight$", key) for key in state)
    levels = 1 + sum(up is not None for up in ups)
    layers = blocks // levels - 1
    # Of each level the first block's output: what its second convolution gives.
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    widths = tuple(state[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0] for first in firsts)
    attention = tuple(n for n, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in state)
    channels = state["input_blocks.0.0.weight"].shape[1]
    return DiffusionShape(
        image_size=image_size or 2 ** (levels + 2),  # the deepest level has 8 x 8 pixels
        channels=channels,
        widths=widths,
        layers=layers,
        attention=attention,
        head_width=head_width,
        learn_sigma=state["out.2.weight"].shape[0] == 2 * channels,
    )


def _modules(shape: DiffusionShape) -> Iterator[tuple[str, str]]:
    """(guided diffusion's name, diffusers' name) of every residual block and attention."""
    number = 1
    for level in range(shape.levels):
        for layer in range(shape.layers):
            yield f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}"
            yield f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}"
            number += 1
        yield f"input_blocks.{number}.0", f"down_blocks.{level}.downsamplers.0"
        number += 1
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    for block in range(shape.blocks):
        up, layer = shape.place(block)
        attends = shape.levels - 1 - up in shape.attention
        yield f"output_blocks.{block}.0", f"up_blocks.{up}.resnets.{layer}"
        if attends:
            yield f"output_blocks.{block}.1", f"up_blocks.{up}.attentions.{layer}"
        if layer == shape.layers:
            yield f"output_blocks.{block}.{2 if attends else 1}", f"up_blocks.{up}.upsamplers.0"
