"""The check counts what is known of each attribute, and stops where nothing is."""

from pathlib import Path

import pytest

from preceptor.data.case import Case
from preceptor.data.check_attributes import check_attributes
from preceptor.recipe_data import ReportRecipe

SENTENCE = "Unilateral pulmonary infection, two infected areas, all left lung."


def case(name: str, report: str | None = None, attributes: str | None = None, split: str = "train") -> Case:
    return Case(name, Path(f"{name}.png"), split=split, report=report, attributes=attributes)  # type: ignore[arg-type]


def test_known_attributes_are_counted_and_silent_cases_named() -> None:
    cases = [case("a", SENTENCE), case("b", "Words."), case("c"), case("d", "Words.", "number 3")]
    findings, facts = check_attributes(cases, ReportRecipe())
    assert [(item.level, item.code, item.where) for item in findings] == [
        ("warning", "unknown-attributes", "b"),
        ("warning", "unknown-attributes", "c"),
    ]
    told = facts["attributes"]
    assert (told["cases"], told["of"], told["complete"]) == (2, 4, 1)
    assert (told["known"]["number"], told["known"]["bilateral"]) == (2, 1)


def test_a_table_goes_before_the_report() -> None:
    _, facts = check_attributes([case("a", SENTENCE, ""), case("b", SENTENCE, "number 3")], ReportRecipe())
    assert facts["attributes"]["cases"] == 1


def test_notes_are_read_where_the_recipe_says_so() -> None:
    cases = [case("a", "Left basal opacity.")]
    assert check_attributes(cases, ReportRecipe(coding="notes"))[1]["attributes"]["known"]["llower"] == 1


@pytest.mark.parametrize("cases", [[case("a", "Words.")], [case("a"), case("b", SENTENCE, split="test")]])
def test_nothing_known_in_training_is_an_error_with_its_remedy(cases: list[Case]) -> None:
    ((finding,), _) = check_attributes(cases, ReportRecipe())
    assert (finding.level, finding.code) == ("error", "no-attributes")
    assert "reports.coding: notes" in finding.message


def test_values_that_are_no_facts_are_told() -> None:
    findings, _ = check_attributes([case("a", attributes="bilateral 1, number 7, left upper 255")], ReportRecipe())
    ((level, code, message),) = [(item.level, item.code, item.message) for item in findings]
    assert (level, code) == ("warning", "odd-attribute")
    assert message.startswith("lupper 255; 0 and 1 are expected")
