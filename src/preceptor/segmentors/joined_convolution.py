"""A 3x3 convolution over maps of several sizes, enlarged and joined, computed on the small maps as far as it can be.

Enlarging is linear and acts on each channel alone, so the channels are mixed before it: on the small grid there are
stride^2 times fewer pixels. What is left, enlarging and shifting by a pixel, is a matrix along each axis.
Source: specs of TextDiff, sections 6 and 8.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class JoinedConvolution(nn.Module):
    """conv3x3(concat(enlarged maps)) + b, padded with a zero pixel; enlarged bilinearly, corners not aligned.

    widths: channels of each map, in the order of the weight's input channels [out_width, sum(widths), 3, 3].
    """

    def __init__(self, widths: Sequence[int], out_width: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.weight = nn.Parameter(torch.empty(out_width, sum(widths), 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_width))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """maps: [B, widths[k], h_k, w_k]; size: (H, W). Returns [B, out_width, H, W]."""
        found: Tensor | None = None
        for part, weight in zip(maps, self.weight.split(self.widths, dim=1), strict=True):
            if tuple(part.shape[2:]) == tuple(size):
                one = functional.conv2d(part, weight, padding=1)
            else:
                one = _on_the_small_grid(part, weight, size)
            found = one if found is None else found + one
        assert found is not None
        return found + self.bias.view(-1, 1, 1)

    def plain(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """As the paper writes it."""
        enlarged = [functional.interpolate(part, size, mode="bilinear", align_corners=False) for part in maps]
        return functional.conv2d(torch.cat(enlarged, dim=1), self.weight, self.bias, padding=1)


def _on_the_small_grid(maps: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """maps: [B, C, h, w], weight: [O, C, 3, 3]. Returns [B, O, H, W]."""
    batch, width, rows, columns = maps.shape
    out = len(weight)
    across = _enlarging(columns, size[1], maps)
    down = _enlarging(rows, size[0], maps)
    pixels = maps.flatten(2)
    wide: Tensor | None = None
    for shift in range(3):
        kernel = weight[..., shift].transpose(1, 2).reshape(1, 3 * out, width).expand(batch, -1, -1)
        small = torch.bmm(kernel, pixels).view(batch, 3 * out, rows, columns)
        one = small @ across[shift]
        wide = one if wide is None else wide + one
    assert wide is not None
    tall = wide.reshape(batch * out, 3 * rows, size[1])
    high = down.transpose(1, 2).transpose(0, 1).reshape(1, size[0], 3 * rows).expand(batch * out, -1, -1)
    return torch.bmm(high, tall).view(batch, out, *size)


def _enlarging(length: int, size: int, like: Tensor) -> Tensor:
    """[3, length, size]: bilinear enlarging of an axis, then its pixel before, at and after each place (0 outside)."""
    rows = torch.eye(length, device=like.device)
    enlarged = functional.interpolate(rows.unsqueeze(0), size, mode="linear", align_corners=False)[0]
    padded = functional.pad(enlarged, (1, 1))
    return torch.stack([padded[:, shift : shift + size] for shift in range(3)]).to(like.dtype)
