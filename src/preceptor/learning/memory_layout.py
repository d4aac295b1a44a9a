"""Whether images and weights may lie in memory with their channels last, which is faster on most devices."""

import torch
from torch import nn

BLOCK = 16
"""Channels that a kernel of oneDNN handles at a time."""


def channels_may_lie_last(network: nn.Module, device: torch.device) -> bool:
    """False where the backward pass would damage the memory of the process: on processors, some narrow convolutions.

    With channels last, oneDNN's float32 gradient of a strided 1x1 convolution of fewer than 16 input channels writes
    beyond its buffer on processors with AVX-512 (seen with torch 2.13, images from 64 pixels a side; not with 16
    channels or more, other kernels, groups, or bfloat16). Such are shortcuts of ResNets and MedNeXts of narrow width.
    """
    return device.type != "cpu" or not any(_is_narrow_shortcut(module) for module in network.modules())


def _is_narrow_shortcut(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.groups == 1
        and module.in_channels < BLOCK
    )
