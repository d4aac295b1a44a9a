"""Attention maps: golden values and gradients, sizes that differ, and what a map does not see."""

import pytest
import torch

from preceptor.distillers.attention import Attention, attention_distance, attention_map
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

CASES = ["at_equal", "at_student_larger", "at_student_smaller", "at_rect", "at_zero_map"]
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@both
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_original(distiller_cases, name, dtype):
    inputs, hyper = distiller_cases.inputs(name, dtype), distiller_cases.cases[name]["hyper"]
    loss = attention_distance(inputs["student"], inputs["teacher"], hyper.get("p", 2))
    distiller_cases.check(name, inputs, hyper["weight"] * loss)


@both
@pytest.mark.parametrize("weights", [(), (250.0,) * 4], ids=["in the recipe", "in the distiller"])
def test_four_stages_of_250_equal_the_seed(distiller_cases, dtype, weights):
    inputs = distiller_cases.inputs("at_seed", dtype)
    student, teacher = (
        Segmentation(inputs["student1"], {f"layer{i}": inputs[f"{whose}{i}"] for i in range(1, 5)})
        for whose in ("student", "teacher")
    )
    mine, theirs = (
        tuple(Tap(name, feature.shape[1], 32 // feature.shape[-1], "encoder") for name, feature in one.features.items())
        for one in (student, teacher)
    )
    losses = Attention(mine, theirs, weights=weights)(student, teacher)
    assert list(losses) == ["at/layer1", "at/layer2", "at/layer3", "at/layer4"]
    terms = torch.stack(list(losses.values())) * (1 if weights else 250)
    distiller_cases.check("at_seed", inputs, terms.sum(), {"terms": terms})


def test_the_larger_side_is_pooled_whichever_network_has_it():
    student, teacher = draw(2, 3, 8, 5), draw(2, 4, 4, 10, seed=1)
    pooled = torch.nn.functional.adaptive_avg_pool2d
    expected = attention_distance(pooled(student, (4, 5)), pooled(teacher, (4, 5)))
    torch.testing.assert_close(attention_distance(student, teacher), expected)


def test_maps_have_length_one_and_ignore_sign_scale_and_order_of_channels():
    feature = draw(2, 6, 5, 7)
    found = attention_map(feature)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(attention_map(-3 * feature.flip(1)), found)


def test_a_sum_over_positions_does_not_shrink_with_the_map():
    student, teacher = draw(2, 3, 4, 6), draw(2, 5, 4, 6, seed=1)
    twice = [feature.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) for feature in (student, teacher)]
    torch.testing.assert_close(attention_distance(*twice), attention_distance(student, teacher) / 4)
    for pair in ((student, teacher), twice):
        total = attention_distance(*pair, reduction="sum")
        torch.testing.assert_close(total, attention_distance(*pair) * pair[0].shape[-2] * pair[0].shape[-1])
    torch.testing.assert_close(
        attention_distance(*twice, reduction="sum"), attention_distance(student, teacher, reduction="sum")
    )


def test_another_power_is_that_of_the_absolute_value():
    feature = draw(1, 3, 4, 4)
    torch.testing.assert_close(
        attention_map(feature, 3), torch.nn.functional.normalize((feature.abs() ** 3).mean(1).flatten(1))
    )


def test_weights_must_fit_the_pairs_which_are_listed():
    taps = (Tap("layer1", 2, 4, "encoder"), Tap("layer2", 2, 8, "encoder"))
    with pytest.raises(RecipeError, match=r"(?s)2 numbers.*layer1 \[2, s4\] <- layer1 \[2, s4\]"):
        Attention(taps, taps, weights=(1.0, 2.0, 3.0))
    with pytest.raises(RecipeError, match="2 numbers"):
        Attention(taps, taps, weights=(1.0, float("nan")))
