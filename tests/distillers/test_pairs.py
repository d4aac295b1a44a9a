"""Pairs of taps: chosen by name, then by stride; adapters and grids."""

import pytest
import torch

from preceptor.distillers.pairs import (
    FeaturePairs,
    deep_first,
    describe_pairs,
    pair_taps,
    pairs_of,
    resize,
    to_one_grid,
    tokens,
)
from preceptor.distillers.zoo import build
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

D8, S32 = (4, 8, 8, 8), (4, 8, 16, 32)
"""Strides of the layers of a dilated and of a plain ResNet."""


def names(pairs):
    return [(mine.name, theirs.name) for mine, theirs in pairs]


def enc(*strides: int, prefix: str = "stage") -> tuple[Tap, ...]:
    return tuple(Tap(f"{prefix}{i}", 8, stride, "encoder") for i, stride in enumerate(strides))


def dec(*strides: int, prefix: str = "block") -> tuple[Tap, ...]:
    return tuple(Tap(f"{prefix}{i}", 8, stride, "decoder") for i, stride in enumerate(strides))


def test_equal_names_come_before_anything_else():
    student = (Tap("guide16", 8, 16), Tap("low", 4, 4), Tap("alone", 4, 2))
    teacher = (Tap("stage", 4, 4), Tap("guide16", 8, 16), Tap("low", 4, 4), Tap("other", 8, 16))
    assert names(pair_taps(student, teacher)) == [("guide16", "guide16"), ("low", "low")]


def test_networks_with_the_same_names_pair_by_them_at_any_stride():
    dilated, plain = ([Tap(f"layer{i}", 8, s, "encoder") for i, s in enumerate(strides, 1)] for strides in (D8, S32))
    found = pair_taps(tuple(dilated), tuple(plain), group="encoder")
    assert names(found) == [(f"layer{i}", f"layer{i}") for i in (1, 2, 3, 4)]


