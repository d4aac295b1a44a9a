"""The parts of MISSFormer: attention to a reduced map, the mix-FFN with its skip, patch embedding and expansion.

Maps are channels-last inside, [B, H, W, C]: tokens, linear layers and layer norms need no transposition, and a
convolution sees the same memory as a channels-last [B, C, H, W]. Source: Huang et al., MISSFormer, IEEE TMI 2023
(arXiv 2109.07162), sections III-B and III-C.
"""

from torch import Tensor, nn
from torch.nn import functional


def channels_first(current: Tensor) -> Tensor:
    """[B, H, W, C] seen as [B, C, H, W]; nothing is copied."""
    return current.permute(0, 3, 1, 2)


def channels_last(current: Tensor) -> Tensor:
    """[B, C, H, W] seen as [B, H, W, C]; nothing is copied."""
    return current.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Overlapping patches: a strided convolution, then LayerNorm over the channels."""

    def __init__(self, in_width: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_width, width, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, in_width, H, W]. Returns [B, H / stride, W / stride, width]."""
        return self.norm(channels_last(self.proj(current)))


class PatchExpand(nn.Module):
    """The inverse of patching: a linear layer without bias, each pixel laid out as factor x factor, LayerNorm."""

    def __init__(self, in_width: int, width: int, factor: int) -> None:
        super().__init__()
        self.width, self.factor = width, factor
        self.expand = nn.Linear(in_width, factor**2 * width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, H, W, in_width]. Returns [B, factor H, factor W, width]."""
        cells = self.expand(current).unflatten(3, (self.factor, self.factor, self.width))
        return self.norm(cells.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class Reduction(nn.Conv2d):
    """A convolution whose kernel is its stride, as a matrix product over the patches of a channels-last map.

    oneDNN's bf16 kernel for it gives wrong numbers where the channels are few (torch 2.13: 24 or fewer, side 4 or 8).
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__(width, width, reduction, stride=reduction)
        self.reduction = reduction

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, H, W, width], sides multiples of the reduction. Returns [B, H / r, W / r, width]."""
        side = self.reduction
        patches = current.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3)
        return functional.linear(patches, channels_last(self.weight).flatten(1), self.bias)


class ReducedAttention(nn.Module):
    """Self-attention whose keys and values come from the map reduced by a strided convolution and LayerNorm."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = Reduction(width, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, H, W, width], H and W multiples of the reduction; and so returned."""
        source = current
        if self.reduction > 1:
            source = self.norm(self.sr(current))
        key, value = self.kv(source.flatten(1, 2)).chunk(2, dim=-1)
        query = self._split(self.q(current.flatten(1, 2)))
        mixed = functional.scaled_dot_product_attention(query, self._split(key), self._split(value))
        return self.proj(mixed.transpose(1, 2).flatten(2)).view_as(current)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """fc2(GELU(LN(u + depthwise3x3(u)))), u = fc1(x): the "enhanced mix" block with its skip.

    The skip is one added to the middle of each depthwise kernel, which saves a pass over the widest map.
    """

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, H, W, width], and so returned."""
        wide = self.fc1(current)
        weight = self.dwconv.weight
        kernel = weight + functional.pad(weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
        mixed = functional.conv2d(channels_first(wide), kernel, self.dwconv.bias, padding=1, groups=self.dwconv.groups)
        return self.fc2(functional.gelu(self.norm(channels_last(mixed))))


class TransformerBlock(nn.Module):
    """x + attention(LN(x)), then x + mix-FFN(LN(x))."""

    def __init__(self, width: int, heads: int, reduction: int, expansion: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = ReducedAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MixFFN(width, expansion)

    def forward(self, current: Tensor) -> Tensor:
        """current: [B, H, W, width], and so returned."""
        current = current + self.attn(self.norm1(current))
        return current + self.mlp(self.norm2(current))
