"""Attributes of cases are read from the tables of C2FVL's data sets; what is not said stays unknown."""

from pathlib import Path

import pytest

from preceptor.data.attributes import read_attributes
from preceptor.data.case import Case
from preceptor.errors import DataError
from preceptor.text.attributes import ATTRIBUTES

HEADER = ("Image", *ATTRIBUTES)
FULL = (1, 3, 0, 1, 1, 1, 0, 1)


@pytest.fixture
def cases(tmp_path):
    return [
        Case(name, tmp_path / "img" / f"{name}.png", tmp_path / "labelcol" / f"mask_{name}.png") for name in ("a", "b")
    ]


def table(folder: Path, rows, ending=".csv"):
    file = folder / f"text{ending}"
    if ending == ".xlsx":
        from openpyxl import Workbook

        workbook = Workbook()
        for row in rows:
            workbook.active.append(list(row))
        workbook.save(file)
    else:
        file.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_rows_name_masks_and_give_every_attribute(tmp_path, cases, ending):
    file = table(tmp_path, [HEADER, ("mask_a.png", *FULL)], ending)
    found, findings = read_attributes(file, cases)
    assert found == {"a": dict(zip(ATTRIBUTES, map(float, FULL), strict=True))}
    assert findings == ()


def test_an_empty_cell_is_unknown_and_columns_may_stand_in_any_order(tmp_path, cases):
    file = table(tmp_path, [HEADER[::-1], ("", *FULL[1:-1][::-1], 0, "mask_b.png")])
    found, _ = read_attributes(file, cases)
    assert found["b"]["rlower"] is None
    assert found["b"]["bilateral"] == 0


def test_a_row_without_a_case_is_told(tmp_path, cases):
    found, findings = read_attributes(table(tmp_path, [HEADER, ("mask_z.png", *FULL)]), cases)
    assert found == {}
    assert [finding.code for finding in findings] == ["attribute-without-case"]


def test_all_faults_are_named_at_once(tmp_path, cases):
    rows = [HEADER, ("mask_a.png", "yes", *FULL[1:]), ("mask_b.png", 1, -2, *FULL[2:]), ("mask_a.png", *FULL)]
    with pytest.raises(DataError) as error:
        read_attributes(table(tmp_path, rows), cases)
    told = str(error.value)
    for part in ("row 2, column bilateral: 'yes'", "row 3, column number: '-2'", "row 4, column Image: mask_a.png"):
        assert part in told


def test_a_missing_column_is_named(tmp_path, cases):
    with pytest.raises(DataError, match="rlower is missing"):
        read_attributes(table(tmp_path, [HEADER[:-1], ("mask_a.png", *FULL[:-1])]), cases)
