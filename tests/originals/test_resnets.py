"""Checkpoints of FCN, U-Net and Attention U-Net of any dimensions come back as the networks they were."""

import json
from pathlib import Path

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors import zoo
from preceptor.weights import ARCHITECTURES, convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
KINDS = {
    "fcn_r18_128": ("fcn", "fcn_r18"),
    "fcn_r50_128": ("fcn", "fcn_r50"),
    "unet_r18_128": ("unet", "unet_r18"),
    "unet_r50_128": ("unet", "unet_r50"),
    "attunet_r18_128": ("attention_unet", "attention_unet"),
}


def original(case, in_channels=3, classes=4, **options):
    """A small network, and its state by the keys of a golden case."""
    torch.manual_seed(0)
    architecture, name = KINDS[case]
    facts = json.loads((GOLDEN / f"{case}.json").read_text())
    keys = [key for key, *_ in (*facts["state"], *facts["buffers"])]
    if case == "fcn_r18_128" and options.get("auxiliary"):
        keys += [key.replace("decode_head", "auxiliary_head") for key in keys if "s.0" in key and "decode" in key]
        keys += ["auxiliary_head.conv_seg.weight", "auxiliary_head.conv_seg.bias"]
    network = zoo.build(name, in_channels=in_channels, classes=classes, width=4, **options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = network.state_dict()
    named = {key: next(iter(ARCHITECTURES[architecture].rename({key: torch.zeros(())})[0])) for key in keys}
    state = {key: ours[name] for key, name in named.items() if name in ours}
    assert state.keys() == named.keys()
    assert len(state) == len(ours)
    return architecture, network.eval(), state


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("fcn_r18_128", {"auxiliary": True}),
        ("fcn_r50_128", {}),
        ("unet_r18_128", {"auxiliary": True}),
        ("unet_r50_128", {}),
        ("attunet_r18_128", {"auxiliary": True}),
    ],
)
def test_a_checkpoint_comes_back_as_the_network_it_was(case, options):
    architecture, network, state = original(case, **options)
    imported = convert(
        {"architecture." + key: tensor for key, tensor in state.items()}, architecture, deep_supervision=True
    )
    image = torch.randn(1, 3, 50, 70)
    ours, theirs = imported.network()(image), network(image)
    assert torch.equal(ours.logits, theirs.logits)
    assert len(ours.auxiliary) == len(theirs.auxiliary) == len(options)
    assert all(torch.equal(side, other) for side, other in zip(ours.auxiliary, theirs.auxiliary, strict=True))


def test_side_heads_are_left_out_unless_asked_for():
    architecture, network, state = original("unet_r18_128", auxiliary=True)
    imported = convert(state, architecture)
    assert set(imported.dropped) == {"auxiliary_head.conv_seg.weight", "auxiliary_head.conv_seg.bias"}
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(imported.network()(image).logits, network(image).logits)


def test_a_stem_for_colour_is_summed_for_grey():
    architecture, network, state = original("unet_r50_128")
    image = torch.randn(1, 1, 64, 64)
    found = convert(state, architecture, in_channels=1).network()(image).logits
    torch.testing.assert_close(found, network(image.expand(-1, 3, -1, -1)).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("case", "taken_for"), [("attunet_r18_128", "unet"), ("unet_r18_128", "fcn")])
def test_relatives_are_told_apart(case, taken_for):
    architecture, _, state = original(case, auxiliary=True)
    with pytest.raises(RecipeError, match=rf"another network[\s\S]*found: +{architecture}"):
        convert(state, taken_for)


def test_a_resnet_of_another_depth_is_refused():
    architecture, _, state = original("unet_r18_128", auxiliary=True)
    extra = {
        key.replace("layer3.1.", f"layer3.{n}."): state[key] for n in range(2, 6) for key in state if "layer3.1." in key
    }
    with pytest.raises(RecipeError, match=r"other ResNets[\s\S]*found: +ResNet 34"):
        convert({**state, **extra}, architecture)
    extra = {key: tensor for key, tensor in extra.items() if "layer3.2." in key}
    with pytest.raises(RecipeError, match=r"another depth[\s\S]*found: +3 blocks of 2 convolutions"):
        convert({**state, **extra}, architecture)
