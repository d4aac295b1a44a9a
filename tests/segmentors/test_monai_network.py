"""Any network of MONAI becomes a segmentor by its name, and nothing else does."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Tap, learnable_parameters
from preceptor.segmentors.monai_network import monai_network

DYNAMIC = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 4, 8]}


@pytest.mark.parametrize(
    ("network", "arguments", "divisor", "side_heads"),
    [
        ("UNet", {"channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 1}, 4, 0),
        ("AttentionUnet", {"channels": [4, 8, 8], "strides": [2, 2]}, 4, 0),
        ("BasicUNetPlusPlus", {"features": [4, 4, 4, 4, 4, 4]}, 1, 0),
        ("BasicUNetPlusPlus", {"features": [4, 4, 4, 4, 4, 4], "deep_supervision": True}, 1, 3),
        ("SegResNet", {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}, 4, 0),
        ("DynUNet", DYNAMIC, 4, 0),
        ("VNet", {}, 16, 0),
    ],
)
def test_networks_answer_with_logits_at_sizes_they_take(network, arguments, divisor, side_heads):
    made = zoo.build("monai", in_channels=2, classes=3, network=network, arguments=arguments).eval()
    assert (made.divisor, made.side_heads) == (divisor, side_heads)
    size = (48, 48 + max(divisor, 1))
    with torch.no_grad():
        found = made(torch.randn(1, 2, *size))
    assert found.logits.shape == (1, 3, *size)
    assert len(found.auxiliary) == side_heads


def test_taps_are_named_once_with_their_groups():
    made = monai_network(
        1,
        2,
        network="SegResNet",
        arguments={"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
        taps={"up": "up_layers.0", "level1": ["down_layers.1", "encoder"]},
    )
    assert made.taps == (Tap("level1", 16, 2, "encoder"), Tap("up", 8, 1, "decoder"))


def test_base_attention_unet_is_the_one_of_the_literature():
    with torch.device("meta"):
        assert learnable_parameters(monai_network(1, 9, network="AttentionUnet")) == 31_739_705


def test_name_and_arguments_are_met_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean SegResNet"):
        monai_network(network="segresnett")
    with pytest.raises(RecipeError, match=r"no such argument[\s\S]*did you mean strides"):
        monai_network(network="UNet", arguments={"stride": [2, 2]})


@pytest.mark.parametrize(
    "name", ["torch", "UNet.forward", "__builtins__", "../UNet", "ensure_tuple", "monai.networks", "HoVerNet"]
)
def test_nothing_but_a_network_s_class_is_reached(name):
    with pytest.raises(RecipeError, match="MONAI has no such segmentation network"):
        monai_network(network=name)


@pytest.mark.parametrize(
    ("network", "arguments", "size", "message"),
    [
        ("UNet", {"in_channels": 2}, "base", "given by the recipe"),
        ("UNet", {"channels": [4, 8]}, "base", r"refuses its arguments[\s\S]*strides"),
        ("DynUNet", {**DYNAMIC, "deep_supervision": True}, "base", "does not answer with logits"),
        ("FlexibleUNet", {"backbone": "resnet18", "pretrained": True}, "base", "not checked here"),
        ("DenseNet121", {}, "base", "does not answer with logits"),
        ("SegResNet", {}, "tiny", r"no dial of sizes[\s\S]*init_filters"),
        ("UNet", {}, "huge", "no such size"),
    ],
)
def test_what_cannot_be_is_refused(network, arguments, size, message):
    with pytest.raises(RecipeError, match=message):
        monai_network(1, 2, size, network=network, arguments=arguments)
