"""Each layout gives the same kind of cases, in a fixed order, and nothing that does not fit passes unseen."""

import nibabel as nib
import numpy as np
import openpyxl
import pytest
from PIL import Image

from preceptor.data.case import write_manifest
from preceptor.data.layouts import REPORT_CODES, read_cases, recognise
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import DataRecipe

DATA = DataRecipe()


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 9), value, np.uint8)).save(path)


def sheet(path, *rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def lvit(root):
    for split, names in (("Train", ("b", "a")), ("Val", ("c",)), ("Test", ("d", "e"))):
        folder = root / f"{split}_Folder"
        for name in names:
            picture(folder / "img" / f"{name}.{'tif' if split == 'Test' else 'png'}")
            picture(folder / "labelcol" / (f"mask_{name}.png" if split == "Train" else f"{name}.png"))
        prefix = "mask_" if split == "Train" else ""
        rows = [(f"{prefix}{name}.png", f"about {name}") for name in names]
        sheet(folder / f"{split}_text.xlsx", ("Image", "Description"), *rows)
    return root


def textfreekd(root):
    for split, names in (("Train", ("b", "a", "c")), ("Test", ("d",))):
        for name in names:
            picture(root / split / "Images" / f"{name}.png")
            picture(root / split / "GTs" / f"mask_{name}.png")
        (root / "prompt").mkdir(exist_ok=True)
        lines = [f"mask_{name}.png,about {name}" for name in names]
        (root / "prompt" / f"{split.lower()}.csv").write_text("Image,Description\n" + "\n".join(lines) + "\n")
    return root


def folders(root, names=("a", "b", "c")):
    for name in names:
        picture(root / "images" / f"{name}.png")
        picture(root / "masks" / f"{name}.png")
    (root / "reports.csv").write_text("case,report\n" + "".join(f"{name},about {name}\n" for name in names))
    return root


def told(found):
    return [(item.level, item.code) for item in found.findings]


def test_lvit(tmp_path):
    found = read_cases(DATA, lvit(tmp_path))
    assert found.layout == "lvit"
    assert found.findings == ()
    assert [(c.name, c.split, c.image.name, c.mask.name, c.report) for c in found.cases] == [
        ("a", "train", "a.png", "mask_a.png", "about a"),
        ("b", "train", "b.png", "mask_b.png", "about b"),
        ("c", "val", "c.png", "c.png", "about c"),
        ("d", "test", "d.tif", "d.png", "about d"),
        ("e", "test", "e.tif", "e.png", "about e"),
    ]
    assert found.cases[0].image.is_absolute()
    assert [case.group for case in found.cases] == [None] * 5


def test_lvit_with_one_sheet_for_train_and_val(tmp_path):
    root = lvit(tmp_path)
    for split in ("Train", "Val"):
        (root / f"{split}_Folder" / f"{split}_text.xlsx").unlink()
    rows = [("c.png", "about c"), ("mask_a.png", "about a"), ("b.png", "about b"), ("z.png", "nothing")]
    sheet(root / "Train_Folder" / "Train_Val_text.xlsx", ("Image", "Description"), *rows)
    found = read_cases(DATA, root)
    assert [case.report for case in found.cases] == [f"about {name}" for name in "abcde"]
    assert told(found) == [("error", "report-without-case")]
    assert "row 5 names z.png" in found.findings[0].message


def test_lvit_tolerates_coded_attributes(tmp_path):
    root = lvit(tmp_path)
    names = ("Image", "bilateral", "number", "lupper", "lmiddle", "llower", "rupper", "rmiddle", "rlower")
    sheet(root / "Val_Folder" / "Val_text.xlsx", names, ("c.png", 1, 2, 0, 0, 1, 0, 0, 1))
    found = read_cases(DATA, root)
    assert found.of("val")[0].report is None
    assert told(found) == [("warning", "no-report-column")]
    sheet(root / "Val_Folder" / "Val_text.xlsx", (*names, "Description"), ("c.png", 1, 2, 0, 0, 1, 0, 0, 1, "text"))
    assert read_cases(DATA, root).of("val")[0].report == "text"


def test_textfreekd_keeps_the_order_of_its_rows(tmp_path):
    found = read_cases(DATA, textfreekd(tmp_path))
    assert found.layout == "textfreekd"
    assert [(c.name, c.split, c.mask.name, c.report) for c in found.cases] == [
        ("b", "train", "mask_b.png", "about b"),
        ("a", "train", "mask_a.png", "about a"),
        ("c", "train", "mask_c.png", "about c"),
        ("d", "test", "mask_d.png", "about d"),
    ]
    assert found.findings == ()


def test_textfreekd_with_backslashes_and_other_endings(tmp_path):
    root = textfreekd(tmp_path)
    (root / "Train" / "Images" / "a.png").unlink()
    picture(root / "Train" / "Images" / "a.tif")
    rows = "Image,Description\nGTs\\mask_c.png,c\nImages\\b.png,b\nmask_a.tif,a\n"
    (root / "prompt" / "train.csv").write_text(rows)
    found = read_cases(DATA, root)
    assert [(c.name, c.report) for c in found.of("train")] == [("c", "c"), ("b", "b"), ("a", "a")]
    assert found.findings == ()


def test_folders_with_reports_groups_and_splits(tmp_path):
    root = folders(tmp_path)
    (root / "groups.csv").write_text("case,group\na,p1\nb,p1\nc.png,p2\n")
    (root / "splits.csv").write_text("case,split\na,train\nb,val\nc,test\n")
    found = read_cases(DATA, root)
    assert [(c.name, c.split, c.group, c.report) for c in found.cases] == [
        ("a", "train", "p1", "about a"),
        ("b", "val", "p1", "about b"),
        ("c", "test", "p2", "about c"),
    ]
    assert found.findings == ()


def test_groups_at_the_root_serve_every_layout(tmp_path):
    root = lvit(tmp_path)
    (root / "groups.csv").write_text("case,group\na,p1\nmask_b.png,p2\nc,p3\nd,p4\nnobody,p5\n")
    found = read_cases(DATA, root)
    assert [case.group for case in found.cases] == ["p1", "p2", "p3", "p4", None]
    assert told(found) == [("error", "group-without-case"), ("warning", "no-group")]


def test_volumes_become_one_case_a_slice_in_one_group(tmp_path):
    for name, depth in (("ct", 3), ("mr", 2)):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            volume = nib.Nifti1Image(np.zeros((4, 5, depth), np.int16), np.eye(4))
            nib.save(volume, tmp_path / folder / f"{name}.nii.gz")
    (tmp_path / "reports.csv").write_text("case,report\nct,whole\nct-001,slice\nmr-000,first\n")
    found = read_cases(DATA, tmp_path)
    assert [(c.name, c.slice, c.group, c.report) for c in found.cases] == [
        ("ct-000", 0, "ct", "whole"),
        ("ct-001", 1, "ct", "slice"),
        ("ct-002", 2, "ct", "whole"),
        ("mr-000", 0, "mr", "first"),
        ("mr-001", 1, "mr", None),
    ]
    assert found.findings == ()
    (tmp_path / "groups.csv").write_text("case,group\nct,anna\nmr,anna\n")
    assert {case.group for case in read_cases(DATA, tmp_path).cases} == {"anna"}


def test_manifest_goes_before_other_layouts_and_equals_them(tmp_path):
    root = folders(tmp_path)
    first = read_cases(DATA, root)
    write_manifest(root / "cases.csv", first.cases)
    assert recognise(root) == "manifest"
    assert read_cases(DATA, root).cases == first.cases
    assert read_cases(DATA, root / "cases.csv").cases == first.cases
    assert read_cases(DataRecipe(root=str(root), layout="folders")).layout == "folders"


def test_manifest_rows_of_volumes_are_expanded(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 2), np.int16), np.eye(4)), tmp_path / "v.nii")
    (tmp_path / "cases.csv").write_text("case,image,slice\nv,v.nii,\nw,v.nii,1\n")
    assert [(c.name, c.slice) for c in read_cases(DATA, tmp_path).cases] == [("v-000", 0), ("v-001", 1), ("w", 1)]


