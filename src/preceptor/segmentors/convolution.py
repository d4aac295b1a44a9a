"""Convolution, normalisation and activation as the ResNet segmentors stack them, and how they start."""

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError

Norm = Literal["batch", "instance"]


def normalisation(norm: Norm, width: int) -> nn.Module:
    """Batch normalisation, or instance normalisation without parameters and running statistics."""
    return nn.BatchNorm2d(width) if norm == "batch" else nn.InstanceNorm2d(width)


def check_norm(norm: str) -> None:
    """Raise RecipeError for an unknown normalisation."""
    if norm not in get_args(Norm):
        raise RecipeError(
            "there is no such normalisation", where="norm", found=norm, expected=", ".join(get_args(Norm))
        )


class ConvNorm(nn.Module):
    """A k x k convolution of stride 1 that keeps the size, normalisation, and ReLU (leaky with `slope` > 0)."""

    def __init__(
        self, in_width: int, width: int, kernel: int, *, norm: Norm = "batch", bias: bool = False, slope: float = 0.0
    ) -> None:
        super().__init__()
        self.slope = slope
        self.conv = nn.Conv2d(in_width, width, kernel, padding=kernel // 2, bias=bias)
        self.norm = normalisation(norm, width)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [B, in_width, H, W]. Returns [B, width, H, W]."""
        maps = self.norm(self.conv(maps))  # no one else has it, so the activation may overwrite it
        return functional.leaky_relu_(maps, self.slope) if self.slope else functional.relu_(maps)


class PixelHead(nn.Module):
    """Dropout of whole channels, then a 1x1 convolution to one logit a class."""

    def __init__(self, in_width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(in_width, classes, kernel_size=1)
        kaiming(self.classify)
        nn.init.normal_(self.classify.weight, std=0.01)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [B, in_width, H, W]. Returns logits [B, classes, H, W]."""
        return self.classify(self.dropout(maps))


def kaiming(module: nn.Module) -> None:
    """Start a convolution as He et al. 2015 do, by its outputs, its bias at 0; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def enlarge(maps: Tensor, like: Tensor) -> Tensor:
    """`maps` [B, C, h, w] at the height and width of `like`, bilinear, corners not aligned."""
    return functional.interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)
