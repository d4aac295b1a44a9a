"""What the import of guided diffusion's checkpoints takes and refuses; `segmentors` shows that it is exact."""

import sys

import pytest
import torch

from preceptor import cli
from preceptor.delivery.imports import import_package
from preceptor.errors import RecipeError
from preceptor.originals.diffusion import convert_diffusion
from preceptor.segmentors.diffusion import DiffusionShape, read_diffusion


def state(width=32):
    """A checkpoint of the smallest kind: one level, one block, attention in the middle alone."""
    double, embedded = 2 * width, 4 * width
    block = {
        "in_layers.0": (width,),
        "in_layers.2": (width, width, 3, 3),
        "emb_layers.1": (double, embedded),
        "out_layers.0": (width,),
        "out_layers.3": (width, width, 3, 3),
    }
    wide = {
        **block,
        "in_layers.0": (double,),
        "in_layers.2": (width, double, 3, 3),
        "skip_connection": (width, double, 1, 1),
    }
    attention = {"norm": (width,), "qkv": (3 * width, width, 1), "proj_out": (width, width, 1)}
    shapes = {
        "time_embed.0": (embedded, width),
        "time_embed.2": (embedded, embedded),
        "input_blocks.0.0": (width, 3, 3, 3),
        "out.0": (width,),
        "out.2": (3, width, 3, 3),
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
    assert shape == convert_diffusion(state(), head_width=16)[0]  # 8 pixels at the deepest level
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
    with pytest.raises(RecipeError, match=r"not known: label_emb[\s\S]*unconditional one"):
        convert_diffusion({**whole, "label_emb.weight": torch.zeros(10, 128)}, head_width=16)
    with pytest.raises(RecipeError, match="no whole guided-diffusion U-Net"):
        convert_diffusion({"encoder.weight": torch.zeros(3)})
    with pytest.raises(RecipeError, match="no multiple of head_width"):
        convert_diffusion(whole)


def test_a_pickled_checkpoint_becomes_the_file_that_textdiff_reads(tmp_path, capsys, monkeypatch):
    torch.save(state(64), tmp_path / "uncond.pt")
    out = tmp_path / "diffusion.safetensors"
    command = ("import-weights", tmp_path / "uncond.pt", "--architecture", "diffusion", "--out", out)
    monkeypatch.setattr(sys, "argv", ["preceptor", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == str(out)
    shape, tensors = read_diffusion(out)
    expected = convert_diffusion(state(64))
    assert shape == expected[0]
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in expected[1].items())
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(RecipeError, match="no whole guided-diffusion U-Net"):
        import_package(tmp_path / "other.pt", tmp_path / "other.safetensors", "diffusion")
    assert not (tmp_path / "other.safetensors").exists()
