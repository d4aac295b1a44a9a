"""The blocks of C2FVL: token encoders beside a U-Net, and a decoder whose skips are gated pixel by pixel.

All equal the published ones in evaluation, and cost less: successive linear maps are multiplied together before they
meet an image, what is enlarged by nearest neighbour is convolved before the enlargement, and tokens stay maps.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.segmentors.attention import Attention
from preceptor.segmentors.convolution import ConvNorm


class Down(nn.Sequential):
    """Max pooling by 2, then two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__(nn.MaxPool2d(2), ConvNorm(in_width, width, 3, bias=True), ConvNorm(width, width, 3, bias=True))


class PixelGate(nn.Module):
    """VLAB: every pixel is multiplied by one number that is computed from all its channels.

    Two branches, each a 1x1 convolution and a linear layer over channels with nothing in between, hence one matrix;
    after a ReLU the mean over channels of one branch and the largest of the other are added, and a perceptron
    1 - 4 - 1 makes the number of the sum. Its hidden biases start positive: with the published start, of either sign,
    one gate in sixteen is constant and learns nothing, all its hidden units being below 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_avg = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.linear_avg = nn.Linear(width, width)
        self.conv_max = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.linear_max = nn.Linear(width, width)
        hidden = nn.Linear(1, 4)
        nn.init.uniform_(hidden.bias, 0, 1)
        self.bottleneck = nn.Sequential(hidden, nn.ReLU(), nn.Linear(4, 1))

    def branches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches before their ReLU, each [B, H, W, C] as `pixels`."""
        average = self.linear_avg.weight @ self.conv_avg.weight.flatten(1)
        largest = self.linear_max.weight @ self.conv_max.weight.flatten(1)
        return (
            functional.linear(pixels, average, self.linear_avg.bias),
            functional.linear(pixels, largest, self.linear_max.bias),
        )

    def gate(self, maps: Tensor) -> Tensor:
        """maps: [B, C, H, W], fastest with channels last. Returns [B, 1, H, W]."""
        average, largest = self.branches(maps.permute(0, 2, 3, 1))
        mean = average.relu() @ average.new_full((average.shape[3], 1), 1 / average.shape[3])  # faster than `mean`
        summed = mean + largest.max(dim=3, keepdim=True).values.relu()
        return self.bottleneck(summed).permute(0, 3, 1, 2)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [B, C, H, W]. Returns the same, gated."""
        return self.gate(maps) * maps


class Up(nn.Module):
    """Gates the skip, joins it with the enlarged deep map, then two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.vlab = PixelGate(in_width // 2)
        self.join = ConvNorm(in_width, width, 3, bias=True)
        self.refine = ConvNorm(width, width, 3, bias=True)

    def forward(self, deep: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """deep: [B, in_width / 2, H / 2, W / 2]; skip: [B, in_width / 2, H, W]. Returns [B, width, H, W] and the
        gated skip.
        """
        gated = self.vlab(skip)
        of_skip, of_deep = self.join.conv.weight.split(skip.shape[1], dim=1)
        joined = functional.conv2d(gated, of_skip, self.join.conv.bias, padding=1) + enlarged_conv(deep, of_deep)
        return self.refine(functional.relu(self.join.norm(joined))), gated


def enlarged_conv(maps: Tensor, weight: Tensor) -> Tensor:
    """The 3x3 convolution, zero-padded, of `maps` [B, C, H, W] enlarged twice by nearest neighbour: [B, O, 2H, 2W].

    Each pixel of the answer sees only 2 x 2 of `maps`, so a transposed convolution, whose 4x4 kernel adds up the
    weights [O, C, 3, 3] that meet the same pixel, needs 4 multiplications where the plain one needs 9.
    """
    kernel = functional.pad(weight, (1, 1, 1, 1))
    kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
    kernel = (kernel[:, :, :, 1:] + kernel[:, :, :, :-1]).flip(2, 3)
    return functional.conv_transpose2d(maps, kernel.transpose(0, 1), stride=2, padding=1)


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
        """maps: [B, C, H, W]. Returns the patches with their positions: [B, C, rows, columns]."""
        patches = self.embed(maps)
        grid = patches.shape[2:]
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
