"""Tables are read as people write them, and every fault names the file and the row."""

import openpyxl
import pytest

from preceptor.data.tables import read_table
from preceptor.errors import DataError


def excel(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_and_without_byte_order_mark(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes('case,report\n a ,"one, ""two"" – Übersicht\nline"\n\nb,\n'.encode(encoding))
    table = read_table(path, ("case",), ("report",))
    assert table.columns == ("case", "report")
    assert [row.cells for row in table.rows] == [
        {"case": "a", "report": 'one, "two" – Übersicht\nline'},
        {"case": "b", "report": ""},
    ]
    assert [row.number for row in table.rows] == [3, 5]


def test_workbook_gives_texts_of_the_first_sheet(tmp_path):
    path = excel(tmp_path / "t.xlsx", [["Image", "Description"], [12.0, " text "], [None, None], ["b.png", None]])
    rows = read_table(path, ("image",)).rows
    assert [(row.number, row.cells["image"], row.cells["Description"]) for row in rows] == [
        (2, "12", "text"),
        (4, "b.png", ""),
    ]


@pytest.mark.parametrize(
    ("text", "encoding", "name"), [("肺部感染", "gbk", "GBK"), ("37.9°C, Müller", "cp1252", "WINDOWS-1252")]
)
def test_other_encodings_name_the_row(tmp_path, text, encoding, name):
    path = tmp_path / "t.csv"
    path.write_bytes(b"case,report\na,plain\nb," + f'"{text}"\n'.encode(encoding))
    with pytest.raises(DataError, match=rf"row 3: the table is not encoded as UTF-8(.|\n)*{name}"):
        read_table(path)


def test_utf16_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("case\na\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        read_table(path)


def test_workbook_called_csv_is_refused_with_a_hint(tmp_path):
    path = excel(tmp_path / "t.xlsx", [["case"], ["a"]]).rename(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"Excel workbook, not CSV\n.*CSV UTF-8"):
        read_table(path)
    old = tmp_path / "old.xlsx"
    old.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 100)
    with pytest.raises(DataError, match="old Excel"):
        read_table(old)


@pytest.mark.parametrize("content", [b"", b"case,report\na,b\n", b"PK\x03\x04 cut short"])
def test_damaged_workbook(tmp_path, content):
    path = tmp_path / "t.xlsx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"no Excel workbook|damaged"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the table is empty"),
        ("name,report\na,b\n", "column case is missing"),
        ("case;report\na;b\n", "separate the columns by commas"),
        ("case,case\na,b\n", "column case is there twice"),
        ("case,report\na,one, two\n", r"row 2: the row has more cells than the header"),
        ('case,report\na,b\nc,"open\n', r"row \d: the table is not valid CSV"),
    ],
)
def test_faults_of_the_content(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(path, ("case",), ("report",))


def test_strict_tables_offer_the_nearest_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("case,spilt\na,train\n")
    assert read_table(path, ("case",), ("split",)).columns == ("case", "spilt")
    with pytest.raises(DataError, match="spilt: did you mean split"):
        read_table(path, ("case",), ("split",), strict=True)


def test_missing_table(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.csv")
