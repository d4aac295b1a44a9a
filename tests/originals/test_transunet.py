"""A TransUNet checkpoint of any dimensions comes back as the network it was."""

import re

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.transunet import TransUNet
from preceptor.weights import convert

HYBRID = "transformer.embeddings.hybrid_model."


def original(network):
    """The state under the original's names: the position table as rows, query, key and value apart."""
    state = {}
    for name, tensor in network.state_dict().items():
        name = name.replace("encoder.stem.", HYBRID).replace(
            "encoder.patch.", "transformer.embeddings.patch_embeddings."
        )
        name = re.sub(r"^encoder\.layers\.", "transformer.encoder.layer.", name)
        name = re.sub(r"^encoder\.norm\.", "transformer.encoder.encoder_norm.", name)
        name = re.sub(r"^head\.", "segmentation_head.0.", name)
        name = name.replace("mlp_norm", "ffn_norm").replace(".fc", ".ffn.fc").replace("attention.out", "attn.out")
        if ".attention.in_" in name:
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[name.replace("attention.in_", f"attn.{part}.")] = value
        elif name == "encoder.positions":
            state["transformer.embeddings.position_embeddings"] = tensor.flatten(2).transpose(1, 2)
        else:
            state[name] = tensor
    return state


def network(**options):
    torch.manual_seed(0)
    sizes = {"stem_width": 4, "units": [2, 1, 2], "width": 128, "depth": 2, "heads": 2, "image_size": 48}
    return TransUNet(1, 5, **{**sizes, "decoder_widths": [12, 8, 8, 4, 4], **options}).eval()


@pytest.mark.parametrize("skips", [0, 2, 3])
def test_checkpoint_comes_back_as_the_network_it_was(skips):
    made = network(skips=skips)
    imported = convert({"module." + name: tensor for name, tensor in original(made).items()}, "transunet")
    image = torch.randn(1, 1, 64, 32)
    assert imported.segmentor["options"]["skips"] == skips
    assert torch.equal(imported.network()(image).logits, made(image).logits)


def test_same_weights_serve_images_of_three_channels():
    state, image = original(network()), torch.randn(1, 1, 32, 32)
    grey, colour = (convert(state, "transunet", in_channels=channels).network() for channels in (1, 3))
    assert (grey.in_channels, colour.in_channels) == (1, 3)
    torch.testing.assert_close(grey(image).logits, colour(image.repeat(1, 3, 1, 1)).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(RecipeError, match=r"encoder\.stem\.root\.conv\.weight"):
        convert(state, "transunet", in_channels=4)


def test_whole_checkpoint_is_asked_for():
    state = original(network())
    positions = "transformer.embeddings.position_embeddings"
    with pytest.raises(RecipeError, match="no square image"):
        convert({**state, positions: state[positions][:, :8]}, "transunet")
    without = {name: tensor for name, tensor in state.items() if "layer.1.attn.key" not in name}
    with pytest.raises(RecipeError, match=r"not a whole transunet[\s\S]*attn\.key"):
        convert(without, "transunet")
    with pytest.raises(RecipeError, match="holds no network of the architecture transunet"):
        convert({"head.weight": torch.zeros(1)}, "transunet")
