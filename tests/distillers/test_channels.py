"""Channel distributions: published values, the official reshape, ignored positions."""

import torch

from preceptor.distillers.channels import ChannelKL, channel_kl, channel_kl_reshaped
from preceptor.distillers.pairs import tokens
from preceptor.segmentors.base import Segmentation, Tap


def test_maps_equal_the_original(loss_cases):
    for case in loss_cases.of("channel_kl"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, channel_kl(inputs["student"], inputs["teacher"], case["config"]["T"]))


def test_reshaped_tokens_equal_the_original(loss_cases):
    for case in loss_cases.of("channel_kl_official_reshape"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, channel_kl_reshaped(inputs["student"], inputs["teacher"], case["config"]["T"]))


def test_the_default_compares_true_channels_and_the_option_does_not():
    student, teacher = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    one, two = (Segmentation(torch.zeros(2, 2, 4, 4), {"deep": feature}) for feature in (student, teacher))
    taps = (Tap("deep", 3, 1),)
    mended = ChannelKL(taps, taps)(one, two)["cwd/deep"]
    official = ChannelKL(taps, taps, official_reshape=True)(one, two)["cwd/deep"]
    torch.testing.assert_close(mended, channel_kl(student, teacher))
    torch.testing.assert_close(official, channel_kl_reshaped(tokens(student), tokens(teacher)))
    assert abs(mended - official) > 1e-3


def test_ignored_positions_change_nothing_even_when_not_a_number():
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(2, 4, 5, dtype=torch.bool)
    valid[0, 1:] = True  # the second sample has no valid pixel: it is left out
    spoilt = torch.where(valid.unsqueeze(1), student, torch.nan).requires_grad_()
    loss = channel_kl(spoilt, teacher, 2.0, valid)
    torch.testing.assert_close(loss, channel_kl(student[:1, :, 1:], teacher[:1, :, 1:], 2.0))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()


def test_all_positions_valid_is_the_plain_loss():
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(2, 4, 5, dtype=torch.bool)
    torch.testing.assert_close(channel_kl(student, teacher, valid=everywhere), channel_kl(student, teacher))
