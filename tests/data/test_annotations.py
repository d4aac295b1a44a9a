"""Rows find their case, and rows that fit none, repeat or contradict each other are told with their number."""

from pathlib import Path

import pytest

from preceptor.data.annotations import read_annotations
from preceptor.data.case import Case

CASES = [Case(name, Path(f"/d/images/{name}.png"), Path(f"/d/masks/mask_{name}.png")) for name in "abc"]


def read(tmp_path, content, kind="report"):
    (tmp_path / "t.csv").write_text(content)
    findings = []
    table = read_annotations((tmp_path / "t.csv",), ("case", kind), kind=kind, level="error", findings=findings)
    return table, findings


def test_rows_may_name_mask_image_or_case(tmp_path):
    table, findings = read(tmp_path, "case,report\nmask_a.png,A\nimages/b.png,B\nc,C\n")
    assert table.match(CASES) == {"a": "A", "b": "B", "c": "C"}
    assert findings == []


def test_order_of_rows(tmp_path):
    table, _ = read(tmp_path, "case,report\nc,C\nmask_a.png,A\n")
    assert [case.name for case in table.in_order(CASES)] == ["c", "a", "b"]


def test_rows_without_a_case_are_told_unless_their_files_are_told_elsewhere(tmp_path):
    table, findings = read(tmp_path, "case,report\na,A\nx,X\nlone.png,L\n,nobody\n")
    assert table.match(CASES, spare=["mask_lone.png"]) == {"a": "A"}
    assert [item.code for item in findings] == ["report-without-case"] * 2
    assert "row 5 names no case" in findings[0].message
    assert "row 3 names x" in findings[1].message


def test_repeated_rows_keep_the_first(tmp_path):
    table, findings = read(tmp_path, "case,report\na,one\nimages/a,two\nb,x\nb,x\n")
    assert table.match(CASES) == {"a": "one", "b": "x"}
    assert [item.code for item in findings] == ["duplicate-report-row"] * 2
    assert "rows 2 and 3 both name a, with other content" in findings[0].message
    assert "same content" in findings[1].message


def test_two_rows_for_one_case_under_other_names_keep_the_first(tmp_path):
    table, findings = read(tmp_path, "case,report\na.png,one\nmask_a.png,two\n")
    assert table.match(CASES) == {"a": "one"}
    assert [item.code for item in findings] == ["duplicate-report-row"]
    assert "row 2 (a.png) and row 3 (mask_a.png) mean the same case" in findings[0].message


def test_unknown_splits_are_told(tmp_path):
    table, findings = read(tmp_path, "case,split\na,train\nb,Validation\n", "split")
    assert table.match(CASES) == {"a": "train"}
    assert [item.code for item in findings] == ["unknown-split"]
    assert "'Validation'; remedy: write one of train, val, test" in findings[0].message


def test_empty_cells_stay_empty(tmp_path):
    table, _ = read(tmp_path, "case,report\na,\n")
    assert table.match(CASES) == {"a": ""}


@pytest.mark.parametrize(("content", "told"), [("case,patient\na,b\n", "column group is missing"), ("", "empty")])
def test_unreadable_tables_are_findings(tmp_path, content, told):
    table, findings = read(tmp_path, content, "group")
    assert table.match(CASES) == {}
    assert [(item.level, item.code) for item in findings] == [("error", "unreadable-groups")]
    assert told in findings[0].message


def test_no_table_is_no_fault(tmp_path):
    findings = []
    table = read_annotations((tmp_path / "t.csv",), ("case", "group"), kind="group", level="error", findings=findings)
    assert table.match(CASES) == {}
    assert findings == []
