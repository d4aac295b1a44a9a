"""MISSFormer (Huang et al., IEEE TMI 2023, arXiv 2109.07162): transformer encoder, context bridge, transformer decoder.

At size base with three channels and nine classes it has the official network's parameters, without the 7.0 million
that never take part in an answer. Any height and width of the divisor's multiples.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes, require_divisible
from preceptor.segmentors.missformer_blocks import (
    PatchEmbed,
    PatchExpand,
    TransformerBlock,
    channels_first,
    channels_last,
)
from preceptor.segmentors.missformer_bridge import Bridge

STRIDES = (4, 8, 16, 32)


class _Dial(NamedTuple):
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    bridge_layers: int
    decoder_depth: int


DIAL: dict[str, _Dial] = {
    "tiny": _Dial((16, 32, 80, 128), (1, 1, 1, 1), 1, 1),
    "small": _Dial((32, 64, 160, 256), (2, 2, 2, 2), 4, 2),
    "base": _Dial((64, 128, 320, 512), (2, 2, 2, 2), 4, 2),
}
"""Size to dimensions; with the heads (1, 2, 5, 8) every head of a network has one width, that of the bridge."""


class EncoderStage(nn.Module):
    """Overlapping patches, transformer blocks, LayerNorm."""

    def __init__(self, embed: PatchEmbed, blocks: Sequence[TransformerBlock], width: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, C, H, W]. Returns [B, width, H / stride, W / stride]."""
        return channels_first(self.norm(self.blocks(self.embed(current))))


class DecoderStage(nn.Module):
    """Joins the map from below with the bridge's by a linear layer, then transformer blocks."""

    def __init__(self, in_width: int, blocks: Sequence[TransformerBlock], width: int) -> None:
        super().__init__()
        self.concat_linear = nn.Linear(in_width + width, width)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        """low: [B, H, W, in_width]; skip: [B, width, H, W]. Returns [B, width, H, W]."""
        joined = torch.cat([low, channels_last(skip)], dim=3)
        return channels_first(self.blocks(self.concat_linear(joined)))


