"""Claims about the check across cases, each with the message a user sees."""

from pathlib import Path

from preceptor.data.case import Case
from preceptor.data.check_splits import check_splits
from preceptor.recipe_data import DataRecipe, SplitRecipe


def cases(**splits):
    """train=3, test=["a", "b"]: that many ungrouped cases, or one of each group."""
    result = []
    for split, groups in splits.items():
        for i, group in enumerate([None] * groups if isinstance(groups, int) else groups):
            result.append(Case(f"{split}{i}", Path(f"/d/{split}{i}.png"), split=split, group=group))
    return result


def data(groups="waived"):
    return DataRecipe(split=SplitRecipe(groups=groups))


def told(findings, code):
    return [(item.level, item.where, item.message) for item in findings if item.code == code]


def test_a_set_in_order_has_no_finding():
    findings, facts = check_splits(cases(train=8, val=3, test=6), data(), {})
    assert findings == []
    assert facts == {"splits": {"train": 8, "val": 3, "test": 6}, "groups": 0, "ungrouped": 17}


def test_a_small_test_split_is_a_warning():
    findings, _ = check_splits(cases(train=8, val=3, test=5), data(), {})
    assert told(findings, "small-test") == [
        (
            "warning",
            "test",
            "5 cases, at least 6 are needed for a test of significance; remedy: intervals will be wide and there will "
            "be no p-value; add test cases",
        )
    ]


def test_no_training_case_is_an_error_and_no_test_case_a_warning():
    findings, _ = check_splits(cases(val=3), data(), {})
    assert [item[:2] for item in told(findings, "missing-split")] == [("error", "train"), ("warning", "test")]
    assert told(findings, "missing-split")[0][2] == (
        "train 0, val 3, test 0; remedy: name training cases in the layout or the manifest, or set "
        "`data.split.rule: random`"
    )


def test_a_set_for_testing_only_is_no_error():
    findings, _ = check_splits(cases(test=9), data(), {})
    assert told(findings, "missing-split") == [
        (
            "warning",
            "train, val",
            "train 0, val 0, test 9; remedy: fine for evaluating a package; training needs `train` and `val`",
        )
    ]


def test_a_patient_in_two_splits_is_an_error():
    findings, facts = check_splits(cases(train=["p1", "p2", "p2"], val=["p3"], test=["p2"] * 6), data("auto"), {})
    assert told(findings, "group-overlap") == [
        (
            "error",
            "group p2",
            "6 in test, 2 in train; remedy: put all cases of a group in one split, or let `data.split.rule: random` "
            "do it",
        )
    ]
    assert facts["groups"] == 3


def test_waived_groups_still_tell_of_overlap():
    findings, _ = check_splits(cases(train=["p"], val=["q"], test=["p"] * 6), data("waived"), {})
    assert told(findings, "group-overlap")[0][0] == "warning"


def test_unknown_patients_are_a_warning_and_an_error_where_groups_are_required():
    findings, _ = check_splits(cases(train=8, val=3, test=6), data("auto"), {})
    assert told(findings, "no-groups") == [
        (
            "warning",
            "groups",
            "17 cases; cases of one patient may be in several splits; remedy: add groups.csv (case,group), a `group` "
            "column to the manifest, or `data.group_pattern`; `data.split.groups: waived` says that "
            "each case is its own patient",
        )
    ]
    findings, _ = check_splits(cases(train=8, val=3, test=6), data("required"), {})
    assert told(findings, "no-groups")[0][0] == "error"
    findings, _ = check_splits(cases(train=["p", None], val=["q"], test=["r"] * 6), data("required"), {})
    assert told(findings, "no-groups")[0][:2] == ("error", "train1")


def test_names_that_look_like_one_patient_are_hinted_at():
    def named(*names):
        return [Case(name, Path("/d/x.png"), split=split) for name, split in names]

    train, test = [(f"p{i}_{j}", "train") for i in range(4) for j in range(2)], [("p0_7", "test"), ("q", "test")]
    findings, _ = check_splits(named(*train, *test), data("auto"), {})
    assert (
        "; names such as p0_0 and p0_1 look like one patient's, and 1 such groups are in several splits; remedy"
        in (told(findings, "no-groups")[0][2])
    )
    findings, _ = check_splits(named(*[(f"covid_{i}", "train") for i in range(30)]), data("auto"), {})
    assert "look like" not in told(findings, "no-groups")[0][2]


def test_one_image_in_two_splits_is_an_error():
    hashes = {"train0": "x", "test3": "x", "train1": "y"}
    findings, _ = check_splits(cases(train=4, val=2, test=6), data(), hashes)
    assert told(findings, "duplicate-across-splits") == [
        (
            "error",
            "train0",
            "same pixels in train0 (train), test3 (test); remedy: keep one of each, or the test measures what was "
            "trained on",
        )
    ]


def test_one_image_twice_in_a_split_is_a_warning():
    findings, _ = check_splits(cases(train=4, val=2, test=6), data(), {"train0": "x", "train3": "x"})
    assert told(findings, "duplicate-image") == [
        (
            "warning",
            "train0",
            "same pixels in train0 (train), train3 (train); remedy: keep one of each, unless several references of one "
            "image are meant",
        )
    ]
