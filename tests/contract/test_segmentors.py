"""What every segmentor keeps to: shapes, taps, gradients, determinism, storage, export and reduced precision."""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from preceptor.errors import RecipeError
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, probabilities
from preceptor.segmentors.convolution import enlarge
from preceptor.storage import read_tensors, write_tensors

REPORT = Condition("report", 6, 10)
CONDITIONS = {"c2fvl": Condition("attributes", 1, 8)}
"""What a segmentor is shown, where it is not REPORT."""
SMALL = {"widths": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "layer_scale": 1.0}

CASES = {
    "guided": ("guided", {**SMALL, "report_tokens": [6, 4, 3]}),
    "guided-languide": ("guided", {**SMALL, "variant": "languide"}),
    "guided-sides": ("guided", {**SMALL, "deep_supervision": True}),
    "unguided": ("unguided", SMALL),
    "unguided-sides": ("unguided", {**SMALL, "deep_supervision": True}),
    "unguided-transposed": ("unguided", {**SMALL, "transposed": True}),
    "fcn_r18": ("fcn_r18", {"size": "tiny", "width": 8}),
    "fcn_r50": ("fcn_r50", {"size": "tiny", "width": 8}),
    "fcn-sides": ("fcn_r18", {"size": "tiny", "width": 8, "auxiliary": True}),
    "unet_r18": ("unet_r18", {"size": "tiny", "width": 8, "auxiliary": True}),
    "unet_r50": ("unet_r50", {"size": "tiny", "width": 8}),
    "attention_unet": ("attention_unet", {"size": "tiny", "width": 8}),
    "attention_unet-gate": ("attention_unet", {"size": "tiny", "width": 8, "gates": 1, "auxiliary": True}),
    "plain_unet": ("plain_unet", {"size": "tiny", "width": 4}),
    "plain_unet-alone": ("plain_unet", {"size": "tiny", "width": 4, "skips": False}),
    "missformer": ("missformer", {"size": "tiny"}),
    "transunet": ("transunet", {"size": "tiny", "image_size": [32, 64]}),
    "mednext": ("mednext", {"width": 4, "blocks": [1] * 9}),
    "mednext-sides": ("mednext", {"width": 4, "variant": "S", "kernel_size": 5, "auxiliary": True}),
    "swin_unetr": ("swin_unetr", {"size": "tiny", "depths": [2, 1, 1, 1]}),
    "c2fvl": ("c2fvl", {"width": 8, "image_size": [48, 32]}),
    "c2fvl-affine": ("c2fvl", {"width": 8, "gate": "affine"}),
    "c2fvl_free": ("c2fvl_free", {"width": 8}),
    "textdiff": ("textdiff", {"size": "tiny"}),
    "textdiff-hierarchical": ("textdiff", {"size": "tiny", "hierarchical": True, "blocks": [0, 2], "steps": [50]}),
    "textdiff-concat": ("textdiff", {"size": "tiny", "text": "concat", "width": 10, "contrastive": 0.1}),
    "textdiff_free": ("textdiff_free", {"size": "tiny"}),
    "monai": ("monai", {"size": "tiny", "taps": {"deep": ["model.1.submodule.1", "encoder"], "up": "model.2"}}),
}


FIRST = {name: (name, options) for name, options in reversed(CASES.values())}
"""From a segmentor to the first of its cases."""

FIXED = {"swin_unetr", "textdiff", "textdiff_free"}
"""Segmentors that are exported for one image size."""


@pytest.fixture(params=CASES)
def case(request):
    """(name, options) of one segmentor."""
    return CASES[request.param]


def shown(name):
    """The condition that this segmentor is built for; those that take none ignore it."""
    return CONDITIONS.get(name, REPORT)


