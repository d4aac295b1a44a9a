"""What a network costs: operations counted by hand, whatever the attention runs on."""

import pytest
import torch
from torch import nn

from preceptor.evaluation.cost import count_flops, measure_cost


class Attention(nn.Module):
    """Self-attention over the pixels, by one of three ways that compute the same."""

    def __init__(self, way: str, width: int = 8) -> None:
        super().__init__()
        self.way = way
        self.layer = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = image.flatten(2).transpose(1, 2)
        if self.way == "layer":
            return self.layer(tokens, tokens, tokens, need_weights=False)[0]
        if self.way == "fused":
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens


def test_a_convolution_costs_two_operations_a_multiply_add() -> None:
    found = measure_cost(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 12))
    assert found["gflops"] == pytest.approx(2 * 10 * 12 * 8 * 3 * 9 / 1e9)
    assert found["parameters"] == 3 * 8 * 9 + 8
    assert found["latency_ms"] > 0
    assert found["memory_mb"] >= 4 * (8 * 120 + found["parameters"]) / 2**20


@pytest.mark.parametrize(("way", "extra"), [("plain", 0), ("fused", 0), ("layer", 2 * 20 * 8 * (24 + 8))])
def test_attention_is_counted_whether_it_is_fused_or_not(way: str, extra: int) -> None:
    tokens, width = 20, 8
    flops = count_flops(Attention(way).eval(), torch.zeros(1, width, 4, 5))
    assert flops == 2 * 2 * tokens * tokens * width + extra


def test_a_transformer_layer_is_counted_on_its_fast_path_too() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    linear, attention = 2 * 20 * 8 * (24 + 8 + 16 + 16), 4 * 20 * 20 * 8
    assert count_flops(layer, torch.zeros(1, 20, 8)) == linear + attention
    assert torch.backends.mha.get_fastpath_enabled()
