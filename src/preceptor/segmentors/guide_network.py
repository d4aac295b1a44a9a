"""What TextFreeKD's teacher and student share: ConvNeXt maps, three guide stages, a sub-pixel head.

Source: specs of TextFreeKD (IEEE TIM 2025, doi 10.1109/TIM.2025.3545506) and of LanGuideMedSeg (MICCAI 2023). The
grid is taken from the maps, so that any input divisible by 32 works; at 224 the numbers are the published ones.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.segmentors.attention import Attention, sinusoid
from preceptor.segmentors.base import Segmentation, Segmentor, Tap, require_divisible
from preceptor.segmentors.convnext import STRIDES, ImageEncoder


class SelfGuideLayer(nn.Module):
    """v = x + LN_b(self-attention(LN_a(x))), one head, positions on query and key only. width C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads=1)
        self.self_out_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """tokens: [B, N, C]. Returns [B, N, C]."""
        normed = self.self_norm(tokens)
        placed = normed + sinusoid(tokens.shape[1], tokens.shape[2], tokens.device)
        return tokens + self.self_out_norm(self.self_attention(placed, placed, normed))


class UpBlock(nn.Module):
    """Doubles a map, joins it with its skip, and refines both by two 3x3 convolutions."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_width, width, kernel_size=2, stride=2, bias=False)
        self.conv1 = nn.Conv2d(2 * width, width, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        """low: [B, in_width, H, W]; skip: [B, width, 2H, 2W]. Returns [B, width, 2H, 2W]."""
        joined = torch.cat([self.upsample(low), skip], dim=1)
        joined = functional.leaky_relu(self.norm1(self.conv1(joined)), 0.01)
        return functional.leaky_relu(self.norm2(self.conv2(joined)), 0.01)


class GuideStage(nn.Module):
    """A guide layer on the tokens of a map, then an up-block."""

    def __init__(self, layer: nn.Module, in_width: int, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.up = UpBlock(in_width, width)

    def forward(self, low: Tensor, skip: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """low: [B, in_width, H, W]. Returns (up [B, width, 2H, 2W], guided [B, in_width, H, W])."""
        tokens = self.layer(low.flatten(2).transpose(1, 2), condition)
        guided = tokens.transpose(1, 2).unflatten(2, low.shape[2:])
        return self.up(guided, skip), guided


class SubpixelHead(nn.Module):
    """From a map of stride 4 to logits at full size: 3x3 convolution, pixel shuffle, 4x4 average, 1x1 convolution.

    The last convolution is linear and pointwise, so it is multiplied into the first one's kernels: the same logits
    without `width` channels at full size. The zeros at the left and top (Shi et al. 2016 with ICNR initialisation
    and blur, Aitken et al. 2017) come before the average, the last bias after it.
    """

    factor = 4

    def __init__(self, in_width: int, width: int, channels: int) -> None:
        super().__init__()
        self.width, self.channels = width, channels
        self.expand = nn.Conv2d(in_width, width * self.factor**2, kernel_size=3, padding=1)
        self.classify = nn.Conv2d(width, channels, kernel_size=1)
        self._equal_sub_kernels()

    def _equal_sub_kernels(self) -> None:
        kernels = torch.empty(self.width, *self.expand.weight.shape[1:])
        nn.init.kaiming_normal_(kernels)
        with torch.no_grad():
            self.expand.weight.copy_(kernels.repeat_interleave(self.factor**2, dim=0))

    def forward(self, low: Tensor) -> Tensor:
        """low: [B, in_width, H, W]. Returns [B, channels, 4H, 4W]."""
        mix = self.classify.weight.flatten(1)
        kernels = (mix @ self.expand.weight.reshape(self.width, -1)).reshape(-1, *self.expand.weight.shape[1:])
        assert self.expand.bias is not None
        biases = (mix @ self.expand.bias.reshape(self.width, -1)).flatten()
        fine = functional.pixel_shuffle(functional.conv2d(low, kernels, biases, padding=1), self.factor)
        assert self.classify.bias is not None
        return _blur(fine, self.factor) + self.classify.bias[:, None, None]


def _blur(fine: Tensor, width: int) -> Tensor:
    """The mean of each pixel and its neighbours to the left and above, `width` x `width`; zeros lie outside.

    Shifted sums, first down, then right: several times as fast as `avg_pool2d` on processors.
    """
    rows, columns = fine.shape[2:]
    padded = functional.pad(fine, (width - 1, 0, width - 1, 0))
    down = sum(padded[:, :, shift : shift + rows] for shift in range(1, width)) + padded[:, :, :rows]
    right = sum(down[..., shift : shift + columns] for shift in range(1, width)) + down[..., :columns]
    return right / width**2


class GuideDecoder(nn.Module):
    """Three guide stages, strides 32 to 4, and the head.

    make_layer: from a stage's index (0 is the coarsest) and width to its guide layer. deep_supervision: adds the two
    side heads on the outputs of strides 16 and 8, which no published loss uses.
    """

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        make_layer: Callable[[int, int], nn.Module],
        *,
        head_width: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        coarse = tuple(reversed(widths))
        self.guide_widths = coarse[:3]
        self.stages = nn.ModuleList(
            GuideStage(make_layer(index, coarse[index]), coarse[index], coarse[index + 1]) for index in range(3)
        )
        self.head = SubpixelHead(widths[0], head_width, channels)
        self.side_heads = nn.ModuleList()
        if deep_supervision:
            side_channels = 1 if channels <= 2 else channels
            self.side_heads.extend(nn.Conv2d(coarse[index], side_channels, kernel_size=1) for index in (1, 2))

    def forward(self, maps: Sequence[Tensor], condition: Tensor | None = None) -> Segmentation:
        """maps: four maps of strides 4, 8, 16, 32. See `GuideNetwork.forward` for what is returned."""
        size = (maps[0].shape[2] * STRIDES[0], maps[0].shape[3] * STRIDES[0])
        features, auxiliary = {}, []
        current = maps[3]
        for index, stage in enumerate(self.stages):
            current, features[f"guide{STRIDES[3 - index]}"] = stage(current, maps[2 - index], condition)
            if index < len(self.side_heads):
                side = self.side_heads[index](current)
                auxiliary.append(functional.interpolate(side, size=size, mode="bilinear", align_corners=False))
        return Segmentation(self.head(current), features, tuple(auxiliary))


class GuideNetwork(Segmentor):
    """Encoder and decoder as one segmentor; `Guided` and `Unguided` choose the guide layers.

    transposed: the weights were trained on transposed images (those of the original code were); the input is then
    transposed, and the logits and features back.
    """

    divisor = 32

    def __init__(
        self, encoder: ImageEncoder, decoder: GuideDecoder, *, in_channels: int, classes: int, transposed: bool
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.transposed = in_channels, classes, transposed
        self.encoder, self.decoder = encoder, decoder
        self.side_heads = len(decoder.side_heads)
        guides = zip((32, 16, 8), decoder.guide_widths, strict=True)
        self.taps = tuple(Tap(f"guide{stride}", width, stride) for stride, width in guides)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W], or [B, 1, H, W], which is repeated; H and W divisible by 32.

        Returns logits [B, C, H, W]; features guide32, guide16, guide8: the guide layers' outputs, the distilled
        ones; auxiliary: with deep supervision the side logits of strides 16 and 8, [B, 1, H, W] for two classes.
        Raises RecipeError for another size.
        """
        require_divisible(image, self.divisor, type(self).__name__.lower())
        if image.shape[1] != self.in_channels:
            image = image.expand(-1, self.in_channels, -1, -1)
        if self.transposed:
            image = image.transpose(2, 3)
        found = self.decoder(self.encoder(image), condition)
        if not self.transposed:
            return found
        features = {name: feature.transpose(2, 3) for name, feature in found.features.items()}
        return Segmentation(
            found.logits.transpose(2, 3), features, tuple(side.transpose(2, 3) for side in found.auxiliary)
        )
