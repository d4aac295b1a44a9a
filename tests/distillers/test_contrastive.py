"""Contrast of tokens: published values, and the temperature that the original never applies."""

import pytest
import torch

from preceptor.distillers.contrastive import TokenContrast, cross_modal_alignment, token_contrast
from preceptor.segmentors.base import Segmentation, Tap


@pytest.mark.parametrize("name", ["lia", "lta"])
def test_each_half_equals_the_original(loss_cases, name):
    for case in loss_cases.of(name):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, token_contrast(inputs["original"], inputs["after"]))


def test_both_halves_equal_the_original(loss_cases):
    for case in loss_cases.of("cta"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, cross_modal_alignment(**inputs))


def test_the_temperature_acts_unless_the_official_behaviour_is_asked_for():
    mine, theirs = torch.randn(2, 2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    student, teacher = (Segmentation(torch.zeros(2, 2, 3, 3), {"deep": feature}) for feature in (mine, theirs))
    taps = (Tap("deep", 8, 1),)
    plain = token_contrast(theirs.flatten(2).transpose(1, 2), mine.flatten(2).transpose(1, 2))
    official = TokenContrast(taps, taps, official_temperature=True)(student, teacher)["cta/deep"]
    mended = TokenContrast(taps, taps)(student, teacher)["cta/deep"]
    torch.testing.assert_close(official, plain)
    assert mended > 2 * official


def test_tokens_in_their_place_cost_less_than_shuffled_ones():
    tokens = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    assert token_contrast(tokens, tokens, 0.07) < 0.01 < token_contrast(tokens, tokens.roll(1, 1), 0.07)
