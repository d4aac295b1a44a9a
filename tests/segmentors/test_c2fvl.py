"""C2FVL gives the original's numbers at 224; unknown attributes change nothing; other sizes and classes hold."""

import pytest
import torch
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Condition, learnable_parameters
from preceptor.segmentors.c2fvl import C2FVL, C2FVLFree, attribute_gain, cosine_alignment
from preceptor.weights import convert

EIGHT = Condition("attributes", 1, 8)
UNKNOWN = float("nan")


@pytest.fixture(scope="module")
def original(golden):
    """The golden case of the whole network, its import, and our answer with what the rebuilt skips were."""
    case = golden("c2fvl_224")
    imported = convert(case.state, "c2fvl")
    network = imported.network()
    seen = {}
    for place in range(4):
        network.tokens[place].register_forward_hook(lambda _, __, y, place=place: seen.update({f"y{place + 1}": y}))
        network.rebuild[place].register_forward_hook(lambda _, __, r, place=place: seen.update({f"r{place + 1}": r}))
    with torch.no_grad():
        return case, imported, network(case.inputs["image"], case.inputs["attributes"].squeeze(1)), seen


def test_network_equals_the_original_through_the_importer(original):
    case, _, found, _ = original
    case.assert_equal("probability", found.logits.sigmoid())
    for number, aligned in enumerate(found.aligned, start=1):
        case.assert_equal(f"p{number}", aligned)


def test_every_part_equals_the_original(original):
    case, _, found, seen = original
    for number in range(1, 6):
        case.assert_equal(f"x{number}", found.features[f"stage{number}"])
    for number, factor in zip(range(1, 5), (16, 8, 4, 2), strict=True):
        case.assert_equal(f"y{number}", seen[f"y{number}"].flatten(2).transpose(1, 2))
        case.assert_equal(f"r{number}", functional.interpolate(seen[f"r{number}"], scale_factor=factor))
        case.assert_equal(f"d{number}", found.features[f"decoder{number}"])


def test_base_has_the_parameters_of_the_original_that_take_part(original):
    case, imported, *_ = original
    assert set(imported.dropped) == case.unused
    with torch.device("meta"):
        counts = [learnable_parameters(network) for network in (C2FVL(condition=EIGHT), C2FVLFree())]
    assert counts == [24_196_088, 24_196_088]


def small(kind=C2FVL, **options):
    torch.manual_seed(0)
    condition = {"condition": EIGHT} if kind is C2FVL else {}
    return kind(**{"width": 8, "image_size": 32, **condition, **options}).eval()


@pytest.mark.parametrize("gate", ["raw", "affine"])
def test_unknown_attributes_answer_as_the_network_without_text(gate):
    network, free = small(gate=gate), small(C2FVLFree)
    free.load_state_dict(network.state_dict())
    image = torch.randn(2, 3, 48, 32)
    found, expected = network(image, torch.full((2, 8), UNKNOWN)), free(image)
    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(a, b) for a, b in zip(found.aligned, expected.aligned, strict=True))


def test_one_unknown_attribute_leaves_the_others_as_they_are():
    values = torch.tensor([[1.0, UNKNOWN, 0, 1, 0, 1, 1, 0]])
    assert attribute_gain(values, "raw").tolist() == [[1, 1, 0, 1, 0, 1, 1, 0]]
    assert attribute_gain(values, "affine").tolist() == [[1.5, 1, 1, 1.5, 1, 1.5, 1.5, 1]]


def test_zeros_silence_every_skip_of_the_raw_gate_alone():
    image, zeros = torch.randn(2, 3, 32, 48), torch.zeros(2, 8)
    silent = small()(image, zeros).aligned
    assert all((found == found[..., :1, :1]).all() for found in silent)
    assert any((found != found[..., :1, :1]).any() for found in small(gate="affine")(image, zeros).aligned)


def test_the_affine_gate_never_destroys_and_counts_gently():
    values = torch.tensor([[1.0, 20, 1, 1, 1, 0, 0, 0]])
    torch.testing.assert_close(attribute_gain(values, "affine"), torch.tensor([[1.5, 3, 1.5, 1.5, 1.5, 1, 1, 1]]))


def test_channels_take_attributes_in_turn():
    seen = []
    network = small()
    network.ups[0].vlab.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    image = torch.randn(1, 3, 32, 32)
    network(image, torch.ones(1, 8))
    network(image, torch.arange(8.0)[None])
    factors = torch.arange(64) % 8
    torch.testing.assert_close(seen[1], seen[0] * factors[None, :, None, None])


def test_all_maps_reach_the_alignment():
    maps = [torch.randn(2, 1, 8, 8, requires_grad=True) for _ in range(4)]
    cosine_alignment(maps).backward()
    assert all(found.grad is not None and found.grad.any() for found in maps)


def test_alignment_of_equal_directions_costs_nothing_and_of_opposite_ones_most():
    anchor = torch.randn(2, 1, 8, 8)
    assert cosine_alignment([anchor, 2 * anchor, 3 * anchor, anchor]).item() == pytest.approx(0, abs=1e-6)
    assert cosine_alignment([anchor, -anchor, -anchor, -anchor]).item() == pytest.approx(3)


def test_several_classes_have_as_many_logits_and_aligned_channels():
    network = small(classes=4)
    found = network(torch.randn(2, 3, 32, 64), torch.ones(2, 8))
    assert found.logits.shape == (2, 4, 32, 64)
    assert [tuple(p.shape) for p in found.aligned] == [(2, 4, 32, 64)] * 4
    assert network.own_losses(found)["alignment"].shape == ()


def test_a_network_without_attributes_says_so():
    with pytest.raises(ValueError, match="NaN where they are unknown"):
        small()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "no such size"),
        ({"classes": 1}, "two classes"),
        ({"width": 12}, "not divisible by the attention heads"),
        ({"image_size": 100}, "multiples of 16"),
        ({"image_size": [32, 32, 32]}, "one or two multiples"),
        ({"gate": "soft"}, "no such gate"),
        ({"condition": Condition("report", 24, 768)}, "reads attributes"),
        ({"condition": Condition("attributes", 1, 3)}, "number of attributes"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        small(**options)
