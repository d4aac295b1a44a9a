"""Attributes are read from many wordings, and what is not said stays unknown."""

import itertools
import json
from pathlib import Path

import pytest

from preceptor.text.attributes import ATTRIBUTES, parse_attributes, sentence

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
