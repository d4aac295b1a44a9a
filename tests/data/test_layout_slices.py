"""ACDC as SSL4MIS has it and Synapse as TransUNet prepares it: slices train, volumes are judged, nothing is lost."""

import numpy as np
import pytest

from preceptor.data.check import check
from preceptor.data.layout_slices import SYNAPSE_TEST, SYNAPSE_TRAIN
from preceptor.data.layouts import read_cases, recognise
from preceptor.data.readers import read_image, read_mask
from preceptor.data.splits import assign_splits
from preceptor.data.volume_cases import by_volume
from preceptor.errors import DataError
from preceptor.recipe_data import DataRecipe
from tests.published_folders import ssl4mis, synapse

DATA = DataRecipe()


def told(found):
    return [(item.level, item.code) for item in found.findings]


@pytest.mark.parametrize("inner", ["", "ACDC"])
def test_ssl4mis_trains_on_slices_and_judges_volumes(tmp_path, inner):
    root = ssl4mis(tmp_path) / inner
    assert recognise(root) == "ssl4mis"
    found = read_cases(DATA, root)
    assert found.findings == ()
    assert [len(found.of(split)) for split in ("train", "val", "test")] == [44, 22, 22]
    train = found.of("train")
    assert [case.name for case in train[:3]] == [f"patient020_frame01_slice_{n}" for n in (1, 2, 3)]
    assert train[10].name == "patient020_frame01_slice_11"
    assert {(case.group, case.volume) for case in train} == {
        (f"patient{p}", f"patient{p}_frame{f}") for p in ("020", "099") for f in ("01", "02")
    }
    volumes = by_volume(found.of("test"))
    assert list(volumes) == ["patient011_frame01", "patient011_frame02"]
    assert [case.slice for case in volumes["patient011_frame02"]] == list(range(11))
    assert {case.group for case in found.of("test")} == {"patient011"}


def test_slices_and_volumes_give_image_and_mask_of_one_file(tmp_path):
    found = read_cases(DATA, ssl4mis(tmp_path))
    for case in (found.of("train")[5], found.of("val")[5]):
        assert case.mask == case.image
        image, mask = read_image(case.image, case.slice).pixels, read_mask(case.mask, case.slice).pixels
        assert (image.dtype, mask.dtype, image.shape) == (np.float32, np.uint8, mask.shape)
        assert set(np.unique(mask)) == {0, 1, 2, 3}
        assert image[mask == 3].mean() > image[mask == 0].mean()


def test_lists_and_files_that_do_not_fit_are_told(tmp_path):
    home = ssl4mis(tmp_path) / "ACDC"
    (home / "data" / "slices" / "patient020_frame01_slice_2.h5").unlink()
    (home / "data" / "patient028_frame02.h5").rename(home / "data" / "patient031_frame01.h5")
    found = read_cases(DATA, tmp_path)
    assert told(found) == [("error", "listed-not-there"), ("error", "listed-not-there"), ("warning", "not-listed")]
    assert "patient020_frame01_slice_2" in found.findings[0].message
    assert "drop_unpaired" in found.findings[0].message
    assert found.findings[2].where.endswith("patient031_frame01.h5")
    assert [len(found.of(split)) for split in ("train", "val", "test")] == [43, 11, 22]
    dropped = read_cases(DataRecipe(drop_unpaired=True), tmp_path)
    assert {level for level, _ in told(dropped)} == {"warning"}


def test_listed_training_volumes_without_slices_are_told(tmp_path):
    home = ssl4mis(tmp_path) / "ACDC"
    (home / "train_slices.list").write_text("patient020_frame01_slice_1\n")
    found = read_cases(DATA, tmp_path)
    messages = [item.message for item in found.findings if item.code == "listed-not-there"]
    assert [text.split(":")[0] for text in messages] == [
        "patient020_frame02",
        "patient099_frame01",
        "patient099_frame02",
    ]


def test_without_a_list_of_slices_the_list_of_volumes_tells_which_train(tmp_path):
    home = ssl4mis(tmp_path) / "ACDC"
    (home / "train_slices.list").unlink()
    (home / "train.list").write_text("patient099_frame02\n")
    assert {case.volume for case in read_cases(DATA, tmp_path).of("train")} == {"patient099_frame02"}