class MISSFormer(Segmentor):
    """Encoder of four stages, a bridge in which all stages attend to each other, and a decoder up to full size.

    size: the dial; widths, depths: of the four encoder stages in place of the dial's. heads: of each stage's
    attention. reductions: by how much each stage's keys and values are coarser than its map; the decoder takes heads
    and reductions of the same stage, the bridge the reductions. bridge_layers, decoder_depth: bridge layers, and
    blocks of each decoder stage. bridge_width: channels of a bridge token, of which every width must be a multiple;
    None is the first width. expansion: hidden width of the mix-FFNs over their width.
    Taps: stage1-4 (encoder, strides 4 to 32); bridge4-1, block3-1 (strides 16 to 4) and expanded (stride 1), which
    are decoder taps. Raises RecipeError for impossible dimensions.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 9,
        size: Size = "base",
        *,
        widths: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        bridge_layers: int | None = None,
        bridge_width: int | None = None,
        decoder_depth: int | None = None,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        if size not in DIAL:
            raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(DIAL))
        dial = DIAL[size]
        widths, depths, heads, reductions = (
            tuple(widths or dial.widths),
            tuple(depths or dial.depths),
            tuple(heads),
            tuple(reductions),
        )
        bridge_layers = dial.bridge_layers if bridge_layers is None else bridge_layers
        decoder_depth = dial.decoder_depth if decoder_depth is None else decoder_depth
        bridge_width = widths[0] if bridge_width is None else bridge_width
        _check_stages(widths=widths, depths=depths, heads=heads, reductions=reductions)
        _check_counts(
            bridge_layers=bridge_layers,
            bridge_width=bridge_width,
            decoder_depth=decoder_depth,
            expansion=expansion,
        )
        check_classes(in_channels, classes)
        _check_widths(widths, heads, bridge_width)
        self.in_channels, self.classes = in_channels, classes
        self.divisor = math.lcm(
            *(stride * reduction for stride, reduction in zip(STRIDES, reductions, strict=True)), 32
        )

        def blocks(stage: int, depth: int) -> list[TransformerBlock]:
            return [TransformerBlock(widths[stage], heads[stage], reductions[stage], expansion) for _ in range(depth)]

        befores, kernels, strides = (in_channels, *widths[:3]), (7, 3, 3, 3), (4, 2, 2, 2)
        self.encoder = nn.ModuleList(
            EncoderStage(PatchEmbed(befores[i], widths[i], kernels[i], strides[i]), blocks(i, depths[i]), widths[i])
            for i in range(4)
        )
        self.bridge = Bridge(widths, bridge_width, reductions, layers=bridge_layers, expansion=expansion)
        self.expand = nn.ModuleList(PatchExpand(widths[i], widths[i] // 2, factor=2) for i in (3, 2, 1))
        self.expand.append(PatchExpand(widths[0], widths[0], factor=4))
        self.decoder = nn.ModuleList(
            DecoderStage(widths[i + 1] // 2, blocks(i, decoder_depth), widths[i]) for i in (2, 1, 0)
        )
        self.head = nn.Linear(widths[0], classes)
        for part in (self.expand, self.decoder, self.head):
            part.apply(_xavier)
        self.taps = (
            *(Tap(f"stage{i + 1}", widths[i], STRIDES[i], "encoder") for i in range(4)),
            *(Tap(f"bridge{i + 1}", widths[i], STRIDES[i]) for i in (3, 2, 1, 0)),
            *(Tap(f"block{i + 1}", widths[i], STRIDES[i]) for i in (2, 1, 0)),
            Tap("expanded", widths[0], 1),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W], H and W multiples of the divisor. Raises RecipeError for another size."""
        require_divisible(image, self.divisor, "MISSFormer")
        features: dict[str, Tensor] = {}
        current = image.contiguous(memory_format=torch.channels_last)
        maps = []
        for number, stage in enumerate(self.encoder, start=1):
            current = features[f"stage{number}"] = stage(current)
            maps.append(current)
        maps = self.bridge(maps)
        for number in (4, 3, 2, 1):
            features[f"bridge{number}"] = maps[number - 1]
        current = maps[3]
        for number, expand, stage in zip((3, 2, 1), self.expand, self.decoder, strict=False):
            current = features[f"block{number}"] = stage(expand(channels_last(current)), maps[number - 1])
        current = features["expanded"] = channels_first(self.expand[3](channels_last(current)))
        return Segmentation(channels_first(self.head(channels_last(current))), features)


def _xavier(module: nn.Module) -> None:
    """The decoder's initialisation as published; encoder and bridge keep torch's own."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_stages(**options: tuple[int, ...]) -> None:
    for name, values in options.items():
        if len(values) != 4 or not all(_positive(value) for value in values):
            raise RecipeError("four positive whole numbers are needed", where=name, found=list(values))


def _check_counts(**options: int) -> None:
    for name, value in options.items():
        if not _positive(value):
            raise RecipeError("a positive whole number is needed", where=name, found=value)


def _check_widths(widths: tuple[int, ...], heads: tuple[int, ...], bridge_width: int) -> None:
    if any(width % bridge_width for width in widths):
        raise RecipeError(
            "a stage's width is no multiple of the bridge's, whose tokens it is cut into",
            where="widths",
            found=list(widths),
            expected=f"multiples of {bridge_width}",
            remedy="set `bridge_width` to a divisor of all widths, or choose multiples of the first width",
        )
    if any(width % count for width, count in zip(widths, heads, strict=True)):
        raise RecipeError(
            "a stage's width is not divisible by its attention heads",
            where="heads",
            found=f"widths {list(widths)}, heads {list(heads)}",
        )
    if any(width % 2 for width in widths[1:]):
        raise RecipeError("a stage's width is odd, but the decoder halves it", where="widths", found=list(widths))


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
