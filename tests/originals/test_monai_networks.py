"""Checkpoints of MedNeXt and Swin UNETR of any dimensions come back as the networks they were."""

import re

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.mednext import MedNeXt
from preceptor.segmentors.swin_unetr import SwinUNETR
from preceptor.weights import convert


def as_published(network):
    """The state of our MedNeXt under the original's names, with its helper for checkpointing."""
    state = {"dummy_tensor": torch.zeros(1)}
    for name, tensor in network.state_dict().items():
        name = re.sub(r"^enc_stages\.", "enc_block_", re.sub(r"^down_blocks\.", "down_", name))
        name = re.sub(r"^up_blocks\.(\d)", lambda m: f"up_{3 - int(m[1])}", name)
        name = re.sub(r"^dec_stages\.(\d)", lambda m: f"dec_block_{3 - int(m[1])}", name)
        state[re.sub(r"^out_blocks\.(\d)", lambda m: f"out_{4 - int(m[1])}", name)] = tensor
    return state


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "S", "kernel_size": 5, "in_channels": 3},
        {"blocks": [1, 2, 1, 1, 3, 1, 1, 2, 1], "auxiliary": True},
        {"variant": "S", "residual": False},
    ],
)
@pytest.mark.parametrize("prefix", ["", "architecture.backbone.", "module."])
def test_mednext_comes_back_as_it_was(options, prefix):
    torch.manual_seed(0)
    made = MedNeXt(**{"in_channels": 1, "classes": 5, "width": 4, **options}).eval()
    state = {prefix + name: tensor for name, tensor in as_published(made).items()}
    network = convert(state, "mednext", deep_supervision=True).network()
    image = torch.randn(1, made.in_channels, 32, 32)
    ours, theirs = network(image), made(image)
    assert torch.equal(ours.logits, theirs.logits)
    assert all(torch.equal(*pair) for pair in zip(ours.auxiliary, theirs.auxiliary, strict=True))


def test_side_heads_are_left_out_unless_asked_for():
    imported = convert(as_published(MedNeXt(1, 3, width=4, variant="S", auxiliary=True)), "mednext")
    assert not imported.network().side_heads
    assert {name.partition(".")[0] for name in imported.dropped} == {"dummy_tensor", *(f"out_{k}" for k in range(1, 5))}


def test_swin_unetr_comes_back_as_it_was_and_computes_its_indices():
    torch.manual_seed(0)
    made = SwinUNETR(2, 4, feature_size=12, depths=(1, 2, 1, 1), heads=(2, 3, 4, 6), window_size=4).eval()
    index = "swinViT.layers1.0.blocks.0.attn.relative_position_index"
    imported = convert({**made.state_dict(), index: torch.zeros(16, 16, dtype=torch.int64)}, "swin_unetr")
    assert imported.dropped == (index,)
    image = torch.randn(1, 2, 64, 32)
    assert torch.equal(imported.network()(image).logits, made(image).logits)


@pytest.mark.parametrize("architecture", ["mednext", "swin_unetr"])
def test_grey_images_are_read_by_a_stem_of_three_channels(architecture):
    if architecture == "mednext":
        state = as_published(MedNeXt(3, 2, width=4, variant="S"))
    else:
        state = SwinUNETR(3, 2, feature_size=12, depths=(1, 1, 1, 1)).state_dict()
    colour, grey = (convert(state, architecture, in_channels=channels).network() for channels in (3, 1))
    image = torch.randn(1, 1, 64, 32)
    torch.testing.assert_close(grey(image).logits, colour(image.repeat(1, 3, 1, 1)).logits, rtol=1e-4, atol=1e-4)


def test_checkpoint_of_volumes_is_refused():
    state = SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1)).state_dict()
    state["swinViT.patch_embed.proj.weight"] = torch.zeros(12, 1, 2, 2, 2)
    with pytest.raises(RecipeError, match="network for volumes"):
        convert(state, "swin_unetr")


def test_what_is_missing_is_named():
    state = as_published(MedNeXt(1, 2, width=4, variant="S"))
    with pytest.raises(RecipeError, match=r"up_blocks\.0\.conv2\.weight"):
        convert({name: tensor for name, tensor in state.items() if name != "up_3.conv2.weight"}, "mednext")
