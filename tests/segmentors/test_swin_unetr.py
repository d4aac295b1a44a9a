"""Swin UNETR gives MONAI's numbers, and shows what MONAI computes on the way."""

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors.base import learnable_parameters
from preceptor.segmentors.swin_unetr import SwinUNETR, shift_mask
from preceptor.weights import convert


@pytest.mark.parametrize("name", ["swinunetr2d_fs24_96", "swinunetr2d_fs48_64"])
def test_network_equals_the_original_through_the_importer(golden, name):
    case = golden(name)
    network = convert(case.state, "swin_unetr").network()
    with torch.no_grad():
        found = network(case.inputs["image"])
    for feature in ("encoder1", "encoder10", "decoder3"):
        case.assert_equal(feature, found.features[feature])
    case.assert_equal("logits", found.logits)


def test_networks_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert learnable_parameters(SwinUNETR(1, 9)) == 25_138_323
        assert learnable_parameters(SwinUNETR(1, 9, "small")) == 6_302_403


@pytest.mark.parametrize("sides", [(7, 7), (8, 8), (16, 12), (5, 24), (3, 6)])
def test_mask_of_shifted_windows_is_the_library_s(sides):
    from monai.networks.nets.swin_unetr import compute_mask, get_window_size

    window, shift = get_window_size(sides, (7, 7), (3, 3))
    padded = [-(-side // length) * length for side, length in zip(sides, window, strict=True)]
    if any(shift):  # without a shift the mask is not used
        expected = compute_mask(padded, window, shift, torch.device("cpu"))
        assert torch.equal(shift_mask(sides, (7, 7), (3, 3), torch.device("cpu")), expected)
    else:
        assert not shift_mask(sides, (7, 7), (3, 3), torch.device("cpu")).any()


def test_position_indices_are_computed_not_stored():
    network = SwinUNETR(1, 2, "tiny", depths=(1, 1, 1, 1))
    assert not [name for name in network.state_dict() if "index" in name]
    assert [name for name, _ in network.named_buffers() if name.endswith("relative_position_index")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_size": 20}, "multiple of 12"),
        ({"size": "huge"}, "no such size"),
        ({"depths": [2, 2]}, "four positive whole numbers"),
        ({"heads": [5, 6, 12, 24]}, r"not divisible[\s\S]*5 heads of 48"),
        ({"window_size": 1}, "windows are too small"),
        ({"drop_path": 1.0}, "out of range"),
        ({"classes": 1}, "two classes"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        SwinUNETR(**options)


def test_images_whose_deepest_maps_are_pixels_are_refused():
    with pytest.raises(RecipeError, match=r"32 x 32[\s\S]*at least 64"):
        SwinUNETR(1, 2, "tiny", depths=(1, 1, 1, 1))(torch.randn(2, 1, 32, 32))
