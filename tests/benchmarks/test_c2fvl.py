"""The baseline of C2FVL does the same arithmetic as ours: maps, loss and gradients agree."""

from pathlib import Path

import pytest
import torch

from benchmarks.c2fvl import _attributes, _batch, check_equal, contenders
from benchmarks.c2fvl_plain import plain_loss
from benchmarks.scene import Setting
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.tasks import Supervised

SETTING = Setting(True, 0, Path())


def test_ours_and_the_transcription_train_alike():
    shown = _batch(SETTING, 2, 32)
    ours, loop = contenders(SETTING, "tiny", 32)
    ours, plain = ours.double(), loop.network.double()
    shown.image = shown.image.double()
    shown.shown["attributes"] = shown.shown["attributes"].double()
    for encoder in ours.tokens:
        encoder.dropout.p = 0.0
    plain.dropout = 0.0
    task = Supervised(ours.train(), _attributes, segmentation_loss("c2fvl"))
    losses = [task(shown)["loss"], plain_loss(plain(*_attributes(shown)), shown.mask)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5, check_dtype=False)
    for loss in losses:
        loss.backward()
    theirs = dict(plain.values.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name.replace(".", "/")].grad, rtol=1e-4, atol=1e-6)


def test_another_network_is_not_measured():
    ours, loop = contenders(SETTING, "tiny", 32)
    with torch.no_grad():
        ours.head.bias += 1
    with pytest.raises(AssertionError):
        check_equal(ours, loop.network, _batch(SETTING, 1, 32))
