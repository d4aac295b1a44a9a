"""What is written holds the declared values in the geometry of its image."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from preceptor.data.readers import read_image, read_mask, volume_slices
from preceptor.data.volumes import write_label_volume
from preceptor.delivery import writers
from preceptor.errors import DataError

ORIENTATIONS = {
    "RAS": np.diag([2.0, 3.0, 4.0, 1.0]),
    "LPS": np.diag([-2.0, -3.0, 4.0, 1.0]),
    "PIR": np.array([[0, 0, 2.0, 5], [-3.0, 0, 0, 6], [0, -4.0, 0, 7], [0, 0, 0, 1]]),
    "oblique": np.array([[1.9, 0.3, 0.1, -5], [-0.3, 1.9, 0.2, 6], [0.0, -0.2, 3.9, 7], [0, 0, 0, 1]]),
}


def volume(path: Path, affine: np.ndarray, shape=(6, 5, 4), kind: type = nibabel.Nifti1Image) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 500, shape).astype(np.int16)
    image = kind(values, affine)
    image.header["descrip"] = b"Jane Doe"
    image.header["cal_max"] = 400
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"born in May"))
    image.to_filename(path)
    return values


def slices_of(path: Path) -> np.ndarray:
    count = volume_slices(path)
    assert count is not None
    return np.stack([read_image(path, index).pixels for index in range(count)])


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.png", "a.png"),
        ("a.jpg", "a.png"),
        ("a.BMP", "a.png"),
        ("a.dcm", "a.png"),
        ("IM0001", "IM0001.png"),
        ("a.b.tif", "a.b.tif"),
        ("a.TIFF", "a.TIFF"),
        ("a.nii", "a.nii"),
        ("a.x.nii.gz", "a.x.nii.gz"),
    ],
)
def test_mask_keeps_the_name_and_where_it_can_the_ending(image, mask):
    assert writers.mask_name(image) == mask


@pytest.mark.parametrize(
    ("labels", "values", "kind"),
    [
        ({"a": 0, "b": 255}, [0, 255], np.uint8),
        ({"a": 0, "b": [7, 9], "c": 3}, [0, 7, 3], np.uint8),
        ({"a": 0, "b": 256}, [0, 256], np.uint16),
        ({"a": -1, "b": 4}, [-1, 4], np.int16),
        ({"a": 0, "b": 70000}, [0, 70000], np.int32),
        ({"a": "#000000", "b": "#10ff80"}, [[0, 0, 0], [16, 255, 128]], np.uint8),
        ({"a": 2, "b": "#10ff80"}, [[2, 2, 2], [16, 255, 128]], np.uint8),
    ],
)
def test_stored_values_are_the_declared_ones(labels, values, kind):
    found = writers.stored_values(labels)
    assert found.tolist() == values
    assert found.dtype == kind


@pytest.mark.parametrize("labels", [{"a": 0, "b": 2**40}, {"a": 0, "b": "#12"}, {"a": 300, "b": "#ffffff"}])
def test_values_that_no_mask_can_hold_are_refused(labels):
    with pytest.raises(DataError, match="labels are"):
        writers.stored_values(labels)


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("labels", [{"a": 0, "b": 255}, {"a": 0, "b": 1000}, {"a": "#000000", "b": "#10ff80"}])
def test_mask_reads_back_as_it_was_written(tmp_path, ending, labels):
    classes = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    values = writers.stored_values(labels)
    writers.write_mask(tmp_path / f"m{ending}", classes, values)
    found = read_mask(tmp_path / f"m{ending}").pixels
    assert np.array_equal(found, values[classes])
    assert [path.name for path in tmp_path.iterdir()] == [f"m{ending}"]


def test_png_refuses_what_it_cannot_hold_and_tiff_takes_it(tmp_path):
    values = writers.stored_values({"a": 0, "b": -5})
    with pytest.raises(DataError, match="PNG masks hold values from 0 to 65535"):
        writers.write_mask(tmp_path / "m.png", np.zeros((2, 2), np.uint8), values)
    writers.write_mask(tmp_path / "m.tif", np.ones((2, 2), np.uint8), values)
    assert read_mask(tmp_path / "m.tif").pixels.tolist() == [[-5, -5], [-5, -5]]
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_volume_goes_back_into_its_own_axes(tmp_path, orientation, ending):
    path, mask = tmp_path / f"v{ending}", tmp_path / f"m{ending}"
    stored = volume(path, ORIENTATIONS[orientation])
    write_label_volume(mask, (slices_of(path) > 250).astype(np.uint8), path, np.array([0, 255], np.uint8))
    found, source = nibabel.load(mask), nibabel.load(path)
    assert np.array_equal(np.asanyarray(found.dataobj), np.where(stored > 250, 255, 0))
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(found.affine, source.affine)
    assert nibabel.aff2axcodes(found.affine) == nibabel.aff2axcodes(source.affine)
    assert [int(found.header[name]) for name in ("qform_code", "sform_code")] == [
        int(source.header[name]) for name in ("qform_code", "sform_code")
    ]
    assert found.header.get_xyzt_units() == source.header.get_xyzt_units()


def test_volume_mask_carries_no_text_of_its_image(tmp_path):
    path = tmp_path / "v.nii"
    volume(path, ORIENTATIONS["RAS"])
    assert b"Jane" in path.read_bytes()
    assert b"May" in path.read_bytes()
    write_label_volume(tmp_path / "m.nii", np.zeros((4, 5, 6), np.uint8), path)
    content = (tmp_path / "m.nii").read_bytes()
    assert b"Jane" not in content
    assert b"May" not in content
    assert nibabel.load(tmp_path / "m.nii").header["cal_max"] == 0


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 4, 1)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_shape_and_version_of_the_file_are_kept(tmp_path, shape, kind):
    path, mask = tmp_path / "v.nii", tmp_path / "m.nii"
    stored = volume(path, ORIENTATIONS["LPS"], shape, kind)
    count = volume_slices(path)
    slices = slices_of(path) if count else read_image(path).pixels[None]
    write_label_volume(mask, (slices > 250).astype(np.uint8), path, np.array([0, -3], np.int16))
    found = nibabel.load(mask)
    assert isinstance(found, kind)
    assert np.array_equal(np.asanyarray(found.dataobj), np.where(stored > 250, -3, 0))


def test_scaled_image_gives_an_unscaled_mask(tmp_path):
    path, mask = tmp_path / "v.nii.gz", tmp_path / "m.nii.gz"
    image = nibabel.Nifti1Image(np.linspace(0, 1, 120).reshape(6, 5, 4), ORIENTATIONS["RAS"])
    image.header.set_data_dtype(np.int16)
    image.to_filename(path)
    assert nibabel.load(path).dataobj.slope != 1
    classes = (slices_of(path) > 0.5).astype(np.uint8)
    write_label_volume(mask, classes, path, np.array([0, 200], np.uint8))
    assert np.unique(nibabel.load(mask).get_fdata()).tolist() == [0, 200]


@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_probability_volume_reads_as_probabilities_in_the_image_axes(tmp_path, orientation):
    path, result = tmp_path / "v.nii.gz", tmp_path / "p.nii.gz"
    stored = volume(path, ORIENTATIONS[orientation])
    foreground = slices_of(path) / 500
    with writers.probability_volume(result, path) as add:
        for chance in foreground.astype(np.float32):
            add(np.stack([1 - chance, chance]))
    found = nibabel.load(result)
    assert found.shape == (6, 5, 4, 2)
    assert np.abs(found.get_fdata()[..., 1] - stored / 500).max() < 1e-5
    assert np.array_equal(found.affine, nibabel.load(path).affine)


def test_packed_volume_is_the_same_bytes_every_time(tmp_path):
    path = tmp_path / "v.nii.gz"
    volume(path, ORIENTATIONS["RAS"])
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_volume(tmp_path / name, np.zeros((4, 5, 6), np.uint8), path)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert len(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())) == 352 + 120


def test_real_volumes_go_there_and_back(tmp_path, real_data):
    for name in ("ct", "mr"):
        image, reference = (real_data / "nifti-samples" / f"{part}.nii.gz" for part in (name, f"{name}_seg"))
        count = volume_slices(reference)
        assert count is not None
        slices = np.stack([read_mask(reference, index).pixels for index in range(count)])
        write_label_volume(tmp_path / "m.nii.gz", slices, image)
        found, expected = nibabel.load(tmp_path / "m.nii.gz"), nibabel.load(reference)
        assert np.array_equal(np.asanyarray(found.dataobj), np.asanyarray(expected.dataobj))
        assert np.array_equal(found.affine, nibabel.load(image).affine)
        assert found.shape == expected.shape


def test_overlay_tints_the_inside_outlines_the_edge_and_leaves_the_rest():
    picture = np.full((20, 30), 100, np.uint8)
    classes = np.zeros((20, 30), np.uint8)
    classes[5:15, 5:15], classes[5:15, 20:28] = 1, 2
    result = writers.draw_overlay(picture, classes)
    assert result.shape == (20, 30, 3)
    assert result.dtype == np.uint8
    assert (result[classes == 0] == 100).all()
    assert tuple(result[5, 5]) == writers.COLOURS[0]
    assert tuple(result[5, 20]) == writers.COLOURS[1]
    assert tuple(result[10, 10]) not in {(100, 100, 100), writers.COLOURS[0]}


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint16, bool])
def test_overlay_takes_any_picture(dtype):
    picture = np.random.default_rng(0).normal(0, 1000, (8, 9)).round().clip(0).astype(dtype)
    assert writers.draw_overlay(picture, np.zeros((8, 9), np.uint8)).max() > 0
    colour = np.repeat(picture[..., None], 3, axis=2)
    assert writers.draw_overlay(colour, np.ones((8, 9), np.uint8)).shape == (8, 9, 3)


def test_large_overlay_has_an_outline_that_can_be_seen(tmp_path):
    classes = np.zeros((1200, 1200), np.uint8)
    classes[300:900, 300:900] = 1
    result = writers.draw_overlay(np.zeros((1200, 1200), np.uint8), classes)
    assert [tuple(result[600, column]) == writers.COLOURS[0] for column in (300, 301, 302, 303)] == [True] * 3 + [False]
    writers.write_png(tmp_path / "o.png", result)
    with Image.open(tmp_path / "o.png") as image:
        assert image.size == (1200, 1200)


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [0]), (4, [0, 1, 2, 3]), (9, list(range(9))), (18, [1, 3, 5, 7, 9, 11, 13, 15, 17])]
)
def test_montage_shows_slices_from_all_parts_of_a_volume(count, shown):
    assert writers.shown_slices(count) == shown


def test_montage_is_as_square_as_can_be_and_keeps_the_order():
    tiles = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30, 40, 50)]
    montage = writers.draw_montage(tiles)
    assert montage.shape == (4, 9, 3)
    assert montage[::2, ::3, 0].tolist() == [[10, 20, 30], [40, 50, 0]]
    assert np.array_equal(writers.draw_montage(tiles[:1]), tiles[0])
