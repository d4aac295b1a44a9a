"""Published weights of colour images serve grey ones; what does not fit is told completely."""

import pytest
import torch
from torch import nn

from preceptor.errors import RecipeError, StorageError
from preceptor.segmentors.pretrained import fold_channels, start_from


def test_summed_kernels_answer_to_grey_as_the_kernels_to_grey_repeated():
    kernels, image = torch.randn(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    repeated = torch.conv2d(image.expand(-1, 3, -1, -1), kernels)
    torch.testing.assert_close(torch.conv2d(image, fold_channels(kernels, 1, "file")), repeated, rtol=1e-4, atol=1e-5)
    assert fold_channels(kernels, 3, "file") is kernels
    with pytest.raises(RecipeError, match=r"file[\s\S]*found: +3[\s\S]*expected: +2, or 1"):
        fold_channels(kernels, 2, "file")


def test_counters_may_be_missing_and_nothing_else():
    part = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {key: torch.full_like(value, 3) for key, value in part.state_dict().items() if "num_batches" not in key}
    start_from(part, state, "file")
    assert (part[0].weight == 3).all()
    del state["1.running_mean"]
    with pytest.raises(StorageError, match=r"file[\s\S]*not known: 2.bias[\s\S]*missing: 1.running_mean"):
        start_from(part, {**state, "2.bias": torch.zeros(1)}, "file")
