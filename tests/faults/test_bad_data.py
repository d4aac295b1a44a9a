"""Data that cannot be used, as users meet it: each fault stops before any compute, with the message that they read.

Numbers are those of the list of faults: 1 to 12 are about data, 22 about small and odd inputs.
"""

import gzip

import nibabel
import numpy as np
import pytest
from PIL import Image

from preceptor.data.check import check, render_check
from preceptor.data.layouts import read_cases
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe, ReportRecipe

LABELS = {"background": 0, "lesion": 255}
SPLITS = {"train": 8, "val": 2, "test": 6}
NAMES = [f"{split}{i}" for split, count in SPLITS.items() for i in range(count)]


def picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def table(path, header, rows):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """A sound set of 16 cases in plain folders."""
    root = tmp_path / "set"
    for at, name in enumerate(NAMES):
        rng = np.random.default_rng(at)
        mask = np.zeros((16, 16))
        mask[4:9, 3 + at % 4 : 9] = 255
        picture(root / f"images/{name}.png", rng.integers(0, 256, (16, 16)))
        picture(root / f"masks/{name}.png", mask)
    table(root / "reports.csv", "case,report", [(name, f"film {at} of many") for at, name in enumerate(NAMES)])
    table(root / "splits.csv", "case,split", [(name, name.rstrip("0123456789")) for name in NAMES])
    table(root / "groups.csv", "case,group", [(name, f"patient {name}") for name in NAMES])
    return root


def look(root, reads=True, **fields):
    """(report, text) of a check."""
    data = DataRecipe(root=str(root), **{"labels": LABELS, "image_size": 16, **fields})
    report = check(read_cases(data), data, ReportRecipe() if reads else None)
    return report, " ".join(render_check(report).split())


def codes(report):
    return sorted({(item.level, item.code) for item in report.findings})


def edit(root, name, function):
    """Rewrite the rows of a table: function from (case, value) to a list of rows."""
    header, *lines = (root / name).read_text().splitlines()
    table(root / name, header, [row for line in lines for row in function(*line.split(",", 1))])


def test_the_sound_set_has_no_fault(root):
    report, _ = look(root)
    assert report.findings == ()


def test_1_a_missing_mask_stops_and_can_be_left_out_on_purpose(root):
    (root / "masks/train3.png").unlink()
    report, text = look(root)
    assert ("error", "missing-mask") in codes(report)
    assert "an image has no mask [missing-mask] - images/train3.png: no mask in set/masks remedy: add it, or" in text
    for name in ("splits.csv", "groups.csv"):
        edit(root, name, lambda case, value: [] if case == "train3" else [(case, value)])
    report, text = look(root, drop_unpaired=True)
    assert not report.errors
    assert "images/train3.png: no mask in set/masks; left out" in text
    assert report.facts["splits"]["train"] == 7


def test_1_a_missing_image_stops(root):
    (root / "images/train3.png").unlink()
    report, text = look(root)
    assert ("error", "missing-image") in codes(report)
    assert "a mask has no image [missing-image] - masks/train3.png: no image in set/images" in text


def test_2_another_shape_stops_with_both_values(root):
    picture(root / "masks/train3.png", np.zeros((16, 12)))
    report, text = look(root)
    assert [item.code for item in report.errors] == ["shape-mismatch"]
    assert (
        "image and mask differ in shape (rows x columns) [shape-mismatch] - train3: image 16 x 16, mask 16 x 12" in text
    )


def write_volume(path, pixels, shift=0.0, zoom=1.0):
    affine = np.diag([-2.0 * zoom, -2.0, 5.0, 1.0])
    affine[0, 3] = shift
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(pixels, affine), path)


@pytest.fixture
def volumes(tmp_path):
    """One volume of three slices a split; a function writes the masks with a shift in mm or another spacing."""
    root = tmp_path / "volumes"

    def write(**mask):
        for at, split in enumerate(SPLITS):
            rng = np.random.default_rng(at)
            pixels = np.zeros((12, 10, 3), np.uint8)
            pixels[2:6, 3:7] = 1
            write_volume(root / f"images/{split}.nii.gz", rng.integers(-900, 900, (12, 10, 3)).astype(np.int16))
            write_volume(root / f"masks/{split}.nii.gz", pixels, **mask)
        table(root / "splits.csv", "case,split", [(split, split) for split in SPLITS])
        return root

    return write


def volume_look(root):
    return look(root, reads=False, labels={"background": 0, "organ": 1})


