"""Attributes of tables reach the cases, and a changed table is another data set."""

from pathlib import Path

import pytest

from preceptor.data.case import CaseSet
from preceptor.data.layouts import read_cases
from preceptor.errors import DataError
from preceptor.preparing import read_case_set, with_attributes
from preceptor.progress import Progress
from preceptor.recipe import validate_recipe
from preceptor.recipe_data import DataRecipe, ReportRecipe
from preceptor.resuming import fingerprints
from preceptor.text.attributes import ATTRIBUTES

HEADER = ",".join(("Image", *ATTRIBUTES))


@pytest.fixture
def cases(small_data: Path) -> CaseSet:
    return read_cases(DataRecipe(root=str(small_data)))


def write(path: Path, *rows: str) -> str:
    path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return path.name


def test_tables_beside_the_data_give_attributes_and_silence_is_unknown(cases: CaseSet, small_data: Path) -> None:
    one = write(small_data / "one.csv", "c00.png,0,1,1,0,0,0,0,0")
    two = write(small_data / "two.csv", "c01.png,,2,,,,,,", "nobody.png,0,1,1,0,0,0,0,0")
    found = with_attributes(cases, ReportRecipe(attributes=[one, two]))
    coded = {case.name: case.attributes for case in found.cases}
    assert coded["c00"] == (
        "bilateral 0, number 1, left upper 1, left middle 0, left lower 0, right upper 0, right middle 0, right lower 0"
    )
    assert (coded["c01"], coded["c02"]) == ("number 2", "")
    assert [item.code for item in found.findings[len(cases.findings) :]] == ["attribute-without-case"]
    assert with_attributes(cases, ReportRecipe()) is cases


def test_a_path_from_elsewhere_is_read_too_and_a_missing_one_is_refused(cases: CaseSet, tmp_path: Path) -> None:
    write(tmp_path / "far.csv", "c00.png,0,1,1,0,0,0,0,0")
    found = with_attributes(cases, ReportRecipe(attributes=str(tmp_path / "far.csv")))
    assert found.cases[0].attributes
    with pytest.raises(DataError, match=r"no such table of attributes[\s\S]*none\.csv"):
        with_attributes(cases, ReportRecipe(attributes="none.csv"))


def test_changed_attributes_are_another_data_set(small_recipe: dict, small_data: Path) -> None:
    recipe = validate_recipe(small_recipe, changes=["reports.attributes=facts.csv"])
    seen = []
    for value in (0, 1):
        write(small_data / "facts.csv", f"c00.png,0,1,{value},0,0,0,0,0")
        seen.append(fingerprints(read_case_set(recipe, Progress()).cases))
    assert {name for name in seen[0] if seen[0][name] != seen[1][name]} == {"c00"}
    plain = fingerprints(read_case_set(validate_recipe(small_recipe), Progress()).cases)
    assert not set(plain.values()) & set(seen[0].values()), "a case without attributes is another one, too"
