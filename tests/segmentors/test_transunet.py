"""TransUNet gives the original's numbers, for one channel and three, and takes images of any grid."""

import pytest
import torch
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.transunet import TransUNet
from preceptor.weights import convert

CASE = "transunet_r50_vitb16_224"


def small(**options):
    torch.manual_seed(0)
    return TransUNet(**{"in_channels": 1, "classes": 3, "size": "tiny", "image_size": 64, **options}).eval()


def as_tokens(feature):
    return feature.flatten(2).transpose(1, 2)


def test_network_equals_the_original_through_the_importer(golden):
    case = golden(CASE)
    imported = convert(case.state, "transunet")
    assert not imported.dropped
    network = imported.network()
    seen = {}
    encoder = network.encoder
    encoder.layers[0].register_forward_pre_hook(lambda _, given: seen.update(embedded=given[0]))
    encoder.layers[0].register_forward_hook(lambda _, given, found: seen.update(first=found))
    encoder.norm.register_forward_hook(lambda _, given, found: seen.update(normed=found))
    image = case.inputs["image"]
    with torch.no_grad():
        found = network(image)
    features = found.features
    hybrid = "transformer.embeddings.hybrid_model"
    case.assert_equal(f"{hybrid}.root", features["root"])
    case.assert_equal(f"{hybrid}.body.block1", features["block1"][..., :55, :55].contiguous())
    case.assert_equal(f"{hybrid}.body.block3", features["block3"])
    case.assert_equal("transformer.embeddings", seen["embedded"])
    case.assert_equal("transformer.encoder.layer.0", seen["first"])
    case.assert_equal("transformer.encoder.layer.11", as_tokens(features["vit4"]))
    case.assert_equal("transformer.encoder.encoder_norm", seen["normed"])
    case.assert_equal("decoder.conv_more", features["conv_more"])
    case.assert_equal("decoder.blocks.2", features["decoder3"])
    case.assert_equal("logits", found.logits)
    assert not features["block1"][..., 55:, :].any()
    assert not features["block1"][..., 55:].any()
    colour = convert(case.state, "transunet", in_channels=3).network()
    with torch.no_grad():
        case.assert_equal("logits", colour(image.repeat(1, 3, 1, 1)).logits)


def test_base_has_the_published_numbers_of_parameters():
    with torch.device("meta"):
        network = TransUNet(1, 9)
        assert learnable_parameters(TransUNet(1, 9, image_size=512)) == 105_912_985
    parts = (network.encoder.stem, network.encoder.patch, network.encoder.layers, network.encoder.norm, network.decoder)
    assert [learnable_parameters(part) for part in parts] == [11_894_848, 787_200, 85_054_464, 1_536, 7_387_200]
    assert learnable_parameters(network) == 105_277_081


def test_one_channel_is_read_as_if_repeated_to_three():
    grey, colour = small(), small(in_channels=3)
    colour.load_state_dict(grey.state_dict())
    image = torch.randn(2, 1, 32, 48)
    torch.testing.assert_close(grey(image).logits, colour(image.repeat(1, 3, 1, 1)).logits, rtol=1e-4, atol=1e-5)


def test_positions_follow_the_image_with_corners_aligned():
    network = small(image_size=[64, 96])
    assert network.encoder.positions.shape == (1, 96, 4, 6)
    table = network.encoder.positions.detach()
    torch.nn.init.zeros_(network.encoder.patch.weight)
    torch.nn.init.zeros_(network.encoder.patch.bias)
    seen = {}
    network.encoder.layers[0].register_forward_pre_hook(lambda _, given: seen.update(tokens=given[0]))
    network(torch.randn(1, 1, 64, 96))
    assert torch.equal(seen["tokens"], as_tokens(table))
    network(torch.randn(1, 1, 112, 32))
    expected = functional.interpolate(table, size=(7, 2), mode="bilinear", align_corners=True)
    torch.testing.assert_close(seen["tokens"], as_tokens(expected))
    torch.testing.assert_close(seen["tokens"][0, [0, 13]], table[0, :, [0, 3], [0, 5]].T)


def test_smallest_image_is_one_token():
    found = small()(torch.randn(1, 1, 16, 16))
    assert found.logits.shape == (1, 3, 16, 16)
    assert found.logits.isfinite().all()


def test_dropout_acts_in_training_alone():
    network, image = small(dropout=0.5), torch.randn(1, 1, 32, 32)
    assert torch.equal(network(image).features["vit4"], network(image).features["vit4"])
    network.train()
    assert not torch.equal(network(image).features["vit4"], network(image).features["vit4"])
    still = small(dropout=0.0).train()
    assert torch.equal(still(image).features["vit4"], still(image).features["vit4"])


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_fewer_skips_start_from_the_deepest(skips):
    network = small(skips=skips)
    joined = [block.conv1[0].in_channels for block in network.decoder.blocks]
    assert joined == [64 + 128 * (skips > 0), 64 + 64 * (skips > 1), 32, 16]
    assert network(torch.randn(1, 1, 32, 32)).logits.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(1, {"vit4": 1}), (2, {"vit2": 1, "vit4": 2}), (12, {"vit1": 3, "vit2": 6, "vit3": 9, "vit4": 12})],
)
def test_transformer_is_tapped_at_each_quarter(depth, expected):
    with torch.device("meta"):
        network = TransUNet(size="tiny", depth=depth)
    assert network.quarters == expected
    assert [tap.name for tap in network.taps if tap.name.startswith("vit")] == list(expected)


def test_options_are_copied():
    units, widths = [1, 2, 1], [32, 32, 16, 16, 8]
    small(units=units, decoder_widths=widths)
    assert (units, widths) == ([1, 2, 1], [32, 32, 16, 16, 8])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "no such size"),
        ({"classes": 1}, "two classes"),
        ({"image_size": 100}, "multiple of 16"),
        ({"image_size": [64, 64, 64]}, "multiple of 16"),
        ({"units": [1, 1]}, "units: positive whole numbers are needed: 3 of them"),
        ({"stem_width": [16]}, "stem_width: positive whole numbers"),
        ({"decoder_widths": [8, 8, 8, 8, 0]}, "decoder_widths: positive whole numbers are needed: 5"),
        ({"heads": 5}, "not divisible by its heads"),
        ({"skips": 4}, "three maps to skip with"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        small(**options)
