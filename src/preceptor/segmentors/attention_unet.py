"""Attention U-Net on a ResNet: the deep map decides which positions of a skip are kept.

Sources: Oktay et al. 2018 (arXiv 1804.03999) and the two gates of Schlemper et al. 2019 (arXiv 1808.08114), as specs of
the segmentors, section 3.3, have them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Size
from preceptor.segmentors.convolution import enlarge
from preceptor.segmentors.resnet import Stem
from preceptor.segmentors.unet import UNet


class GridGate(nn.Module):
    """a = sigmoid(psi(ReLU(theta(skip) + phi(deep)))) at half the skip's size; returns BN(1x1(a * skip))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(width, width, kernel_size=2, stride=2, bias=False)
        self.phi = nn.Conv2d(2 * width, width, kernel_size=1)
        self.psi = nn.Conv2d(width, 1, kernel_size=1)
        self.out = nn.Sequential(nn.Conv2d(width, width, kernel_size=1), nn.BatchNorm2d(width))
        self.apply(_start)

    def forward(self, skip: Tensor, deep: Tensor) -> Tensor:
        """skip: [B, c, H, W], H and W at least 2; deep: [B, 2c, h, w]. Returns [B, c, H, W]."""
        asked = self.theta(skip)
        attention = torch.sigmoid(self.psi(functional.relu(asked + enlarge(self.phi(deep), asked))))
        return self.out(enlarge(attention, skip) * skip)


class MultiGate(nn.Module):
    """Two independent gates, joined by a 1x1 convolution, batch norm and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(GridGate(width) for _ in range(2))
        self.combine = nn.Sequential(nn.Conv2d(2 * width, width, kernel_size=1), nn.BatchNorm2d(width), nn.ReLU())
        self.combine.apply(_start)

    def forward(self, skip: Tensor, deep: Tensor) -> Tensor:
        """As `GridGate.forward`."""
        return self.combine(torch.cat([gate(skip, deep) for gate in self.gates], dim=1))


def _start(module: nn.Module) -> None:
    """Kaiming's initialisation by the inputs, as the gates were published with."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class AttentionUNet(UNet):
    """U-Net with ResNet 18 v1c at stride 8 and gated skips. 15,076,847 parameters for 3 channels and 9 classes.

    gates: 2 as published for this network, or 1. depth: of the ResNet, 18, 34 or 50. Stem, dropout, auxiliary (with
    the same loss weights), width and pretrained as in `unet.UNetR18`. Images of more than 8 pixels a side will do.
    Raises RecipeError for impossible options, StorageError for weights that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        gates: int = 2,
        depth: int = 18,
        stem: Stem = "v1c",
        dropout: float = 0.1,
        auxiliary: bool = False,
        width: int | None = None,
        pretrained: str | None = None,
    ) -> None:
        if gates not in (1, 2):
            raise RecipeError("a skip has one gate or two", where="gates", found=gates)
        super().__init__(
            in_channels,
            classes,
            size,
            depth=depth,
            stem=stem,
            dilated=True,
            norm="batch",
            convs=2,
            slope=0.0,
            dropout=dropout,
            auxiliary=auxiliary,
            width=width,
            pretrained=pretrained,
            make_gate=GridGate if gates == 1 else MultiGate,
        )
