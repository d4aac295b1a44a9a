"""Any set of cases becomes a raw data set of nnU-Net, and comes back the same."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from preceptor.cli_compare import convert
from preceptor.data.case import Case
from preceptor.data.layouts import read_cases
from preceptor.data.masks import IGNORED, decode_mask
from preceptor.data.nnunet import write_nnunet
from preceptor.data.readers import read_image, read_mask
from preceptor.data.splits import assign_splits
from preceptor.data.volume_cases import by_volume
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.recipe_data import DataRecipe, SplitRecipe
from tests.published_folders import acdc, nnunet, ssl4mis, volumes

ACDC = {"background": 0, "rv": 1, "myo": 2, "lv": 3}


def read(root, **settings):
    data = DataRecipe(root=str(root), **settings)
    return assign_splits(read_cases(data).cases, data.split)


def content(cases, labels, rule="exact"):
    """Unit to (split, group, images, class indices), whatever the files."""
    result = {}
    for name, slices in by_volume(cases).items():
        images = np.stack([read_image(case.image, case.slice).pixels for case in slices])
        masks = [decode_mask(read_mask(case.mask, case.slice).pixels, labels, rule) for case in slices]
        result[name] = (slices[0].split, slices[0].group, images, np.stack(masks))
    return result


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, (split, group, images, masks) in one.items():
        assert other[name][:2] == (split, group), name
        np.testing.assert_array_equal(other[name][2], images)
        np.testing.assert_array_equal(other[name][3], masks)


def described(folder):
    return json.loads((folder / "dataset.json").read_text())


@pytest.mark.parametrize("make", [acdc, ssl4mis])
def test_acdc_there_and_back(tmp_path, make):
    cases = read(make(tmp_path / "data"))
    folder = write_nnunet(cases, ACDC, tmp_path / "raw", "ACDC", channel="MRI")
    assert folder == tmp_path / "raw" / "Dataset501_ACDC"
    known = described(folder)
    assert known["labels"] == {"background": 0, "rv": 1, "myo": 2, "lv": 3}
    assert known["channel_names"] == {"0": "MRI"}
    assert known["file_ending"] == ".nii.gz"
    assert known["numTraining"] == len(list((folder / "imagesTr").iterdir())) == 6
    back = read(folder)
    assert_same(content(cases, ACDC), content(back, known["labels"]))
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert not {name[:10] for name in fold["train"]} & {name[:10] for name in fold["val"]}  # no patient in both


def test_geometry_and_bytes_of_nifti_are_kept(tmp_path):
    cases = read(acdc(tmp_path / "data"))
    folder = write_nnunet(cases, ACDC, tmp_path / "raw", "Dataset027_ACDC")
    source = tmp_path / "data/database/training/patient001/patient001_frame12.nii.gz"
    image, mask = (
        folder / f"{part}.nii.gz" for part in ("imagesTr/patient001_frame12_0000", "labelsTr/patient001_frame12")
    )
    assert image.read_bytes() == source.read_bytes()
    assert np.array_equal(nibabel.load(mask).affine, nibabel.load(source).affine)
    assert nibabel.load(mask).get_data_dtype() == np.uint8


def test_masks_are_recoded_and_lie_on_the_grid_of_their_image(tmp_path):
    """A mask that stores other values in another order of axes."""
    root = volumes(tmp_path / "data")
    for place in (root / "masks").iterdir():
        source = nibabel.load(place)
        values = np.asanyarray(source.dataobj).astype(np.int16) * 100
        nibabel.as_closest_canonical(nibabel.Nifti1Image(values, source.affine)).to_filename(place)
    labels = {"nothing": 0, "both": [100, 200]}
    cases = read(root, split={"rule": "random"})
    folder = write_nnunet(cases, labels, tmp_path / "raw", "Scans")
    assert described(folder)["labels"] == {"background": 0, "both": 1}
    for place in [*folder.glob("labels*/*")]:
        image = next(folder.glob(f"images*/{place.name.split('.')[0]}_0000.nii.gz"))
        assert np.array_equal(nibabel.load(place).affine, nibabel.load(image).affine)
    assert_same(content(cases, labels), content(read(folder), {"background": 0, "both": 1}))


def test_nnunet_to_nnunet(tmp_path):
    cases = read(nnunet(tmp_path / "data"))
    folder = write_nnunet(cases, {"background": 0, "a": 1, "b": 2}, tmp_path / "raw", "Heart")
    labels = described(folder)["labels"]
    assert_same(content(cases, labels), content(read(folder), labels))


def test_pixels_that_take_no_part_keep_taking_none(tmp_path, small_data):
    """As nnU-Net's label `ignore`, which must be the highest."""
    scans, pictures = read(nnunet(tmp_path / "scans")), read(small_data)
    for cases, labels, ignore in (
        (scans, {"background": 0, "b": 2}, [1]),
        (pictures, {"nothing": 255, "square": [7]}, [0]),
    ):
        folder = write_nnunet(cases, labels, tmp_path / "raw", "Partly", ignore=ignore)
        name = list(labels)[1]
        assert described(folder)["labels"] == {"background": 0, name: 1, "ignore": 2}
        back = read(folder, labels={"background": 0, name: 1}, ignore=[2])
        some = False
        for before, after in zip(sorted(cases, key=_place), sorted(back, key=_place), strict=True):
            expected = decode_mask(read_mask(before.mask, before.slice).pixels, labels, "exact", None, ignore)
            found = decode_mask(
                read_mask(after.mask, after.slice).pixels, {"background": 0, name: 1}, "exact", None, [2]
            )
            np.testing.assert_array_equal(found, expected)
            some |= bool((found == IGNORED).any())
        assert some


