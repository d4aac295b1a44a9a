"""Attention U-Net gives the original's numbers, and its gates let the deep map choose among a skip's positions."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.attention_unet import AttentionUNet, GridGate
from preceptor.segmentors.base import learnable_parameters
from preceptor.weights import convert


def test_attention_unet_equals_the_original_through_the_importer(golden):
    case = golden("attunet_r18_128")
    imported = convert(case.state, "attention_unet", deep_supervision=True)
    assert not imported.dropped
    with torch.no_grad():
        case.assert_stages_equal(imported.network()(case.inputs["image"]))


def test_the_base_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert learnable_parameters(AttentionUNet(3, 9, auxiliary=True)) == 15_079_160
        assert learnable_parameters(AttentionUNet(3, 9)) == 15_076_847


def test_a_gate_lets_through_what_the_deep_map_points_at():
    torch.manual_seed(0)
    gate = GridGate(4).eval()
    with torch.no_grad():
        gate.psi.weight.fill_(5.0)
        gate.psi.bias.fill_(-20.0)
        gate.theta.weight.zero_()
        gate.phi.weight.fill_(1.0)
        deep = torch.zeros(1, 8, 2, 2)
        deep[..., 0] = 1.0
        told = gate(torch.randn(1, 4, 8, 8), deep) - gate.out(torch.zeros(1, 4, 8, 8))
    assert told[..., -1].abs().max() < 1e-3
    assert told[..., 0].abs().max() > 0.1


def test_one_gate_or_two():
    with torch.device("meta"):
        counts = [learnable_parameters(AttentionUNet(3, 9, gates=gates)) for gates in (1, 2)]
    assert counts[0] < counts[1]
    with pytest.raises(RecipeError, match="one gate or two"):
        AttentionUNet(gates=3)


@pytest.mark.parametrize("depth", [34, 50])
def test_deeper_resnets_can_be_gated(depth):
    found = AttentionUNet(1, 3, "tiny", depth=depth, width=4)(torch.randn(2, 1, 40, 40))
    assert found.logits.shape == (2, 3, 40, 40)
