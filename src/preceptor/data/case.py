"""A case, a set of cases, and the manifest (`cases.csv`) in which people read and edit them."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Literal

from preceptor.data.tables import Row, read_table
from preceptor.errors import DataError
from preceptor.storage import write_text

Split = Literal["train", "val", "test", ""]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

COLUMNS = ("case", "split", "image", "mask", "group", "report", "slice", "volume")
"""Columns of a manifest. `case` and `image` are needed; an empty cell means that there is none."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image or slice, with optional mask, report and patient.

    name: unique in its set. image, mask: absolute paths. slice: index along the last axis where the file is a volume.
    group: what must not be in two splits, usually the patient. report: None where there is none, "" where it is empty.
    volume: name of the volume that a slice belongs to; the slices of one volume are judged together.
    attributes: coded facts in the wording of `text.attributes.coded`, where a table gives them; "" where it knows none.
    """

    name: str
    image: Path
    mask: Path | None = None
    split: Split = ""
    group: str | None = None
    report: str | None = None
    slice: int | None = None
    volume: str | None = None
    attributes: str | None = None

    def words(self, kind: str) -> str:
        """What a condition of this kind is made of: the report, or coded attributes where a table gives them."""
        coded = self.attributes if kind == "attributes" else None
        return (self.report if coded is None else coded) or ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found in a data set. level "error" stops a run; "warning" and "note" are shown.

    code: stable short name (`unpaired-mask`). where: case or file. message: what was found and what to do.
    """

    level: Literal["error", "warning", "note"]
    code: str
    where: str
    message: str


@dataclass(frozen=True)
class CaseSet:
    """The cases of a data set in a deterministic order, and what was found while its layout was read.

    labels: what the data set itself calls its classes, name to stored value; a proposal, never applied unasked.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    findings: tuple[Finding, ...] = field(default=())
    labels: Mapping[str, int] = field(default_factory=dict)

    def of(self, split: str) -> tuple[Case, ...]:
        """The cases of one split."""
        return tuple(case for case in self.cases if case.split == split)


def write_manifest(path: Path | str, cases: Iterable[Case], root: Path | str | None = None) -> None:
    """Write cases as `cases.csv`: UTF-8, one row a case, in their order.

    root: folder that paths are relative to, the manifest's own where left out; files elsewhere keep absolute paths.
    A report that is empty and one that does not exist are both an empty cell.
    """
    path = Path(path)
    base = Path(root if root is not None else path.parent).resolve()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case in cases:
        mask = _relative(case.mask, base) if case.mask else ""
        number = "" if case.slice is None else case.slice
        texts = (case.group or "", case.report or "", number, case.volume or "")
        writer.writerow((case.name, case.split, _relative(case.image, base), mask, *texts))
    write_text(path, text.getvalue())


def _relative(file: Path, base: Path) -> str:
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.as_posix()


def read_manifest(path: Path | str, root: Path | str | None = None, *, files_exist: bool = True) -> tuple[Case, ...]:
    """Read a manifest, in the order of its rows. Paths may be absolute, or relative to `root` (the manifest's folder).

    files_exist: whether files that do not exist are an error. Raises DataError that lists all faults with row and
    column: unknown columns, empty or repeated names, unknown splits, missing files, slices that are no number.
    """
    path = Path(path)
    base = Path(root if root is not None else path.parent).resolve()
    table = read_table(path, COLUMNS[:1] + COLUMNS[2:3], COLUMNS[1:2] + COLUMNS[3:], strict=True)
    faults: list[str] = []
    cases = [_case(row, base, files_exist, faults) for row in table.rows]
    seen: dict[str, int] = {}
    for row, case in zip(table.rows, cases, strict=True):
        if case.name and case.name in seen:
            faults.append(f"row {row.number}, column case: {case.name!r} is already in row {seen[case.name]}")
        seen.setdefault(case.name, row.number)
    if faults:
        raise DataError("the manifest has rows that cannot be used", where=path, offenders=faults)
    if not cases:
        raise DataError("the manifest has no case", where=path, expected="one row for each case below the header")
    return tuple(cases)


def _case(row: Row, base: Path, files_exist: bool, faults: list[str]) -> Case:
    def fault(column: str, told: str) -> None:
        faults.append(f"row {row.number}, column {column}: {told}")

    def file(column: str) -> Path | None:
        if not (text := row.cells.get(column, "")):
            return None
        place = base / text
        if not place.exists() and "\\" in text:
            place = base / PureWindowsPath(text).as_posix()
        if files_exist and not place.is_file():
            fault(column, f"there is no file {place}")
        return place

    name, split, number = (row.cells.get(column, "") for column in ("case", "split", "slice"))
    image = file("image")
    if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        fault("case", f"{name!r} cannot be a file's name" if name else "it is empty")
    if image is None:
        fault("image", "it is empty")
    if split not in (*SPLITS, ""):
        fault("split", f"{split!r} is none of {', '.join(SPLITS)}")
    if number and not (number.isascii() and number.isdigit()):
        fault("slice", f"{number!r} is no whole number from 0")
    return Case(
        name=name,
        image=image or base,
        mask=file("mask"),
        split=split if split in SPLITS else "",
        group=row.cells.get("group") or None,
        report=row.cells.get("report") or None,
        slice=int(number) if number.isascii() and number.isdigit() else None,
        volume=row.cells.get("volume") or None,
    )
