"""Submodules are watched for one call, and leave nothing behind."""

import pytest
import torch
from torch import nn

from preceptor.segmentors.watched import run_watched


class Twice(nn.Module):
    """Calls its layer two times, and never its spare."""

    def __init__(self):
        super().__init__()
        self.layer, self.spare = nn.Conv2d(1, 1, 1), nn.Identity()

    def forward(self, image):
        return self.layer(self.layer(image))


def test_last_answer_counts_and_what_is_not_called_is_missing():
    module, image = Twice(), torch.randn(1, 1, 2, 2)
    answer, found = run_watched(module, image, {"a": "layer", "b": "spare"}, lambda _, given: given)
    assert list(found) == ["a"]
    assert found["a"] is answer


def test_a_submodule_can_have_two_names():
    _, found = run_watched(Twice(), torch.randn(1, 1, 2, 2), {"a": "layer", "b": "layer"}, lambda name, _: name)
    assert found == {"a": "a", "b": "b"}


def test_failed_call_leaves_no_hook():
    module = Twice()
    with pytest.raises(RuntimeError):
        run_watched(module, torch.randn(1, 3, 2, 2), {"a": "layer"}, lambda _, given: given)
    assert not module.layer._forward_hooks
