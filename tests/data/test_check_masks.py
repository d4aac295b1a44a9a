"""Claims about the check of what masks store, each with the message a user sees."""

import numpy as np
import pytest

from preceptor.data.check_masks import MaskRecord, check_masks, foreground, is_soft, propose, summarise_values
from preceptor.recipe_data import DataRecipe

BINARY = {"background": 0, "lesion": 255}


def mask(values, shape=(6, 8), dtype=np.uint8):
    """A mask whose first row holds the values and whose rest is 0."""
    pixels = np.zeros(shape, dtype)
    pixels[0, : len(values)] = values
    return pixels


def records(*masks, split="train", classes=None, fault=("it does not fit", "mend it")):
    fault = fault if classes is None else None
    return [MaskRecord(f"case{i}", split, summarise_values(pixels), classes, fault) for i, pixels in enumerate(masks)]


def told(findings, code):
    return [(item.level, item.where, item.message) for item in findings if item.code == code]


def test_values_are_counted_and_named():
    stored = summarise_values(mask([255, 255, 3]))
    assert stored.pixels == {0: 45, 3: 1, 255: 2}
    assert (stored.distinct, stored.total) == (3, 48)
    assert summarise_values(mask([0.5, 1], dtype=np.float32)).pixels == {0: 46, 0.5: 1, 1: 1}
    assert summarise_values(mask([-1, 7], dtype=np.int16)).pixels == {-1: 1, 0: 46, 7: 1}


def test_colours_are_told_as_colours_and_grey_ones_as_numbers():
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0, 0] = [255, 0, 10]
    assert summarise_values(colours).pixels == {"#000000": 15, "#ff000a": 1}
    assert summarise_values(np.full((4, 4, 3), 255, np.uint8)).pixels == {255: 16}


def test_undeclared_0_255_masks_get_the_remap_proposed():
    findings, facts = check_masks(records(mask([255]), mask([255, 255])), DataRecipe())
    assert told(findings, "no-labels") == [
        (
            "warning",
            "data.labels",
            "2 masks store the values 0, 255; remedy: if this is meant, add `labels: {background: 0, foreground: 255}`",
        )
    ]
    assert facts["proposed"] == {"labels": {"background": 0, "foreground": 255}, "mask_rule": "exact"}
    assert facts["foreground_share"]["train"]["foreground"] == pytest.approx(1.5 / 48)


def test_undeclared_classes_are_proposed_one_by_one():
    findings, _ = check_masks(records(mask([1, 2, 4])), DataRecipe())
    assert told(findings, "no-labels")[0][2] == (
        "1 masks store the values 0, 1, 2, 4; remedy: if this is meant, add "
        "`labels: {background: 0, class_1: 1, class_2: 2, class_3: 4}`"
    )


def test_undeclared_colours_are_proposed_as_colours():
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0, 0], colours[1, 1] = [255, 0, 0], [0, 255, 0]
    findings, _ = check_masks(records(colours), DataRecipe())
    assert told(findings, "no-labels")[0][2] == (
        "1 masks store the colours #000000, #00ff00, #ff0000; remedy: if this is meant, add "
        '`labels: {background: "#000000", class_1: "#00ff00", class_2: "#ff0000"}`'
    )


def test_soft_masks_get_the_threshold_rule_proposed():
    soft = mask(range(0, 256, 16), (8, 16))
    assert is_soft(summarise_values(soft))
    findings, facts = check_masks(
        [MaskRecord("case0", "train", summarise_values(soft), (120, 8))], DataRecipe(labels={})
    )
    told_here = told(findings, "no-labels")[0][2]
    assert "(up to 16 in one mask: interpolated or compressed with loss)" in told_here
    assert told_here.endswith("add `labels: {background: 0, foreground: 255}` and `mask_rule: threshold`")
    assert facts["foreground_share"]["train"]["foreground"] == pytest.approx(8 / 128)


def test_many_classes_are_not_taken_for_a_soft_mask():
    assert not is_soft(summarise_values(mask(range(1, 42), (8, 64))))
    labels, rule = propose(list(range(42)), soft=False)
    assert (len(labels), rule) == (42, "exact")


def test_an_undeclared_value_is_an_error_with_every_offender_and_a_remap():
    fitting = MaskRecord("case1", "train", summarise_values(mask([255])), (47, 1))
    one, _, two = records(mask([1]), mask([255]), mask([1, 2]))
    findings, _ = check_masks([one, fitting, two], DataRecipe(labels=BINARY))
    assert told(findings, "undeclared-value") == [
        (
            "error",
            "case0",
            "stores 1, expected only 0, 255; remedy: declare what is meant, for example "
            "`labels: {background: 0, class_1: 1, class_2: 2, class_3: 255}`",
        ),
        (
            "error",
            "case2",
            "stores 1, 2, expected only 0, 255; remedy: declare what is meant, for example "
            "`labels: {background: 0, class_1: 1, class_2: 2, class_3: 255}`",
        ),
    ]


def test_declared_0_1_but_stored_0_255_proposes_255():
    findings, _ = check_masks(records(mask([255])), DataRecipe(labels={"background": 0, "lesion": 1}))
    assert told(findings, "undeclared-value")[0][2] == (
        "stores 255, expected only 0, 1; remedy: declare what is meant, for example "
        "`labels: {background: 0, lesion: 255}`"
    )


def test_a_soft_mask_under_exact_labels_is_an_error_that_names_the_rule():
    soft = mask(range(0, 256, 15), (8, 32))
    findings, _ = check_masks(records(soft), DataRecipe(labels=BINARY))
    (level, where, message) = told(findings, "soft-mask")[0]
    assert (level, where) == ("error", "case0")
    assert message.startswith("stores 15, 30, 45,")
    assert message.endswith(
        "expected only 0, 255; remedy: `mask_rule: threshold` takes what is above half of full scale; better are masks "
        "without loss"
    )


def test_a_soft_mask_under_a_rule_is_a_warning():
    soft = mask(range(0, 256, 15), (8, 32))
    data = DataRecipe(labels=BINARY, mask_rule="threshold")
    findings, _ = check_masks(records(soft, classes=(248, 8)), data)
    assert told(findings, "soft-mask")[0][0] == "warning"
    assert told(findings, "soft-mask")[0][2].endswith(
        "remedy: `mask_rule: threshold` decides which are foreground; look at an overlay"
    )


def test_empty_masks_are_listed_and_counted_by_split():
    train = records(mask([255]), mask([]), classes=None)
    test = [MaskRecord("t", "test", summarise_values(mask([])), None)]
    findings, facts = check_masks(train + test, DataRecipe())
    assert told(findings, "empty-mask") == [
        ("note", "case1", "all 48 pixels are background (train)"),
        ("note", "t", "all 48 pixels are background (test)"),
    ]
    assert facts["empty_masks"] == {"train": 1, "test": 1}
    assert told(findings, "absent-class") == [
        ("warning", "test: foreground", "in none of 1 masks; it cannot be judged")
    ]


def test_a_declared_class_that_never_occurs_is_told():
    labels = {"background": 0, "liver": 1, "tumour": 2}
    findings, _ = check_masks(records(mask([1]), classes=(47, 1, 0)), DataRecipe(labels=labels))
    assert told(findings, "absent-class") == [("warning", "train: tumour", "in none of 1 masks; it cannot be learned")]


def test_foreground_of_undeclared_masks():
    assert foreground(mask([1, 2]), soft=False).sum() == 2
    assert foreground(mask(range(0, 256, 16), (8, 16)), soft=True).sum() == 8
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0, 0, 1] = 9
    assert foreground(colours, soft=False).sum() == 1
