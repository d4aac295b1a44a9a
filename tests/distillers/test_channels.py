"""Channel distributions: published values, the official reshape, ignored positions."""

import pytest
import torch

from preceptor.distillers.channels import ChannelKL, channel_kl, channel_kl_reshaped
from preceptor.distillers.pairs import tokens
from preceptor.segmentors.base import Segmentation, Tap


def segmentation(logits):
    return Segmentation(logits, {"deep": logits})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_values_and_gradients(distiller_cases, dtype):
    for name in distiller_cases.of("CWD"):
        hyper, inputs = distiller_cases.cases[name]["hyper"], distiller_cases.inputs(name, dtype)
        student, teacher = inputs["student"], inputs["teacher"]
        distiller = ChannelKL(
            (Tap("deep", student.shape[1], 1),),
            (Tap("deep", teacher.shape[1], 1),),
            on="features" if "adapter" in hyper else "logits",
            temperature=hyper["temperature"],
            align="teacher",
            interpolation="nearest" if "nearest" in hyper.get("resize", "") else "bilinear",
        ).to(dtype)
        if "adapter" in hyper:
            weight = distiller_cases.tensor("pub.cwd.adapter.weight", [10, 6, 1, 1], dtype)
            distiller.load_state_dict({"features.adapters.deep.weight": weight})
        (loss,) = distiller(segmentation(student), segmentation(teacher), inputs.get("labels")).values()
        assert loss.dtype == dtype
        distiller_cases.check(name, inputs, hyper["weight"] * loss)


def test_maps_equal_the_original(loss_cases):
    for case in loss_cases.of("channel_kl"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, channel_kl(inputs["student"], inputs["teacher"], case["config"]["T"]))


def test_reshaped_tokens_equal_the_original(loss_cases):
    for case in loss_cases.of("channel_kl_official_reshape"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, channel_kl_reshaped(inputs["student"], inputs["teacher"], case["config"]["T"]))


def test_features_are_compared_by_true_channels_unless_the_official_reshape_is_asked_for():
    student, teacher = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    one, two = (Segmentation(torch.zeros(2, 2, 4, 4), {"deep": feature}) for feature in (student, teacher))
    taps = (Tap("deep", 3, 1),)
    mended = ChannelKL(taps, taps, on="features", temperature=1.0)(one, two)["cwd/deep"]
    official = ChannelKL(taps, taps, on="features", temperature=1.0, official_reshape=True)(one, two)["cwd/deep"]
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
