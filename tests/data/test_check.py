"""Claims about the whole check: it reads a set once, tells facts, and renders what a person can act on."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from preceptor.data import check_files
from preceptor.data.check import CheckReport, _check_images, check, render_check
from preceptor.data.layouts import read_cases
from preceptor.errors import DataError, RecipeError
from preceptor.recipe_data import DataRecipe, ReportRecipe
from preceptor.storage import write_json

LABELS = {"background": 0, "lesion": 255}
PARTS = (("train", 8), ("val", 2), ("test", 6))


def test_images_with_and_without_a_spacing_are_told_apart():
    images = [check_files.ImageRecord(f"c{n}", (16, 16), (0.5, 0.5) if n else None, "uint8", None) for n in range(3)]
    (item,) = (found for found in _check_images(images, DataRecipe())[0] if found.code == "spacing-missing")
    assert (item.level, "1 of 3" in item.message) == ("warning", True)
    assert not [found for found in _check_images(images[1:], DataRecipe())[0] if found.code == "spacing-missing"]


def test_ignored_values_are_declared_and_count_as_no_class(tmp_path):
    root = write_set(tmp_path)
    path = root / "masks" / "train0.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[mask == 0] = 9
    Image.fromarray(mask).save(path)
    settings = {"root": str(root), "labels": LABELS}
    refused = check(read_cases(DataRecipe(**settings)), DataRecipe(**settings), None)
    assert [(item.code, item.where) for item in refused.errors] == [("undeclared-value", "train0")]
    data = DataRecipe(**settings, ignore=[9])
    report = check(read_cases(data), data, None)
    assert not report.errors
    before = check(read_cases(data), DataRecipe(**{**settings, "labels": {"background": [0, 9], "lesion": 255}}), None)
    assert report.facts["foreground_share"] == before.facts["foreground_share"]
    with pytest.raises(ValueError, match="ignore needs mask_rule: exact"):
        DataRecipe(ignore=[9], mask_rule="threshold")


def write_set(root, size=(16, 20)):
    """A sound set in plain folders: every image its own, every patient in one split, reports not from masks."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in PARTS:
        for i in range(count):
            name = f"{split}{i}"
            mask = np.zeros(size, np.uint8)
            top, left = rng.integers(0, 8, 2)
            mask[top : top + 5, left : left + 6] = 255
            for folder, pixels in (("images", rng.integers(0, 256, size).astype(np.uint8)), ("masks", mask)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / folder / f"{name}.png")
            rows.append((name, split, f"finding number {i} of the {split} films"))
    (root / "reports.csv").write_text("case,report\n" + "".join(f"{name},{text}\n" for name, _, text in rows))
    (root / "splits.csv").write_text("case,split\n" + "".join(f"{name},{split}\n" for name, split, _ in rows))
    (root / "groups.csv").write_text("case,group\n" + "".join(f"{name},p-{name}\n" for name, *_ in rows))
    return root


def checked(root, reports=True, overlays=None, **fields):
    data = DataRecipe(root=str(root), **{"labels": LABELS, **fields})
    return check(read_cases(data), data, ReportRecipe() if reports else None, overlays=overlays)


def test_a_sound_set_has_no_finding_and_its_facts_are_told(tmp_path):
    report = checked(write_set(tmp_path / "d"), licence="CC0-1.0", image_size=[16, 20])
    assert report.findings == ()
    facts = report.facts
    assert facts["cases"] == 16
    assert facts["splits"] == {"train": 8, "val": 2, "test": 6}
    assert facts["sizes"] == {"16 x 20": 16}
    assert facts["modes"] == {"uint8, 1 channel": 16}
    assert facts["groups"] == 16
    assert facts["foreground_share"]["train"]["lesion"] == pytest.approx(30 / 320)
    assert facts["reports"]["distinct"] == 16
    assert facts["reports"]["tokens"]["kept"] == 24
    assert report.leak["score"] is not None
    text = render_check(report)
    assert text.splitlines()[0] == f"{tmp_path / 'd'}: 16 cases (train 8, val 2, test 6), layout folders"
    assert "  licence       CC0-1.0" in text
    assert text.endswith("0 errors, 0 warnings, 0 notes")


def test_each_file_is_read_once(tmp_path, monkeypatch):
    seen = Counter()
    for name in ("read_image", "read_mask"):
        real = getattr(check_files, name)
        monkeypatch.setattr(check_files, name, lambda path, at=None, real=real: seen.update([path]) or real(path, at))
    checked(write_set(tmp_path / "d"))
    assert len(seen) == 32
    assert set(seen.values()) == {1}


