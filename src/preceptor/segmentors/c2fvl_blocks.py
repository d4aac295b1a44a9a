"""The blocks of C2FVL: token encoders beside a U-Net, and a decoder whose skips are gated pixel by pixel.

All equal the published ones in evaluation, and cost less: what is enlarged by nearest neighbour is convolved before the
enlargement, and patches are embedded by one matrix product.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.segmentors.attention import Attention
from preceptor.segmentors.convolution import ConvNorm
from preceptor.segmentors.pixel_gate import PixelGate


class Down(nn.Sequential):
    """Max pooling by 2, then two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__(nn.MaxPool2d(2), ConvNorm(in_width, width, 3, bias=True), ConvNorm(width, width, 3, bias=True))


class Up(nn.Module):
    """Gates the skip, joins it with the enlarged deep map, then two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.vlab = PixelGate(in_width // 2)
        self.join = ConvNorm(in_width, width, 3, bias=True)
        self.refine = ConvNorm(width, width, 3, bias=True)

    def forward(self, deep: Tensor, skip: Tensor, head: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """deep: [B, in_width / 2, H / 2, W / 2]; skip: [B, in_width / 2, H, W]; head: a 1x1 convolution to K channels.

        Returns [B, width, H, W], the gated skip, and the head's answer to it, [B, K, H, W].
        """
        gated, answer = self.vlab(skip, head)
        of_skip, of_deep = self.join.conv.weight.split(skip.shape[1], dim=1)
        joined = functional.conv2d(gated, of_skip, self.join.conv.bias, padding=1)
        joined = functional.relu_(self.join.norm(joined.add_(enlarged_conv(deep, of_deep))))
        return self.refine(joined), gated, answer


def enlarged_conv(maps: Tensor, weight: Tensor) -> Tensor:
    """The 3x3 convolution, zero-padded, of `maps` [B, C, H, W] enlarged twice by nearest neighbour: [B, O, 2H, 2W].

    Each pixel of the answer sees only 2 x 2 of `maps`, so a transposed convolution, whose 4x4 kernel adds up the
    weights [O, C, 3, 3] that meet the same pixel, needs 4 multiplications where the plain one needs 9.
    """
    same = torch.eye(3, dtype=weight.dtype, device=weight.device)
    axis = (functional.pad(same, (0, 0, 0, 1)) + functional.pad(same, (0, 0, 1, 0))).flip(0)
    kernel = weight.flatten(2) @ torch.kron(axis, axis).t()
    return functional.conv_transpose2d(maps, kernel.unflatten(2, (4, 4)).transpose(0, 1), stride=2, padding=1)


class TokenEncoder(nn.Module):
    """One token for each 16 x 16 pixels of the image: patches, learned positions, one transformer block.

    before: channels of the tokens of the scale above, which half as many own ones are joined with; 0 at the first.
    patch: side of a patch in pixels of this scale. grid: rows and columns of the position table; for other images it
    is enlarged or reduced bilinearly, corners aligned. The perceptron has a second GELU after its second layer.
    """

    def __init__(
        self, width: int, before: int, patch: int, grid: tuple[int, int], *, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(torch.zeros(1, width, *grid))
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.reduce: nn.Conv1d | None = None
        if before:
            self.reduce = nn.Conv1d(width, width - before, kernel_size=3, padding=1)
            self.norm = nn.BatchNorm1d(width - before)
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.attention.in_weight, -bound, bound)  # as any linear layer's, which the original has
        nn.init.uniform_(self.attention.in_bias, -bound, bound)
        nn.init.uniform_(self.attention.out.bias, -bound, bound)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def embedded(self, maps: Tensor) -> Tensor:
        """maps: [B, C, H, W], fastest with channels last. Returns the patches with their positions: [B, C, rows,
        columns].
        """
        side, width = self.embed.kernel_size[0], maps.shape[1]
        patches = maps.permute(0, 2, 3, 1).unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
        grid = patches.shape[1:3]
        weight = self.embed.weight.permute(0, 2, 3, 1).reshape(width, -1)
        tokens = functional.linear(patches.reshape(-1, side * side * width), weight, self.embed.bias)
        patches = tokens.view(maps.shape[0], *grid, width).permute(0, 3, 1, 2)
        return patches + functional.interpolate(self.positions, size=grid, mode="bilinear", align_corners=True)

    def block(self, tokens: Tensor) -> Tensor:
        """tokens: [B, N, C]. Returns the same, after attention and perceptron."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed)
        hidden = self.dropout(functional.gelu(self.fc1(self.norm2(tokens))))
        return tokens + self.dropout(functional.gelu(self.fc2(hidden)))

    def forward(self, maps: Tensor, before: Tensor | None = None) -> Tensor:
        """maps: [B, C, H, W]; before: tokens [B, before, rows, columns]. Returns tokens [B, C, rows, columns]."""
        embedded = self.dropout(self.embedded(maps))
        tokens = self.block(embedded.flatten(2).transpose(1, 2)).transpose(1, 2)
        if self.reduce is not None:
            tokens = functional.relu(self.norm(self.reduce(tokens)))
        tokens = tokens.unflatten(2, tuple(embedded.shape[2:]))
        return tokens if before is None else torch.cat([tokens, before], dim=1)
