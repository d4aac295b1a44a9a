"""U-Net gives the originals' numbers on both ResNets; what it cannot take is refused."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.unet import UNetR18, UNetR50
from preceptor.weights import convert


@pytest.mark.parametrize("name", ["unet_r18_128", "unet_r50_128"])
def test_unet_equals_the_original_through_the_importer(golden, name):
    case = golden(name)
    imported = convert(case.state, "unet", deep_supervision=True)
    assert imported.segmentor["name"] == name.removesuffix("_128")
    assert not imported.dropped
    with torch.no_grad():
        case.assert_stages_equal(imported.network()(case.inputs["image"]))


@pytest.mark.parametrize(
    ("network", "options", "count"),
    [
        (UNetR18, {}, 13_694_761),
        (UNetR18, {"auxiliary": True}, 13_697_074),
        (UNetR50, {}, 50_984_137),
    ],
)
def test_base_networks_have_the_published_numbers_of_parameters(network, options, count):
    with torch.device("meta"):
        assert learnable_parameters(network(3, 9, **options)) == count


def test_resnet_50_takes_the_options_of_resnet_18():
    with torch.device("meta"):
        network = UNetR50(3, 9, stem="v1c", dilated=True, norm="batch", convs=2, slope=0.0)
    assert round(learnable_parameters(network) / 1e6, 3) == 63.457
    assert [(tap.name, tap.channels, tap.stride) for tap in network.taps if tap.group == "decoder"] == [
        ("decoder2", 1024, 8),
        ("decoder1", 512, 8),
        ("decoder0", 256, 4),
    ]


def test_instance_norm_needs_more_than_one_position():
    network = UNetR50(size="tiny", width=4)
    with pytest.raises(RecipeError, match=r"instance norm[\s\S]*found: +32 x 17[\s\S]*above 32"):
        network(torch.randn(2, 3, 32, 17))
    assert network(torch.randn(2, 3, 33, 17)).logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "group"}, "no such normalisation"),
        ({"stem": "v1d"}, "no such stem"),
        ({"size": "huge"}, "no such size"),
        ({"width": 7}, "even number of channels"),
        ({"convs": 0}, "needs a convolution"),
        ({"classes": 1}, "two classes"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        UNetR18(**options)
