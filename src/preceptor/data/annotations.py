"""Tables beside the images, and which case each row belongs to: reports, groups, splits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.data.case import SPLITS, Case, Finding
from preceptor.data.check_findings import finding
from preceptor.data.pairing import file_name, pair, stem
from preceptor.data.tables import CSV_HINT, read_table
from preceptor.errors import DataError

REPORT_CODES = frozenset(
    {"unreadable-reports", "missing-reports", "no-report-column", "report-without-case", "duplicate-report-row"}
)
"""Codes of findings that concern reports only: no fault for a command that reads none."""


@dataclass
class Annotations:
    """One table's values by the file or case name of its rows, in the order of the rows.

    level: of findings about rows that fit no case or contradict each other. findings: where they are added.
    """

    path: Path | None
    kind: str
    level: str
    findings: list[Finding]
    rows: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def match(self, cases: Sequence[Case], spare: Iterable[str] = ()) -> dict[str, str]:
        """Case name to value. Rows name the mask, the image, the case, or a volume for all its slices.

        spare: file names that are no cases but may have rows. Rows that fit nothing become findings.
        """
        partners: dict[str, list[str]] = {}
        by_mask: dict[str, list[Case]] = {}
        by_image: dict[str, list[Case]] = {}
        for case in cases:
            by_image.setdefault(case.image.name, []).append(case)
            if case.mask is not None:
                by_mask.setdefault(case.mask.name, []).append(case)
        left = list(self.rows)
        for index in (by_mask, by_image):
            found = pair(left, index)
            for key, name in found.items():
                partners[key] = [case.name for case in index[name]]
                if len({case.image for case in index[name]}) > 1:
                    told = f"row {self.numbers[key]}: {key} is a file in several splits"
                    self._add(f"ambiguous-{self.kind}", told, f"write the case: {', '.join(partners[key])}")
            left = [key for key in left if key not in found]
        names = {case.name for case in cases}
        single = {key: stem(key) if stem(key) in names else key for key in left}
        spared = pair(left, spare)
        for key in left:
            if single[key] in names:
                partners[key] = [single[key]]
            elif key not in spared:
                told = f"row {self.numbers[key]} names {key}, which is no case"
                remedy = "correct the name, add the files, or delete the row"
                self._add(f"{self.kind}-without-case", told, remedy)
        return self._values(partners)

    def _values(self, partners: dict[str, list[str]]) -> dict[str, str]:
        """Case name to value. A row for one slice goes before one for its whole volume, else the first row stays."""
        chosen: dict[str, str] = {}
        clashes: set[tuple[str, str]] = set()
        for key in (key for key in self.rows if key in partners):
            for name in partners[key]:
                other = chosen.get(name)
                if other is not None and len(partners[other]) == len(partners[key]):
                    clashes.add((other, key))
                elif other is None or len(partners[key]) < len(partners[other]):
                    chosen[name] = key
        for pair_of_rows in sorted(clashes, key=lambda keys: self.numbers[keys[1]]):
            first, second = (f"row {self.numbers[key]} ({key})" for key in pair_of_rows)
            told = f"{first} and {second} mean the same case; the first is kept"
            self._add(f"duplicate-{self.kind}-row", told, "delete one of them")
        return {name: self.rows[key] for name, key in chosen.items()}

    def in_order(self, cases: Sequence[Case]) -> list[Case]:
        """The cases in the order of their rows, then those without a row in their own order."""
        files = {key: at for at, key in enumerate(self.rows)}
        masks = pair(files, [case.mask.name for case in cases if case.mask is not None])
        images = pair([key for key in files if key not in masks], [case.image.name for case in cases])
        place = {name: files[key] for key, name in (*images.items(), *masks.items())}

        def at(case: Case) -> int:
            of_mask = place.get(case.mask.name) if case.mask is not None else None
            return place.get(case.image.name, len(files)) if of_mask is None else of_mask

        return sorted(cases, key=at)

    def _add(self, code: str, told: str, remedy: str) -> None:
        self.findings.append(finding(self.level, code, self.path, told, remedy))  # type: ignore[arg-type]


def read_annotations(
    paths: Sequence[Path], columns: tuple[str, str], *, kind: str, level: str, findings: list[Finding]
) -> Annotations:
    """The first table of `paths` that exists; an empty one where there is none or it cannot be read.

    columns: (name of the file or case, value). Faults become findings; a value is "" where its cell is empty.
    """
    path = next((path for path in paths if path.is_file()), None)
    result = Annotations(path, kind, level, findings)
    plural = f"{kind}s"
    if path is None:
        wrong = [path.with_suffix(ending) for path in paths for ending in (".xlsx", ".xls", ".csv")]
        other = next((path for path in wrong if path.is_file()), None)
        if other is not None:
            remedy = CSV_HINT if paths[0].suffix == ".csv" else "save it as an Excel workbook (.xlsx)"
            told = f"this is not read; the layout expects {paths[0].name}"
            findings.append(finding(level, f"missing-{plural}", other, told, remedy))  # type: ignore[arg-type]
        return result
    try:
        table = read_table(path, columns[:1], columns[1:])
        if columns[1] not in table.columns and kind != "report":
            raise DataError(f"the table's column {columns[1]} is missing", where=path, found=",".join(table.columns))
    except DataError as error:
        told = "; ".join(filter(None, (error.what, str(error.found or ""))))
        where = error.where or path
        findings.append(finding(level, f"unreadable-{plural}", where, told, error.remedy))  # type: ignore[arg-type]
        return result
    if columns[1] not in table.columns:
        told = f"columns {', '.join(table.columns)}; none is {columns[1]}"
        remedy = "rename the column of the text; coded attributes are not read as text"
        findings.append(finding("warning", f"no-{kind}-column", path, told, remedy))
        return result
    for row in table.rows:
        key, value = file_name(row.cells[columns[0]]), row.cells.get(columns[1], "")
        if not key:
            result._add(f"{kind}-without-case", f"row {row.number} names no case", "fill its first column")
        elif kind == "split" and value not in SPLITS:
            result._add("unknown-split", f"row {row.number}: {value!r}", f"write one of {', '.join(SPLITS)}")
        elif key in result.rows:
            same = "with the same content" if value == result.rows[key] else "with other content; the first is kept"
            told = f"rows {result.numbers[key]} and {row.number} both name {key}, {same}"
            result._add(f"duplicate-{kind}-row", told, "delete one of them")
        else:
            result.rows[key], result.numbers[key] = value, row.number
    return result
