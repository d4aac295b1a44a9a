"""C2FVL's blocks give the original's numbers, and their shortcuts the plain computation's."""

import pytest
import torch
from torch.nn import functional

from preceptor.originals.c2fvl import official_name
from preceptor.segmentors.c2fvl_blocks import TokenEncoder, Up, enlarged_conv
from preceptor.segmentors.vit_weights import position_map


def load(block, case, prefix):
    """The case's tensors in the block, by the importer's names, whose first two parts name the block."""
    named = {official_name(prefix + key).split(".", 2)[2]: tensor for key, tensor in case.state.items()}
    used = {name: tensor for name, tensor in named.items() if name in block.state_dict()}
    counters = {name for name in block.state_dict() if name.endswith("num_batches_tracked")}
    if "positions" in used:
        used["positions"] = position_map(used["positions"])
    assert set(used) | counters == set(block.state_dict())
    block.load_state_dict(used, strict=not counters)
    return block.eval()


def tokens(maps):
    return maps.flatten(2).transpose(1, 2)


@torch.no_grad()
def test_up_block_equals_the_original(golden):
    case = golden("c2fvl_up")
    block = load(Up(case.config.in_channels, case.config.out_channels), case, "up1.")
    head = torch.nn.Conv2d(case.config.in_channels // 2, 1, kernel_size=1)
    found, gated, _ = block(case.inputs["deep"], case.inputs["skip"], head)
    case.assert_equal("out", found)
    case.assert_equal("gated_skip", gated)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 2])
def test_token_encoder_equals_the_original(golden, scale):
    case = golden(f"c2fvl_tokens_scale{scale}")
    width, grid = case.config.width, (case.config.image_size // case.config.patch,) * 2
    before = 0 if scale == 1 else width // 2
    block = TokenEncoder(width, before, case.config.patch, grid, heads=8, dropout=0.1)
    load(block, case, "downVit." if scale == 1 else "downVit1.")
    maps = case.inputs["features"]
    embedded = block.embedded(maps)
    case.assert_equal("embedded", tokens(embedded))
    case.assert_equal("block", block.block(tokens(embedded)))
    above = case.inputs["tokens"].transpose(1, 2).unflatten(2, grid) if scale > 1 else None
    case.assert_equal("out", tokens(block(maps, above)))


@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 7)])
def test_convolution_of_an_enlarged_map_equals_the_plain_one(size):
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 6, *size), torch.randn(4, 6, 3, 3)
    both = []
    for compute in (
        lambda x, w: enlarged_conv(x, w),
        lambda x, w: functional.conv2d(functional.interpolate(x, scale_factor=2, mode="nearest"), w, padding=1),
    ):
        given = [tensor.clone().requires_grad_() for tensor in (maps, weight)]
        answer = compute(*given)
        answer.square().sum().backward()
        both.append([answer, *(tensor.grad for tensor in given)])
    for ours, plain in zip(*both, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
