"""What every segmentor keeps to: shapes, taps, gradients, determinism, storage, export and reduced precision."""

import warnings

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, probabilities
from preceptor.storage import read_tensors, write_tensors

REPORT = Condition("report", 6, 10)
SMALL = {"widths": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "layer_scale": 1.0}

CASES = {
    "guided": ("guided", {**SMALL, "report_tokens": [6, 4, 3]}),
    "guided-languide": ("guided", {**SMALL, "variant": "languide"}),
    "guided-sides": ("guided", {**SMALL, "deep_supervision": True}),
    "unguided": ("unguided", SMALL),
    "unguided-sides": ("unguided", {**SMALL, "deep_supervision": True}),
    "unguided-transposed": ("unguided", {**SMALL, "transposed": True}),
}


@pytest.fixture(params=CASES)
def case(request):
    """(name, options) of one segmentor."""
    return CASES[request.param]


def make(case, in_channels=3, classes=2):
    torch.manual_seed(0)
    name, options = case
    return zoo.build(name, in_channels=in_channels, classes=classes, condition=REPORT, **options)


def inputs(network, batch=2, size=(64, 32)):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, network.in_channels, *size, generator=generator)
    condition = network.condition
    if condition is None:
        return (image,)
    return image, torch.randn(batch, condition.length, condition.width, generator=generator)


def test_every_segmentor_of_the_dictionary_is_held_to_the_contract():
    assert {name for name, _ in CASES.values()} == set(zoo.SEGMENTORS) == {name for name, _ in zoo.describe()}


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
@pytest.mark.parametrize(("in_channels", "classes"), [(3, 2), (1, 2), (5, 4)])
def test_shapes_and_taps_are_as_told(case, size, in_channels, classes):
    if case[1].get("variant") == "languide" and classes != 2:
        pytest.skip("LanGuide has one foreground class")
    network = make(case, in_channels, classes).eval()
    assert (network.in_channels, network.classes) == (in_channels, classes)
    assert all(length % network.divisor == 0 for length in size)
    with torch.no_grad():
        found = network(*inputs(network, size=size))
    assert probabilities(found.logits).shape == (2, classes, *size)
    assert {tap.name: (2, tap.channels, size[0] // tap.stride, size[1] // tap.stride) for tap in network.taps} == {
        name: tuple(feature.shape) for name, feature in found.features.items()
    }
    assert all(side.shape[2:] == size for side in found.auxiliary)
    assert bool(found.auxiliary) == bool(case[1].get("deep_supervision"))


def test_a_size_that_is_no_multiple_of_the_divisor_is_refused(case):
    network = make(case)
    with pytest.raises(ValueError, match="multiples of 32"):
        network(*inputs(network, size=(64, 48)))


def test_a_network_that_needs_the_image_alone_has_no_condition(case):
    network = make(case)
    assert type(network).privileged == (network.condition is not None)


def test_every_parameter_gets_a_gradient(case):
    network = make(case).train()
    found = network(*inputs(network, batch=4))
    sum(output.float().square().mean() for output in (found.logits, *found.auxiliary)).backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert not without


def test_every_tap_lies_on_the_way_to_the_logits(case):
    if case[1].get("transposed"):
        pytest.skip("its taps are turned copies of what lies on the way")
    network = make(case).train()
    found = network(*inputs(network))
    gradients = torch.autograd.grad(found.logits.square().mean(), list(found.features.values()))
    assert all(gradient.any() for gradient in gradients)


def test_evaluation_is_repeatable_and_does_not_depend_on_the_batch(case):
    network = make(case).eval()
    given = inputs(network, batch=3)
    with torch.no_grad():
        together, again = network(*given), network(*given)
        alone = network(*(part[1:2] for part in given))
    assert torch.equal(together.logits, again.logits)
    torch.testing.assert_close(together.logits[1:2], alone.logits, rtol=1e-4, atol=1e-5)
    for name, feature in alone.features.items():
        torch.testing.assert_close(together.features[name][1:2], feature, rtol=1e-4, atol=1e-5)


def test_state_survives_storage(case, tmp_path):
    network = make(case)
    network(*inputs(network))  # so that batch statistics are not those of a fresh network
    write_tensors(tmp_path / "weights.safetensors", network.state_dict())
    state, _ = read_tensors(tmp_path / "weights.safetensors")
    torch.manual_seed(7)
    name, options = case
    other = zoo.build(name, in_channels=3, classes=2, condition=REPORT, **options)
    other.load_state_dict(state)
    given = inputs(network)
    assert torch.equal(network.eval()(*given).logits, other.eval()(*given).logits)


@pytest.mark.parametrize("name", zoo.SEGMENTORS)
def test_export_gives_the_same_logits_for_every_batch_and_image_size(name):
    network = make(CASES[name]).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    height, width = (32 * torch.export.Dim(name, min=1, max=16) for name in ("height", "width"))
    shapes = ({0: batch, 2: height, 3: width}, *({0: batch} for _ in inputs(network)[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.export.export(network, inputs(network, size=(64, 96)), dynamic_shapes=shapes).module()
    given = inputs(network, batch=3, size=(96, 128))
    found, expected = program(*given), network(*given)
    torch.testing.assert_close(found[0], expected.logits, rtol=1e-4, atol=1e-5)


def test_channels_last_gives_the_same_logits(case):
    network = make(case).eval()
    given = inputs(network)
    expected = network(*given).logits
    network = network.to(memory_format=torch.channels_last)
    found = network(given[0].to(memory_format=torch.channels_last), *given[1:]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bf16_autocast_stays_near_float32_and_trains(case):
    network = make(case).eval()
    given = inputs(network)
    expected = network(*given).logits
    with torch.autocast("cpu", torch.bfloat16):
        found = network(*given).logits
    found.float().square().mean().backward()
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.02
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_misspelt_name_or_option_is_met_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean unguided"):
        zoo.build("ungided", in_channels=3, classes=2)
    with pytest.raises(RecipeError, match="did you mean widths"):
        zoo.build("unguided", in_channels=3, classes=2, width=[8, 16, 24, 32])
    with pytest.raises(RecipeError, match=r"shown none[\s\S]*privilege"):
        zoo.build("guided", in_channels=3, classes=2)


@pytest.mark.parametrize("name", zoo.SEGMENTORS)
def test_the_dial_orders_the_sizes(name):
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in zoo.build(name, in_channels=3, classes=2, size=s, condition=REPORT).parameters())
            for s in ("tiny", "small", "base")
        ]
    assert sizes == sorted(sizes)
    assert sizes[0] * 10 < sizes[2]
