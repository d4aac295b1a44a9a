"""TextDiff's pixel classifier transcribed line by line from its specification: the baseline of ours.

Source: specs of TextDiff, section 6. Nothing is folded: every pixel is projected to queries, and all maps are enlarged
before the decoder's first convolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class PlainAttention(nn.Module):
    """Multi-head attention of pixels to tokens, then a LayerNorm on the answer."""

    def __init__(self, width: int, text_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(text_width, inner, bias=False)
        self.to_v = nn.Linear(text_width, inner, bias=False)
        self.to_out = nn.Linear(inner, width)
        self.out_norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        """pixels: [B, N, width], text: [B, L, text_width]. Returns [B, N, width]."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(pixels), self.to_k(text), self.to_v(text))
        )
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        read = scores.softmax(dim=-1) @ value
        return self.out_norm(self.to_out(read.transpose(1, 2).flatten(2)))


class PlainBlock(nn.Module):
    """x + A1(LN(x)); x + A2(LN(x)); x + W GELU(LN(x))."""

    def __init__(self, width: int, text_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = PlainAttention(width, text_width, heads, head_width)
        self.attn2 = PlainAttention(width, text_width, heads, head_width)
        self.project = nn.Linear(width, width)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        """pixels: [B, N, width], text: [B, L, text_width]. Returns [B, N, width]."""
        pixels = pixels + self.attn1(self.norm1(pixels), text)
        pixels = pixels + self.attn2(self.norm2(pixels), text)
        return pixels + self.project(functional.gelu(self.norm(pixels)))


class PlainClassifier(nn.Module):
    """1x1 convolutions, the shared block, bilinear enlarging, joining, three convolutions."""

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        text_width: int,
        width: int = 768,
        heads: int = 8,
        head_width: int = 64,
        decoder_widths: tuple[int, int] = (128, 32),
    ) -> None:
        super().__init__()
        self.width = width
        self.down1 = nn.Conv2d(widths[0], width, 1)
        self.down2 = nn.Conv2d(widths[1], width, 1)
        self.cross = PlainBlock(width, text_width, heads, head_width)
        first, second = decoder_widths
        self.decodes = nn.Sequential(
            nn.Conv2d(width * len(widths), first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, classes, 3, padding=1),
        )

    def forward(self, maps: Sequence[Tensor], text: Tensor, size: tuple[int, int]) -> Tensor:
        """maps: [B, C_k, h_k, w_k], text: [B, L, text_width]. Returns logits [B, classes, *size]."""
        enlarged = []
        for scale, part in enumerate(maps):
            if part.shape[1] != self.width:
                part = self.down2(part) if scale else self.down1(part)
            pixels = self.cross(part.flatten(2).transpose(1, 2), text)
            part = pixels.transpose(1, 2).reshape(part.shape)
            enlarged.append(functional.interpolate(part, size, mode="bilinear", align_corners=False))
        return self.decodes(torch.cat(enlarged, dim=1))


def plain_name(key: str) -> str:
    """Of a parameter of ours the name here."""
    for own, plain in (
        ("fuse.0.attn1.norm.", "cross.norm1."),
        ("fuse.0.attn2.norm.", "cross.norm2."),
        ("fuse.0.", "cross."),
        ("reduce.0.", "down1."),
        ("reduce.1.", "down2."),
        ("join.", "decodes.0."),
        ("norm1.", "decodes.1."),
        ("refine.", "decodes.3."),
        ("norm2.", "decodes.4."),
        ("head.", "decodes.6."),
    ):
        if key.startswith(own):
            return plain + key.removeprefix(own)
    return key
