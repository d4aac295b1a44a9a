"""The image encoder: ConvNeXt (Liu et al. 2022), its four stage maps used raw, with Hugging Face's parameter names.

Written out in torch rather than taken from transformers, whose import takes seconds and drags its tokenizers into
every student; a test holds it against transformers' own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError, StorageError, UserError
from preceptor.extras import require_extra
from preceptor.segmentors.base import Size
from preceptor.segmentors.pretrained import fold_channels, start_from
from preceptor.storage import read_json, read_tensors

STRIDES = (4, 8, 16, 32)

DIAL: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((32, 64, 128, 256), (1, 1, 3, 1)),
    "small": ((64, 128, 256, 512), (2, 2, 4, 2)),
    "base": ((96, 192, 384, 768), (3, 3, 9, 3)),
}
"""Size to (widths, depths) of the four stages; base is ConvNeXt-T, as in TextFreeKD and LanGuide."""


def dimensions(
    size: Size, widths: Sequence[int] | None, depths: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(widths, depths) of the dial, or as given. Raises RecipeError unless both are four positive whole numbers."""
    if size not in DIAL:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(DIAL))
    chosen = (tuple(widths or DIAL[size][0]), tuple(depths or DIAL[size][1]))
    for name, values in zip(("widths", "depths"), chosen, strict=True):
        if len(values) != 4 or not all(isinstance(value, int) and value > 0 for value in values):
            raise RecipeError("four positive whole numbers are needed", where=name, found=list(values))
    return chosen


class ConvNextBlock(nn.Module):
    """x + scale * (depthwise 7x7, LayerNorm, linear to 4 x width, GELU, linear back); the middle is channels-last.

    The scale is multiplied into the last linear layer, which saves a pass over the map and its gradient.
    """

    def __init__(self, width: int, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.layer_scale_parameter = nn.Parameter(torch.full((width,), layer_scale))
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.layernorm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.drop_path = drop_path

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, width, H, W], and so returned."""
        seen = self.layernorm(self._depthwise(current).permute(0, 2, 3, 1))
        scale = self.layer_scale_parameter
        weight, bias = scale[:, None] * self.pwconv2.weight, scale * self.pwconv2.bias
        change = functional.linear(functional.gelu(self.pwconv1(seen)), weight, bias).permute(0, 3, 1, 2)
        if self.training and self.drop_path > 0:
            keep = 1 - self.drop_path
            change = change * change.new_empty(len(change), 1, 1, 1).bernoulli_(keep).div_(keep)
        return current + change

    def _depthwise(self, current: Tensor) -> Tensor:
        if current.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # on processors the gradient of a depthwise convolution is twice as slow in bf16 as in float32
            with torch.autocast("cpu", enabled=False):
                return self.dwconv(current.float())
        return self.dwconv(current)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, C, H, W], and so returned."""
        return super().forward(current.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextStage(nn.Module):
    """Norm and 2x2 convolution that halve the map (not in the first stage, whose `before` is None), then blocks."""

    def __init__(self, before: int | None, width: int, layer_scale: float, rates: Sequence[float]) -> None:
        super().__init__()
        self.downsampling_layer = nn.Sequential()
        if before is not None:
            self.downsampling_layer.append(ChannelNorm(before, eps=1e-6))
            self.downsampling_layer.append(nn.Conv2d(before, width, kernel_size=2, stride=2))
        self.layers = nn.Sequential(*(ConvNextBlock(width, layer_scale, rate) for rate in rates))

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, before, H, W]. Returns [B, width, H / 2, W / 2], or of the same size in the first stage."""
        return self.layers(self.downsampling_layer(current))


class ImageEncoder(nn.Module):
    """A 4x4 patch stem and four stages of ConvNeXt blocks, without the final norm and pooling.

    layer_scale: initial value of each block's scale. drop_path: largest rate of stochastic depth.
    pretrained: Hugging Face id (`owner/name` or `owner/name@revision`) or local folder; None starts from scratch.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        layer_scale: float = 1e-6,
        drop_path: float = 0.0,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "patch_embeddings": nn.Conv2d(in_channels, widths[0], kernel_size=4, stride=4),
                "layernorm": ChannelNorm(widths[0], eps=1e-6),
            }
        )
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
        befores = (None, *widths[:3])
        self.stages = nn.ModuleList(
            ConvNextStage(before, width, layer_scale, shares.tolist())
            for before, width, shares in zip(befores, widths, rates, strict=True)
        )
        self.apply(_initialise)
        if pretrained is not None:
            start_from(self, pretrained_state(pretrained, in_channels, widths, depths), pretrained)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: [B, in_channels, H, W]. Returns four maps [B, widths[k], H / s, W / s], s = 4, 8, 16, 32."""
        current = self.stem["layernorm"](self.stem["patch_embeddings"](image))
        maps = []
        for stage in self.stages:
            current = stage(current)
            maps.append(current)
        return maps


def _initialise(module: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and zero biases, as in the paper's appendix A."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def pretrained_state(
    source: str, in_channels: int, widths: tuple[int, ...], depths: tuple[int, ...]
) -> dict[str, Tensor]:
    """The encoder's state from Hugging Face ConvNeXt weights (`config.json` and `model.safetensors`).

    For one input channel the stem's kernels are summed over their channels: exactly the answer to the image repeated.
    Raises UserError where the weights cannot be had, RecipeError where they have other dimensions.
    """
    config = read_json(_file(source, "config.json"))
    if config.get("model_type") != "convnext":
        raise RecipeError("these are no ConvNeXt weights", where=source, found=config.get("model_type"))
    found = tuple(config.get("hidden_sizes", ())), tuple(config.get("depths", ()))
    if found != (widths, depths):
        raise RecipeError(
            "the pretrained encoder has other dimensions than the network",
            where=source,
            found=f"widths {list(found[0])}, depths {list(found[1])}",
            expected=f"widths {list(widths)}, depths {list(depths)}",
            remedy="choose the size that fits, or set the options `widths` and `depths`",
        )
    tensors, _ = read_tensors(_file(source, "model.safetensors"))
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("convnext.")
        if name.startswith("embeddings."):
            state["stem." + name.removeprefix("embeddings.")] = tensor
        elif name.startswith("encoder.stages."):
            state[name.removeprefix("encoder.")] = tensor
    stem = state.get("stem.patch_embeddings.weight")
    if stem is None:
        raise StorageError("the weights file holds no ConvNeXt stem", where=source, found=f"{len(tensors)} tensors")
    state["stem.patch_embeddings.weight"] = fold_channels(stem, in_channels, source)
    return state


def _file(source: str, name: str) -> Path:
    """A file of a local folder, or of the Hugging Face hub (from its cache when there is no network)."""
    folder = Path(source)
    if folder.is_dir():
        return folder / name
    require_extra("transformers", "text", f"downloading {source}")
    from transformers.utils.hub import cached_file

    repository, _, revision = source.partition("@")
    settings: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        path = cached_file(repository, name, **settings)
    except (OSError, ValueError) as error:
        path, reason = None, str(error).strip().splitlines()[0]
    else:
        reason = "no such file"
    if path is None:
        raise UserError(
            "the pretrained weights cannot be had",
            where=source,
            found=f"{name}: {reason}",
            expected="a local folder or a Hugging Face id, with config.json and model.safetensors",
            remedy="check the name and the network, name a folder that holds both files, or leave `pretrained` out",
        )
    return Path(path)
