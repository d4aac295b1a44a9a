"""Attention over image tokens, and the fixed sinusoid that tells it where a token lies."""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def sinusoid(length: int, width: int, device: torch.device) -> Tensor:
    """The position table [length, width]: sin(p / 10000^(2i/width)) on channel 2i, the cosine on channel 2i + 1.

    Source: Vaswani et al. 2017, section 3.5.
    Kept for the sizes met last; computed anew while a graph is traced, so that the graph holds for any length.
    """
    if torch.compiler.is_compiling():
        return _sinusoid(length, width, device)
    return _kept_sinusoid(length, width, device)


def _sinusoid(length: int, width: int, device: torch.device) -> Tensor:
    pairs = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    rates = torch.exp(pairs * (-math.log(10000.0) / width))
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


@functools.lru_cache(maxsize=24)
def _kept_sinusoid(length: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a table made while serving must also serve a training
        return _sinusoid(length, width, device)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with biases and no dropout.

    The same mathematics and initialisation as `nn.MultiheadAttention`; one matrix product serves all that come from
    the same tokens, and nothing is copied between batch and token order.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.in_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query: [B, N, width]; key and value: [B, M, width]. Returns [B, N, width]."""
        to_query, to_key, to_value = self.in_weight.split(self.width)
        query_bias, key_bias, value_bias = self.in_bias.split(self.width)
        if query is key and key is value:
            asked, offered, given = functional.linear(query, self.in_weight, self.in_bias).split(self.width, dim=-1)
            return self._mix(asked, offered, given)
        if query is key:
            both = functional.linear(query, self.in_weight[: 2 * self.width], self.in_bias[: 2 * self.width])
            asked, offered = both.split(self.width, dim=-1)
        else:
            asked = functional.linear(query, to_query, query_bias)
            offered = functional.linear(key, to_key, key_bias)
        given = functional.linear(value, to_value, value_bias)
        return self._mix(asked, offered, given)

    def _mix(self, asked: Tensor, offered: Tensor, given: Tensor) -> Tensor:
        mixed = functional.scaled_dot_product_attention(self._split(asked), self._split(offered), self._split(given))
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, self.width // self.heads)).transpose(1, 2)
