"""MISSFormer's enhanced transformer context bridge: the maps of all stages attend to each other.

A pixel of C channels is read as C / width consecutive tokens of the bridge's width. All token counts come from the
maps, so that every stage has its keys and values, and its own mix-FFN, at any image size.
Source: Huang et al., MISSFormer, section III-D.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.segmentors.missformer_blocks import MixFFN, Reduction, channels_first, channels_last


class BridgeAttention(nn.Module):
    """One head over the tokens of all stages; keys and values come from each stage's reduced map."""

    def __init__(self, widths: Sequence[int], width: int, reductions: Sequence[int]) -> None:
        super().__init__()
        self.width = width
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.reduce = nn.ModuleList(
            Reduction(channels, reduction) if reduction > 1 else nn.Identity()
            for channels, reduction in zip(widths, reductions, strict=True)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: each stage's [B, H, W, C], and so returned."""
        tokens = [_tokens(current, self.width) for current in maps]
        offered = [
            own if isinstance(reduce, nn.Identity) else self._across_channels(channels_first(reduce(current)))
            for own, reduce, current in zip(tokens, self.reduce, maps, strict=True)
        ]
        key, value = self.kv(self.norm(torch.cat(offered, dim=1))).chunk(2, dim=-1)
        query = self.q(torch.cat(tokens, dim=1))
        mixed = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        parts = self.proj(mixed).split([own.shape[1] for own in tokens], dim=1)
        return [part.reshape(current.shape) for part, current in zip(parts, maps, strict=True)]

    def _across_channels(self, reduced: Tensor) -> Tensor:
        """[B, k width, h, w] as [B, k h w, width], read in the order of memory, channels first, as published.

        So a token's feature c at place j is channel c k + j // (h w) of pixel j % (h w): each token gathers every k-th
        channel, where a pixel's queries are k runs of neighbouring channels.
        """
        return reduced.flatten(2).unflatten(1, (self.width, -1)).flatten(2).transpose(1, 2)


class BridgeLayer(nn.Module):
    """t + attention(LN(t)), then t + the stage's own mix-FFN of LN(t); the norms are over a token's `width` values."""

    def __init__(self, widths: Sequence[int], width: int, reductions: Sequence[int], expansion: int) -> None:
        super().__init__()
        self.width = width
        self.norm1 = nn.LayerNorm(width)
        self.attn = BridgeAttention(widths, width, reductions)
        self.norm2 = nn.LayerNorm(width)
        self.ffns = nn.ModuleList(MixFFN(channels, expansion) for channels in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: each stage's [B, H, W, C], and so returned."""
        attended = self.attn([self._normed(self.norm1, current) for current in maps])
        maps = [current + change for current, change in zip(maps, attended, strict=True)]
        return [current + ffn(self._normed(self.norm2, current)) for current, ffn in zip(maps, self.ffns, strict=True)]

    def _normed(self, norm: nn.Module, current: Tensor) -> Tensor:
        return norm(current.unflatten(3, (-1, self.width))).flatten(3)


class Bridge(nn.Module):
    """Bridge layers, one after another."""

    def __init__(
        self, widths: Sequence[int], width: int, reductions: Sequence[int], *, layers: int, expansion: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BridgeLayer(widths, width, reductions, expansion) for _ in range(layers))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: each stage's [B, C, H, W], and so returned."""
        current = [channels_last(stage) for stage in maps]
        for layer in self.layers:
            current = layer(current)
        return [channels_first(stage) for stage in current]


def _tokens(current: Tensor, width: int) -> Tensor:
    """[B, H, W, k width] as [B, H W k, width], a pixel's tokens next to each other."""
    return current.unflatten(3, (-1, width)).flatten(1, 3)