def test_2_another_spacing_stops(volumes):
    report, text = volume_look(volumes(zoom=1.5))
    assert {item.code for item in report.errors} == {"geometry-mismatch"}
    assert len(report.errors) == 3
    assert "[geometry-mismatch]: 3 - affines of image [[-2.0, 0.0, 0.0, 0.0]," in text
    assert "of mask [[-3.0, 0.0, 0.0, 0.0]," in text
    assert "they differ by up to 1 mm: test, train, val" in text


def test_3_rounding_is_accepted_and_noted_and_more_stops(volumes):
    report, text = volume_look(volumes(shift=4e-4))
    assert not report.errors
    assert "image and mask differ in place or spacing by rounding only; accepted [geometry-rounding]: 3" in text
    assert "affines differ by 4.0e-04 mm: test, train, val" in text
    report, text = volume_look(volumes(shift=4.0))
    assert {item.code for item in report.errors} == {"geometry-mismatch"}
    assert "they differ by up to 4 mm: test, train, val" in text
    assert "remedy: resample the mask onto its image's grid, or copy the header where the pixels do fit" in text


def test_4_undeclared_0_255_masks_get_a_remap_that_is_not_applied_unasked(root):
    report, text = look(root, labels={})
    assert [item.code for item in report.warnings] == ["no-labels"]
    assert (
        "16 masks store the values 0, 255 remedy: if this is meant, add `labels: {background: 0, foreground: 255}`"
        in text
    )
    report, text = look(root, labels={"background": 0, "lesion": 1})
    assert len([item for item in report.errors if item.code == "undeclared-value"]) == 16
    assert "[undeclared-value]: 16 - stores 255, expected only 0, 1: test0, test1, test2" in text
    assert "remedy: declare what is meant, for example `labels: {background: 0, lesion: 255}`" in text


def test_4_an_undeclared_value_in_one_mask_stops(root):
    mask = np.asarray(Image.open(root / "masks/train3.png")).copy()
    mask[0, 0] = 7
    picture(root / "masks/train3.png", mask)
    report, text = look(root)
    assert [(item.code, item.where) for item in report.errors] == [("undeclared-value", "train3")]
    assert (
        "a mask stores values that `labels` does not declare [undeclared-value] - train3: stores 7, expected only 0, "
        "255 remedy: declare what is meant, for example `labels: {background: 0, class_1: 7, class_2: 255}`" in text
    )


def test_4_colour_masks_get_colours_proposed(root):
    for name in NAMES:
        grey = np.asarray(Image.open(root / f"masks/{name}.png"))
        picture(root / f"masks/{name}.png", np.stack([grey, grey * 0, grey * 0], -1))
    _, text = look(root, labels={})
    assert 'add `labels: {background: "#000000", foreground: "#ff0000"}`' in text
    report, _ = look(root, labels={"background": "#000000", "lesion": "#ff0000"})
    assert not report.findings


def test_4_soft_masks_stop_with_the_rule_to_declare_and_are_a_warning_with_it(root):
    mask = Image.open(root / "masks/train3.png").resize((40, 40), Image.Resampling.BICUBIC).resize((16, 16))
    mask.save(root / "masks/train3.png")
    report, text = look(root)
    assert [(item.code, item.where) for item in report.errors] == [("soft-mask", "train3")]
    assert (
        "remedy: `mask_rule: threshold` takes what is above half of full scale; better are masks without loss" in text
    )
    report, text = look(root, mask_rule="threshold")
    assert codes(report) == [("warning", "soft-mask")]
    assert "`mask_rule: threshold` decides which are foreground; look at an overlay" in text


def test_5_empty_masks_are_counted_by_split_and_a_split_without_foreground_is_a_warning(root):
    for name in [*NAMES[:2], *NAMES[-6:]]:
        picture(root / f"masks/{name}.png", np.zeros((16, 16)))
    report, text = look(root)
    assert not report.errors
    assert report.facts["empty_masks"] == {"train": 2, "test": 6}
    assert "a mask has no foreground [empty-mask]: 8 - test0: all 256 pixels are background (test)" in text
    assert (
        "a declared class is in no mask [absent-class] - test: lesion: in none of 6 masks; it cannot be judged" in text
    )
    assert "masks, test lesion 0.00%; 6 empty" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_6_values_that_are_no_numbers_stop(root, value):
    import tifffile

    pixels = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    pixels[3, 4] = value
    (root / "images/train3.png").unlink()
    tifffile.imwrite(root / "images/train3.tif", pixels)
    report, text = look(root)
    assert [(item.code, item.where) for item in report.errors] == [("nan-image", "train3")]
    assert "train3: 1 of 256 values remedy: repair the image; a single such value makes the whole training NaN" in text


