"""U-Net decoders on ResNets: three blocks that join a deep map with a stage's map.

Sources: Ronneberger et al. 2015 (arXiv 1505.04597) with the decoder of specs of the segmentors, section 3.2.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes
from preceptor.segmentors.convolution import ConvNorm, Norm, PixelHead, enlarge, kaiming
from preceptor.segmentors.resnet import ResNet, Stem, first_width

MakeGate = Callable[[int], nn.Module]
"""From the width c of a skip to a module (skip [B, c, H, W], deep map [B, 2c, h, w]) -> [B, c, H, W]."""


class JoinBlock(nn.Module):
    """Brings a deep map of 2c channels to c and, where `up`, to the skip's size; joins the two by 3x3 convolutions.

    The deep map is enlarged before its 1x1 convolution, which has a bias only where nothing is enlarged, as published.
    """

    def __init__(
        self, width: int, *, up: bool, convs: int, norm: Norm, slope: float, make_gate: MakeGate | None = None
    ) -> None:
        super().__init__()
        self.up = up
        self.reduce = ConvNorm(2 * width, width, 1, norm=norm, bias=not up, slope=slope)
        befores = (2 * width, *[width] * (convs - 1))
        self.convs = nn.Sequential(
            *(ConvNorm(before, width, 3, norm=norm, bias=True, slope=slope) for before in befores)
        )
        self.apply(kaiming)
        self.gate = None if make_gate is None else make_gate(width)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """deep: [B, 2c, h, w]; skip: [B, c, H, W]. Returns [B, c, H, W]."""
        kept = skip if self.gate is None else self.gate(skip, deep)
        raised = self.reduce(enlarge(deep, skip) if self.up else deep)
        return self.convs(torch.cat([kept, raised], dim=1))


class UNet(Segmentor):
    """A ResNet, a decoder block for each of its stages 3, 2 and 1, and a 1x1 convolution at stride 4.

    depth: of the ResNet. dilated: stages 3 and 4 keep stride 8 and are dilated (contracted) instead of strided.
    convs: 3x3 convolutions of a decoder block. slope: of the decoder's ReLU where it is negative. make_gate: makes the
    gate of each skip. The other options are those of `UNetR18` and `UNetR50`, which set the defaults.
    """

    divisor = 1

    def __init__(
        self,
        in_channels: int,
        classes: int,
        size: Size,
        *,
        depth: int,
        stem: Stem,
        dilated: bool,
        norm: Norm,
        convs: int,
        slope: float,
        dropout: float,
        auxiliary: bool,
        width: int | None,
        pretrained: str | None,
        make_gate: MakeGate | None = None,
    ) -> None:
        super().__init__()
        check_classes(in_channels, classes)
        if convs < 1:
            raise RecipeError("a decoder block needs a convolution", where="convs", found=convs)
        self.in_channels, self.classes, self.side_heads = in_channels, classes, int(auxiliary)
        self.norm = norm
        self.backbone = ResNet(
            in_channels,
            depth=depth,
            width=first_width(size, width),
            stem=stem,
            strides=(1, 2, 1, 1) if dilated else (1, 2, 2, 2),
            dilations=(1, 1, 2, 4) if dilated else (1, 1, 1, 1),
            contract=dilated,
            norm=norm,
            pretrained=pretrained,
        )
        widths, strides = self.backbone.widths, self.backbone.strides_out
        self.decoder = nn.ModuleList(
            JoinBlock(
                widths[stage],
                up=strides[stage] != strides[stage + 1],
                convs=convs,
                norm=norm,
                slope=slope,
                make_gate=make_gate,
            )
            for stage in range(3)
        )
        self.head = PixelHead(widths[0], classes, dropout)
        self.side_head = PixelHead(widths[2], classes, dropout) if auxiliary else None
        self.taps = (
            *self.backbone.taps,
            *(Tap(f"decoder{stage}", widths[stage], strides[stage], "decoder") for stage in (2, 1, 0)),
            Tap("logits", classes, 4, "logits"),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W]. auxiliary: with the option, the logits on `decoder2`, at its stride.

        Raises RecipeError where instance norm would meet a single position.
        """
        self._check_room(image)
        found = self.backbone(image)
        features = found.features()
        current = found.maps[3]
        for stage in (2, 1, 0):
            current = self.decoder[stage](current, found.maps[stage])
            features[f"decoder{stage}"] = current
        features["logits"] = self.head(current)
        sides = () if self.side_head is None else (self.side_head(features["decoder2"]),)
        return Segmentation(enlarge(features["logits"], image), features, sides)

    def _check_room(self, image: Tensor) -> None:
        deepest = self.backbone.strides_out[3]
        if self.norm == "instance" and max(image.shape[2:]) <= deepest:
            raise RecipeError(
                "instance norm needs more than one position in the deepest map",
                where="data.image_size",
                found=f"{image.shape[2]} x {image.shape[3]}",
                expected=f"a side above {deepest}",
            )


class UNetR18(UNet):
    """U-Net with ResNet 18 v1c at stride 8. 13,694,761 parameters for 3 channels and 9 classes.

    stem: of the ResNet, "v1c" or "plain". dilated: stride 8 in place of 32. norm: "batch" or "instance".
    convs: 3x3 convolutions of a decoder block. slope: of the decoder's ReLU where it is negative.
    dropout: rate of whole channels before the last convolution. auxiliary: a side head on the deepest decoder block
    (stride 8); the published loss weights are 4/7 for the logits and 1/7 for it. width: channels of the first stage
    in place of the size's (base 64, small 32, tiny 16). pretrained: a safetensors file of such a ResNet, see
    `resnet.ResNet`. Any image size will do. Raises RecipeError for impossible options, StorageError for weights that
    do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        stem: Stem = "v1c",
        dilated: bool = True,
        norm: Norm = "batch",
        convs: int = 2,
        slope: float = 0.0,
        dropout: float = 0.1,
        auxiliary: bool = False,
        width: int | None = None,
        pretrained: str | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            size,
            depth=18,
            stem=stem,
            dilated=dilated,
            norm=norm,
            convs=convs,
            slope=slope,
            dropout=dropout,
            auxiliary=auxiliary,
            width=width,
            pretrained=pretrained,
        )


class UNetR50(UNet):
    """U-Net with a plain ResNet 50 of stride 32, instance norm and leaky ReLU. 50,984,137 parameters.

    The count is for 3 channels and 9 classes. Options as in `UNetR18`, whose values make the v1c variant of stride 8
    (63.457 million parameters). No side head is published. With instance norm a side of the image must exceed 32.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        stem: Stem = "plain",
        dilated: bool = False,
        norm: Norm = "instance",
        convs: int = 1,
        slope: float = 0.01,
        dropout: float = 0.1,
        auxiliary: bool = False,
        width: int | None = None,
        pretrained: str | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            size,
            depth=50,
            stem=stem,
            dilated=dilated,
            norm=norm,
            convs=convs,
            slope=slope,
            dropout=dropout,
            auxiliary=auxiliary,
            width=width,
            pretrained=pretrained,
        )
