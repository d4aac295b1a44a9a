"""NIfTI slices look the same however the file stores them, and predictions return to the file's own order."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from preceptor.data import volumes
from preceptor.data.readers import read_image, read_mask, volume_slices
from preceptor.data.volumes import (
    to_stored,
    volume_grid,
    volume_spacing,
    write_image_volume,
    write_label_volume,
)
from preceptor.errors import DataError

SPACING = (0.5, 0.75, 2.0)
VOLUME = np.arange(5 * 7 * 4, dtype=np.int16).reshape(5, 7, 4)
ALL = [
    tuple(pair[i] for pair, i in zip([axes[0], axes[1], axes[2]], flips, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def write(path, values=VOLUME, spacing=SPACING, codes=None, affine=None):
    """A RAS volume, stored with the axes `codes`."""
    image = nib.Nifti1Image(values, np.diag([*spacing, 1.0]) if affine is None else affine)
    if codes is not None:
        stored = nib.orientations.axcodes2ornt(codes)
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), stored))
    nib.save(image, path)
    return path


def test_axial_slices_are_shown_as_radiologists_look_at_them(tmp_path):
    path = write(tmp_path / "a.nii.gz")
    assert volume_slices(path) == 4
    picture = read_image(path, 1)
    np.testing.assert_array_equal(picture.pixels, VOLUME[::-1, ::-1, 1].T)  # columns to the left, rows to the back
    assert picture.pixels.dtype == np.int16
    assert picture.geometry.shape == (7, 5)
    assert picture.geometry.spacing == pytest.approx((0.75, 0.5))
    assert picture.geometry.orientation == "RAS"


@pytest.mark.parametrize("codes", ALL, ids="".join)
def test_any_order_of_axes_gives_the_same_slices_and_returns(tmp_path, codes):
    plain, path = write(tmp_path / "plain.nii"), write(tmp_path / "a.nii.gz", codes=codes)
    read = [read_image(path, at) for at in range(4)]
    for at, picture in enumerate(read):
        expected = read_image(plain, at)
        np.testing.assert_array_equal(picture.pixels, expected.pixels)
        np.testing.assert_allclose(picture.geometry.affine, expected.geometry.affine, atol=1e-6)
    assert read[0].geometry.orientation == "".join(codes)
    slices = np.stack([picture.pixels for picture in read])
    np.testing.assert_array_equal(to_stored(slices, path), np.asanyarray(nib.load(path).dataobj))


def test_a_prediction_has_the_geometry_of_its_image(tmp_path):
    path = write(tmp_path / "a.nii.gz", codes=("P", "S", "R"))
    slices = np.stack([read_image(path, at).pixels > 60 for at in range(4)])
    write_label_volume(tmp_path / "out.nii.gz", slices.astype(np.uint8), path)
    image, result = nib.load(path), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(result.affine, image.affine)
    np.testing.assert_array_equal(np.asanyarray(result.dataobj), np.asanyarray(image.dataobj) > 60)
    assert result.get_data_dtype() == np.uint8
    with pytest.raises(DataError, match="do not fit"):
        write_label_volume(tmp_path / "out.nii.gz", slices[:, :3].astype(np.uint8), path)


def test_slices_run_across_thick_voxels(tmp_path):
    path = write(tmp_path / "a.nii", spacing=(4.0, 1.0, 1.0))  # a stack of sagittal scans
    assert volume_slices(path) == 5
    np.testing.assert_array_equal(read_image(path, 4).pixels, VOLUME[0, ::-1, ::-1].T)
    assert volume_slices(write(tmp_path / "b.nii", spacing=(1.2, 1.0, 1.0))) == 4


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 1, 1)])
def test_two_dimensional_files_need_no_slice_and_return(tmp_path, shape):
    path = write(tmp_path / "a.nii.gz", VOLUME[:, :, 0].reshape(shape))
    assert volume_slices(path) is None
    pixels = read_image(path).pixels
    np.testing.assert_array_equal(pixels, VOLUME[::-1, ::-1, 0].T)
    write_label_volume(tmp_path / "out.nii.gz", (pixels > 9).astype(np.uint8), path)
    result = nib.load(tmp_path / "out.nii.gz")
    assert result.shape == nib.load(path).shape
    np.testing.assert_array_equal(np.asanyarray(result.dataobj).reshape(5, 7), VOLUME[:, :, 0] > 9)


def test_scaled_values_are_floats_and_masks_stay_whole(tmp_path):
    image = nib.Nifti1Image(VOLUME, np.eye(4))
    image.header.set_slope_inter(2, -10)
    nib.save(image, tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz", 0).pixels.dtype == np.float32
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz", 0).pixels, VOLUME[::-1, ::-1, 0].T * 2.0 - 10)
    assert read_mask(write(tmp_path / "m.nii"), 0).pixels.dtype == np.int16


def test_a_rewritten_file_is_read_again(tmp_path):
    path = write(tmp_path / "a.nii")
    before = read_image(path, 0).pixels.copy()
    path.unlink()
    write(path, np.concatenate([VOLUME, VOLUME]) + 1)
    assert read_image(path, 0).pixels.shape != before.shape


@pytest.mark.parametrize(
    ("values", "affine", "slice", "message"),
    [
        (VOLUME, None, None, "4 slices, none named"),
        (VOLUME, None, 4, "no such slice"),
        (np.zeros((5, 7, 4, 2), np.int16), None, 0, "no picture or volume"),
        (VOLUME, np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), 0, "singular"),
        (VOLUME.astype(np.complex64), None, 0, "no plain numbers"),
    ],
)
def test_what_cannot_be_sliced(tmp_path, values, affine, slice, message):
    path = write(tmp_path / "a.nii", values, affine=affine)
    with pytest.raises(DataError, match=message):
        read_image(path, slice)


def test_absurd_sizes_are_refused_from_the_header(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "VOXEL_LIMIT", 100)
    with pytest.raises(DataError, match="absurd"):
        read_image(write(tmp_path / "a.nii"), 0)


def test_real_volumes_in_two_orientations(real_data):
    for name, orientation, liver in (("ct", "RAS", 5), ("mr", "LPS", 5)):
        image, mask = (real_data / "nifti-samples" / f"{name}{end}.nii.gz" for end in ("", "_seg"))
        picture, labels = read_image(image, 10), read_mask(mask, 10)
        assert picture.geometry.orientation == orientation
        assert picture.geometry.affine == labels.geometry.affine
        columns = np.nonzero(labels.pixels == liver)[1]
        assert columns.mean() < picture.pixels.shape[1] / 2  # the liver is on the left of the picture


@pytest.mark.parametrize("codes", [("R", "A", "S"), ("P", "I", "R"), ("S", "L", "A")], ids="".join)
def test_spacing_and_grid_are_told_in_the_order_of_the_view(tmp_path, codes):
    path = write(tmp_path / "a.nii.gz", codes=codes)
    assert volume_spacing(path) == pytest.approx((2.0, 0.75, 0.5))
    grid, affine = volume_grid(path)
    assert grid == (4, 7, 5)
    assert affine == read_image(path, 0).geometry.affine


def test_files_without_spacing_have_none(tmp_path):
    assert volume_spacing(tmp_path / "a.h5") is None
    assert volume_spacing(tmp_path / "a.png") is None


@pytest.mark.parametrize("spacing", [None, (5.0, 1.5, 1.25)])
def test_slices_become_a_volume_that_is_read_as_them(tmp_path, spacing):
    slices = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    write_image_volume(tmp_path / "v.nii.gz", slices, spacing)
    assert volume_slices(tmp_path / "v.nii.gz") == 3
    read = np.stack([read_image(tmp_path / "v.nii.gz", at).pixels for at in range(3)])
    np.testing.assert_array_equal(read, slices)
    assert volume_spacing(tmp_path / "v.nii.gz") == (spacing or (1.0, 1.0, 1.0))
    write_label_volume(tmp_path / "m.nii.gz", list(slices > 0), tmp_path / "v.nii.gz")
    read = np.stack([read_mask(tmp_path / "m.nii.gz", at).pixels for at in range(3)])
    np.testing.assert_array_equal(read, slices > 0)


def test_slices_of_a_file_without_geometry_are_stored_as_they_are(tmp_path):
    slices = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
    write_label_volume(tmp_path / "m.nii", slices, tmp_path / "v.h5")
    assert np.stack([read_mask(tmp_path / "m.nii", at).pixels for at in range(2)]).tolist() == slices.tolist()
    assert nib.load(tmp_path / "m.nii").header.get_xyzt_units()[0] == "unknown"


def test_threads_that_read_one_volume_decode_it_once(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    path, opened = write(tmp_path / "a.nii.gz"), []
    real = volumes._open
    monkeypatch.setattr(volumes, "_open", lambda file: opened.append(file) or real(file))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda at: volumes.read_slice(path, at), range(4)))
    assert len(opened) == 1
