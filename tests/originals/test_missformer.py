"""MISSFormer's checkpoints: whatever their dimensions and prefix, their tensors find their places."""

import re

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.originals.missformer import official_name
from preceptor.segmentors.missformer import MISSFormer
from preceptor.weights import convert

OPTIONS = {
    "widths": [8, 16, 40, 64],
    "depths": [1, 2, 1, 1],
    "heads": [1, 2, 5, 8],
    "reductions": [4, 4, 2, 1],
    "bridge_layers": 2,
    "bridge_width": 8,
    "decoder_depth": 2,
    "expansion": 2,
}


def published(key):
    """The official name of one of our parameters."""
    up = {"0": "3", "1": "2", "2": "1", "3": "0"}
    for pattern, replacement in (
        (r"^encoder\.(\d)\.embed\.", lambda m: f"backbone.patch_embed{int(m[1]) + 1}."),
        (r"^encoder\.(\d)\.blocks\.", lambda m: f"backbone.block{int(m[1]) + 1}."),
        (r"^encoder\.(\d)\.norm\.", lambda m: f"backbone.norm{int(m[1]) + 1}."),
        (r"^bridge\.layers\.(\d)\.", lambda m: f"bridge.bridge_layer{int(m[1]) + 1}."),
        (r"(bridge_layer\d\.attn)\.reduce\.(\d)", lambda m: f"{m[1]}.scale_reduce.sr{m[2]}"),
        (r"(bridge_layer\d\.attn)\.norm", lambda m: f"{m[1]}.scale_reduce.norm"),
        (r"\.ffns\.(\d)\.", lambda m: f".mixffn{int(m[1]) + 1}."),
        (r"^expand\.(\d)\.", lambda m: f"decoder_{up[m[1]]}.layer_up."),
        (r"^decoder\.(\d)\.blocks\.(\d)\.", lambda m: f"decoder_{2 - int(m[1])}.layer_former_{int(m[2]) + 1}."),
        (r"^decoder\.(\d)\.concat", lambda m: f"decoder_{2 - int(m[1])}.concat"),
        (r"^head\.", lambda _: "decoder_0.last_layer."),
        (r"\.(mlp|mixffn\d)\.norm\.", lambda m: f".{m[1]}.norm1."),
        (r"\.dwconv\.", lambda _: ".dwconv.dwconv."),
    ):
        key = re.sub(pattern, replacement, key)
    return key


@pytest.fixture
def checkpoint():
    """(our network of unusual dimensions, its state as the official code names it, with two unused tensors)."""
    torch.manual_seed(0)
    network = MISSFormer(in_channels=3, classes=4, **OPTIONS)
    state = {published(key): tensor for key, tensor in network.state_dict().items()}
    state["decoder_0.last_layer.weight"] = state["decoder_0.last_layer.weight"][..., None, None]
    unused = {
        "decoder_3.concat_linear.weight": torch.zeros(64, 128),
        "backbone.block1.0.mlp.norm2.bias": torch.zeros(16),
    }
    return network.eval(), {**state, **unused}


def test_names_go_there_and_back():
    with torch.device("meta"):
        keys = list(MISSFormer(size="tiny").state_dict())
    assert [official_name(published(key)) for key in keys] == keys


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_dimensions_are_read_from_the_shapes(checkpoint, prefix):
    _, state = checkpoint
    imported = convert({prefix + key: tensor for key, tensor in state.items()}, "missformer")
    assert imported.segmentor["options"] == OPTIONS
    assert (imported.segmentor["in_channels"], imported.segmentor["classes"]) == (1, 4)
    assert set(imported.dropped) == {"decoder_3.concat_linear.weight", "backbone.block1.0.mlp.norm2.bias"}


def test_grey_images_give_what_the_original_gives_them_repeated(checkpoint):
    network, state = checkpoint
    image = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        expected = network(image.expand(-1, 3, -1, -1)).logits
        found = convert(state, "missformer").network()(image).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_with_a_hole_is_named(checkpoint):
    _, state = checkpoint
    del state["bridge.bridge_layer2.attn.q.weight"]
    with pytest.raises(RecipeError, match=r"missing: bridge\.layers\.1\.attn\.q\.weight"):
        convert(state, "missformer")
    del state["backbone.patch_embed3.proj.weight"]
    with pytest.raises(RecipeError, match="not a whole missformer"):
        convert(state, "missformer")
