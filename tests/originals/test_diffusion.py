"""What the converter of guided diffusion's checkpoints refuses; that it is exact is shown with the network itself."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.originals.diffusion import convert_diffusion
from preceptor.segmentors.diffusion import DiffusionShape


def state():
    """A checkpoint of the smallest kind: one level, one block, attention in the middle alone."""
    block = {
        "in_layers.0": (32,),
        "in_layers.2": (32, 32, 3, 3),
        "emb_layers.1": (64, 128),
        "out_layers.0": (32,),
        "out_layers.3": (32, 32, 3, 3),
    }
    wide = {**block, "in_layers.0": (64,), "in_layers.2": (32, 64, 3, 3), "skip_connection": (32, 64, 1, 1)}
    attention = {"norm": (32,), "qkv": (96, 32, 1), "proj_out": (32, 32, 1)}
    shapes = {
        "time_embed.0": (128, 32),
        "time_embed.2": (128, 128),
        "input_blocks.0.0": (32, 3, 3, 3),
        "out.0": (32,),
        "out.2": (3, 32, 3, 3),
    }
    places = {"input_blocks.1.0": block, "middle_block.0": block, "middle_block.1": attention, "middle_block.2": block}
    places |= {"output_blocks.0.0": wide, "output_blocks.1.0": wide}
    shapes |= {f"{place}.{part}": shape for place, parts in places.items() for part, shape in parts.items()}
    torch.manual_seed(0)
    return {
        f"{name}.{kind}": torch.randn(shape if kind == "weight" else shape[:1])
        for name, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def test_shape_is_read_from_the_tensors():
    shape, tensors = convert_diffusion(state(), image_size=8, head_width=16)
    assert shape == DiffusionShape(8, widths=(32,), layers=1, attention=(), head_width=16, learn_sigma=False)
    assert "up_blocks.0.resnets.1.conv_shortcut.weight" in tensors


def test_rows_of_the_joined_projection_belong_to_a_head_each():
    given = state()
    query = convert_diffusion(given, image_size=8, head_width=16)[1]["mid_block.attentions.0.to_q.weight"]
    rows = given["middle_block.1.qkv.weight"].squeeze(-1)
    assert torch.equal(query, torch.cat([rows[0:16], rows[48:64]]))


def test_other_networks_and_parts_are_refused():
    whole = state()
    with pytest.raises(RecipeError, match="missing: conv_in"):
        convert_diffusion({key: whole[key] for key in whole if key != "input_blocks.0.0.bias"}, head_width=16)
    with pytest.raises(RecipeError, match="not known: label_emb"):
        convert_diffusion({**whole, "label_emb.weight": torch.zeros(10, 128)}, head_width=16)
    with pytest.raises(RecipeError, match="no whole guided-diffusion U-Net"):
        convert_diffusion({"encoder.weight": torch.zeros(3)})
    with pytest.raises(RecipeError, match="no multiple of head_width"):
        convert_diffusion(whole)
