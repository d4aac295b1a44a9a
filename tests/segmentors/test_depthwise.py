"""The faster layers compute what PyTorch's do, forward and backward, in either memory format."""

import pytest
import torch
from torch import nn

from preceptor.segmentors.depthwise import ChannelNorm, DepthwiseDoubling, hasten

FORMATS = (torch.contiguous_format, torch.channels_last)


def answers(layer: nn.Module, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Output, and gradients by the input and the parameters."""
    maps = maps.detach().requires_grad_()
    found = layer(maps)
    weights = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).reshape(found.shape)
    return (found, *torch.autograd.grad((found * weights).sum(), (maps, *layer.parameters())))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(4, 4, 3, 2, 1, groups=4), nn.ConvTranspose2d(4, 4, 5, 2, 2, groups=4), nn.GroupNorm(4, 4)],
    ids=["kernel 3", "kernel 5", "norm"],
)
def test_numbers_and_gradients_stay(layer, memory_format):
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 6, 5).to(memory_format=memory_format)
    network = nn.Sequential(layer)
    expected = answers(network, maps)
    hasten(network)
    assert isinstance(network[0], ChannelNorm | DepthwiseDoubling)
    assert all(mine is theirs for mine, theirs in zip(network.parameters(), layer.parameters(), strict=True))
    found = answers(network, maps)
    assert found[0].is_contiguous(memory_format=memory_format)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_half_precision_keeps_its_memory_format_and_numbers(memory_format):
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 6, 5).to(torch.bfloat16, memory_format=memory_format)
    network = nn.Sequential(nn.GroupNorm(4, 4))
    expected = answers(network, maps.float())
    hasten(network)
    found = answers(network, maps)
    assert found[0].dtype == torch.bfloat16
    assert found[0].is_contiguous(memory_format=memory_format)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.ConvTranspose2d(4, 4, 3, 2, 1),
        nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, groups=4),
        nn.ConvTranspose2d(4, 4, 4, 2, 2, groups=4),
        nn.ConvTranspose2d(4, 4, 3, 1, 1, groups=4),
        nn.ConvTranspose2d(4, 8, 3, 2, 1, groups=4),
    ],
)
def test_other_layers_are_left(layer):
    network = nn.Sequential(layer)
    hasten(network)
    assert network[0] is layer


def test_no_random_number_is_drawn():
    network = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, 2, 1, groups=4))
    state = torch.get_rng_state()
    hasten(network)
    assert torch.equal(torch.get_rng_state(), state)
