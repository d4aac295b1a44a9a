"""Tables that people write: CSV in UTF-8, and the first sheet of an Excel workbook. Every fault names file and row."""

import csv
import difflib
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.errors import DataError

SIZE_LIMIT = 256 * 2**20
"""Largest table that is read, in bytes, unpacked; real ones are far smaller."""

CSV_HINT = "save it from the spreadsheet program as `CSV UTF-8 (comma delimited)`"


@dataclass(frozen=True, slots=True)
class Row:
    """One row. number: as a spreadsheet or editor counts lines, the header being 1. cells: by column name, trimmed."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table with its column names in the order of the file. Rows without any content are left out."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(
    path: Path | str, required: Sequence[str] = (), optional: Sequence[str] = (), *, strict: bool = False
) -> Table:
    """Read `.csv` or `.xlsx`. `required` and `optional` match columns in any case, and name them in the result.

    strict: any other column is an error. Raises DataError for a missing or damaged file, an Excel workbook called
    `.csv`, another encoding than UTF-8 (with or without byte-order mark), a missing or repeated column, and a row with
    more cells than the header.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= SIZE_LIMIT else b""
    except OSError as error:
        raise DataError("the table cannot be opened", where=path, found=error.strerror) from error
    if size > SIZE_LIMIT:
        raise DataError("the table is too large", where=path, found=f"{size} bytes", expected=f"{SIZE_LIMIT} at most")
    excel = path.suffix.lower() == ".xlsx"
    _refuse_other_formats(path, content, excel)
    lines = _excel_lines(path, content) if excel else _csv_lines(path, content)
    first = next(lines, None)
    if first is None:
        raise DataError("the table is empty", where=path, expected=f"a header row: {','.join((*required, *optional))}")
    columns = _columns(path, first[1], required, optional, strict)
    return Table(path, tuple(filter(None, columns)), tuple(_rows(path, columns, lines)))


def _refuse_other_formats(path: Path, content: bytes, excel: bool) -> None:
    workbook, old = content[:4] == b"PK\x03\x04", content[:8] == bytes.fromhex("d0cf11e0a1b11ae1")
    if old:
        remedy = "save it as .xlsx" if excel else CSV_HINT
        raise DataError("this is a workbook of an old Excel (.xls)", where=path, remedy=remedy)
    if workbook and not excel:
        raise DataError("this is an Excel workbook, not CSV", where=path, remedy=CSV_HINT)
    if excel and not workbook:
        found = f"{len(content)} bytes that are no zip archive" if content else "an empty file (0 bytes)"
        remedy = "copy it again; a CSV file must be called .csv"
        raise DataError("this is no Excel workbook", where=path, found=found, remedy=remedy)


def _csv_lines(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_decoded(path, content), newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(
            "the table is not valid CSV",
            where=f"{path}, row {reader.line_num}",
            found=str(error),
            remedy='put text with commas, quotes or line breaks in "..." and double the quotes inside',
        ) from error


def _decoded(path: Path, content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("the table is encoded as UTF-16", where=path, expected="UTF-8", remedy=CSV_HINT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            "the table is not encoded as UTF-8",
            where=f"{path}, row {row}",
            found=f"byte 0x{content[error.start]:02x}; it looks like {_likely_encoding(content)}",
            expected="UTF-8",
            remedy=f"{CSV_HINT}, or convert it: iconv -f {_likely_encoding(content)} -t UTF-8",
        ) from error


def _likely_encoding(content: bytes) -> str:
    """GBK where most bytes above 127 are pairs of its common characters; else the usual Western encoding."""
    text = content.decode("gb2312", errors="replace")
    chinese = sum("\u3000" <= sign <= "\u303f" or "\u4e00" <= sign <= "\u9fff" or sign > "\uff00" for sign in text)
    strange = text.count("\ufffd")
    return "GBK" if chinese - strange > strange else "WINDOWS-1252"


def _excel_lines(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    from openpyxl import load_workbook

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > SIZE_LIMIT:
            raise DataError("the workbook unpacks to more than any table", where=path, found=f"{size} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions that no table needs
            workbook = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            lines = list(workbook.worksheets[0].iter_rows(values_only=True))
            workbook.close()
    except DataError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers raise
        raise DataError(
            "the Excel workbook is damaged",
            where=path,
            found=f"{type(error).__name__}: {error}",
            remedy="copy it again",
        ) from error
    for number, cells in enumerate(lines, 1):
        texts = [_cell(value) for value in cells]
        if any(texts):
            yield number, texts


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _columns(
    path: Path, header: list[str], required: Sequence[str], optional: Sequence[str], strict: bool
) -> list[str]:
    known = {name.casefold(): name for name in (*required, *optional)}
    columns = [known.get(name.casefold(), name) for name in header]
    missing = [name for name in required if name not in columns]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if missing or twice:
        joined = ";" in header[0] or "\t" in header[0]
        what = f"column {', '.join(missing)} is missing" if missing else f"column {', '.join(twice)} is there twice"
        remedy = "separate the columns by commas" if joined and missing else "mend the header, which is the first row"
        expected = ",".join((*required, *optional))
        raise DataError(f"the table's {what}", where=path, found=",".join(header), expected=expected, remedy=remedy)
    others = [name for name in columns if name and name not in known.values()]
    if strict and others:
        near = {name: difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.5) for name in others}
        hints = [f"{name}: did you mean {near[name][0]}?" if near[name] else name for name in others]
        remedy = f"rename or remove it; valid columns: {','.join((*required, *optional))}"
        raise DataError("the table has an unknown column", where=path, offenders=hints, remedy=remedy)
    return columns


def _rows(path: Path, columns: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    for number, cells in lines:
        if any(cells[len(columns) :]):
            raise DataError(
                "the row has more cells than the header",
                where=f"{path}, row {number}",
                found=f"{len(cells)} cells",
                expected=f"{len(columns)}: {','.join(columns)}",
                remedy='put text with commas in "..."',
            )
        padded = cells + [""] * (len(columns) - len(cells))
        yield Row(number, {name: cell for name, cell in zip(columns, padded, strict=False) if name})
