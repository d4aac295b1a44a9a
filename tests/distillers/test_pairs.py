"""Pairs of taps: chosen by name, then by stride; adapters and grids."""

import pytest
import torch

from preceptor.distillers.pairs import FeaturePairs, pair_taps, to_one_grid, tokens
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap


def names(pairs):
    return [(mine.name, theirs.name) for mine, theirs in pairs]


def test_taps_pair_by_name_before_stride():
    student = (Tap("guide16", 8, 16), Tap("low", 4, 4), Tap("alone", 4, 2))
    teacher = (Tap("other", 8, 16), Tap("guide16", 8, 32), Tap("stage", 4, 4))
    assert names(pair_taps(student, teacher)) == [("guide16", "guide16"), ("low", "stage")]


def test_named_pairs_win():
    student, teacher = (Tap("a", 8, 16), Tap("b", 8, 8)), (Tap("a", 8, 16), Tap("c", 8, 4))
    assert names(pair_taps(student, teacher, {"b": "c"})) == [("b", "c")]


def test_a_stride_that_several_taps_share_is_refused():
    with pytest.raises(RecipeError, match="name the pairs"):
        pair_taps((Tap("a", 8, 8),), (Tap("x", 8, 8), Tap("y", 8, 8)))
    with pytest.raises(RecipeError, match="several taps have the stride 8"):
        pair_taps((Tap("a", 8, 8), Tap("b", 8, 8)), (Tap("x", 8, 8),))


def test_no_pair_is_refused_and_both_lists_are_shown():
    with pytest.raises(RecipeError, match=r"student \[a \(stride 8\)\], teacher \[b \(stride 4\)\]"):
        pair_taps((Tap("a", 8, 8),), (Tap("b", 8, 4),))
    with pytest.raises(RecipeError, match="no pair of taps is named"):
        pair_taps((Tap("a", 8, 8),), (Tap("a", 8, 8),), {})


def test_unknown_taps_are_refused():
    with pytest.raises(RecipeError, match="the teacher has no such tap"):
        pair_taps((Tap("a", 8, 8),), (Tap("b", 8, 8),), {"a": "c"})


def test_adapters_are_made_only_where_channels_differ_and_only_when_asked():
    student, teacher = (Tap("a.x", 4, 8), Tap("b", 6, 4)), (Tap("a.x", 5, 8), Tap("b", 6, 4))
    pairs = FeaturePairs(student, teacher, adapt=True)
    assert {name: tuple(weight.shape) for name, weight in pairs.named_parameters()} == {
        "adapters.a_x.weight": (5, 4, 1, 1),
        "adapters.a_x.bias": (5,),
    }
    assert not list(FeaturePairs(student, teacher, adapt=False).parameters())


def test_adapters_depend_on_their_seed_alone():
    taps = (Tap("a", 4, 8),), (Tap("a", 5, 8),)
    torch.manual_seed(1)
    one = FeaturePairs(*taps, adapt=True, seed=3).adapters["a"].weight
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = FeaturePairs(*taps, adapt=True, seed=3).adapters["a"].weight
    assert torch.equal(one, two)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(one, FeaturePairs(*taps, adapt=True, seed=4).adapters["a"].weight)


@pytest.mark.parametrize(("align", "size"), [("smaller", (4, 3)), ("student", (4, 6)), ("teacher", (8, 3))])
def test_grids_meet_where_asked(align, size):
    one, two = to_one_grid(torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 8, 3), align)
    assert one.shape[-2:] == two.shape[-2:] == size


def test_unknown_grid_is_refused():
    with pytest.raises(RecipeError, match="smaller, student or teacher"):
        FeaturePairs((Tap("a", 4, 8),), (Tap("a", 4, 8),), adapt=True, align="larger")


def test_features_are_float32_and_the_teacher_is_detached():
    pairs = FeaturePairs((Tap("a", 2, 1),), (Tap("a", 3, 1),), adapt=True)
    logits = torch.zeros(1, 2, 4, 4)
    student = Segmentation(logits, {"a": torch.ones(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)})
    teacher = Segmentation(logits, {"a": torch.ones(1, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)})
    mine, theirs = pairs(student, teacher)["a"]
    assert mine.dtype == theirs.dtype == torch.float32
    assert mine.requires_grad
    assert not theirs.requires_grad


def test_tokens_are_row_major():
    feature = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert tokens(feature).flatten().tolist() == [0, 1, 2, 3, 4, 5]
