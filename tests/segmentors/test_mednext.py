"""MedNeXt gives the original's numbers, which MONAI's own network does not."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.mednext import VARIANTS, MedNeXt
from preceptor.weights import convert


def test_network_equals_the_original_through_the_importer(golden):
    case = golden("mednext2d_k3_64")
    imported = convert(case.state, "mednext")
    assert imported.dropped == ("dummy_tensor",)
    network = imported.network()
    with torch.no_grad():
        found = network(case.inputs["image"])
        down = network.down_blocks[0](found.features["encoder0"])
        up = network.up_blocks[0](found.features["bottleneck"])
    for ours, theirs in (("encoder0", "enc_block_0"), ("bottleneck", "bottleneck"), ("decoder0", "dec_block_0")):
        case.assert_equal(theirs, found.features[ours])
    case.assert_equal("down_0", down)
    case.assert_equal("up_3", up)
    case.assert_equal("logits", found.logits)


def test_networks_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert learnable_parameters(MedNeXt(1, 9)) == 10_447_625
        assert learnable_parameters(MedNeXt(1, 9, variant="L", kernel_size=5)) == 61_754_729


def test_library_network_alone_has_other_down_blocks():
    from monai.networks.nets.mednext import create_mednext

    with torch.device("meta"):
        theirs = create_mednext("B", spatial_dims=2, in_channels=1, out_channels=9)
        ours = MedNeXt(1, 9).state_dict()
    assert learnable_parameters(theirs) == 10_432_169
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    other = {name.rpartition(".")[0] for name, shape in shapes.items() if shape != ours[name].shape}
    assert other == {f"down_blocks.{level}.{conv}" for level in range(2) for conv in ("conv2", "conv3")}


def test_side_heads_answer_from_stride_2_to_16():
    network = MedNeXt(1, 3, width=4, blocks=[1] * 9, auxiliary=True)
    found = network(torch.randn(1, 1, 32, 64))
    assert [tuple(side.shape[1:]) for side in found.auxiliary] == [(3, 16, 32), (3, 8, 16), (3, 4, 8), (3, 2, 4)]
    assert network.side_heads == 4


def test_variant_gives_way_to_named_levels():
    with torch.device("meta"):
        named = MedNeXt(1, 2, width=4, expansion=VARIANTS["M"][0], blocks=VARIANTS["M"][1]).state_dict()
        letter = MedNeXt(1, 2, width=4, variant="M").state_dict()
    assert {name: tensor.shape for name, tensor in named.items()} == {name: t.shape for name, t in letter.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "XL"}, "no such variant"),
        ({"blocks": [2, 2]}, "nine positive whole numbers"),
        ({"expansion": [0] * 9}, "nine positive whole numbers"),
        ({"kernel_size": 4}, "must have a middle"),
        ({"width": 0}, "positive whole number"),
        ({"size": "huge"}, "no such size"),
        ({"classes": 1}, "two classes"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        MedNeXt(**options)


def test_images_whose_deepest_maps_are_pixels_are_refused():
    with pytest.raises(RecipeError, match=r"16 x 16[\s\S]*at least 32"):
        MedNeXt(1, 2, width=4, blocks=[1] * 9)(torch.randn(2, 1, 16, 16))