def test_unpaired_files_stop_and_can_be_dropped(tmp_path):
    root = folders(tmp_path)
    (root / "masks" / "a.png").unlink()
    (root / "images" / "b.png").unlink()
    found = read_cases(DATA, root)
    assert [case.name for case in found.cases] == ["c"]
    assert told(found) == [("error", "missing-mask"), ("error", "missing-image")]
    assert found.findings[0].where.endswith("images/a.png")
    assert "drop_unpaired" in found.findings[0].message
    dropped = read_cases(DataRecipe(drop_unpaired=True), root)
    assert [case.name for case in dropped.cases] == ["c"]
    assert told(dropped) == [("warning", "missing-mask"), ("warning", "missing-image")]
    assert "left out" in dropped.findings[0].message


def test_strange_files_are_told_and_hidden_ones_are_not(tmp_path):
    root = folders(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "notes.txt"):
        (root / "images" / name).write_text("x")
    picture(root / "images" / "more" / "z.png")
    assert told(read_cases(DATA, root)) == [("warning", "ignored-folder"), ("warning", "ignored-file")]


def test_names_that_clash(tmp_path):
    root = lvit(tmp_path)
    for folder in ("img", "labelcol"):
        picture(root / "Val_Folder" / folder / "a.png")
    sheet(root / "Val_Folder" / "Val_text.xlsx", ("Image", "Description"), ("c.png", "c"), ("a.png", "other a"))
    found = read_cases(DATA, root)
    assert [(c.name, c.report) for c in found.cases[:3]] == [
        ("train-a", "about a"),
        ("b", "about b"),
        ("val-a", "other a"),
    ]
    assert told(found) == [("note", "renamed-case")] * 2
    (root / "groups.csv").write_text("case,group\ntrain-a,p1\nval-a,p2\nb,p3\nc,p4\nd,p5\ne,p6\n")
    assert [case.group for case in read_cases(DATA, root).cases] == ["p1", "p3", "p2", "p4", "p5", "p6"]


