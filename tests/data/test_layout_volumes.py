"""Folders of NIfTI volumes become slices that know their volume and patient."""

import numpy as np
import pytest

from preceptor.data.check import check
from preceptor.data.layouts import read_cases, recognise
from preceptor.data.readers import read_image, read_mask
from preceptor.data.splits import assign_splits
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe
from tests.published_folders import acdc, organs, volumes


def read(root, **settings):
    return read_cases(DataRecipe(root=str(root), **settings))


@pytest.mark.parametrize("place", [".", "database"])
def test_acdc_slices_have_their_frame_as_volume_and_their_patient_as_group(tmp_path, place):
    cases = read(acdc(tmp_path) / place)
    assert cases.layout == "acdc"
    assert cases.labels == {"background": 0, "right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
    assert len(cases.cases) == 4 * 2 * 4
    first = cases.cases[0]
    assert (first.name, first.volume, first.group) == ("patient001_frame01-000", "patient001_frame01", "patient001")
    assert first.slice == 0
    assert {case.group for case in cases.of("test")} == {"patient101"}
    assert cases.findings == ()
    image, label = organs((4, 24, 28), 4, seed=101)
    for case in cases.cases[:4]:
        np.testing.assert_array_equal(read_image(case.image, case.slice).pixels, (image[case.slice] * 900).astype(int))
        np.testing.assert_array_equal(read_mask(case.mask, case.slice).pixels, label[case.slice])


def test_acdc_validation_is_cut_by_patient(tmp_path):
    data = DataRecipe(root=str(acdc(tmp_path)))
    divided = assign_splits(read_cases(data).cases, data.split)
    splits = {}
    for case in divided:
        splits.setdefault(case.group, set()).add(case.split)
    assert sorted(map(sorted, splits.values())) == [["test"], ["train"], ["train"], ["val"]]


def test_frames_that_info_names_and_that_are_not_there_are_told(tmp_path):
    folder = acdc(tmp_path) / "database" / "training"
    (folder / "patient001" / "patient001_frame12_gt.nii.gz").unlink()
    (folder / "patient002" / "patient002_frame12.nii.gz").unlink()
    found = read(tmp_path).findings
    assert [item.level for item in found] == ["error", "error"]
    assert "frame 12 (ES), but its _gt file is not there" in found[0].message
    assert "frame 12 (ES), but it is not there" in found[1].message
    assert {item.level for item in read(tmp_path, drop_unpaired=True).findings} == {"warning"}


def test_test_patients_without_references_are_one_warning(tmp_path):
    folder = acdc(tmp_path) / "database" / "testing" / "patient101"
    for place in folder.glob("*_gt.nii.gz"):
        place.unlink()
    cases = read(tmp_path)
    assert cases.of("test") == ()
    assert [(item.level, item.code) for item in cases.findings] == [("warning", "no-reference")]


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_volumes_beside_masks_or_labels(tmp_path, masks):
    volumes(tmp_path, masks)
    (tmp_path / "groups.csv").write_text("case,group\nscan0,anna\nscan1,anna\nscan2,bert\n")
    (tmp_path / "splits.csv").write_text("case,split\nscan0,train\nscan1.nii,train\nscan2,test\n")
    (tmp_path / "reports.csv").write_text("case,report\nscan2,An organ.\n")
    cases = read(tmp_path)
    assert cases.layout == recognise(tmp_path) == "volumes"
    assert len(cases.cases) == 3 + 4 + 5
    assert {case.volume: (case.group, case.split, case.report) for case in cases.cases} == {
        "scan0": ("anna", "train", None),
        "scan1": ("anna", "train", None),
        "scan2": ("bert", "test", "An organ."),
    }


def test_without_groups_a_volume_is_its_own(tmp_path):
    assert {case.group for case in read(volumes(tmp_path)).cases} == {"scan0", "scan1", "scan2"}


def test_volumes_among_pictures_are_plain_folders(tmp_path):
    from PIL import Image

    volumes(tmp_path)
    assert read(tmp_path, layout="folders").layout == "folders"
    for folder in ("images", "masks"):
        Image.new("L", (8, 8)).save(tmp_path / folder / "a.png")
    assert recognise(tmp_path) == "folders"


def test_only_headers_are_read(tmp_path, monkeypatch):
    from preceptor.data import volumes as module

    monkeypatch.setattr(module, "_load", None)
    assert len(read(volumes(tmp_path)).cases) == 12


def test_wrong_folder_says_what_was_expected(tmp_path):
    (tmp_path / "training" / "patient001").mkdir(parents=True)
    with pytest.raises(DataError, match=r"acdc: training/patientNNN") as caught:
        read(tmp_path)
    assert "volumes: images with NIfTI files only" in str(caught.value)


def test_check_of_real_volumes(real_data, tmp_path):
    for name in ("ct", "mr"):
        for folder, part in (("images", ""), ("labels", "_seg")):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}.nii.gz").symlink_to(real_data / "nifti-samples" / f"{name}{part}.nii.gz")
    data = DataRecipe(root=str(tmp_path))
    cases = read_cases(data)
    assert {case.volume for case in cases.cases} == {"ct", "mr"}
    report = check(cases, data, None)
    codes = {item.code for item in report.findings}
    assert not codes & {"shape-mismatch", "geometry-mismatch", "unreadable-image", "unreadable-mask"}
