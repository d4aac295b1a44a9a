"""Token distances equal the published ones in value and gradient."""

import pytest
import torch

from preceptor.distillers.tokens import token_l1, token_l2


@pytest.mark.parametrize(("name", "loss"), [("feature_l1", token_l1), ("feature_l2", token_l2)])
def test_value_and_gradient_equal_the_original(loss_cases, name, loss):
    for case in loss_cases.of(name):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, loss(inputs["student"], inputs["teacher"]))


def test_token_l1_is_at_most_twice_the_number_of_tokens():
    tokens = torch.ones(2, 49, 8)
    torch.testing.assert_close(token_l1(-tokens, tokens), torch.tensor(98.0))


def test_token_distances_ignore_the_scale_of_a_token():
    student, teacher = torch.randn(2, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    for loss in (token_l1, token_l2):
        torch.testing.assert_close(loss(student * 7, teacher), loss(student, teacher))
