"""Three forward passes with hooks, as the original makes them, give the maps of the library's one batch."""

import torch

from benchmarks.textdiff_features import three_forwards, unets
from preceptor.segmentors.diffusion import DiffusionShape


def test_both_ways_to_the_features_agree_and_share_their_weights():
    torch.manual_seed(0)
    shape = DiffusionShape(16, widths=(8, 16, 16), layers=1, attention=(1, 2), head_width=8, groups=4)
    whole, frozen = unets(shape, (0, 1, 3, 4))
    assert whole.conv_in.weight.data_ptr() == frozen.conv_in.weight.data_ptr()
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(three_forwards(whole, frozen, image), frozen(image), rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks for module in whole.modules())
