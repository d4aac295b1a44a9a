"""TransUNet: a hybrid vision transformer encodes, a cascade of bilinear up-sampling and skips decodes.

Source: Chen et al. 2021, arXiv 2102.04306; its R50-ViT-B/16. Differences that change no published number: the grid of
tokens is carried as height and width, so that images need not be square, and the position table follows the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.attention import Attention
from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes, require_divisible
from preceptor.segmentors.hybrid_stem import HybridStem
from preceptor.segmentors.vit_weights import encoder_state

STRIDE = 16
"""Of the tokens: each stands for 16 x 16 pixels."""


@dataclass(frozen=True)
class Dimensions:
    """stem_width, units: of the convolutional stem. width, depth, heads: of the transformer.

    decoder_widths: of the convolution behind the transformer and of the four decoder blocks.
    """

    stem_width: int
    units: tuple[int, ...]
    width: int
    depth: int
    heads: int
    decoder_widths: tuple[int, ...]


DIAL: dict[str, Dimensions] = {
    "tiny": Dimensions(16, (1, 1, 1), 96, 4, 3, (64, 64, 32, 16, 16)),
    "small": Dimensions(32, (2, 2, 3), 256, 6, 4, (256, 128, 64, 32, 16)),
    "base": Dimensions(64, (3, 4, 9), 768, 12, 12, (512, 256, 128, 64, 16)),
}
"""Base is R50-ViT-B/16 as published."""


class TransformerLayer(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); GELU between, dropout after each of the MLP's two linear layers."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, N, width], and so returned."""
        seen = self.attention_norm(tokens)
        tokens = tokens + self.attention(seen, seen, seen)
        inner = self.dropout(functional.gelu(self.fc1(self.mlp_norm(tokens))))
        return tokens + self.dropout(self.fc2(inner))