def test_without_slices_volumes_train(tmp_path):
    home = ssl4mis(tmp_path) / "ACDC"
    for path in (home / "data" / "slices").iterdir():
        path.unlink()
    (home / "train.list").write_text("patient028_frame01\n")
    (home / "val.list").write_text("patient028_frame02\n")
    found = read_cases(DATA, tmp_path)
    assert [(case.volume, case.slice) for case in found.of("train")][:2] == [
        ("patient028_frame01", 0),
        ("patient028_frame01", 1),
    ]


def test_synapse_has_no_validation_and_whole_scans_are_cut_from_train(tmp_path):
    root = synapse(tmp_path)
    assert recognise(root) == "transunet"
    found = read_cases(DATA, root)
    assert found.findings == ()
    assert [case.name for case in found.cases[:2]] == ["case0005_slice000", "case0005_slice001"]
    assert [case.name for case in found.of("test")][::4] == ["case0001-000", "case0008-000"]
    cases = assign_splits(found.cases, DATA.split)
    volumes = {split: {case.volume for case in cases if case.split == split} for split in ("train", "val", "test")}
    assert [len(volumes[split]) for split in ("train", "val", "test")] == [2, 1, 2]
    assert not volumes["train"] & volumes["val"]


def test_synapse_without_lists_takes_the_published_split(tmp_path):
    root = synapse(tmp_path / "Synapse", lists=False)
    np.savez(root / "train_npz" / "case0099_slice000.npz", image=np.zeros((8, 8)), label=np.zeros((8, 8)))
    found = read_cases(DATA, tmp_path)
    assert [case.volume for case in found.cases][::4] == ["case0005", "case0010", "case0040", "case0001", "case0008"]
    assert told(found) == [("note", "published-split"), ("warning", "not-listed"), ("note", "published-split")]
    assert "18 scans are taken, 3 of which are there" in found.findings[0].message


def test_the_published_split_is_of_thirty_scans():
    assert (len(SYNAPSE_TRAIN), len(SYNAPSE_TEST)) == (18, 12)
    assert not set(SYNAPSE_TRAIN) & set(SYNAPSE_TEST)


def test_synapse_with_test_volumes_only_is_for_judging(tmp_path):
    root = synapse(tmp_path)
    for path in (root / "train_npz").iterdir():
        path.unlink()
    (root / "train_npz").rmdir()
    found = read_cases(DATA, root)
    assert {case.split for case in found.cases} == {"test"}
    assert told(found) == [("warning", "missing-folder")]


def test_lists_that_are_no_text_stop(tmp_path):
    (ssl4mis(tmp_path) / "ACDC" / "val.list").write_bytes(b"\xff\xfe\x00patient")
    with pytest.raises(DataError, match="the list is no text"):
        read_cases(DATA, tmp_path)


@pytest.mark.parametrize(("write", "last"), [(ssl4mis, "left_ventricle: 3"), (synapse, "stomach: 8")])
def test_the_check_proposes_the_classes_by_name_and_counts_empty_slices_once(tmp_path, write, last):
    report = check(read_cases(DATA, write(tmp_path)), DataRecipe(image_size=24), None)
    found = {item.code: item for item in report.findings}
    assert last in found["no-labels"].message
    assert "empty-mask" not in found
    assert "slices" in found["empty-slices"].message
    assert "no-spacing" in found
    assert not report.errors


def test_an_empty_volume_is_named(tmp_path):
    root = synapse(tmp_path)
    for path in (root / "train_npz").glob("case0005*"):
        np.savez(path, image=np.random.default_rng(0).random((8, 8)), label=np.zeros((8, 8)))
    report = check(read_cases(DATA, root), DataRecipe(image_size=24), None)
    assert [item.where for item in report.findings if item.code == "empty-mask"] == ["case0005"]


def test_real_acdc_as_ssl4mis_has_it(real_data):
    found = read_cases(DATA, real_data / "acdc-h5")
    assert found.layout == "ssl4mis"
    assert found.findings == ()
    assert [len({case.volume for case in found.of(split)}) for split in ("train", "val", "test")] == [24, 6, 10]
    assert [len({case.group for case in found.of(split)}) for split in ("train", "val", "test")] == [12, 3, 5]
    assert len(found.of("train")) == 218
    report = check(found, DataRecipe(image_size=224), None)
    assert {item.code for item in report.findings} == {"no-labels", "sizes-vary", "no-spacing", "empty-slices"}
    assert report.facts["proposed"]["labels"]["right_ventricle"] == 1
