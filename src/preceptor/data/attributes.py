"""Coded attributes of cases from a table, as C2FVL's data sets keep them: one column an attribute, one row a mask."""

import math
from collections.abc import Sequence
from pathlib import Path

from preceptor.data.annotations import Annotations
from preceptor.data.case import Case, Finding
from preceptor.data.pairing import file_name
from preceptor.data.tables import read_table
from preceptor.errors import DataError
from preceptor.text.attributes import ATTRIBUTES


def read_attributes(
    path: Path | str, cases: Sequence[Case]
) -> tuple[dict[str, dict[str, float | None]], tuple[Finding, ...]]:
    """(attributes by case name, findings) of a `.csv` or `.xlsx` with the columns `Image` and those of ATTRIBUTES.

    Rows name the mask, the image, the case, or a volume for all its slices. An empty cell is unknown, None; a case
    without a row is in no dictionary. Findings: rows that fit no case, or of which several mean the same case.
    Raises DataError for a table that cannot be read, a missing column, and cells that are no number, all at once.
    """
    path = Path(path)
    table = read_table(path, ("Image", *ATTRIBUTES))
    findings: list[Finding] = []
    rows = Annotations(path, "attribute", "warning", findings)
    values: dict[str, dict[str, float | None]] = {}
    faults: list[str] = []
    for row in table.rows:
        key = file_name(row.cells["Image"])
        if not key or key in values:
            faults.append(f"row {row.number}, column Image: {f'{key} is named twice' if key else 'it is empty'}")
            continue
        values[key] = {name: _value(row.cells[name], f"row {row.number}, column {name}", faults) for name in ATTRIBUTES}
        rows.rows[key], rows.numbers[key] = key, row.number
    if faults:
        raise DataError(
            "the table of attributes has cells that cannot be used",
            where=path,
            expected="0 or 1 for a fact, a number from 0 for `number`, and nothing where one is unknown",
            offenders=faults,
            remedy="mend these cells, or leave them empty",
        )
    return {case: values[key] for case, key in rows.match(cases).items()}, tuple(findings)


def _value(text: str, where: str, faults: list[str]) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        faults.append(f"{where}: {text!r} is no number from 0")
    return value
