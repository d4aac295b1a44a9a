"""The convolutional stem of hybrid vision transformers: a ResNetV2 without its last stage, at stride 16.

Source: Kolesnikov et al. 2020 (BiT: group norms and weight standardisation, Qiao et al. 2019), as Dosovitskiy et al.
2021 put it before ViT-B/16 and Chen et al. 2021 (TransUNet, arXiv 2102.04306) use it: its units are called
pre-activation, but normalise and rectify after each convolution.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class StandardisedConv(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1 at every forward pass, in float32; no bias.

    repeated: the kernels read an image of one channel as if it were repeated to theirs. They are summed after they
    were standardised; a sum taken before would have another variance.
    """

    def __init__(self, in_width: int, width: int, side: int, *, stride: int = 1, repeated: bool = False) -> None:
        super().__init__(in_width, width, kernel_size=side, stride=stride, padding=side // 2, bias=False)
        self.repeated = repeated

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, in_width, H, W], or [B, 1, H, W] where repeated."""
        kernels = standardised(self.weight)
        if self.repeated:
            kernels = kernels.sum(dim=1, keepdim=True)
        return functional.conv2d(current, kernels, None, self.stride, self.padding)


def standardised(kernels: Tensor, eps: float = 1e-5) -> Tensor:
    """[O, I, h, w] less the mean of each of the O kernels, over the root of its (biased) variance and eps."""
    exact = kernels if kernels.dtype == torch.float64 else kernels.float()
    return functional.layer_norm(exact, exact.shape[1:], eps=eps).to(kernels.dtype)


class Norm(nn.GroupNorm):
    """A group norm that also takes groups of one value, as the smallest images give; nn.GroupNorm refuses them.

    Computed on plain contiguous maps: on processors its channels-last gradient takes several times as long, and on
    graphics cards it makes them contiguous itself.
    """

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, C, H, W], and so returned."""
        return torch.group_norm(current.contiguous(), self.num_groups, self.weight, self.bias, self.eps)


def norm(width: int) -> Norm:
    """32 groups as published; the largest number that fits where 32 do not divide the width."""
    return Norm(math.gcd(32, width), width, eps=1e-6)


class Unit(nn.Module):
    """A bottleneck: 1x1, 3x3 (with the stride) and 1x1 convolution, each normalised, and a shortcut.

    project: the shortcut is a 1x1 convolution, normalised channel by channel; otherwise the input itself.
    """

    def __init__(self, in_width: int, width: int, *, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(in_width, width, 1)
        self.gn1 = norm(width)
        self.conv2 = StandardisedConv(width, width, 3, stride=stride)
        self.gn2 = norm(width)
        self.conv3 = StandardisedConv(width, 4 * width, 1)
        self.gn3 = norm(4 * width)
        self.project = project
        if project:
            self.downsample = StandardisedConv(in_width, 4 * width, 1, stride=stride)
            self.gn_proj = Norm(4 * width, 4 * width, eps=1e-5)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, in_width, H, W]. Returns [B, 4 * width, H / stride, W / stride], sides rounded up."""
        shortcut = self.gn_proj(self.downsample(current)) if self.project else current
        changed = functional.relu(self.gn1(self.conv1(current)), inplace=True)
        changed = functional.relu(self.gn2(self.conv2(changed)), inplace=True)
        return functional.relu(self.gn3(self.conv3(changed)) + shortcut, inplace=True)


class HybridStem(nn.Module):
    """A 7x7 convolution of stride 2, an unpadded max-pool, and three stages of units at strides 4, 8 and 16.

    width: of the first convolution; the stages give 4, 8 and 16 times as many channels. units: of each stage.
    An image of one channel is read as if repeated to three, so that weights for three channels fit unchanged.
    """

    def __init__(self, in_channels: int, width: int, units: Sequence[int]) -> None:
        super().__init__()
        self.root = nn.Sequential(
            OrderedDict(
                conv=StandardisedConv(
                    3 if in_channels == 1 else in_channels, width, 7, stride=2, repeated=in_channels == 1
                ),
                gn=norm(width),
                relu=nn.ReLU(inplace=True),
            )
        )
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0)
        self.widths = (width, 4 * width, 8 * width, 16 * width)
        self.body = nn.Sequential(
            OrderedDict(
                (f"block{stage}", _stage(self.widths[stage - 1], 2 ** (stage - 1) * width, units[stage - 1], stage))
                for stage in (1, 2, 3)
            )
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: [B, in_channels, H, W], sides multiples of 16.

        Returns the root's map (stride 2) and those of the stages. For want of padding in the max-pool the first
        stage's sides are H / 4 - 1 and W / 4 - 1; the others are H / 8, W / 8 and H / 16, W / 16.
        """
        maps = [self.root(image)]
        current = self.pool(maps[0])
        for stage in self.body:
            current = stage(current)
            maps.append(current)
        return maps


def _stage(in_width: int, width: int, units: int, stage: int) -> nn.Sequential:
    first = Unit(in_width, width, stride=1 if stage == 1 else 2, project=True)
    others = (Unit(4 * width, width, stride=1, project=False) for _ in range(units - 1))
    return nn.Sequential(OrderedDict((f"unit{index}", unit) for index, unit in enumerate((first, *others), start=1)))
