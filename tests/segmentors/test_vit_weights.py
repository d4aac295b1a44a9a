"""Published encoder weights, Flax's and timm's: every value arrives, and what does not fit is named."""

import numpy as np
import pytest
import torch

from preceptor.errors import RecipeError, StorageError, UntrustedFileError, UserError
from preceptor.segmentors.transunet import TransUNet
from preceptor.segmentors.vit_weights import position_map, resized
from preceptor.storage import write_tensors

WIDTH, HEADS = 12, 3


def network(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"stem_width": 4, "units": [2, 1, 1], "width": WIDTH, "depth": 2, "heads": HEADS}
    return TransUNet(
        **{"in_channels": 3, "classes": 2, **sizes, "decoder_widths": [4] * 5, "image_size": 64, **options}
    )


def random_weights(seed=1, **options):
    """A network with no parameter left at a round initial value."""
    made = network(seed, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def table(made):
    """The position table with a class token: [1, 1 + N, width]."""
    rows = made.encoder.positions.flatten(2).transpose(1, 2)
    return torch.cat([torch.full((1, 1, WIDTH), 99.0), rows], dim=1)


def flax(made):
    """The encoder's weights as the public npz files hold them; written apart from the code that reads them."""
    encoder, stem = made.encoder, made.encoder.stem
    result = {"conv_root/kernel": stem.root.conv.weight.permute(2, 3, 1, 0)}

    def scale(name, norm, flat=True):
        for theirs, value in (("scale", norm.weight), ("bias", norm.bias)):
            result[f"{name}/{theirs}"] = value if flat else value.reshape(1, 1, 1, -1)

    scale("gn_root", stem.root.gn, flat=False)
    for block in (1, 2, 3):
        for unit_name, unit in getattr(stem.body, f"block{block}").named_children():
            place = f"block{block}/{unit_name}"
            for number in (1, 2, 3):
                result[f"{place}/conv{number}/kernel"] = getattr(unit, f"conv{number}").weight.permute(2, 3, 1, 0)
                scale(f"{place}/gn{number}", getattr(unit, f"gn{number}"), flat=False)
            if unit_name == "unit1":
                result[f"{place}/conv_proj/kernel"] = unit.downsample.weight.permute(2, 3, 1, 0)
                scale(f"{place}/gn_proj", unit.gn_proj, flat=False)
    result["embedding/kernel"] = encoder.patch.weight.permute(2, 3, 1, 0)
    result["embedding/bias"] = encoder.patch.bias
    result["Transformer/posembed_input/pos_embedding"] = table(made)
    for index, layer in enumerate(encoder.layers):
        place = f"Transformer/encoderblock_{index}"
        scale(f"{place}/LayerNorm_0", layer.attention_norm)
        scale(f"{place}/LayerNorm_2", layer.mlp_norm)
        attention = f"{place}/MultiHeadDotProductAttention_1"
        weights, biases = layer.attention.in_weight.split(WIDTH), layer.attention.in_bias.split(WIDTH)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            result[f"{attention}/{part}/kernel"] = weight.t().reshape(WIDTH, HEADS, WIDTH // HEADS)
            result[f"{attention}/{part}/bias"] = bias.reshape(HEADS, WIDTH // HEADS)
        result[f"{attention}/out/kernel"] = layer.attention.out.weight.t().reshape(HEADS, WIDTH // HEADS, WIDTH)
        result[f"{attention}/out/bias"] = layer.attention.out.bias
        for number, dense in enumerate((layer.fc1, layer.fc2)):
            result[f"{place}/MlpBlock_3/Dense_{number}/kernel"] = dense.weight.t()
            result[f"{place}/MlpBlock_3/Dense_{number}/bias"] = dense.bias
    scale("Transformer/encoder_norm", encoder.norm)
    result |= {"cls": torch.ones(1, 1, WIDTH), "head/kernel": torch.ones(WIDTH, 7), "pre_logits/bias": torch.ones(5)}
    return {name: tensor.detach().numpy() for name, tensor in result.items()}


def timm(made):
    """The encoder's weights under timm's names."""
    encoder, backbone = made.encoder, "patch_embed.backbone"
    parts = {f"{backbone}.stem.conv": encoder.stem.root.conv, f"{backbone}.stem.norm": encoder.stem.root.gn}
    for block in (1, 2, 3):
        for index, unit in enumerate(getattr(encoder.stem.body, f"block{block}")):
            place = f"{backbone}.stages.{block - 1}.blocks.{index}"
            for number in (1, 2, 3):
                parts[f"{place}.conv{number}"] = getattr(unit, f"conv{number}")
                parts[f"{place}.norm{number}"] = getattr(unit, f"gn{number}")
            if unit.project:
                parts |= {f"{place}.downsample.conv": unit.downsample, f"{place}.downsample.norm": unit.gn_proj}
    parts |= {"patch_embed.proj": encoder.patch, "norm": encoder.norm}
    result = {"pos_embed": table(made), "cls_token": torch.ones(1, 1, WIDTH), "head.weight": torch.ones(7, WIDTH)}
    for index, layer in enumerate(encoder.layers):
        place = f"blocks.{index}"
        parts |= {f"{place}.norm1": layer.attention_norm, f"{place}.norm2": layer.mlp_norm}
        parts |= {f"{place}.mlp.fc1": layer.fc1, f"{place}.mlp.fc2": layer.fc2}
        parts[f"{place}.attn.proj"] = layer.attention.out
        result[f"{place}.attn.qkv.weight"] = layer.attention.in_weight
        result[f"{place}.attn.qkv.bias"] = layer.attention.in_bias
    for place, module in parts.items():
        result |= {f"{place}.{name}": value for name, value in module.state_dict().items()}
    return {name: tensor.detach() for name, tensor in result.items()}


@pytest.fixture
def published():
    return random_weights()


@pytest.fixture(params=["npz", "timm", "prefixed"])
def source(request, published, tmp_path):
    """The same weights as an npz file, as a folder of safetensors, and with a wrapper's prefix."""
    if request.param == "npz":
        np.savez(tmp_path / "weights.npz", **flax(published))
        return str(tmp_path / "weights.npz")
    prefix = "timm_model." if request.param == "prefixed" else ""
    file = tmp_path / "model.safetensors"
    write_tensors(file, {prefix + name: tensor for name, tensor in timm(published).items()})
    return str(file) if prefix else str(tmp_path)


def test_every_value_of_the_encoder_arrives(published, source):
    found = network(pretrained=source)
    expected = published.encoder.state_dict()
    assert set(expected) == set(found.encoder.state_dict())
    assert all(torch.equal(value, expected[name]) for name, value in found.encoder.state_dict().items())
    fresh = network().decoder.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in found.decoder.state_dict().items())


def test_one_channel_takes_the_weights_of_three(published, source):
    grey = network(in_channels=1, pretrained=source)
    image = torch.randn(1, 1, 64, 64)
    expected = published.eval().encoder(image.repeat(1, 3, 1, 1))[2]
    torch.testing.assert_close(grey.eval().encoder(image)[2], expected, rtol=1e-3, atol=1e-4)


def test_position_table_is_resized_to_the_network_s_grid(published, source):
    found = network(image_size=[96, 32], pretrained=source).encoder.positions
    assert torch.equal(found, resized(published.encoder.positions, (6, 2)))
    corners = published.encoder.positions[..., ::3, ::3]
    torch.testing.assert_close(found[..., ::5, :], corners)


def test_class_token_is_dropped_and_a_table_without_one_kept():
    rows = torch.arange(10.0).reshape(1, 10, 1)
    assert position_map(rows).flatten().tolist() == list(range(1, 10))
    assert position_map(rows[:, 1:]).flatten().tolist() == list(range(1, 10))
    with pytest.raises(ValueError, match="no square"):
        position_map(rows[:, :8])


def test_resizing_equals_first_order_splines():
    scipy = pytest.importorskip("scipy.ndimage")
    positions = torch.randn(1, 3, 14, 14)
    expected = scipy.zoom(positions[0].permute(1, 2, 0).numpy(), (32 / 14, 20 / 14, 1), order=1)
    np.testing.assert_allclose(resized(positions, (32, 20))[0].permute(1, 2, 0), expected, atol=1e-5)


def test_other_dimensions_are_refused_by_the_file_s_names(published, source):
    wrong = r"not those of this encoder[\s\S]*does not fit patch\.weight \(24, 64, 1, 1\)"
    with pytest.raises(RecipeError, match=wrong):
        network(width=24, pretrained=source)
    with pytest.raises(RecipeError, match=r"not known: (Transformer/encoderblock_1/|blocks\.1\.)"):
        network(depth=1, pretrained=source)
    with pytest.raises(RecipeError, match=r"missing: (block2/unit2/conv1|patch_embed\.backbone\.stages\.1\.blocks\.1)"):
        network(units=[2, 2, 1], pretrained=source)
    with pytest.raises(RecipeError, match=r"3 channels serve images of 1 channel"):
        network(in_channels=4, pretrained=source)


def test_missing_and_misshapen_arrays_are_listed(published, tmp_path):
    arrays = flax(published)
    del arrays["embedding/bias"]
    attention = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
    arrays[f"{attention}/key/kernel"] = np.float32(3)
    arrays["Transformer/posembed_input/pos_embedding"] = np.zeros((1, 12, WIDTH), np.float32)
    np.savez(tmp_path / "weights.npz", **arrays)
    with pytest.raises(RecipeError) as caught:
        network(pretrained=str(tmp_path / "weights.npz"))
    faults = "\n".join(caught.value.offenders)
    assert len(caught.value.offenders) == 3
    assert "missing: embedding/bias" in faults
    assert f"{attention}/key/kernel" in faults
    assert "pos_embedding: (1, 12, 12) does not fit positions (1, 12, 4, 4)" in faults


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be had[\s\S]*npz file in Flax's layout"):
        network(pretrained=str(tmp_path / "nowhere.npz"))
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(StorageError, match="damaged"):
        network(pretrained=str(broken))
    np.savez(broken, **{"conv_root/kernel": np.array([{}], dtype=object)})
    with pytest.raises(StorageError, match="no npz file of plain arrays"):
        network(pretrained=str(broken))
    (tmp_path / "weights.pth").write_bytes(b"\x80\x02 pickle")
    with pytest.raises(UntrustedFileError):
        network(pretrained=str(tmp_path / "weights.pth"))