def test_progress_counts_every_case(tmp_path):
    data = DataRecipe(root=str(write_set(tmp_path / "d")), labels=LABELS)
    calls = []
    check(read_cases(data), data, None, progress=lambda *call: calls.append(call))
    assert calls == [(i, 16, "checking images and masks") for i in range(1, 17)]


def test_one_worker_and_many_find_the_same(tmp_path):
    root = write_set(tmp_path / "d")
    (root / "images/train3.png").write_bytes(b"")
    data = DataRecipe(root=str(root), labels=LABELS)
    one, four = (check(read_cases(data), data, None, workers=n) for n in (1, 4))
    assert one == four


def test_everything_goes_to_json(tmp_path):
    root = write_set(tmp_path / "d")
    (root / "images/train3.png").write_bytes(b"")
    report = checked(root)
    write_json(tmp_path / "data.json", report.to_dict())
    read = json.loads((tmp_path / "data.json").read_text())
    assert [item["code"] for item in read["findings"]] == [item.code for item in report.findings]
    assert set(read) == {"findings", "facts", "leak"}


def test_errors_raise_one_message_with_every_kind(tmp_path):
    root = write_set(tmp_path / "d")
    (root / "images/train3.png").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "masks/test1.png")
    report = checked(root)
    with pytest.raises(DataError) as caught:
        report.raise_errors()
    text = str(caught.value)
    assert "the data set cannot be used as it is" in text
    assert "2 errors" in text
    assert "an image file cannot be read [unreadable-image]" in text
    assert "    - test1: image 16 x 20, mask 4 x 4" in text
    assert caught.value.exit_code == 2
    CheckReport((), {}, None).raise_errors()


def test_splits_that_the_recipe_makes_are_judged_and_told(tmp_path):
    root = write_set(tmp_path / "d")
    table = (root / "splits.csv").read_text().replace(",val", ",train")
    (root / "splits.csv").write_text(table)
    report = checked(root)
    assert report.facts["splits"] == {"train": 8, "val": 2, "test": 6}
    assert [(item.code, item.message) for item in report.findings if item.where == "data.split"] == [
        ("split-made", "2 to val; rule given, validation 0.2, test 0.2, seed 0")
    ]


def test_labels_that_contradict_themselves_are_a_recipe_error(tmp_path):
    with pytest.raises(RecipeError, match="two classes have the same value"):
        checked(write_set(tmp_path / "d"), labels={"background": 0, "lesion": 0})


def test_a_leak_is_a_warning_and_stands_in_bold_words(tmp_path):
    root = write_set(tmp_path / "d")
    rows = []
    for split, count in PARTS:
        for i in range(count):
            place = i % 2
            mask = np.zeros((16, 20), np.uint8)
            mask[10 * place : 10 * place + 4, 12 * place : 12 * place + 5] = 255
            Image.fromarray(mask).save(root / f"masks/{split}{i}.png")
            rows.append(f"{split}{i},lesion in the {('upper left', 'lower right')[place]} part\n")
    (root / "reports.csv").write_text("case,report\n" + "".join(rows))
    report = checked(root)
    assert report.leak["leaks"]
    assert [item.code for item in report.warnings] == ["leak"]
    text = render_check(report)
    assert "LEAK SCORE\n  WARNING: the reports describe the mask: leak score 1.00" in text
    assert text.count("the reports describe the mask") == 1
    assert "upper bound" in report.warnings[0].message


def test_a_mismatch_gets_a_picture_where_a_folder_is_given(tmp_path):
    root = write_set(tmp_path / "d")
    mask = np.zeros((20, 16), np.uint8)
    mask[3:6, 4:8] = 255
    Image.fromarray(mask).save(root / "masks/train0.png")
    report = checked(root, overlays=tmp_path / "o")
    assert [item.message for item in report.errors] == [
        f"image 16 x 20, mask 20 x 16; see {tmp_path / 'o' / 'train0.png'}; remedy: the axes look swapped: transpose "
        "the mask"
    ]
    shown = np.asarray(Image.open(tmp_path / "o/train0.png")).astype(int)
    assert shown.shape == (20, 20, 3)
    assert (shown[4, 5, 0] - shown[4, 5, 1]) > 20


def test_clinical_notes_of_real_films_are_long_and_do_not_describe_the_mask(real_data):
    report = checked(real_data / "covid-cxr-infection-text")
    assert not report.errors
    assert report.facts["splits"] == {"train": 19, "val": 4, "test": 8}
    assert report.facts["reports"]["tokens"]["cut"] > 20
    assert report.leak["score"] < 0.2
    assert not report.leak["leaks"]
