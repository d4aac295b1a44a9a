"""A manifest can be read, edited by people and written back, and its faults name row and column."""

import pytest

from preceptor.data.case import Case, read_manifest, write_manifest
from preceptor.errors import DataError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "img").mkdir()
    for name in ("a.png", "b.png", "m.png"):
        (tmp_path / "img" / name).write_bytes(b"x")
    return tmp_path.resolve()


def test_manifest_survives_a_round_trip(root):
    img = root / "img"
    cases = (
        Case("a", img / "a.png", img / "m.png", "train", "p1", 'commas, "quotes"\nand – lines', 3, "v"),
        Case("b", img / "b.png"),
    )
    write_manifest(root / "cases.csv", cases)
    assert read_manifest(root / "cases.csv") == cases
    text = (root / "cases.csv").read_text(encoding="utf-8")
    assert text.startswith("case,split,image,mask,group,report,slice,volume\na,train,img/a.png,img/m.png,p1,")


def test_files_outside_the_root_keep_absolute_paths(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere").resolve() / "a.png"
    elsewhere.write_bytes(b"x")
    write_manifest(root / "cases.csv", [Case("a", elsewhere)])
    assert read_manifest(root / "cases.csv")[0].image == elsewhere


def test_manifest_may_lie_elsewhere_than_its_files(root, tmp_path):
    write_manifest(tmp_path / "run" / "cases.csv", [Case("a", root / "img" / "a.png")], root)
    assert read_manifest(tmp_path / "run" / "cases.csv", root)[0].image == root / "img" / "a.png"
    assert read_manifest(tmp_path / "run" / "cases.csv", files_exist=False)[0].name == "a"


def test_few_columns_in_any_order_and_backslashes_are_enough(root):
    (root / "cases.csv").write_bytes(b"\xef\xbb\xbfImage,Case\r\nimg\\a.png,a\r\n")
    assert read_manifest(root / "cases.csv") == (Case("a", root / "img" / "a.png"),)


def test_all_faults_are_listed_with_row_and_column(root):
    (root / "cases.csv").write_text(
        "case,split,image,mask,slice\n"
        "a,train,img/a.png,img/m.png,0\n"
        "a,valid,img/b.png,,-1\n"
        ",test,img/none.png,,\n"
        "c/d,test,,img/no.png,x\n"
    )
    with pytest.raises(DataError) as caught:
        read_manifest(root / "cases.csv")
    text = str(caught.value)
    for told in (
        "row 3, column split: 'valid' is none of train, val, test",
        "row 3, column slice: '-1'",
        "row 3, column case: 'a' is already in row 2",
        "row 4, column case: it is empty",
        "row 4, column image: there is no file",
        "row 5, column case: 'c/d' cannot be a file's name",
        "row 5, column image: it is empty",
        "row 5, column mask: there is no file",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,image,spilt\na,img/a.png,train\n", "did you mean split"),
        ("case,mask\na,img/a.png\n", "column image is missing"),
        ("case,image\n", "no case"),
    ],
)
def test_manifests_that_are_no_manifests(root, content, message):
    (root / "cases.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_manifest(root / "cases.csv")