def make(case, in_channels=3, classes=2):
    """The network, its parameters shaken, since those that start at 0 (a residual block's last norm) hide others."""
    torch.manual_seed(0)
    name, options = case
    network = zoo.build(name, in_channels=in_channels, classes=classes, condition=shown(name), **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return network


def sizes(network):
    """A square, and sides that differ: odd ones where the network takes any."""
    if network.divisor == 1:
        return (64, 64), (51, 66)
    step = network.divisor
    return (-(-33 // step) * step,) * 2, (-(-33 // step) * step, (1 + -(-33 // step)) * step)


def inputs(network, batch=2, size=None):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, network.in_channels, *(size or sizes(network)[1]), generator=generator)
    condition = network.condition
    if condition is None:
        return (image,)
    if condition.kind == "attributes":
        facts = torch.randint(0, 3, (batch, condition.width), generator=generator).float()
        facts[:, 2] = math.nan  # not known
        return image, facts
    return image, torch.randn(batch, condition.length, condition.width, generator=generator)


def test_every_segmentor_of_the_dictionary_is_held_to_the_contract():
    assert set(FIRST) == set(zoo.SEGMENTORS) == {name for name, _ in zoo.describe()}


@pytest.mark.parametrize(("in_channels", "classes", "which"), [(3, 9, 1), (1, 2, 0), (5, 4, 1)])
def test_shapes_and_taps_are_as_told(case, in_channels, classes, which):
    if case[1].get("variant") == "languide":
        classes = 2  # it has one foreground class
    network = make(case, in_channels, classes).eval()
    assert (network.in_channels, network.classes) == (in_channels, classes)
    size = sizes(network)[which]
    with torch.no_grad():
        found = network(*inputs(network, size=size))
    assert probabilities(found.logits).shape == (2, classes, *size)
    assert found.logits.shape[2:] == size
    assert {tap.name: (2, tap.channels, *(math.ceil(side / tap.stride) for side in size)) for tap in network.taps} == {
        name: tuple(feature.shape) for name, feature in found.features.items()
    }
    assert len(found.auxiliary) == network.side_heads
    for side in found.auxiliary:
        assert side.shape[1] == found.logits.shape[1] or (classes == 2 and side.shape[1] == 1)
        assert any(side.shape[2:] == tuple(math.ceil(length / 2**n) for length in size) for n in range(7))


def test_side_heads_are_there_when_asked_for(case):
    options = case[1]
    assert bool(make(case).side_heads) == bool(options.get("deep_supervision") or options.get("auxiliary"))


def test_taps_stand_in_their_groups_in_order(case):
    taps = make(case).taps
    assert len({tap.name for tap in taps}) == len(taps) > 0
    strides = {group: [tap.stride for tap in taps if tap.group == group] for group in ("encoder", "preact", "decoder")}
    assert all(shallow <= deep for group in ("encoder", "preact") for shallow, deep in pairwise(strides[group]))
    assert strides["decoder"] == [] or strides["decoder"][-1] == min(strides["decoder"])
    encoder = {tap.name: tap for tap in taps if tap.group == "encoder"}
    for tap in taps:
        assert tap.group in ("stem", "encoder", "preact", "decoder", "logits")
        assert (tap.name == "logits") == (tap.group == "logits")
        if tap.group == "preact":
            after = encoder[tap.name.removesuffix("_preact")]
            assert (tap.channels, tap.stride) == (after.channels, after.stride)


def test_native_logits_are_enlarged_to_the_image(case):
    network = make(case).eval()
    given = inputs(network)
    with torch.no_grad():
        found = network(*given)
    told = [tap for tap in network.taps if tap.group == "logits"]
    if told:
        assert (told[0].channels, told[0].stride > 1) == (network.classes, True)
        torch.testing.assert_close(found.logits, enlarge(found.native, given[0]))
    else:
        assert found.native is found.logits


def test_what_stands_before_a_relu_becomes_what_stands_after_it(case):
    network = make(case).eval()
    with torch.no_grad():
        features = network(*inputs(network)).features
    for name in features:
        if name.endswith("_preact"):
            assert torch.equal(features[name].relu(), features[name.removesuffix("_preact")])


def test_a_size_that_is_no_multiple_of_the_divisor_is_refused(case):
    network = make(case)
    if network.divisor > 1:
        height, width = sizes(network)[0]
        with pytest.raises(RecipeError, match=f"multiples of {network.divisor}"):
            network(*inputs(network, size=(height, width + network.divisor // 2)))


def test_a_network_that_needs_the_image_alone_has_no_condition(case):
    network = make(case)
    assert type(network).privileged == (network.condition is not None)


def test_every_parameter_gets_a_gradient(case):
    network = make(case).eval()  # batch statistics would take the gradient of a bias before them
    found = network(*inputs(network))
    outputs = (found.logits, *found.auxiliary, *network.own_losses(found).values())
    sum(output.float().square().mean() for output in outputs).backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert not without


def test_a_step_of_training_is_finite(case):
    network = make(case).train()
    found = network(*inputs(network, batch=3))
    assert len(found.auxiliary) == network.side_heads
    outputs = (found.logits, *found.auxiliary, *network.own_losses(found).values())
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_every_tap_lies_on_the_way_to_the_logits(case):
    if case[1].get("transposed"):
        pytest.skip("its taps are turned copies of what lies on the way")
    network = make(case).eval()
    found = network(*inputs(network))
    gradients = torch.autograd.grad(found.logits.square().mean(), list(found.features.values()), allow_unused=True)
    aside = [name for name, gradient in zip(found.features, gradients, strict=True) if gradient is None]
    assert not aside
    assert all(gradient.any() for gradient in gradients)


def test_evaluation_is_repeatable_and_does_not_depend_on_the_batch(case):
    network = make(case).eval()
    given = inputs(network, batch=3)
    with torch.no_grad():
        together, again = network(*given), network(*given)
        alone = network(*(part[1:2] for part in given))
    assert torch.equal(together.logits, again.logits)
    torch.testing.assert_close(together.logits[1:2], alone.logits, rtol=1e-3, atol=1e-4)
    for name, feature in alone.features.items():  # instance norm of few positions enlarges rounding
        torch.testing.assert_close(together.features[name][1:2], feature, rtol=1e-3, atol=5e-4)


def test_state_survives_storage(case, tmp_path):
    network = make(case)
    network(*inputs(network))  # so that batch statistics are not those of a fresh network
    write_tensors(tmp_path / "weights.safetensors", network.state_dict())
    state, _ = read_tensors(tmp_path / "weights.safetensors")
    torch.manual_seed(7)
    name, options = case
    other = zoo.build(name, in_channels=3, classes=2, condition=shown(name), **options)
    other.load_state_dict(state)
    given = inputs(network)
    assert torch.equal(network.eval()(*given).logits, other.eval()(*given).logits)


def exported(network, size, sides):
    """The program for batches of 1 to 64 images of `size`, or of any size whose axes `sides` tells."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=64), **sides},)
    given = inputs(network, size=size)
    shapes += tuple({0: shapes[0][0]} for _ in given[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        return torch.export.export(network, given, dynamic_shapes=shapes).module()


@pytest.mark.parametrize("name", sorted(set(FIRST) - {"unguided", "fcn_r50"}))  # these share another's forward pass
def test_export_gives_the_same_logits_for_every_batch(name):
    network = make(FIRST[name]).eval()
    size = sizes(network)[1]
    given = inputs(network, batch=3)
    found, expected = exported(network, size, {})(*given), network(*given)
    torch.testing.assert_close(found[0], expected.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FIRST) - FIXED))
def test_export_gives_the_same_logits_for_every_image_size(name):
    network = make(FIRST[name]).eval()
    small, large = sizes(network)
    sides = {axis: torch.export.Dim(f"axis{axis}", min=33, max=512) for axis in (2, 3)}
    if network.divisor > 1:
        least = small[0] // network.divisor
        sides = {axis: network.divisor * torch.export.Dim(f"axis{axis}", min=least, max=16) for axis in (2, 3)}
    given = inputs(network, batch=3, size=small)
    found, expected = exported(network, large, sides)(*given), network(*given)
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
    assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.01
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_misspelt_name_or_option_is_met_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean unguided"):
        zoo.build("ungided", in_channels=3, classes=2)
    with pytest.raises(RecipeError, match="did you mean widths"):
        zoo.build("unguided", in_channels=3, classes=2, width=[8, 16, 24, 32])
    with pytest.raises(RecipeError, match=r"shown none[\s\S]*privilege"):
        zoo.build("guided", in_channels=3, classes=2)


@pytest.mark.parametrize("name", FIRST)
def test_the_dial_orders_the_sizes(name):
    with torch.device("meta"):
        sizes = [
            sum(
                p.numel() for p in zoo.build(name, in_channels=3, classes=2, size=s, condition=shown(name)).parameters()
            )
            for s in ("tiny", "small", "base")
        ]
    assert sizes == sorted(sizes)
    assert sizes[0] * 10 < sizes[2]
