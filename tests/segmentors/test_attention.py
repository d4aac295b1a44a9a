"""Attention equals torch's own module; positions follow the published formula."""

import math

import pytest
import torch
from torch import nn

from preceptor.segmentors.attention import Attention, sinusoid


@pytest.mark.parametrize(("heads", "same"), [(1, True), (4, False)])
def test_attention_equals_that_of_torch(heads, same):
    torch.manual_seed(0)
    ours, theirs = Attention(16, heads), nn.MultiheadAttention(16, heads, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours.load_state_dict(
        {
            "in_weight": theirs.in_proj_weight,
            "in_bias": theirs.in_proj_bias,
            "out.weight": theirs.out_proj.weight,
            "out.bias": theirs.out_proj.bias,
        }
    )
    query = torch.randn(2, 9, 16)
    key = query if same else torch.randn(2, 5, 16)
    value = torch.randn(2, key.shape[1], 16)
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value, need_weights=False)[0])


@pytest.mark.parametrize("position", [0, 1, 783, 5000])
def test_positions_follow_the_formula_beyond_the_published_table(position):
    table = sinusoid(5001, 6, torch.device("cpu"))
    expected = [wave(position / 10000 ** (2 * pair / 6)) for pair in range(3) for wave in (math.sin, math.cos)]
    torch.testing.assert_close(table[position], torch.tensor(expected), rtol=0, atol=1e-3)


def test_a_table_made_while_serving_also_serves_a_training():
    with torch.inference_mode():
        table = sinusoid(31, 10, torch.device("cpu"))
    assert not table.is_inference()
    assert sinusoid(31, 10, torch.device("cpu")) is table
