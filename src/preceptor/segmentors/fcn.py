"""FCN on a dilated ResNet: a head of 3x3 convolutions on the last stage's map of stride 8.

Sources: Long et al. 2015 (arXiv 1411.4038) in the form of MMSegmentation, specs of the segmentors, section 3.1.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes
from preceptor.segmentors.convolution import ConvNorm, PixelHead, enlarge, kaiming
from preceptor.segmentors.resnet import ResNet, Stem, first_width


class FcnHead(nn.Module):
    """Two 3x3 convolutions to a quarter of the width, a third on their output beside the input, 1x1 to the classes."""

    def __init__(self, in_width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.width = in_width // 4
        self.convs = nn.Sequential(ConvNorm(in_width, self.width, 3), ConvNorm(self.width, self.width, 3))
        self.conv_cat = ConvNorm(in_width + self.width, self.width, 3)
        self.apply(kaiming)
        self.pixels = PixelHead(self.width, classes, dropout)

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        """maps: [B, in_width, H, W]. Returns convs and conv_cat [B, in_width / 4, H, W], logits [B, classes, H, W]."""
        inner = self.convs(maps)
        joined = self.conv_cat(torch.cat([maps, inner], dim=1))
        return {"convs": inner, "conv_cat": joined, "logits": self.pixels(joined)}


class SideHead(nn.Sequential):
    """One 3x3 convolution to a quarter of the width, 1x1 to the classes."""

    def __init__(self, in_width: int, classes: int, dropout: float) -> None:
        convolution = ConvNorm(in_width, in_width // 4, 3)
        convolution.apply(kaiming)
        super().__init__(convolution, PixelHead(in_width // 4, classes, dropout))


class Fcn(Segmentor):
    """FCN with a ResNet of strides (1, 2, 1, 1), dilations (1, 1, 2, 4), first blocks contracted: stride 8.

    stem: of the ResNet, "v1c" or "plain". dropout: rate of whole channels before the last convolution.
    auxiliary: a side head on stage 3, of stride 8; where it is used, both losses weigh 0.5 as published.
    width: channels of the first stage in place of the size's (base 64, small 32, tiny 16).
    pretrained: a safetensors file of such a ResNet, see `resnet.ResNet`. Any image size will do.
    Raises RecipeError for impossible options, StorageError for weights that do not fit.
    """

    divisor = 1
    depth: ClassVar[int]

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        stem: Stem = "v1c",
        dropout: float = 0.1,
        auxiliary: bool = False,
        width: int | None = None,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        check_classes(in_channels, classes)
        self.in_channels, self.classes, self.side_heads = in_channels, classes, int(auxiliary)
        self.backbone = ResNet(
            in_channels,
            depth=self.depth,
            width=first_width(size, width),
            stem=stem,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract=True,
            pretrained=pretrained,
        )
        self.head = FcnHead(self.backbone.widths[3], classes, dropout)
        self.side_head = SideHead(self.backbone.widths[2], classes, dropout) if auxiliary else None
        self.taps = (
            *self.backbone.taps,
            Tap("convs", self.head.width, 8, "decoder"),
            Tap("conv_cat", self.head.width, 8, "decoder"),
            Tap("logits", classes, 8, "logits"),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W]. auxiliary: with the option, stage 3's logits [B, classes, H / 8, W / 8]."""
        found = self.backbone(image)
        features = found.features() | self.head(found.maps[3])
        sides = () if self.side_head is None else (self.side_head(found.maps[2]),)
        return Segmentation(enlarge(features["logits"], image), features, sides)


class FcnR18(Fcn):
    """FCN with ResNet 18; `Fcn` has the options. 12,672,233 parameters for 3 channels and 9 classes."""

    depth = 18


class FcnR50(Fcn):
    """FCN with ResNet 50; `Fcn` has the options. 47,127,913 parameters for 3 channels and 9 classes."""

    depth = 50
