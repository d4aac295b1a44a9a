"""Cross-attention from pixels to a report's tokens as TextDiff's classifier has it, computed on few numbers a pixel.

A report has few tokens, so its keys and values are multiplied by the projections of queries and answers first: a pixel
then meets heads * length rows in place of two projections, and the normalisation of the answer needs only the moments
of those rows. All of it is equal to the plain path but for rounding. Source: specs of TextDiff, sections 6 and 8.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TextAttention(nn.Module):
    """x + LN(attention(LN(x), report) W + b): multi-head, padding tokens attended, projections in without bias.

    width: of the pixels; text_width: of the report's tokens; head_width: channels of each head.
    """

    def __init__(self, width: int, text_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_k = nn.Linear(text_width, heads * head_width, bias=False)
        self.to_v = nn.Linear(text_width, heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width)
        self.out_norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        """pixels: [B, N, width], text: [B, length, text_width]. Returns [B, N, width]."""
        few = self.heads * text.shape[1] <= self.heads * self.head_width
        return self.folded(pixels, text) if few else self.plain(pixels, text)

    def plain(self, pixels: Tensor, text: Tensor) -> Tensor:
        """As the paper writes it."""
        query = self._split(self.to_q(self.norm(pixels)))
        key, value = self._split(self.to_k(text)), self._split(self.to_v(text))
        read = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return pixels + self.out_norm(self.to_out(read))

    def folded(self, pixels: Tensor, text: Tensor) -> Tensor:
        """The same with the report's tokens multiplied by the projections."""
        rows, constant = self.asked(text)
        normal = functional.layer_norm(pixels, pixels.shape[2:], eps=self.norm.eps)
        scores = normal @ rows.transpose(1, 2) + constant
        share = scores.unflatten(2, (self.heads, -1)).softmax(dim=-1).flatten(2)
        answers = self.answered(text)
        moments = answers @ answers.transpose(1, 2) / answers.shape[2]
        variance = ((share @ moments) * share).sum(dim=2, keepdim=True).clamp_min(0)
        share = share * torch.rsqrt(variance + self.out_norm.eps)
        ones = share.new_ones(()).expand(*share.shape[:2], 1)
        shift = self.out_norm.bias.expand(answers.shape[0], 1, -1)
        return _plus(pixels, torch.cat([share, ones], 2), torch.cat([answers * self.out_norm.weight, shift], 1))

    def asked(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """What a normalised pixel is multiplied with, and what is added, for its scores.

        Returns [B, heads * length, width] and [B, 1, heads * length].
        """
        key = self._split(self.to_k(text)) * self.head_width**-0.5
        rows = (key @ self.to_q.weight.unflatten(0, (self.heads, self.head_width))).flatten(1, 2)
        return rows * self.norm.weight, (rows @ self.norm.bias).unsqueeze(1)

    def answered(self, text: Tensor) -> Tensor:
        """What each token of each head adds to the answer, less its mean over the channels: [B, heads * length, width].

        The shares of a head's tokens sum to 1, so each token carries its part of the bias.
        """
        value = self._split(self.to_v(text))
        out = self.to_out.weight.unflatten(1, (self.heads, self.head_width)).permute(1, 2, 0)
        answers = (value @ out).flatten(1, 2) + self.to_out.bias / self.heads
        return answers - answers.mean(dim=2, keepdim=True)

    def _split(self, tokens: Tensor) -> Tensor:
        """[B, L, heads * head_width] -> [B, heads, L, head_width]."""
        return tokens.unflatten(2, (self.heads, self.head_width)).transpose(1, 2)


class TextBlock(nn.Module):
    """Two readings of the report, then x + W GELU(LN(x)) + b: TextDiff's fusion block."""

    def __init__(self, width: int, text_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.attn1 = TextAttention(width, text_width, heads, head_width)
        self.attn2 = TextAttention(width, text_width, heads, head_width)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        """pixels: [B, N, width], text: [B, length, text_width]. Returns [B, N, width]."""
        return self.feed(self.attn2(self.attn1(pixels, text), text))

    def feed(self, pixels: Tensor) -> Tensor:
        """The part after both readings, a pixel at a time."""
        return pixels + self.project(functional.gelu(self.norm(pixels)))


class TextMean(nn.Module):
    """W [x; mean token] + b: the ablation that joins the report's mean to every pixel."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Linear(width + text_width, width)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        """pixels: [B, N, width], text: [B, length, text_width]. Returns [B, N, width]."""
        own, others = self.mix.weight.split([self.width, self.mix.in_features - self.width], dim=1)
        return functional.linear(pixels, own) + functional.linear(text.mean(1, keepdim=True), others, self.mix.bias)


def _plus(pixels: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """pixels + left @ right; in one pass where autocast would not round `pixels` for it."""
    if torch.is_autocast_enabled(pixels.device.type):
        return pixels + left @ right
    return torch.baddbmm(pixels, left, right)
