"""Channels lie last unless a convolution is known to damage memory that way."""

import pytest
import torch
from torch import nn

from preceptor.learning.memory_layout import channels_may_lie_last
from preceptor.segmentors import zoo

CPU, ACCELERATOR = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        (nn.Conv2d(8, 16, 1, stride=2), False),
        (nn.Conv2d(15, 32, 1, stride=4), False),
        (nn.Conv2d(16, 32, 1, stride=2), True),
        (nn.Conv2d(8, 16, 1), True),
        (nn.Conv2d(8, 16, 3, stride=2, padding=1), True),
        (nn.Conv2d(8, 16, 1, stride=2, groups=2), True),
    ],
    ids=str,
)
def test_only_narrow_strided_shortcuts_keep_channels_from_lying_last(module, allowed):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ModuleList([module]))
    assert channels_may_lie_last(network, CPU) is allowed
    assert channels_may_lie_last(network, ACCELERATOR)


@pytest.mark.parametrize(("name", "allowed"), [("mednext", False), ("fcn_r18", True), ("unet_r50", True)])
def test_of_the_tiny_networks_mednext_has_such_shortcuts(name, allowed):
    with torch.device("meta"):
        network = zoo.build(name, in_channels=1, classes=2, size="tiny")
    assert channels_may_lie_last(network, CPU) is allowed