def _place(case):
    return case.volume or case.name, case.slice or 0


def test_convert_passes_on_what_takes_no_part(tmp_path, capsys):
    labels, changes = ["background=0", "a=1"], ["data.ignore=[2]"]
    convert(str(nnunet(tmp_path / "data")), tmp_path / "raw", name="Heart", labels=labels, changes=changes, quiet=True)
    folder = Path(capsys.readouterr().out.strip())
    assert described(folder)["labels"] == {"background": 0, "a": 1, "ignore": 2}


def test_pictures_become_png(small_data, tmp_path):
    cases = read(small_data)
    labels = {"background": 0, "square": 255}
    folder = write_nnunet(cases, labels, tmp_path / "raw", "Squares")
    assert described(folder)["file_ending"] == ".png"
    assert np.unique(read_mask(folder / "labelsTr" / "c00.png").pixels).tolist() == [0, 1]
    assert_same(content(cases, labels), content(read(folder), {"background": 0, "square": 1}))
    assert (folder / "groups.csv").read_text().startswith("case,group\nc00,p0\n")


def test_one_coloured_picture_makes_all_coloured(small_data, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(small_data / "images" / "c03.png")
    folder = write_nnunet(read(small_data), {"background": 0, "square": 255}, tmp_path / "raw", "Squares")
    assert described(folder)["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert {read_image(path).pixels.shape for path in folder.glob("images*/*")} == {(32, 32, 3)}


def test_number_stays_and_others_are_kept_clear_of(tmp_path):
    cases = read(nnunet(tmp_path / "data"))
    labels, raw = {"background": 0, "a": 1, "b": 2}, tmp_path / "raw"
    assert write_nnunet(cases, labels, raw, "Heart").name == "Dataset501_Heart"
    assert write_nnunet(cases, labels, raw, "Other").name == "Dataset502_Other"
    assert write_nnunet(cases, labels, raw, "Heart").name == "Dataset501_Heart"
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset501_Heart", "Dataset502_Other"]


def test_folder_may_be_named_as_the_data_set(tmp_path):
    cases = read(nnunet(tmp_path / "data"))
    folder = write_nnunet(cases, {"background": 0, "a": 1, "b": 2}, tmp_path / "Dataset027_ACDC", "ACDC")
    assert folder == tmp_path / "Dataset027_ACDC"
    assert described(folder)["name"] == "Dataset027_ACDC"


def test_data_set_of_somebody_else_is_never_replaced(tmp_path):
    cases = read(nnunet(tmp_path / "Dataset007_Heart"))
    with pytest.raises(StorageError, match="nothing that may be replaced"):
        write_nnunet(cases, {"background": 0, "a": 1, "b": 2}, tmp_path, "Dataset007_Heart")


def test_failure_leaves_nothing(tmp_path):
    cases = read(nnunet(tmp_path / "data"))
    with pytest.raises(DataError, match="not declared"):
        write_nnunet(cases, {"background": 0, "a": 1}, tmp_path / "raw", "Heart")
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "Dataset1_X", "a b", "7x"])
def test_names_that_nnunet_does_not_take(tmp_path, name):
    cases = read(nnunet(tmp_path / "data"))
    with pytest.raises(RecipeError, match="the name is none for nnU-Net"):
        write_nnunet(cases, {"background": 0, "a": 1, "b": 2}, tmp_path / "raw", name)


@pytest.mark.parametrize("labels", [{}, {"all": 0}, {"background": 0, "ignore": 1}, {"a": 0, "background": 1}])
def test_labels_that_nnunet_does_not_take(tmp_path, labels):
    with pytest.raises(RecipeError):
        write_nnunet(read(nnunet(tmp_path / "data")), labels, tmp_path / "raw", "Heart")


def test_what_cannot_be_one_data_set(tmp_path, small_data):
    scans, pictures = read(nnunet(tmp_path / "scans")), read(small_data)
    labels = {"background": 0, "a": 1, "b": 2}
    for cases, message in (
        ((*scans, *pictures), "4|6 volumes and 16 pictures"),
        (scans[1:], "lack slices"),
        ((replace(scans[0], split="val"), *scans[1:]), "in several splits"),
        (tuple(replace(case, mask=None) for case in scans), "have no mask"),
        (tuple(replace(case, volume="a/b") for case in scans), "cannot be those of files"),
    ):
        with pytest.raises(DataError, match=message):
            write_nnunet(cases, labels, tmp_path / "raw", "Heart")


def test_pictures_that_png_cannot_hold_are_refused(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.float32))
    Image.new("L", (8, 8)).save(tmp_path / "m.png")
    case = Case("a", tmp_path / "a.tif", tmp_path / "m.png", "train")
    with pytest.raises(DataError, match=r"a\.tif: a PNG file cannot hold"):
        write_nnunet([case], {"background": 0, "a": 1}, tmp_path / "raw", "Heart")


def test_mask_on_another_grid_is_refused(tmp_path):
    root = volumes(tmp_path / "data")
    source = nibabel.load(root / "masks" / "scan1.nii")
    nibabel.Nifti1Image(np.asanyarray(source.dataobj), source.affine + np.eye(4)).to_filename(root / "masks/scan1.nii")
    with pytest.raises(DataError, match=r"scan1\.nii: image and mask lie on different grids"):
        write_nnunet(read(root, split={"rule": "random"}), {"background": 0, "a": 1, "b": 2}, tmp_path / "raw", "X")


def test_real_volumes_and_slices(real_data, tmp_path):
    source = real_data / "acdc-h5"
    cases = assign_splits(read_cases(DataRecipe(root=str(source))).cases, SplitRecipe())
    chosen = [case for case in cases if case.volume in ("patient099_frame01", "patient028_frame01")]
    assert {case.split for case in chosen} == {"train", "val"}
    folder = write_nnunet(chosen, ACDC, tmp_path / "raw", "ACDC", channel="MRI")
    assert_same(content(chosen, ACDC), content(read(folder), described(folder)["labels"]))