def test_names_that_count_the_other_way_do_not_pair():
    up = tuple(Tap(f"decoder{i}", 8, 16 // 2**i, "decoder") for i in (1, 2, 3, 4))
    down = tuple(Tap(f"decoder{i}", 8, 2 ** (i - 1), "decoder") for i in (5, 4, 3, 2, 1))
    assert [(one.stride, other.stride) for one, other in pair_taps(up, down)] == [(8, 8), (4, 4), (2, 2), (1, 1)]


def test_names_that_are_a_level_off_do_not_pair():
    student = tuple(Tap(f"decoder{i}", 8, stride, "decoder") for i, stride in ((2, 8), (1, 8), (0, 4)))
    teacher = tuple(Tap(f"decoder{i}", 8, 2**i, "decoder") for i in (3, 2, 1, 0))
    assert names(pair_taps(student, teacher)) == [("decoder1", "decoder3"), ("decoder0", "decoder2")]


def test_names_that_leave_a_common_stride_out_do_not_decide():
    student, teacher = (*enc(2, 4), Tap("deep", 8, 8, "encoder")), (*enc(2, 4), Tap("last", 8, 8, "encoder"))
    found = pair_taps((*student, Tap("more", 8, 16, "encoder")), teacher, group="encoder")
    assert names(found) == [("stage0", "stage0"), ("stage1", "stage1"), ("deep", "last")]


def test_order_does_not_decide_where_equal_strides_would_part():
    assert names(pair_taps(dec(8, 8, 4), dec(32, 16, 8, prefix="up"))) == [("block1", "up2")]


def test_as_many_taps_pair_in_order():
    assert names(pair_taps(dec(16, 8), dec(32, 4, prefix="up"))) == [("block0", "up0"), ("block1", "up1")]


def test_else_the_last_taps_of_each_common_stride_pair():
    pairs = pair_taps(enc(4, 8, 8, 8), enc(2, 4, 8, 16, 8, prefix="level"), group="encoder")
    assert names(pairs) == [("stage0", "level1"), ("stage3", "level4")]


def test_else_the_last_pairs_with_the_last():
    assert names(pair_taps(dec(16, 8), dec(4, prefix="up"))) == [("block1", "up0")]


def test_the_group_decides_and_logits_never_pair_by_themselves():
    head = Tap("logits", 3, 4, "logits")
    student, teacher = (*enc(4, 8), *dec(8, 4), head), (*enc(4, 8, prefix="level"), *dec(8, 4, prefix="up"), head)
    assert names(pair_taps(student, teacher)) == [("block0", "up0"), ("block1", "up1")]
    assert names(pair_taps(student, teacher, group="encoder")) == [("stage0", "level0"), ("stage1", "level1")]


def test_a_group_that_one_network_lacks_is_replaced_for_both():
    before = Tap("stage0_preact", 8, 4, "preact")
    plain, full = enc(4, prefix="level"), (*enc(4), before)
    assert names(pair_taps((*enc(4), before), full, group="preact")) == [("stage0_preact", "stage0_preact")]
    assert names(pair_taps(full, plain, group="preact")) == [("stage0", "level0")]
    assert names(pair_taps(dec(4), plain, group="preact")) == [("block0", "level0")]
    assert names(pair_taps(full, (*plain, *dec(4)))) == [("stage0", "block0")], "before the ReLU would count twice"
    assert names(pair_taps((before,), plain)) == [("stage0_preact", "level0")]


@pytest.mark.parametrize("group", ["encoder", "preact", "decoder"])
def test_any_two_networks_with_a_feature_have_a_pair(group):
    head = Tap("logits", 3, 4, "logits")
    before = tuple(Tap(f"{tap.name}_preact", 8, tap.stride, "preact") for tap in enc(4, 8, 8, 8))
    networks = [
        enc(4, 8, 8, 8),
        before,
        (*enc(4, 8, 8, 8), *before, head),
        dec(16, 8, 4, prefix="up"),
        (*enc(4, 8, 16, 32, prefix="level"), *dec(16, 8, 4, 1)),
        (*enc(2), *dec(2, 2)),
        (Tap("x", 1, 1),),
    ]
    for student in networks:
        for teacher in networks:
            pairs = pair_taps(student, teacher, group=group)
            assert pairs
            assert len({mine.name for mine, _ in pairs}) == len(pairs)
            assert all(tap.group != "logits" for pair in pairs for tap in pair)


def test_depth_is_told_by_stride_and_then_by_the_place_in_the_network():
    taps = (*enc(2, 4, 4), *dec(4, 4, 2))
    found = [mine.name for mine, _ in deep_first(pair_taps(taps, taps, {t.name: t.name for t in taps}), taps)]
    assert found == ["stage2", "stage1", "block0", "block1", "stage0", "block2"]


def test_pairs_are_told_as_text():
    pairs = pair_taps((Tap("layer4", 512, 8), Tap("up", 64, 4)), (Tap("layer4", 2048, 8), Tap("up", 64, 1)))
    assert describe_pairs(pairs) == "layer4 [512, s8] <- layer4 [2048, s8]\nup [64, s4] <- up [64, s1]"


def test_named_pairs_win():
    student, teacher = (Tap("a", 8, 16), Tap("b", 8, 8)), (Tap("a", 8, 16), Tap("c", 8, 4))
    assert names(pair_taps(student, teacher, {"b": "c"})) == [("b", "c")]


def test_the_pairs_of_any_distiller_can_be_told():
    taps = (*enc(4, 8), *dec(4))
    found = {
        name: [mine.name for mine, _ in pairs_of(build(name, student_taps=taps, teacher_taps=taps))]
        for name in ("at", "review", "fitnet", "kd")
    }
    assert found == {"at": ["stage0", "stage1"], "review": ["stage0", "stage1"], "fitnet": ["block0"], "kd": []}


def test_no_pair_is_refused():
    with pytest.raises(RecipeError, match="no pair of taps is named"):
        pair_taps((Tap("a", 8, 8),), (Tap("a", 8, 8),), {})
    with pytest.raises(RecipeError, match=r"(?s)the teacher has no feature.*taps \['logits'\]"):
        pair_taps((Tap("a", 8, 8),), (Tap("logits", 8, 8, "logits"),))


def test_unknown_taps_are_refused_with_the_nearest_name():
    student, teacher = (Tap("layer4", 8, 8),), (Tap("stage4", 8, 8), Tap("up", 8, 4))
    with pytest.raises(RecipeError, match=r"(?s)the teacher has no such tap.*did you mean stage4\?"):
        pair_taps(student, teacher, {"layer4": "stage_4"})
    with pytest.raises(RecipeError, match=r"(?s)the student has no such tap.*did you mean layer4\?"):
        pair_taps(student, teacher, {"layer5": "up"})


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


@pytest.mark.parametrize(
    ("align", "size"), [("smaller", (4, 3)), ("student", (4, 6)), ("teacher", (8, 3)), ("larger", (8, 6))]
)
def test_grids_meet_where_asked(align, size):
    one, two = to_one_grid(torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 8, 3), align)
    assert one.shape[-2:] == two.shape[-2:] == size


def test_unknown_grid_is_refused():
    with pytest.raises(RecipeError, match="one of smaller, student, teacher, larger"):
        FeaturePairs((Tap("a", 4, 8),), (Tap("a", 4, 8),), adapt=True, align="largest")


def test_features_are_float32_and_the_teacher_is_detached():
    pairs = FeaturePairs((Tap("a", 2, 1),), (Tap("a", 3, 1),), adapt=True)
    logits = torch.zeros(1, 2, 4, 4)
    student = Segmentation(logits, {"a": torch.ones(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)})
    teacher = Segmentation(logits, {"a": torch.ones(1, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)})
    mine, theirs = pairs(student, teacher)["a"]
    assert mine.dtype == theirs.dtype == torch.float32
    assert mine.requires_grad
    assert not theirs.requires_grad


def test_no_grid_leaves_the_maps_as_they_are_and_float64_stays():
    pairs = FeaturePairs((Tap("a", 2, 1),), (Tap("a", 3, 1),), adapt=False, align=None)
    student = Segmentation(torch.zeros(1, 2, 4, 4), {"a": torch.ones(1, 2, 4, 4, dtype=torch.float64)})
    teacher = Segmentation(torch.zeros(1, 2, 4, 4), {"a": torch.ones(1, 3, 2, 5, dtype=torch.float64)})
    mine, theirs = pairs(student, teacher)["a"]
    assert (mine.shape, theirs.shape) == ((1, 2, 4, 4), (1, 3, 2, 5))
    assert mine.dtype == theirs.dtype == torch.float64


@pytest.mark.parametrize("size", [(4, 4), (8, 3), (16, 16)])
def test_adapting_on_the_smaller_grid_gives_the_same_feature(size):
    pairs = FeaturePairs((Tap("a", 2, 1),), (Tap("a", 3, 1),), adapt=True, align="teacher")
    feature = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = torch.zeros(2, 2, 8, 8)
    mine, _ = pairs(Segmentation(logits, {"a": feature}), Segmentation(logits, {"a": torch.zeros(2, 3, *size)}))["a"]
    torch.testing.assert_close(mine, resize(pairs.adapters["a"](feature), size))


def test_tokens_are_row_major():
    feature = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert tokens(feature).flatten().tolist() == [0, 1, 2, 3, 4, 5]
