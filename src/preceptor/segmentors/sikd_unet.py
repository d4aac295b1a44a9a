"""The U-Net of SIKD, with skips (its student) or without (its teacher).

Source: specification of SIKD, section 3 ("Shape-intensity knowledge distillation for robust medical image
segmentation", Frontiers of Computer Science 2025). An encoder of five blocks between max-poolings, and a decoder that
answers at the input's own size.
"""

import torch
from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes, require_divisible

WIDTHS: dict[Size, int] = {"tiny": 8, "small": 24, "base": 64}
"""Channels of the first block; they double from block to block."""

DEPTH = 5


def _conv_norm(in_width: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(in_width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]


def _double(in_width: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""
    return nn.Sequential(*_conv_norm(in_width, width), *_conv_norm(width, width))


def _up(in_width: int, width: int) -> nn.Sequential:
    """Twice the size, bilinear with corners not aligned, then a 3x3 convolution."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), *_conv_norm(in_width, width)
    )


class PlainUNet(Segmentor):
    """U-Net of 3x3 convolutions with batch norm, and a 1x1 convolution at the input's size.

    skips: join each decoder block with the encoder's map of its size (SIKD's student); False leaves them out, which
    narrows the first convolution of each decoder block and nothing else (SIKD's teacher). width: channels of the first
    block instead of those of `size`. Taps: `encoder1` .. `encoder5` at strides 1 to 16, `decoder4` .. `decoder1` at
    strides 8 to 1; SIKD distils `decoder1`.
    """

    divisor = 2 ** (DEPTH - 1)

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        skips: bool = True,
        width: int | None = None,
    ) -> None:
        super().__init__()
        check_classes(in_channels, classes)
        if size not in WIDTHS:
            raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(WIDTHS))
        first = WIDTHS[size] if width is None else width
        if first < 1:
            raise RecipeError("a block needs a channel", where="width", found=first)
        self.in_channels, self.classes, self.skips = in_channels, classes, skips
        widths = [first * 2**stage for stage in range(DEPTH)]
        befores = [in_channels, *widths]
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(_double(befores[stage], widths[stage]) for stage in range(DEPTH))
        self.ups = nn.ModuleList(_up(widths[stage + 1], widths[stage]) for stage in range(DEPTH - 1))
        self.decoder = nn.ModuleList(_double((1 + skips) * widths[stage], widths[stage]) for stage in range(DEPTH - 1))
        self.head = nn.Conv2d(first, classes, 1)
        self.apply(_start)
        self.taps = (
            *(Tap(f"encoder{n + 1}", widths[n], 2**n, "encoder") for n in range(DEPTH)),
            *(Tap(f"decoder{n + 1}", widths[n], 2**n, "decoder") for n in reversed(range(DEPTH - 1))),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W], sides multiples of 16."""
        require_divisible(image, self.divisor, "plain_unet")
        maps: list[Tensor] = []
        for block in self.encoder:
            maps.append(block(self.pool(maps[-1]) if maps else image))
        features = {f"encoder{n}": found for n, found in enumerate(maps, start=1)}
        current = maps[-1]
        for stage in reversed(range(DEPTH - 1)):
            current = self.ups[stage](current)
            if self.skips:
                current = torch.cat([maps[stage], current], dim=1)
            current = self.decoder[stage](current)
            features[f"decoder{stage + 1}"] = current
        return Segmentation(self.head(current), features)


def _start(module: nn.Module) -> None:
    """Convolutions as He et al. 2015 by their inputs, biases 0; scales of batch norms drawn around 1, as published."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
