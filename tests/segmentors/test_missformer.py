"""MISSFormer gives the original's numbers at 224, and its generalisation holds at other sizes."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.missformer import MISSFormer
from preceptor.weights import convert


def tokens(feature):
    return feature.flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def original(golden):
    """The golden case of the whole network, its import, and our answer."""
    case = golden("missformer_224")
    imported = convert(case.state, "missformer")
    with torch.no_grad():
        return case, imported, imported.network()(case.inputs["image"])


def test_network_equals_the_original_through_the_importer(original):
    case, _, found = original
    case.assert_equal("logits", found.logits)
    case.assert_equal("backbone.norm4", tokens(found.features["stage4"]))
    bridge = [tokens(found.features[f"bridge{stage}"]).reshape(1, -1, 64) for stage in (1, 2, 3, 4)]
    case.assert_equal("bridge.bridge_layer4", torch.cat(bridge, dim=1))
    case.assert_equal("decoder_1.layer_former_2", tokens(found.features["block2"]))
    case.assert_equal("decoder_0.layer_up", tokens(found.features["expanded"]))


def test_base_has_the_parameters_of_the_original_that_take_part(original):
    case, imported, _ = original
    whole = sum(tensor.numel() for tensor in case.state.values())
    unused = sum(case.state[key].numel() for key in imported.dropped)
    with torch.device("meta"):
        count = learnable_parameters(MISSFormer(in_channels=3))
    assert (whole, unused, count) == (42_462_537, 7_009_792, 35_452_745)


def small(**options):
    torch.manual_seed(0)
    return MISSFormer(**{"size": "tiny", "classes": 3, "bridge_layers": 2, **options}).eval()


def maps_of(network, height, width, batch=1):
    """Random maps [B, h, w, C] of the network's four stages for an image of this size."""
    return [
        torch.randn(batch, height // tap.stride, width // tap.stride, tap.channels, requires_grad=True)
        for tap in network.taps
        if tap.group == "encoder"
    ]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 512), (512, 32)])
def test_every_pixel_of_every_stage_is_a_key_for_every_query(height, width):
    network = small()
    attention, maps = network.bridge.layers[0].attn, maps_of(network, height, width)
    tokens_of = [(current.shape[1] * current.shape[2], current.shape[3]) for current in maps]
    for answer in attention(maps):
        last_query = answer[0, -1, -1, -1]  # of the last token of this stage
        gradients = torch.autograd.grad(last_query, maps, retain_graph=True)
        for gradient, (pixels, channels) in zip(gradients, tokens_of, strict=True):
            assert gradient.reshape(pixels, channels).ne(0).all()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 512)])
def test_bridge_without_attention_keeps_the_stages_apart(height, width):
    network = small()
    layer, maps = network.bridge.layers[0], maps_of(network, height, width, batch=2)
    torch.nn.init.zeros_(layer.attn.proj.weight)
    for stage, answer in enumerate(layer(maps)):
        assert answer.shape == maps[stage].shape
        gradients = torch.autograd.grad(answer.sum(), maps, allow_unused=True, retain_graph=True)
        assert [gradient is not None and bool(gradient.any()) for gradient in gradients] == [
            other == stage for other in range(4)
        ]


def test_reduced_maps_are_read_channels_first_in_the_order_of_memory():
    """Token j's feature c is channel c k + j // (h w) of pixel j % (h w), as the official network trained it."""
    attention = small().bridge.layers[0].attn
    pixels, runs = 6, 3
    reduced = torch.arange(runs * attention.width * pixels).reshape(1, runs * attention.width, 2, 3)
    found = attention._across_channels(reduced)[0]
    expected = [
        [(c * runs + j // pixels) * pixels + j % pixels for c in range(attention.width)] for j in range(runs * pixels)
    ]
    assert found.tolist() == expected


def test_published_sizes_give_the_published_numbers_of_tokens():
    with torch.device("meta"):
        network = MISSFormer(size="tiny")
        seen = []
        network.bridge.layers[0].attn.q.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
        network.bridge.layers[0].attn.kv.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
        network(torch.empty(1, 1, 224, 224))
        network(torch.empty(1, 1, 512, 512))
    assert sorted(seen[:2]) == [784, 6076]
    assert sorted(seen[2:]) == [4096, 31744]


def test_strided_reduction_equals_the_convolution_also_in_bf16():
    reduction, current = small().encoder[0].blocks[0].attn.sr, torch.randn(2, 16, 8, 16)
    expected = torch.nn.Conv2d.forward(reduction, current.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(reduction(current), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(reduction(current).float(), expected, rtol=0.05, atol=0.05)


def test_unequal_dimensions_are_possible():
    network = small(
        widths=(8, 24, 16, 48),
        heads=(2, 1, 4, 3),
        depths=(1, 2, 1, 1),
        reductions=(4, 2, 1, 1),
        bridge_width=4,
        decoder_depth=2,
        expansion=2,
    )
    assert network.divisor == 32
    found = network(torch.randn(1, 1, 32, 64))
    assert found.logits.shape == (1, 3, 32, 64)
    assert {tap.name: tap.channels for tap in network.taps} == {k: f.shape[1] for k, f in found.features.items()}


def test_coarser_reductions_need_larger_multiples():
    network = small(reductions=(8, 8, 2, 1))
    assert network.divisor == 64
    with pytest.raises(RecipeError, match="multiples of 64"):
        network(torch.randn(1, 1, 64, 96))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "no such size"),
        ({"classes": 1}, "two classes"),
        ({"in_channels": 0}, "at least one channel"),
        ({"bridge_layers": 0}, r"bridge_layers[\s\S]*positive whole number"),
        ({"widths": [16, 32]}, "four positive whole numbers"),
        ({"reductions": [8, 4, 2, 0]}, "four positive whole numbers"),
        ({"widths": [16, 40, 80, 128]}, r"no multiple of the bridge's[\s\S]*bridge_width"),
        ({"heads": [1, 3, 5, 8]}, "not divisible by its attention heads"),
        ({"widths": [3, 9, 15, 30], "heads": [1, 1, 1, 1]}, "halves it"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        MISSFormer(**{"size": "tiny", **options})
