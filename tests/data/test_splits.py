"""Splits keep groups together, depend on the seed alone, and the tail rule counts as published."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from preceptor.data.case import Case
from preceptor.data.splits import assign_splits, tail_count
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import SplitRecipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text_data.json").read_text())["splits"]
SHARES = {"languide": 0.8, "textfreekd_teacher": 0.22, "textfreekd_student": 0.88}


def cases(count, split="", groups=None):
    return tuple(
        Case(f"c{at:03d}", Path(f"/d/{at}.png"), split=split, group=groups and f"g{at % groups}") for at in range(count)
    )


def by_split(found):
    return {split: [case.name for case in found if case.split == split] for split in ("train", "val", "test")}


@pytest.mark.parametrize("item", GOLDEN, ids=lambda item: str(item["rows"]))
@pytest.mark.parametrize("method", SHARES)
def test_tail_counts_are_the_published_ones(item, method):
    assert tail_count(item["rows"], 1 - SHARES[method]) == item[method]["train"]


def test_tail_multiplies_by_the_share_that_trains():
    for rows in range(1, 300):
        for percent in range(1, 100):
            assert tail_count(rows, 1 - percent / 100) == int(percent / 100 * rows)


def test_tail_keeps_the_order_merges_validation_and_leaves_test_alone():
    rows = (*cases(24, "train"), *(Case(f"v{at}", Path("/v"), split="val") for at in range(6)))
    rows += tuple(Case(f"t{at}", Path("/t"), split="test") for at in range(3))
    found = by_split(assign_splits(rows, SplitRecipe(rule="tail", validation=0.12)))
    assert found["train"] == [f"c{at:03d}" for at in range(24)] + ["v0", "v1"]
    assert found["val"] == ["v2", "v3", "v4", "v5"]
    assert found["test"] == ["t0", "t1", "t2"]
    with pytest.raises(DataError, match="nothing to train on"):
        assign_splits(cases(1, "train"), SplitRecipe(rule="tail"))


def test_random_splits_keep_groups_together_and_shares_close():
    rows = cases(200, groups=40)
    found = assign_splits(rows, SplitRecipe(rule="random"))
    assert [case.name for case in found] == [case.name for case in rows]
    places = {}
    for case in found:
        places.setdefault(case.group, set()).add(case.split)
    assert all(len(of) == 1 for of in places.values())
    counts = {split: len(names) for split, names in by_split(found).items()}
    assert counts == {"train": 120, "val": 40, "test": 40}


def test_random_splits_depend_on_seed_and_not_on_order():
    rows = cases(60)
    first, again = (
        assign_splits(rows, SplitRecipe(rule="random")),
        assign_splits(rows[::-1], SplitRecipe(rule="random")),
    )
    other = assign_splits(rows, SplitRecipe(rule="random", seed=1))
    assert first == again[::-1]
    assert by_split(first) != by_split(other)
    assert by_split(first)["test"][:3] == ["c010", "c013", "c016"]  # the same on every machine and in every version


def test_uneven_groups_do_not_overshoot():
    rows = (*cases(30), *(Case(f"big{at}", Path("/b"), group="big") for at in range(70)))
    counts = {split: len(names) for split, names in by_split(assign_splits(rows, SplitRecipe(rule="random"))).items()}
    assert counts == {"train": 70, "val": 10, "test": 20}  # the large group trains, whatever the order


def test_given_splits_stay_and_validation_is_cut_by_groups_where_missing():
    rows = (*cases(40, "train", groups=10), *(Case(f"t{at}", Path("/t"), split="test") for at in range(5)))
    found = assign_splits(rows, SplitRecipe())
    counts = {split: len(names) for split, names in by_split(found).items()}
    assert counts == {"train": 32, "val": 8, "test": 5}
    assert not {c.group for c in found if c.split == "train"} & {c.group for c in found if c.split == "val"}
    assert assign_splits(found, SplitRecipe()) == found
    assert by_split(assign_splits(rows, SplitRecipe(validation=0.0)))["val"] == []


def test_given_names_the_cases_without_a_split():
    with pytest.raises(DataError, match=r"(?s)2 of 3 cases.*c000.*c001.*splits\.csv"):
        assign_splits((*cases(2), Case("z", Path("/z"), split="train")), SplitRecipe())


def test_required_groups_name_the_cases_without():
    with pytest.raises(DataError, match=r"(?s)2 of 2 cases.*c001.*groups\.csv"):
        assign_splits(cases(2), SplitRecipe(rule="random", groups="required"))
    assert assign_splits(cases(9, groups=5), SplitRecipe(rule="random", groups="required"))


def test_waived_groups_make_every_case_its_own():
    found = assign_splits(cases(50, groups=2), SplitRecipe(rule="random", groups="waived"))
    assert {case.group for case in found} == {None}
    assert len(by_split(found)["test"]) == 10


def test_too_few_groups_stop():
    with pytest.raises(DataError, match="too few groups"):
        assign_splits(cases(9, groups=2), SplitRecipe(rule="random"))
    with pytest.raises(DataError, match="too few groups"):
        assign_splits(cases(9, "train", groups=1), SplitRecipe())
    with pytest.raises(RecipeError, match="nothing is left"):
        assign_splits(cases(9), SplitRecipe(rule="random", validation=0.5, test=0.5))


def test_named_groups_volumes_and_cases_get_their_split_and_the_others_train():
    rows = cases(12, groups=4)
    rows = (*rows[:-1], replace(rows[-1], volume="scan"))
    named = {"val": ["g1"], "test": ["c000", "scan"]}
    found = by_split(assign_splits(rows, SplitRecipe(rule="named", named=named)))
    assert found["val"] == ["c001", "c005", "c009"]
    assert found["test"] == ["c000", "c011"]
    assert found["train"] == ["c002", "c003", "c004", "c006", "c007", "c008", "c010"]


def test_cases_that_no_list_names_take_no_part_where_the_training_is_named():
    found = assign_splits(cases(6, groups=3), SplitRecipe(rule="named", named={"train": ["g0"], "val": ["g1"]}))
    assert [case.split for case in found] == ["train", "val", ""] * 2


def test_names_that_the_data_do_not_hold_are_listed():
    with pytest.raises(DataError, match=r"1 of 2 names[\s\S]*patient099"):
        assign_splits(cases(6, groups=3), SplitRecipe(rule="named", named={"val": ["g0"], "test": ["patient099"]}))


def test_a_name_in_two_lists_is_refused():
    with pytest.raises(ValueError, match="in several places: g0"):
        SplitRecipe(rule="named", named={"val": ["g0"], "test": ["g0"]})
    with pytest.raises(ValueError, match="needs `named`"):
        SplitRecipe(rule="named")