def test_volumes_of_one_name_in_two_splits_stay_apart(tmp_path):
    for split, depth in (("Train", 3), ("Test", 2)):
        for folder in ("img", "labelcol"):
            (tmp_path / f"{split}_Folder" / folder).mkdir(parents=True)
            volume = nib.Nifti1Image(np.zeros((4, 5, depth), np.int16), np.eye(4))
            nib.save(volume, tmp_path / f"{split}_Folder" / folder / "ct.nii")
    found = read_cases(DATA, tmp_path)
    assert [(case.name, case.volume) for case in found.cases] == [
        ("train-ct-000", "train-ct"),
        ("train-ct-001", "train-ct"),
        ("ct-002", "train-ct"),
        ("test-ct-000", "test-ct"),
        ("test-ct-001", "test-ct"),
    ]


def test_a_row_that_means_files_of_several_splits_is_told(tmp_path):
    root = lvit(tmp_path)
    picture(root / "Test_Folder" / "img" / "c.tif")
    picture(root / "Test_Folder" / "labelcol" / "c.png")
    (root / "groups.csv").write_text("case,group\na,p1\nb,p2\nc.png,p3\nd,p4\ne,p5\n")
    found = read_cases(DATA, root)
    assert ("error", "ambiguous-group") in told(found)
    assert any("write the case: val-c, test-c" in item.message for item in found.findings)


def test_two_images_of_one_name_stop(tmp_path):
    root = folders(tmp_path)
    for folder in ("images", "masks"):
        picture(root / folder / "a.bmp")
    assert told(read_cases(DATA, root)) == [("error", "same-name")]


def test_sets_without_masks_are_for_prediction(tmp_path):
    picture(tmp_path / "images" / "a.png")
    found = read_cases(DATA, tmp_path)
    assert found.cases[0].mask is None
    assert told(found) == [("warning", "missing-folder")]


def test_reports_in_excel_where_csv_is_expected_are_hinted_at(tmp_path):
    root = textfreekd(tmp_path)
    (root / "prompt" / "train.csv").unlink()
    sheet(root / "prompt" / "train.xlsx", ("Image", "Description"), ("mask_a.png", "about a"))
    found = read_cases(DATA, root)
    assert told(found) == [("error", "missing-reports")]
    assert "CSV UTF-8" in found.findings[0].message
    assert [case.report for case in found.cases] == [None, None, None, "about d"]


def test_findings_about_reports_are_known_and_soften_where_reports_may_be_missing(tmp_path):
    root = folders(tmp_path)
    (root / "reports.csv").write_bytes("case,report\na,肺部\nb,x\n".encode("gbk"))
    found = read_cases(DATA, root)
    assert told(found) == [("error", "unreadable-reports")]
    assert "row 2" in found.findings[0].where
    assert found.findings[0].code in REPORT_CODES
    assert told(read_cases(DataRecipe(missing_text="empty"), root)) == [("warning", "unreadable-reports")]


def test_a_wrong_root_tells_what_was_looked_for_and_what_is_near(tmp_path):
    lvit(tmp_path / "MoNuSeg")
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(DataError) as caught:
        read_cases(DATA, tmp_path)
    for part in (
        "MoNuSeg/, README.md",
        "lvit: Train_Folder/img",
        "textfreekd: Train/Images",
        "folders: images",
        "MoNuSeg: lvit?",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"did you mean .*MoNuSeg: lvit"):
        read_cases(DATA, tmp_path / "MoNuSeg" / "Train_Folder")
    with pytest.raises(DataError, match=r"layout textfreekd is not(.|\n)*Train/Images"):
        read_cases(DataRecipe(layout="textfreekd"), tmp_path / "MoNuSeg")


def test_roots_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_cases(DATA, tmp_path / "none")
    with pytest.raises(RecipeError, match=r"data\.root"):
        read_cases(DATA)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has no case"):
        read_cases(DATA, tmp_path)
    (tmp_path / "Train" / "Images").mkdir(parents=True)
    with pytest.raises(DataError, match="several layouts"):
        recognise(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="root is a file"):
        read_cases(DATA, tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("folder", "counts", "reports"),
    [
        ("monuseg-text/MoNuSeg", (24, 6, 7), 37),
        ("covid-cxr-infection-text", (19, 4, 8), 31),
        ("covid-cxr-lungs/a-radiopaedia-journals", (36, 13, 19), 68),
        ("covid-cxr-lungs/c-hannover", (0, 0, 31), 0),
        ("dsb2018-stained-nuclei", (0, 0, 44), 0),
    ],
)
def test_real_data_pairs_without_findings(real_data, folder, counts, reports):
    found = read_cases(DataRecipe(root=str(real_data / folder)))
    assert found.layout == "lvit"
    assert tuple(len(found.of(split)) for split in ("train", "val", "test")) == counts
    assert sum(bool(case.report) for case in found.cases) == reports
    assert found.findings == ()
