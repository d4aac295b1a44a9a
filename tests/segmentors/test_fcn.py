"""FCN gives the original's numbers on both ResNets, at any image size."""

import pytest
import torch

from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.fcn import FcnR18, FcnR50
from preceptor.weights import convert


@pytest.mark.parametrize("name", ["fcn_r18_128", "fcn_r50_128"])
def test_fcn_equals_the_original_through_the_importer(golden, name):
    case = golden(name)
    imported = convert(case.state, "fcn")
    assert imported.segmentor["name"] == name.removesuffix("_128")
    assert not imported.dropped
    with torch.no_grad():
        case.assert_stages_equal(imported.network()(case.inputs["image"]))


@pytest.mark.parametrize(
    ("network", "options", "count"),
    [
        (FcnR18, {}, 12_672_233),
        (FcnR50, {}, 47_127_913),
        (FcnR50, {"auxiliary": True}, 49_490_034),
    ],
)
def test_base_networks_have_the_published_numbers_of_parameters(network, options, count):
    with torch.device("meta"):
        assert learnable_parameters(network(3, 9, **options)) == count


def test_first_block_of_a_dilated_stage_has_half_the_dilation_and_basic_blocks_dilate_once():
    backbone = FcnR18(size="tiny").backbone
    assert [block.conv1.dilation[0] for block in (*backbone.layer3, *backbone.layer4)] == [1, 2, 2, 4]
    assert {block.conv2.dilation[0] for block in (*backbone.layer3, *backbone.layer4)} == {1}
    assert [block.conv2.dilation[0] for block in FcnR50(size="tiny").backbone.layer4] == [2, 4, 4]


def test_side_head_answers_on_stage_three_at_its_stride():
    found = FcnR18(1, 5, "tiny", auxiliary=True)(torch.randn(2, 1, 50, 33))
    assert [side.shape for side in found.auxiliary] == [(2, 5, 7, 5)]
    assert found.native.shape == (2, 5, 7, 5)
    assert found.logits.shape == (2, 5, 50, 33)
