"""A network of one's own becomes a segmentor, and the network itself is left as it was."""

import copy
import multiprocessing
import pickle
import threading

import pytest
import torch
from torch import nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Tap
from preceptor.segmentors.convolution import enlarge
from preceptor.segmentors.wrapped import Wrapped


class Own(nn.Module):
    """Two strided convolutions, logits at stride 4, and a side head at stride 2 while it trains."""

    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4))
        self.relu = nn.ReLU(inplace=True)
        self.deep = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 6, 3, 2, 1))
        self.side, self.head = nn.Conv2d(4, classes, 1), nn.Conv2d(6, classes, 1)

    def forward(self, image):
        stem = self.stem(image)
        early = self.relu(stem)
        logits = self.head(self.deep(early))
        return (logits, self.side(early)) if self.training else logits


class Tokens(nn.Module):
    """A patch embedding whose tokens go through a linear layer, with a class token where asked for."""

    def __init__(self, extra=0):
        super().__init__()
        self.embed, self.mix, self.head = nn.Conv2d(1, 5, 8, 8), nn.Linear(5, 5), nn.Conv2d(5, 2, 1)
        self.extra = extra

    def forward(self, image):
        maps = self.embed(image)
        tokens = maps.flatten(2).transpose(1, 2)
        mixed = self.mix(torch.cat([tokens, tokens[:, : self.extra]], dim=1))[:, : tokens.shape[1]]
        return self.head(mixed.transpose(1, 2).unflatten(2, maps.shape[-2:]))


TAPS = {"deep": ("deep", "encoder"), "early": ["stem", "preact"], "last": "deep.1"}


def wrapped(**options):
    torch.manual_seed(0)
    return Wrapped(Own(), in_channels=1, classes=3, taps=TAPS, **options)


def test_taps_side_heads_and_divisor_are_known_before_any_forward():
    network = wrapped()
    assert network.taps == (
        Tap("early", 4, 2, "preact"),
        Tap("deep", 6, 4, "encoder"),
        Tap("last", 6, 4, "decoder"),
        Tap("logits", 3, 4, "logits"),
    )
    assert (network.side_heads, network.divisor) == (1, 1)
    found = network.train()(torch.randn(2, 1, 30, 45))
    assert {name: tuple(feature.shape) for name, feature in found.features.items()} == {
        "early": (2, 4, 15, 23),
        "deep": (2, 6, 8, 12),
        "last": (2, 6, 8, 12),
        "logits": (2, 3, 8, 12),
    }
    assert [tuple(side.shape) for side in found.auxiliary] == [(2, 3, 15, 23)]


def test_wrapping_leaves_the_module_and_the_random_numbers_as_they_were():
    torch.manual_seed(3)
    module = Own().train()
    module.deep.eval()
    before, numbers = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    network = Wrapped(module, in_channels=1, classes=3, taps=TAPS)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert (module.training, module.stem.training, module.deep.training) == (True, True, False)
    network(torch.randn(1, 1, 32, 32))
    assert not any(part._forward_hooks for part in module.modules())


def test_logits_of_a_coarser_stride_are_enlarged():
    network, image = wrapped().eval(), torch.randn(1, 1, 32, 64)
    found = network(image)
    assert torch.equal(found.native, network.network(image))
    assert torch.equal(found.logits, enlarge(found.native, image))


def test_feature_is_what_the_submodule_answered_even_where_it_is_overwritten_later():
    network, image = wrapped().eval(), torch.randn(2, 1, 32, 32)
    found = network(image)
    assert torch.equal(found.features["early"], network.network.stem(image))
    assert (found.features["early"] < 0).any()


def test_features_carry_gradients_and_belong_to_their_call():
    network = wrapped().eval()
    first, second = network(torch.randn(1, 1, 32, 32)), network(torch.randn(1, 1, 32, 32))
    kept = first.features["deep"].clone()
    second.features["deep"].square().mean().backward()
    assert network.network.stem[0].weight.grad.any()
    assert torch.equal(first.features["deep"], kept)
    assert not torch.equal(first.features["deep"], second.features["deep"])


def test_threads_share_a_network_without_mixing_their_features():
    network, wrong = wrapped().eval(), []

    def run(seed):
        image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = network.network.stem(image)
            wrong.extend(seed for _ in range(20) if not torch.equal(network(image).features["early"], expected))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_copies_and_pickles_answer_the_same():
    network, image = wrapped().eval(), torch.randn(1, 1, 32, 32)
    network(image)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        found, expected = other(image).features, network(image).features
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_network_goes_to_a_spawned_process():
    network, image = wrapped().eval().requires_grad_(False), torch.zeros(1, 1, 32, 32)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(network, (image,))
    assert torch.equal(found.logits, network(image).logits)


def test_tokens_become_a_map():
    network = Wrapped(Tokens(), in_channels=1, classes=2, taps={"mix": "mix"})
    assert network.taps[0] == Tap("mix", 5, 8, "decoder")
    assert network.divisor == 8
    found = network(torch.randn(2, 1, 16, 40))
    assert found.features["mix"].shape == (2, 5, 2, 5)
    torch.testing.assert_close(network.network.head(found.features["mix"]), found.native)


def test_tokens_with_a_class_token_are_refused():
    with pytest.raises(RecipeError, match=r"mix: a tensor \[1, 129, 5\][\s\S]*class token"):
        Wrapped(Tokens(extra=1), in_channels=1, classes=2, taps={"mix": "mix"})


def test_bf16_module_and_autocast_are_served():
    torch.manual_seed(0)
    half = Wrapped(Own().bfloat16(), in_channels=1, classes=3, taps=TAPS).eval()
    assert half(torch.randn(1, 1, 32, 32, dtype=torch.bfloat16)).logits.dtype == torch.bfloat16
    network = wrapped().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = network(torch.randn(1, 1, 32, 32))
    assert found.features["deep"].dtype == torch.bfloat16


def test_export_keeps_the_features():
    network = wrapped().eval()
    side = torch.export.Dim("side", min=4, max=64)
    given = torch.randn(2, 1, 32, 40)
    shapes = ({0: torch.export.Dim("batch", min=1, max=8), 2: 4 * side},)
    program = torch.export.export(network, (given,), dynamic_shapes=shapes).module()
    image = torch.randn(1, 1, 48, 40)
    assert torch.equal(program(image).features["early"], network(image).features["early"])


def test_path_that_leads_nowhere_is_met_with_the_nearest():
    with pytest.raises(RecipeError, match=r"tap x: Own has no such submodule[\s\S]*deep\.3[\s\S]*deep\.1"):
        Wrapped(Own(), in_channels=1, classes=3, taps={"x": "deep.3"})


@pytest.mark.parametrize("options", [{"divisor": 0}, {"in_channels": 0}, {"classes": 1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(RecipeError, match="need"):
        Wrapped(Own(), **{"in_channels": 1, "classes": 3, **options})
