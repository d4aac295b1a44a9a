"""C2FVL's gate gives the original's numbers, and training chunk by chunk the plain path's gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from preceptor.segmentors import pixel_gate
from preceptor.segmentors.pixel_gate import PixelGate


@torch.no_grad()
def test_gate_equals_the_original(golden):
    case = golden("c2fvl_vlab")
    gate, head = PixelGate(case.config.channels), nn.Conv2d(case.config.channels, 1, kernel_size=1)
    gate.load_state_dict({key.removeprefix("vlab."): case.state[key] for key in case.state if "conv_sig" not in key})
    maps = case.inputs["features"]
    pixels = maps.permute(0, 2, 3, 1)
    average, largest = functional.linear(pixels, *gate.joint()).relu().permute(0, 3, 1, 2).chunk(2, dim=1)
    case.assert_equal("average_branch", average)
    case.assert_equal("maximum_branch", largest)
    case.assert_equal("gate", gate.gate(pixels.flatten(0, 2)).view(len(maps), 1, *maps.shape[2:]))
    gated, answer = gate(maps, head)
    case.assert_equal("out", gated)
    torch.testing.assert_close(answer, head(gated))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rows", [7, 1000])
def test_training_in_chunks_gives_the_plain_gradients(monkeypatch, layout, rows):
    torch.manual_seed(0)
    gate, head = PixelGate(6).double(), nn.Conv2d(6, 2, kernel_size=1).double()
    maps = torch.randn(2, 6, 5, 4).double().contiguous(memory_format=layout).requires_grad_()
    wanted = [maps, *gate.parameters(), *head.parameters()]
    monkeypatch.setattr(pixel_gate, "CHUNK", 6 * rows)
    ways = []
    for chunks in (True, False):
        monkeypatch.setattr(pixel_gate, "_in_chunks", lambda _, chunks=chunks: chunks)
        gated, answer = gate(maps, head)
        gradients = torch.autograd.grad(gated.sin().sum() + answer.square().sum(), wanted)
        ways.append([gated, answer, *gradients])
    assert all(gradient.any() for gradient in ways[0])
    torch.testing.assert_close(*ways)


def test_autocast_takes_the_plain_path():
    maps, gate, head = torch.randn(1, 8, 4, 4), PixelGate(8), nn.Conv2d(8, 1, kernel_size=1)
    with torch.autocast("cpu", torch.bfloat16):
        gated, answer = gate(maps, head)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(gated.float(), gate(maps, head)[0], rtol=0.05, atol=0.05)
