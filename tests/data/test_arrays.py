"""Slices and volumes in HDF5 and npz: the image beside its label, as stored, one slice at a time."""

import zipfile

import h5py
import numpy as np
import pytest

from preceptor.data.arrays import read_array
from preceptor.data.readers import read_image, read_mask, volume_slices
from preceptor.errors import DataError

IMAGE = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
LABEL = np.arange(60, dtype=np.uint8).reshape(3, 5, 4) % 4

both = pytest.mark.parametrize("ending", ["h5", "hdf5", "npz"])


def saved(path, **arrays):
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
    return path


@both
def test_a_volume_is_read_slice_by_slice(tmp_path, ending):
    path = saved(tmp_path / f"case0008.npy.{ending}", image=IMAGE, label=LABEL)
    assert volume_slices(path) == 3
    for at in range(3):
        image, mask = read_image(path, at), read_mask(path, at)
        np.testing.assert_array_equal(image.pixels, IMAGE[at])
        np.testing.assert_array_equal(mask.pixels, LABEL[at])
        assert (image.pixels.dtype, mask.pixels.dtype) == (np.float32, np.uint8)
        assert image.geometry.shape == (5, 4)
        assert image.geometry.spacing is None
        assert image.pixels.flags.writeable


@both
def test_a_slice_is_a_picture(tmp_path, ending):
    path = saved(tmp_path / f"s.{ending}", image=IMAGE[0], mask=LABEL[0].astype(np.float32))
    assert volume_slices(path) is None
    np.testing.assert_array_equal(read_image(path).pixels, IMAGE[0])
    np.testing.assert_array_equal(read_mask(path).pixels, LABEL[0])
    with pytest.raises(DataError, match="a single slice"):
        read_image(path, 1)


@both
def test_a_volume_of_one_slice_is_that_slice(tmp_path, ending):
    path = saved(tmp_path / f"s.{ending}", image=IMAGE[:1], label=LABEL[:1])
    assert volume_slices(path) is None
    assert read_image(path).pixels.shape == (5, 4)
    assert read_mask(path, 0).pixels.shape == (5, 4)


@both
def test_a_missing_dataset_is_named_with_those_found(tmp_path, ending):
    path = saved(tmp_path / f"a.{ending}", volume=IMAGE, seg=LABEL)
    with pytest.raises(DataError, match=r"(?s)a\..*no array `image`.*seg, volume"):
        read_image(path, 0)
    with pytest.raises(DataError, match=r"(?s)no array `label`.*label or mask"):
        read_mask(path, 0)
    with pytest.raises(DataError, match="no array `image`"):
        volume_slices(path)


@both
def test_slices_that_do_not_exist_or_are_not_named_stop(tmp_path, ending):
    path = saved(tmp_path / f"a.{ending}", image=IMAGE, label=LABEL)
    with pytest.raises(DataError, match=r"(?s)no such slice.*0 to 2"):
        read_image(path, 3)
    with pytest.raises(DataError, match=r"(?s)is a volume.*3 slices, none named"):
        read_image(path)


@both
@pytest.mark.parametrize("array", [IMAGE[None], IMAGE.astype(np.complex64), np.zeros((0, 4, 4)), np.float32(1)])
def test_arrays_that_are_no_slices_of_numbers_stop(tmp_path, ending, array):
    with pytest.raises(DataError, match=r"no slice or volume|absurd"):
        read_image(saved(tmp_path / f"a.{ending}", image=array), 0)


@both
def test_a_label_of_another_depth_stops(tmp_path, ending):
    path = saved(tmp_path / f"a.{ending}", image=IMAGE, label=LABEL[:2])
    with pytest.raises(DataError, match="differ in their number of slices"):
        read_mask(path, 1)


@both
def test_damaged_files_are_named(tmp_path, ending):
    path = saved(tmp_path / f"a.{ending}", image=np.tile(IMAGE, (1, 40, 40)), label=LABEL)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"(?s)cannot be read as (HDF5|npz).*damaged or cut short"):
        read_image(path, 0)


def test_a_group_is_no_dataset(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("image")
    with pytest.raises(DataError, match="no array of this name"):
        read_image(tmp_path / "a.h5")


def test_python_objects_in_npz_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.array([[{}]], dtype=object))
    with pytest.raises(DataError, match="no slice or volume"):
        read_image(tmp_path / "a.npz")


def test_an_office_document_called_npz_is_found_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(DataError, match="a zip archive or Office document"):
        read_image(tmp_path / "a.npz")


def test_one_slice_of_hdf5_is_read_without_the_others(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.h5", image=IMAGE, label=LABEL)
    asked = []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, at, **kw: (asked.append(at), plain(self, at, **kw))[1]
    )
    read_array(path, "hdf5", False, 2)
    assert asked == [2]