def test_6_a_constant_image_is_a_warning_and_no_duplicate(root):
    for name in NAMES[:2]:
        picture(root / f"images/{name}.png", np.full((16, 16), 40))
    report, text = look(root)
    assert codes(report) == [("warning", "constant-image")]
    assert "train0: every value is 40" in text
    assert "remedy: it becomes all zeros; look at it, and take the case out if it is broken" in text


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_7_an_empty_file_stops_and_names_itself(root, kind):
    (root / kind / "train3.png").write_bytes(b"")
    report, text = look(root)
    assert [(item.code, item.where) for item in report.errors] == [(f"unreadable-{kind.rstrip('s')}", "train3")]
    assert (
        f"train3: {kind}/train3.png: this is not PNG, as its name says; found the content is an empty file (0 bytes)"
        in text
    )


def test_7_a_picture_cut_short_stops(root):
    whole = (root / "images/train3.png").read_bytes()
    (root / "images/train3.png").write_bytes(whole[: len(whole) // 2])
    report, text = look(root)
    assert [item.code for item in report.errors] == ["unreadable-image"]
    assert "images/train3.png: the file cannot be read as PNG; found" in text
    assert "remedy: copy or export the file again, or remove the case" in text


def test_7_a_picture_called_nifti_and_a_gzip_cut_short_stop(root):
    (root / "images/train3.png").rename(root / "images/train3.nii.gz")
    _, text = look(root)
    assert "images/train3.nii.gz: this is not NIfTI, as its name says; found the content is PNG" in text
    assert "remedy: rename it to .png" in text
    packed = gzip.compress(bytes(4000))
    (root / "images/train3.nii.gz").write_bytes(packed[: len(packed) // 2])
    report, text = look(root)
    assert [item.code for item in report.errors] == ["unreadable-image"]
    assert "images/train3.nii.gz: this is not NIfTI, as its name says; found the content is a gzip archive" in text


def test_8_permuted_axes_of_the_same_anatomy_are_no_fault(volumes):
    root = volumes()
    for kind in ("images", "masks"):
        path = root / kind / "train.nii.gz"
        source = nibabel.load(path)
        turned = nibabel.as_closest_canonical(source)
        nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
        assert nibabel.aff2axcodes(source.affine) != nibabel.aff2axcodes(turned.affine)
    report, _ = volume_look(root)
    assert not report.errors


def test_9_a_case_without_report_stops_a_reading_teacher_only(root):
    edit(root, "reports.csv", lambda case, text: [] if case == "train3" else [(case, "" if case == "test0" else text)])
    report, text = look(root)
    assert [(item.code, item.where) for item in report.errors] == [("empty-report", "test0"), ("no-report", "train3")]
    assert "train3: no report; the teacher needs one remedy: write a report for each, or let them take part" in text
    assert "with an empty one: `data.missing_text: empty`" in text
    assert "test0: the report is empty; the teacher needs one" in text
    assert not look(root, missing_text="empty")[0].errors
    assert not look(root, reads=False)[0].errors


def test_9_a_report_without_case_and_a_repeated_row_stop_a_reading_teacher_only(root):
    edit(root, "reports.csv", lambda case, text: [(case, text), (case, "other")] if case == "val1" else [(case, text)])
    with open(root / "reports.csv", "a") as file:
        file.write("nobody,a text\n")
    report, text = look(root)
    assert {item.code for item in report.errors} == {"report-without-case", "duplicate-report-row"}
    assert (
        "reports.csv: row 19 names nobody, which is no case remedy: correct the name, add the files, or delete" in text
    )
    assert "reports.csv: rows 11 and 12 both name val1, with other content; the first is kept" in text
    assert not look(root, reads=False)[0].errors


def test_9_no_report_at_all_is_told_once(root):
    (root / "reports.csv").unlink()
    report, text = look(root)
    assert [item.code for item in report.errors] == ["no-reports"]
    assert "no case has a report [no-reports] - reports: none of 16 cases; the teacher needs one" in text
    assert look(root, reads=False)[0].findings == ()


def test_10_reports_beyond_the_kept_length_are_counted(root):
    edit(root, "reports.csv", lambda case, text: [(case, "word " * 60 if case == "train3" else text)])
    report, text = look(root)
    assert codes(report) == [("warning", "long-report")]
    assert "a report is longer than what is kept of it [long-report] - train3: 62 tokens, 24 are kept" in text
    assert "remedy: 1 of 16 reports lose their end; `reports.length: 62` keeps all" in text
    assert report.facts["reports"]["tokens"]["cut"] == 1


def test_10_a_byte_order_mark_is_no_fault(root):
    content = (root / "reports.csv").read_bytes()
    (root / "reports.csv").write_bytes(b"\xef\xbb\xbf" + content)
    assert look(root)[0].findings == ()


def test_10_another_encoding_stops_and_names_the_row(root):
    edit(root, "reports.csv", lambda case, text: [(case, "左肺上叶感染，两处" if case == "train3" else text)])
    content = (root / "reports.csv").read_text(encoding="utf-8").encode("gbk")
    (root / "reports.csv").write_bytes(content)
    report, text = look(root)
    assert {item.code for item in report.errors} == {"unreadable-reports", "no-reports"}
    assert "reports.csv, row 5: the table is not encoded as UTF-8; byte 0x" in text
    assert "it looks like GBK" in text


def test_10_text_that_went_through_a_wrong_encoding_is_a_warning(root):
    edit(root, "reports.csv", lambda case, text: [(case, "fever of 39 \u00c2\u00b0C" if case == "train3" else text)])
    report, text = look(root)
    assert codes(report) == [("warning", "odd-characters")]
    assert "'fever of 39 \u00c2\u00b0C' reads as 'fever of 39 \u00b0C' when decoded as UTF-8" in text


def test_10_an_excel_file_instead_of_csv_stops_with_the_conversion(root):
    (root / "reports.csv").unlink()
    (root / "reports.xlsx").write_bytes(b"PK\x03\x04")
    report, text = look(root)
    assert {item.code for item in report.errors} == {"missing-reports", "no-reports"}
    assert "reports.xlsx: this is not read; the layout expects reports.csv remedy: save it from the spreadsheet" in text


def test_11_reports_made_from_masks_are_called_out(root):
    rows = []
    for at, name in enumerate(NAMES):
        place = at % 2
        mask = np.zeros((16, 16))
        mask[10 * place : 10 * place + 4 + at % 3, 8 * place : 8 * place + 5] = 255
        picture(root / f"masks/{name}.png", mask)
        rows.append((name, ("lesion in the upper left part", "lesion in the lower right part")[place]))
    table(root / "reports.csv", "case,report", rows)
    report, text = look(root)
    assert ("warning", "leak") in codes(report)
    assert "LEAK SCORE WARNING: the reports describe the mask: leak score" in text
    assert "take its result as an upper bound, and judge the student against its control" in text


def test_12_a_patient_in_two_splits_stops(root):
    edit(root, "groups.csv", lambda case, group: [(case, "patient 7" if case in ("train1", "test0") else group)])
    report, text = look(root)
    assert [item.code for item in report.errors] == ["group-overlap"]
    assert "a patient or group is in several splits [group-overlap] - group patient 7: 1 in test, 1 in train" in text


def test_12_one_image_under_two_names_in_two_splits_stops_whatever_its_format(root):
    pixels = np.asarray(Image.open(root / "images/train1.png"))
    (root / "images/test0.png").unlink()
    picture(root / "images/test0.bmp", pixels)
    report, text = look(root)
    assert [item.code for item in report.errors] == ["duplicate-across-splits"]
    assert "test0: same pixels in test0 (test), train1 (train) remedy: keep one of each, or the test measures" in text


def test_12_one_image_twice_in_a_split_is_a_warning(root):
    pixels = np.asarray(Image.open(root / "images/train1.png"))
    picture(root / "images/train2.png", pixels)
    report, _ = look(root)
    assert codes(report) == [("warning", "duplicate-image")]


def test_22_odd_sizes_single_pixels_and_one_class_pass_the_check(root):
    rng = np.random.default_rng(0)
    picture(root / "images/train0.png", [[3]])
    picture(root / "masks/train0.png", [[255]])
    picture(root / "images/train1.png", rng.integers(0, 256, (3, 37)))
    picture(root / "masks/train1.png", np.full((3, 37), 255))
    report, text = look(root)
    assert not report.errors
    assert "3 sizes, from 1 x 1 to 16 x 16; all become 16 x 16" in text


def test_22_a_single_case_is_told_what_is_missing(root):
    for name in NAMES[1:]:
        for kind in ("images", "masks"):
            (root / kind / f"{name}.png").unlink()
    for name in ("reports.csv", "groups.csv", "splits.csv"):
        edit(root, name, lambda case, value: [(case, value)] if case == NAMES[0] else [])
    report, text = look(root)
    assert ("warning", "missing-split") in codes(report) or ("error", "split-failed") in codes(report)
    assert "too few cases with mask and report for a leak score: 1 of 12" in text


def test_the_first_twenty_of_many_offenders_are_shown_and_the_others_counted(root):
    for at in range(30):
        picture(root / f"images/extra{at:02d}.png", np.full((16, 16), at))
    report, text = look(root)
    assert len([item for item in report.errors if item.code == "missing-mask"]) == 30
    assert "[missing-mask]: 30" in text
    assert "... and 10 more" in text


def test_a_folder_without_any_layout_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(DataError, match="no known layout is in the data folder"):
        look(tmp_path)
