"""nnU-Net's raw folders are read as it means them, and what cannot be read so is said."""

import json
import shutil

import pytest

from preceptor.data.check import check
from preceptor.data.layout_nnunet import nnunet_labels
from preceptor.data.layouts import read_cases
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe
from tests.published_folders import nnunet


def read(root, **settings):
    return read_cases(DataRecipe(root=str(root), **settings))


def change(root, **changes):
    path = root / "dataset.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_cases_are_the_slices_of_training_and_test_volumes(tmp_path):
    cases = read(nnunet(tmp_path))
    assert cases.layout == "nnunet"
    assert len(cases.cases) == 6 * 4
    first = cases.cases[0]
    assert (first.name, first.volume, first.split, first.slice) == ("heart_000-000", "heart_000", "train", 0)
    assert first.image.name == "heart_000_0000.nii.gz"
    assert first.mask.name == "heart_000.nii.gz"
    assert {case.volume for case in cases.of("test")} == {"heart_004", "heart_005"}
    assert cases.findings == ()


def test_labels_of_the_data_set_are_proposed(tmp_path):
    nnunet(tmp_path)
    data = DataRecipe(root=str(tmp_path))
    report = check(read_cases(data), data, None)
    (told,) = (item.message for item in report.findings if item.code == "no-labels")
    assert "labels: {background: 0, left atrium: 1, wall: 2}" in told


def test_pictures_are_cases_of_their_own(tmp_path):
    cases = read(nnunet(tmp_path, ".png"))
    assert [case.name for case in cases.of("test")] == ["heart_004", "heart_005"]
    assert all(case.slice is None and case.volume is None for case in cases.cases)


def test_first_fold_divides_the_training_cases(tmp_path):
    fold = {"train": ["heart_000", "heart_002"], "val": ["heart_001", "heart_009"]}
    (nnunet(tmp_path) / "splits_final.json").write_text(json.dumps([fold, fold]))
    cases = read(tmp_path)
    assert {case.volume: case.split for case in cases.cases} == {
        "heart_000": "train",
        "heart_001": "val",
        "heart_002": "train",
        "heart_003": "",
        "heart_004": "test",
        "heart_005": "test",
    }
    assert sorted(item.code for item in cases.findings) == ["first-fold", "split-without-case"]
    (tmp_path / "splits_final.json").write_text("{}")
    with pytest.raises(DataError, match="the splits are not as nnU-Net writes them"):
        read(tmp_path)


def test_test_images_without_labels_are_left_out_with_a_note(tmp_path):
    shutil.rmtree(nnunet(tmp_path) / "labelsTs")
    cases = read(tmp_path)
    assert cases.of("test") == ()
    assert [(item.level, item.code) for item in cases.findings] == [("note", "no-reference")]


def test_lone_files_are_told(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "labelsTr" / "heart_001.nii.gz").unlink()
    (tmp_path / "imagesTr" / "heart_002_0000.nii.gz").rename(tmp_path / "imagesTr" / "heart_002.nii.gz")
    cases = read(tmp_path)
    assert {case.volume for case in cases.of("train")} == {"heart_000", "heart_003"}
    assert sorted((item.level, item.code) for item in cases.findings) == [
        ("error", "missing-image"),
        ("error", "missing-mask"),
        ("warning", "ignored-file"),
    ]


def test_several_channels_are_refused_with_a_remedy(tmp_path):
    nnunet(tmp_path)
    shutil.copy(tmp_path / "imagesTr/heart_000_0000.nii.gz", tmp_path / "imagesTr/heart_000_0001.nii.gz")
    with pytest.raises(DataError, match=r"several channels(.|\n)*heart_000_0001(.|\n)*one channel only"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "declares no labels"),
        ({"labels": {"0": "background", "1": "atrium"}}, "version 1"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "labels overlap"),
        ({"labels": {"background": 0, "atrium": 1, "ignore": 2}}, "to be ignored"),
        ({"labels": {"background": 0, "atrium": 1.5}}, "no whole number"),
    ],
)
def test_labels_that_are_no_classes_of_one_mask(tmp_path, changes, message):
    change(nnunet(tmp_path), **changes)
    with pytest.raises(DataError, match=message):
        nnunet_labels(tmp_path)
    cases = read(tmp_path)
    assert [(item.level, item.code) for item in cases.findings] == [("warning", "labels-unusable")]
    assert cases.labels == {}
    assert read(tmp_path, labels={"background": 0, "all": [1, 2]}).findings == ()


def test_background_comes_first_and_lists_are_kept(tmp_path):
    change(nnunet(tmp_path), labels={"wall": 3, "background": 0, "both": [1, 2]})
    assert list(nnunet_labels(tmp_path).items()) == [("background", 0), ("wall", 3), ("both", [1, 2])]
    (note,) = read(tmp_path).findings
    assert "labels: {background: 0, wall: 3, both: [1, 2]}" in note.message


@pytest.mark.parametrize("ending", [None, ".nrrd"])
def test_endings_that_cannot_be_read(tmp_path, ending):
    change(nnunet(tmp_path), file_ending=ending)
    with pytest.raises(DataError, match="no file_ending that can be read"):
        read(tmp_path)


def test_damaged_description(tmp_path):
    (nnunet(tmp_path) / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json"):
        read(tmp_path)