class HybridTransformer(nn.Module):
    """The stem, its last map as tokens with a learned position each, and the transformer.

    grid: of the position table; for other images it is enlarged or reduced bilinearly, corners aligned.
    """

    def __init__(self, in_channels: int, sizes: Dimensions, grid: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.stem = HybridStem(in_channels, sizes.stem_width, sizes.units)
        self.patch = nn.Conv2d(self.stem.widths[-1], sizes.width, kernel_size=1)
        self.positions = nn.Parameter(torch.empty(1, sizes.width, *grid))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(TransformerLayer(sizes.width, sizes.heads, dropout) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """image: [B, in_channels, H, W].

        Returns the four maps of the stem, the map [B, width, H / 16, W / 16] after each layer, and the last one
        normalised.
        """
        maps = self.stem(image)
        embedded = self.patch(maps[-1])
        grid = embedded.shape[2:]
        # Always resized: to its own grid that changes nothing, and an exported graph then holds for any image.
        embedded = embedded + functional.interpolate(self.positions, size=grid, mode="bilinear", align_corners=True)
        current = self.dropout(embedded)
        layers = []
        for layer in self.layers:
            current = _as_map(layer(_as_tokens(current)), grid)
            layers.append(current)
        return maps, layers, _as_map(self.norm(_as_tokens(current)), grid)


def _as_tokens(current: Tensor) -> Tensor:
    return current.flatten(2).transpose(1, 2)


def _as_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)


def convolution(in_width: int, width: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_width, width, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


class DecoderBlock(nn.Module):
    """Doubles a map bilinearly, corners aligned, joins it with its skip, and refines both by two convolutions."""

    def __init__(self, in_width: int, skip_width: int, width: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_width + skip_width, width)
        self.conv2 = convolution(width, width)

    def forward(self, low: Tensor, skip: Tensor | None) -> Tensor:
        """low: [B, in_width, H, W]; skip: [B, skip_width, 2H, 2W] or None. Returns [B, width, 2H, 2W]."""
        size = (2 * low.shape[2], 2 * low.shape[3])
        high = functional.interpolate(low, size=size, mode="bilinear", align_corners=True)
        return self.conv2(self.conv1(high if skip is None else torch.cat([high, skip], dim=1)))


class Cascade(nn.Module):
    """The decoder: one convolution at stride 16, then blocks at strides 8, 4, 2 and 1; the last has no skip.

    skip_widths: of strides 8, 4 and 2; 0 where there is none.
    """

    def __init__(self, in_width: int, widths: Sequence[int], skip_widths: Sequence[int]) -> None:
        super().__init__()
        self.conv_more = convolution(in_width, widths[0])
        self.blocks = nn.ModuleList(
            DecoderBlock(before, skip, width)
            for before, skip, width in zip(widths[:-1], (*skip_widths, 0), widths[1:], strict=True)
        )

    def forward(self, low: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        """low: [B, in_width, H, W]; skips from stride 8 on. Returns the five maps, the last at 16H x 16W."""
        maps = [self.conv_more(low)]
        for index, block in enumerate(self.blocks):
            maps.append(block(maps[-1], skips[index] if index < len(skips) else None))
        return maps


class TransUNet(Segmentor):
    """Segments images whose sides are multiples of 16; the logits come at the input's size.

    size: the dial. image_size: side, or [height, width], for which the position table is made.
    stem_width, units (three), width, depth, heads, decoder_widths (five): in place of the dial's, see `Dimensions`;
    R50-ViT-L/16 is width 1024, depth 24, heads 16. skips: how many of the stem's maps reach the decoder, from the
    deepest on; 3 as published. dropout: behind the embedding and in the transformer's MLPs.
    pretrained: see `vit_weights.encoder_state`; the decoder always starts from scratch.

    Taps: "stem" root; "encoder" block1, block2, block3 (block1 padded with zeros at the bottom and right to a quarter
    of the image) and vit1 to vit4, the transformer after each quarter of its layers (a network of fewer than four
    layers has fewer of them); "decoder" conv_more and decoder1 to decoder4, the last at stride 1.
    An image of one channel is read as if it were repeated to three. Base has 105,277,081 parameters, with nine
    classes and one or three channels. Raises RecipeError for impossible dimensions.
    """

    divisor = STRIDE

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        size: Size = "base",
        *,
        image_size: int | Sequence[int] = 224,
        stem_width: int | None = None,
        units: Sequence[int] | None = None,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        decoder_widths: Sequence[int] | None = None,
        skips: int = 3,
        dropout: float = 0.1,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        check_classes(in_channels, classes)
        sizes = _dimensions(
            size,
            stem_width=stem_width,
            units=units,
            width=width,
            depth=depth,
            heads=heads,
            decoder_widths=decoder_widths,
        )
        if skips not in (0, 1, 2, 3):
            raise RecipeError("there are three maps to skip with", where="skips", found=skips, expected="0, 1, 2 or 3")
        self.in_channels, self.classes, self.skips = in_channels, classes, skips
        self.encoder = HybridTransformer(in_channels, sizes, _grid(image_size), dropout)
        stem = self.encoder.stem.widths
        skip_widths = [stem[2 - index] if index < skips else 0 for index in range(3)]
        self.decoder = Cascade(sizes.width, sizes.decoder_widths, skip_widths)
        self.head = nn.Conv2d(sizes.decoder_widths[-1], classes, kernel_size=3, padding=1)
        self.quarters = _quarters(sizes.depth)
        self.taps = (
            *(
                Tap(name, channels, 2 << index, "encoder" if index else "stem")
                for index, (name, channels) in enumerate(zip(STEM, stem, strict=True))
            ),
            *(Tap(name, sizes.width, STRIDE, "encoder") for name in self.quarters),
            *(
                Tap(name, channels, STRIDE >> index, "decoder")
                for index, (name, channels) in enumerate(zip(DECODER, sizes.decoder_widths, strict=True))
            ),
        )
        if pretrained is not None:
            own = {name: tensor.shape for name, tensor in self.encoder.state_dict().items()}
            self.encoder.load_state_dict(encoder_state(pretrained, own))

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W]. Raises RecipeError unless H and W are multiples of 16."""
        require_divisible(image, self.divisor, "transunet")
        maps, layers, encoded = self.encoder(image)
        maps[1] = functional.pad(maps[1], (0, 1, 0, 1))  # for the skip and the tap alone, see HybridStem
        decoded = self.decoder(encoded, maps[2::-1][: self.skips])
        features = dict(zip(STEM, maps, strict=True))
        features |= {name: layers[layer - 1] for name, layer in self.quarters.items()}
        features |= dict(zip(DECODER, decoded, strict=True))
        return Segmentation(self.head(decoded[-1]), features)


STEM = ("root", "block1", "block2", "block3")
DECODER = ("conv_more", "decoder1", "decoder2", "decoder3", "decoder4")


def _dimensions(size: Size, **chosen: int | Sequence[int] | None) -> Dimensions:
    """Those of the dial, with what was chosen in their place."""
    if size not in DIAL:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(DIAL))
    for name, value in chosen.items():
        if value is None:
            continue
        wanted = getattr(DIAL[size], name)
        values = tuple(value) if isinstance(value, Sequence) else (value,)
        fits = len(values) == len(wanted) if isinstance(wanted, tuple) else not isinstance(value, Sequence)
        if not fits or not all(isinstance(item, int) and item > 0 for item in values):
            number = len(wanted) if isinstance(wanted, tuple) else 1
            raise RecipeError(f"positive whole numbers are needed: {number} of them", where=name, found=value)
        chosen[name] = values if isinstance(wanted, tuple) else value
    sizes = replace(DIAL[size], **{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    if sizes.width % sizes.heads:
        raise RecipeError(
            "the transformer's width is not divisible by its heads",
            where="heads",
            found=f"width {sizes.width}, heads {sizes.heads}",
        )
    return sizes


def _quarters(depth: int) -> dict[str, int]:
    """Tap name to the layer, counted from 1, that ends a quarter; of quarters that end at one layer the first stays."""
    ends = {quarter: depth * quarter // 4 for quarter in (1, 2, 3, 4)}
    return {f"vit{quarter}": end for quarter, end in ends.items() if end > ends.get(quarter - 1, 0)}


def _grid(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the position table."""
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 and side % STRIDE == 0 for side in sides):
        raise RecipeError(
            "the position table needs an image size",
            where="image_size",
            found=image_size,
            expected=f"a multiple of {STRIDE}, or [height, width] of such",
        )
    return sides[0] // STRIDE, sides[1] // STRIDE
