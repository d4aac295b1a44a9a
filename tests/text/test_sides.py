"""A flipped image gets the report that is true of it, or is not flipped."""

import random

import pytest

from preceptor.text.sides import HORIZONTAL, VERTICAL, can_mirror, mentions_side, mirror


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("opacity in the left lung", "opacity in the right lung"),
        ("Left-sided effusion, RIGHT clear", "Right-sided effusion, LEFT clear"),
        ("RUL nodule and LLL opacity", "LUL nodule and RLL opacity"),
        ("Lt. lung", "Rt. lung"),
        ("bilateral infiltrates, patient upright, leftover", "bilateral infiltrates, patient upright, leftover"),
        (
            "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower right lung.",
            "Bilateral pulmonary infection, two infected areas, middle lower left lung and upper right lung.",
        ),
        ("Upper left lung and all right lung", "All left lung and upper right lung"),
        ("upper left lung and lower left lung", "upper right lung and lower right lung"),
        ("one infected area, all left lung.", "one infected area, all right lung."),
        ("", ""),
    ],
)
def test_left_and_right_change_places(text, flipped):
    assert mirror(text, horizontal=True, vertical=False) == flipped
    assert mirror(flipped, horizontal=True, vertical=False) == text


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("upper left lung", "lower left lung"),
        ("Upper middle left lung", "Middle lower left lung"),
        ("upper middle lower left lung", "upper middle lower left lung"),
        ("upper lower right lung", "upper lower right lung"),
        ("Apical scar, basal effusion", "Basal scar, apical effusion"),
        ("at the TOP, superior to the hilum", "at the BOTTOM, inferior to the hilum"),
        ("RUL nodule", "RLL nodule"),
        ("The nuclei density in the upper is high.", "The nuclei density in the lower is high."),
    ],
)
def test_up_and_down_change_places(text, flipped):
    assert mirror(text, horizontal=False, vertical=True) == flipped
    assert mirror(flipped, horizontal=False, vertical=True) == text


def test_both_axes_at_once():
    assert mirror("upper left lung", horizontal=True, vertical=True) == "lower right lung"
    assert mirror("upper left lung", horizontal=False, vertical=False) == "upper left lung"


def test_mirroring_twice_is_the_identity():
    draw = random.Random(0)
    words = [*HORIZONTAL, *VERTICAL, "middle", "all", "lung", "lung and", "and", "bilateral", "infection,", "area."]
    forms = (str.lower, str.upper, str.capitalize)
    for _ in range(2000):
        text = " ".join(draw.choice(forms)(draw.choice(words)) for _ in range(draw.randint(0, 14)))
        for horizontal, vertical in ((True, False), (False, True), (True, True)):
            assert mirror(mirror(text, horizontal, vertical), horizontal, vertical) == text


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("left lung", {"horizontal"}),
        ("lower zones", {"vertical"}),
        ("upper left lung", {"horizontal", "vertical"}),
        ("RML collapse", {"horizontal"}),
        ("RLL collapse", {"horizontal", "vertical"}),
        ("lesion at 3 o'clock", {"horizontal", "vertical"}),
        ("Bilateral infection.", set()),
        ("The nuclei are evenly distributed.", set()),
        ("", set()),
    ],
)
def test_mentioned_axes(text, axes):
    assert mentions_side(text) == axes


@pytest.mark.parametrize(
    "text",
    [
        "RML opacity",
        "rml opacity",
        "right middle lobe",
        "lingular atelectasis",
        "mass at 10 o'clock",
        "L lung",
        "minor fissure",
    ],
)
def test_reports_without_a_mirrored_wording_forbid_the_flip(text):
    assert not can_mirror(text, horizontal=True, vertical=False)


def test_only_the_axis_in_question_forbids():
    assert can_mirror("RML opacity", horizontal=False, vertical=True)
    assert can_mirror("left costophrenic angle", horizontal=True, vertical=False)
    assert not can_mirror("left costophrenic angle", horizontal=False, vertical=True)
    assert can_mirror("upper left lung and middle right lung", horizontal=True, vertical=True)
    assert can_mirror("", horizontal=True, vertical=True)
