"""Attributes are read from many wordings, and what is not said stays unknown."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from preceptor.text.attributes import (
    ATTRIBUTES,
    attribute_vector,
    coded,
    parse_attributes,
    parse_coded,
    sentence,
)
from preceptor.text.sides import mirror

GOLDEN = Path(__file__).parents[1] / "golden" / "text_data.json"
UPPER_LEFT = dict.fromkeys(ATTRIBUTES, 0) | {"number": 1, "lupper": 1}


def test_golden_sentences():
    cases = json.loads(GOLDEN.read_text())["attributes"]
    assert len(cases) == 8
    for case in cases:
        assert parse_attributes(case["sentence"]) == case["attributes"], case["sentence"]


@pytest.mark.parametrize(
    "text",
    [
        "Unilateral pulmonary infection, one infected area, upper left lung.",
        "unilateral pulmonary infection,one infected area,upper left lung",
        "UNILATERAL PULMONARY INFECTION, 1 INFECTED AREA, UPPER LEFT LUNG .",
        "  Unilateral  pulmonary infection ; one infected areas ; upper   left lung. \n",
        "Unilateral pulmonary infection, one infected area, in the upper left lung.",
        "Unilateral pulmonary infection, one infected area, upper of the left lung.",
    ],
)
def test_wordings_of_one_fact(text):
    assert parse_attributes(text) == UPPER_LEFT


def test_thirds_may_be_joined_in_any_way_and_lungs_in_any_order():
    wanted = parse_attributes(
        "Bilateral pulmonary infection, two infected areas, upper lower left lung and all right lung."
    )
    assert wanted is not None
    for places in ("upper, lower left lung and all right lung", "all right lung and upper and lower left lung"):
        assert parse_attributes(f"Bilateral pulmonary infection, two infected areas, {places}.") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "The nuclei are evenly distributed.",
        "Bilateral pulmonary infection.",
        "Bilateral pulmonary infection, two infected areas.",
        "Bilateral pulmonary infection, several infected areas, upper left lung.",
        "Bilateral pulmonary infection, two infected areas, left lung.",
        "Bilateral pulmonary infection, two infected areas, upper left lung and lower left lung.",
        "Bilateral pulmonary infection, two infected areas, upper left lung and a pleural effusion.",
        "pulmonary infection, two infected areas, upper left lung.",
        "No bilateral pulmonary infection, two infected areas, upper left lung.",
    ],
)
def test_what_is_not_said_stays_unknown(text):
    assert parse_attributes(text) is None


def test_every_sentence_reads_back_as_its_attributes():
    for thirds in itertools.product((0, 1), repeat=6):
        for number in (1, 2, 20, 21) if any(thirds) else (0,):
            bilateral = int(any(thirds[:3]) and any(thirds[3:]))
            facts = dict(zip(ATTRIBUTES, (bilateral, number, *thirds), strict=True))
            assert parse_attributes(sentence(facts)) == facts


def test_no_infection_is_a_fact_too():
    assert sentence(dict.fromkeys(ATTRIBUTES, 0)) == "No pulmonary infection."
    assert parse_attributes("no pulmonary infection") == dict.fromkeys(ATTRIBUTES, 0)


UNKNOWN = float("nan")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bilateral pulmonary infection, two infected areas, all left lung and all right lung.", (1, 2, *[1] * 6)),
        ("Unilateral pulmonary infection, 3 infected areas, middle lower left lung.", (0, 3, 0, 1, 1, 0, 0, 0)),
        ("Bilateral pulmonary infection, six infected areas, lower left lung, and lower right lung.",
         (1, 6, 0, 0, 1, 0, 0, 1)),
        ("Unilateral pulmonary infection, one infected area, the upper right lung.", (0, 1, 0, 0, 0, 1, 0, 0)),
        ("Bilateral pulmonary infection, ten infected areas, upper middle left lung and middle lower right lung",
         (1, 10, 1, 1, 0, 0, 1, 1)),
        ("BILATERAL PULMONARY INFECTIONS; 2 INFECTED AREAS; ALL LEFT LUNG; LOWER RIGHT LUNG.",
         (1, 2, 1, 1, 1, 0, 0, 1)),
        ("Bilateral pulmonary infection , 12 infected areas ,  lower right lung and all of the left lung",
         (1, 12, 1, 1, 1, 0, 0, 1)),
        ("Unilateral pulmonary infection, twenty infected areas, middle left lungs.", (0, 20, 0, 1, 0, 0, 0, 0)),
        ("Unilateral pulmonary infection,0 infected areas,all right lung", (0, 0, 0, 0, 0, 1, 1, 1)),
        ("unilateral pulmonary infection, one infected area, upper, middle and lower right lung.",
         (0, 1, 0, 0, 0, 1, 1, 1)),
    ],
)  # fmt: skip
def test_phrasings_of_the_published_sets(text, expected):
    assert attribute_vector(parse_attributes(text)).tolist() == list(expected)


def test_what_is_unknown_is_nan_and_the_rest_keeps_its_place():
    vector = attribute_vector({"bilateral": 1, "number": None, "rlower": 0})
    torch.testing.assert_close(vector, torch.tensor([1.0, *[UNKNOWN] * 6, 0.0]), equal_nan=True)
    assert attribute_vector(None).isnan().all()


def test_a_mirrored_sentence_gives_the_attributes_of_the_mirrored_image():
    text = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
    across, down = parse_attributes(mirror(text, True, False)), parse_attributes(mirror(text, False, True))
    assert (across["llower"], across["rupper"], across["lupper"], across["rlower"]) == (1, 1, 0, 0)
    assert (down["llower"], down["rupper"], down["lupper"], down["rlower"]) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    "facts",
    [
        dict(zip(ATTRIBUTES, (1, 12, 0, 1, 0, 1, 0, 1), strict=True)),
        {"number": 2.5},
        {"rmiddle": 0, "bilateral": None},
        dict.fromkeys(ATTRIBUTES, 0) | {"number": 1e6},
    ],
)
def test_coded_attributes_read_back(facts):
    assert parse_coded(coded(facts)) == {name: value for name, value in facts.items() if value is not None}


def test_what_is_no_wording_of_coded_attributes_is_none():
    assert coded({}) == coded(dict.fromkeys(ATTRIBUTES)) == ""
    for text in ("", "left upper", "left upper 1;", "number 2, ", "left upper lung 1", "number -1", "bilateral"):
        assert parse_coded(text) is None, text


def test_coded_attributes_change_sides_with_a_flip():
    text = coded(dict(zip(ATTRIBUTES, (0, 3, 1, 0, 0, 0, 1, 0), strict=True)))
    across, down = parse_coded(mirror(text, True, False)), parse_coded(mirror(text, False, True))
    assert across == dict(zip(ATTRIBUTES, (0, 3, 0, 1, 0, 1, 0, 0), strict=True))
    assert down == dict(zip(ATTRIBUTES, (0, 3, 0, 0, 1, 0, 1, 0), strict=True))
    assert mirror(mirror(text, True, True), True, True) == text
