"""Any picture goes in, a mask of its own size, format and geometry comes out, and one bad file stops nothing."""

import csv
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset

from preceptor.data.readers import Geometry, Picture, read_image, read_mask
from preceptor.delivery import predict
from preceptor.delivery.predict import class_map, predict_files, segment
from preceptor.errors import DataError, StorageError
from preceptor.segmentors.base import Condition


def picture(height: int, width: int, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    return Picture(pixels, Geometry((height, width)))


def halves(height: int = 24, width: int = 20) -> np.ndarray:
    """Dark above, bright below."""
    pixels = np.full((height, width), 20, np.uint8)
    pixels[height // 2 :] = 230
    return pixels


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def save_dicom(path: Path, pixels: np.ndarray) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelSpacing = [0.5, 0.25]
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (16, 16), (33, 17), (64, 100)])
def test_probabilities_have_the_picture_size_and_sum_to_one(bright, shape):
    package = bright(labels={"background": 0, "a": 1, "b": 2})
    (found,) = segment(package.network, package.preprocessing, picture(*shape))
    assert found.shape == (3, *shape)
    assert found.dtype == np.float32
    assert np.abs(found.sum(0) - 1).max() < 1e-5
    assert found.min() >= 0


def test_batch_of_one_equals_batch_of_many(bright):
    package = bright()
    pictures = [picture(10 + n, 30 - n, n) for n in range(7)]
    together = segment(package.network, package.preprocessing, pictures, batch_size=4)
    for one, found in zip(pictures, together, strict=True):
        (alone,) = segment(package.network, package.preprocessing, one)
        assert np.abs(alone - found).max() < 1e-6


def test_network_is_in_eval_mode_while_it_predicts_and_as_before_afterwards(bright):
    package = bright()
    modes = []
    package.network.register_forward_hook(lambda module, *_: modes.append(module.training))
    for training in (True, False):
        package.network.train(training)
        segment(package.network, package.preprocessing, picture(8, 8))
        assert package.network.training is training
    assert modes == [False, False]


def test_condition_reaches_the_network_picture_by_picture(bright):
    package = bright(condition=Condition("report", 2, 3))
    dark = [Picture(np.full((8, 8), 100, np.uint8), Geometry((8, 8))) for _ in range(3)]
    condition = torch.zeros(3, 2, 3)
    condition[1] = 1.0
    found = segment(package.network, package.preprocessing, dark, condition, batch_size=2)
    assert [bool((p[1] > 0.5).all()) for p in found] == [False, True, False]


def test_missing_condition_is_named(bright):
    package = bright(condition=Condition("report", 24, 128))
    with pytest.raises(DataError, match="needs more than an image") as caught:
        segment(package.network, package.preprocessing, picture(8, 8))
    assert "a report as token features [24, 128]" in str(caught.value)


def test_class_map_is_the_argmax_of_the_resized_probabilities():
    torch.manual_seed(0)
    small = torch.rand(5, 12, 10).softmax(0)
    for shape in ((12, 10), (30, 41), (6, 5)):
        expected = predict.resize(small, shape).argmax(0).numpy()
        assert np.array_equal(class_map(small, shape), expected)
    assert class_map(torch.ones(3, 2, 2) / 3, (2, 2)).tolist() == [[0, 0], [0, 0]]
    assert class_map(torch.rand(300, 4, 4), (4, 4)).dtype == np.uint16


def test_half_precision_stays_near_full_precision(bright):
    package = bright()
    full = segment(package.network, package.preprocessing, picture(16, 16))[0]
    half = segment(package.network, package.preprocessing, picture(16, 16), precision="bf16")[0]
    assert np.abs(full - half).mean() < 0.02


LACKS = [
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory"),
]


@pytest.mark.parametrize("error", LACKS, ids=["python", "cpu", "cuda"])
def test_batch_that_is_too_large_is_halved_until_it_fits(bright, monkeypatch, error):
    package = bright()
    forward = package.network.forward

    def small_memory(image, condition=None):
        if len(image) > 2:
            raise error
        return forward(image, condition)

    monkeypatch.setattr(package.network, "forward", small_memory)
    pictures = [picture(8, 8, n) for n in range(5)]
    found = segment(package.network, package.preprocessing, pictures, batch_size=8)
    assert len(found) == 5
    assert package.network.largest_batch == 2
    expected = [segment(package.network, package.preprocessing, one)[0] for one in pictures]
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_too_little_memory_for_one_image_is_said(bright, monkeypatch):
    package = bright()

    def no_memory(image, condition=None):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(package.network, "forward", no_memory)
    with pytest.raises(DataError, match="not enough memory to predict a single image") as caught:
        segment(package.network, package.preprocessing, picture(8, 8))
    assert "tried to allocate 2 gib" in str(caught.value)


def test_other_defects_of_the_network_are_not_taken_for_lack_of_memory(bright, monkeypatch):
    package = bright()
    monkeypatch.setattr(package.network, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        segment(package.network, package.preprocessing, picture(8, 8))


def test_unknown_device_is_refused(bright, tmp_path):
    package = bright()
    save(tmp_path / "images" / "a.png", halves())
    with pytest.raises(DataError, match="no such device"):
        predict_files(package, [tmp_path / "images"], tmp_path / "out", device="gpu")


@pytest.mark.parametrize(
    ("name", "mask"), [("a.png", "a.png"), ("a.jpg", "a.png"), ("a.bmp", "a.png"), ("a.tif", "a.tif")]
)
def test_picture_gives_a_mask_of_stored_values_in_its_own_format(bright, tmp_path, name, mask):
    image = save(tmp_path / "images" / name, halves())
    report = predict_files(bright(size=(24, 20)), [image], tmp_path / "out")
    assert report.done == [tmp_path / "out" / mask]
    found = read_mask(tmp_path / "out" / mask).pixels
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.where(halves() > 100, 255, 0))


def test_dicom_gives_a_png_and_its_spacing_stands_in_the_table(bright, tmp_path):
    image = save_dicom(tmp_path / "a.dcm", halves())
    predict_files(bright(size=(24, 20)), [image], tmp_path / "out")
    assert np.array_equal(read_mask(tmp_path / "out" / "a.png").pixels, np.where(halves() > 100, 255, 0))
    (row,) = table(tmp_path / "out")
    assert (row["spacing_row_mm"], row["spacing_column_mm"]) == ("0.5", "0.25")
    assert "without DICOM header" in row["note"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL"])
def test_volume_gives_a_volume_in_the_very_same_axes(bright, tmp_path, codes, ending):
    """Voxels of a bright block are found again at their own indices, whatever the order of axes."""
    orientation = nibabel.orientations.axcodes2ornt(codes)
    affine = nibabel.orientations.inv_ornt_aff(orientation, (16, 16, 16)) @ np.diag([1, 1, 1, 1.0])
    stored = np.full((16, 16, 16), -1000, np.int16)
    stored[2:7, 3:12, 5:15] = 800
    nibabel.Nifti1Image(stored, affine).to_filename(tmp_path / f"v{ending}")
    package = bright(labels={"background": 0, "block": 5})
    report = predict_files(package, [tmp_path / f"v{ending}"], tmp_path / "out", batch_size=5, probabilities=True)
    assert report.failed == []
    mask, source = nibabel.load(report.done[0]), nibabel.load(tmp_path / f"v{ending}")
    # A slice without any contrast is grey throughout, so that only slices with the block can be judged.
    assert np.array_equal(np.asanyarray(mask.dataobj) == 5, stored > 0)
    assert np.array_equal(mask.affine, source.affine)
    assert mask.shape == source.shape
    chance = nibabel.load(tmp_path / "out" / "probabilities" / f"v{ending}").get_fdata()
    assert np.array_equal(chance[..., 1] > 0.5, stored > 0)
    assert table(tmp_path / "out")[0]["slices"] == "16"


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL", "SRP", "IPL"])
def test_stored_order_of_axes_does_not_change_the_anatomy(bright, tmp_path, codes):
    """One body, stored in several orders and flips: what is predicted is the same at every place in space."""
    noise = np.random.default_rng(0).normal(0, 1, (12, 10, 6)).cumsum(0).cumsum(1).astype(np.float32)
    affine = np.array([[0.8, 0.1, 0, -9], [-0.1, 0.8, 0, 4], [0, 0, 3.0, 20], [0, 0, 0, 1]])
    plain = nibabel.Nifti1Image(noise, affine)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
    )
    (tmp_path / "images").mkdir()
    plain.to_filename(tmp_path / "images" / "plain.nii.gz")
    plain.as_reoriented(change).to_filename(tmp_path / "images" / "turned.nii.gz")
    predict_files(bright(size=(10, 12)), [tmp_path / "images"], tmp_path / "out", probabilities=True)
    for folder in (tmp_path / "out", tmp_path / "out" / "probabilities"):
        expected, found = (nibabel.load(folder / f"{name}.nii.gz") for name in ("plain", "turned"))
        assert "".join(nibabel.aff2axcodes(found.affine)) == codes
        back = nibabel.as_closest_canonical(found)
        assert np.allclose(back.affine, expected.affine)
        assert np.array_equal(back.get_fdata(), expected.get_fdata())
        assert 0 < (expected.get_fdata() > 0).mean() < 1


def test_overlay_of_a_volume_is_one_picture_of_some_slices(bright, tmp_path):
    stored = np.random.default_rng(0).integers(0, 99, (8, 6, 20)).astype(np.int16)
    nibabel.Nifti1Image(stored, np.eye(4)).to_filename(tmp_path / "v.nii.gz")
    predict_files(bright(), [tmp_path / "v.nii.gz"], tmp_path / "out", overlays=True)
    assert read_image(tmp_path / "out" / "overlays" / "v.png").pixels.shape == (18, 24, 3)
    report = predict_files(bright(), [tmp_path / "v.nii.gz"], tmp_path / "out", overlays=True)
    assert len(report.kept) == 1


def test_memory_does_not_grow_with_the_probabilities_of_a_volume(bright, tmp_path, monkeypatch):
    stored = np.random.default_rng(0).integers(0, 99, (8, 6, 24)).astype(np.int16)
    nibabel.Nifti1Image(stored, np.eye(4)).to_filename(tmp_path / "v.nii.gz")
    prepared = []
    run = predict._Runner.__call__
    monkeypatch.setattr(
        predict._Runner,
        "__call__",
        lambda self, images, *rest: prepared.append(len(images)) or run(self, images, *rest),
    )
    labels = {"background": 0, "a": 1, "b": 2}
    predict_files(bright(labels), [tmp_path / "v.nii.gz"], tmp_path / "out", batch_size=5, probabilities=True)
    assert prepared == [5, 5, 5, 5, 4, 0]
    found = nibabel.load(tmp_path / "out" / "probabilities" / "v.nii.gz")
    assert found.shape == (8, 6, 24, 3)
    assert np.abs(found.get_fdata().sum(-1) - 1).max() < 1e-4
    assert sorted(path.name for path in (tmp_path / "out" / "probabilities").iterdir()) == ["v.nii.gz"]


@pytest.mark.parametrize("depth", [None, 3])
def test_arrays_give_a_volume_of_their_own_slices(bright, tmp_path, depth):
    h5py = pytest.importorskip("h5py")
    pixels = np.stack([halves().astype(np.float32)] * (depth or 1))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["image"] = pixels if depth else pixels[0]
    report = predict_files(bright(size=(24, 20)), [tmp_path / "v.h5"], tmp_path / "out", probabilities=True)
    assert report.done == [tmp_path / "out" / "v.nii.gz"]
    for at in range(depth or 1):
        mask = read_mask(report.done[0], at if depth else None).pixels
        assert np.array_equal(mask == 255, halves() > 100)
    assert nibabel.load(tmp_path / "out" / "probabilities" / "v.nii.gz").shape == (20, 24, depth or 1, 2)
    assert "states none" in table(tmp_path / "out")[0]["note"]


def test_real_volumes_come_back_in_their_geometry(bright, tmp_path, real_data):
    paths = [real_data / "nifti-samples" / f"{name}.nii.gz" for name in ("ct", "mr")]
    report = predict_files(bright(size=(32, 32)), paths, tmp_path / "out")
    for path, mask in zip(paths, report.done, strict=True):
        source, found = nibabel.load(path), nibabel.load(mask)
        assert found.shape == source.shape
        assert np.array_equal(found.affine, source.affine)
        assert 0 < (found.get_fdata() == 255).mean() < 0.9
        bright_part = source.get_fdata()[found.get_fdata() == 255].mean()
        assert bright_part > source.get_fdata()[found.get_fdata() == 0].mean()


def test_several_classes_are_written_as_declared(bright, tmp_path):
    pixels = np.repeat(np.array([0, 128, 255], np.uint8), 4)[None].repeat(6, 0)
    save(tmp_path / "images" / "a.png", pixels)
    package = bright(labels={"background": 7, "middle": [40, 41], "top": 3}, size=(6, 12))
    predict_files(package, [tmp_path / "images"], tmp_path / "out")
    assert read_mask(tmp_path / "out" / "a.png").pixels[0].tolist() == [7] * 4 + [40] * 4 + [3] * 4
    (row,) = table(tmp_path / "out")
    assert [row[f"pixels: {name}"] for name in package.labels] == ["24", "24", "24"]


def test_colours_are_written_as_colours(bright, tmp_path):
    save(tmp_path / "images" / "a.png", halves())
    package = bright(labels={"background": "#000000", "lesion": "#ff8000"}, size=(24, 20))
    predict_files(package, [tmp_path / "images"], tmp_path / "out")
    found = read_mask(tmp_path / "out" / "a.png").pixels
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[-1, 0].tolist() == [255, 128, 0]


def test_overlays_and_probabilities_lie_beside_the_masks(bright, tmp_path):
    save(tmp_path / "images" / "sub" / "a.jpg", halves())
    package = bright(size=(24, 20))
    predict_files(package, [tmp_path / "images"], tmp_path / "out", overlays=True, probabilities=True)
    assert read_image(tmp_path / "out" / "overlays" / "sub" / "a.png").pixels.shape == (24, 20, 3)
    chance = np.load(tmp_path / "out" / "probabilities" / "sub" / "a.npy", allow_pickle=False)
    assert chance.shape == (2, 24, 20)
    assert chance.dtype == np.float16
    mask = read_mask(tmp_path / "out" / "sub" / "a.png").pixels
    assert np.array_equal(chance[1] > chance[0], mask == 255)


def test_equal_names_in_different_folders_keep_their_folders(bright, tmp_path):
    save(tmp_path / "images" / "p1" / "a.png", halves())
    save(tmp_path / "images" / "p2" / "a.png", 250 - halves())
    predict_files(bright(size=(24, 20)), [tmp_path / "images"], tmp_path / "out")
    first, second = (read_mask(tmp_path / "out" / name / "a.png").pixels for name in ("p1", "p2"))
    assert np.array_equal(first, 255 - second)


def test_bad_files_are_listed_and_the_others_go_on(bright, tmp_path):
    images = tmp_path / "images"
    save(images / "a.png", halves())
    (images / "b.png").write_bytes(b"")
    (images / "c.png").write_bytes((images / "a.png").read_bytes()[:60])
    (images / "d.nii.gz").write_bytes((images / "a.png").read_bytes())
    tifffile.imwrite(images / "e.tif", np.full((8, 8), np.nan, np.float32))
    save(images / "f.png", halves())
    report = predict_files(bright(), [images, tmp_path / "missing.png"], tmp_path / "out", batch_size=2)
    assert [path.name for path in report.done] == ["a.png", "f.png"]
    bad = {"b.png", "c.png", "d.nii.gz", "e.tif", "missing.png"}
    assert {path.name for path, _ in report.failed} == bad
    messages = {Path(row["image"]).name: row["message"] for row in table(tmp_path / "out")}
    assert "empty" in messages["b.png"]
    assert "not finite" in messages["e.tif"]
    assert "cannot be opened" in messages["missing.png"]


def test_same_command_again_keeps_what_is_finished_and_mends_the_rest(bright, tmp_path):
    images = tmp_path / "images"
    save(images / "a.png", halves())
    (images / "b.png").write_bytes(b"")
    package = bright()
    predict_files(package, [images], tmp_path / "out")
    stamp = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    save(images / "b.png", halves())
    report = predict_files(package, [images], tmp_path / "out")
    assert [path.name for path in report.kept] == ["a.png"]
    assert [path.name for path in report.done] == ["b.png"]
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == stamp
    assert [row["status"] for row in table(tmp_path / "out")] == ["kept", "done"]


def test_output_inside_the_images_is_not_predicted_itself(bright, tmp_path):
    save(tmp_path / "images" / "a.png", halves())
    package = bright()
    for _ in range(2):
        predict_files(package, [tmp_path / "images"], tmp_path / "images" / "masks", overlays=True)
    assert len(table(tmp_path / "images" / "masks")) == 1


def test_package_that_needs_a_report_refuses_images_alone(bright, tmp_path):
    save(tmp_path / "images" / "a.png", halves())
    with pytest.raises(DataError, match="this package needs more than an image") as caught:
        predict_files(bright(condition=Condition("report", 24, 128)), [tmp_path / "images"], tmp_path / "out")
    assert "a report as token features [24, 128]" in str(caught.value)
    assert "student" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_folder_without_images_is_an_error(bright, tmp_path):
    with pytest.raises(DataError, match="there is no image to predict"):
        predict_files(bright(), [tmp_path], tmp_path / "out")


def test_progress_counts_every_file_once(bright, tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "images" / name, halves())
    (tmp_path / "images" / "d.png").write_bytes(b"")
    seen = []
    predict_files(bright(), [tmp_path / "images"], tmp_path / "out", progress=lambda *state: seen.append(state))
    assert sorted(seen) == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_more_pictures_than_a_batch_are_held_at_once(bright, tmp_path, monkeypatch):
    for index in range(12):
        save(tmp_path / "images" / f"{index:02d}.png", halves())
    events = []
    read, write = predict.read_image, predict.writers.write_mask

    def reading(*arguments):
        events.append(1)
        return read(*arguments)

    def writing(*arguments):
        events.append(-1)
        return write(*arguments)

    monkeypatch.setattr(predict, "read_image", reading)
    monkeypatch.setattr(predict.writers, "write_mask", writing)
    package = bright()
    predict_files(package, [tmp_path / "images"], tmp_path / "out", batch_size=5)
    assert max(np.cumsum(events)) == 5
    assert package.network.largest_batch == 5


def test_full_disk_stops_the_run_and_what_is_finished_stays(bright, tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "images" / name, halves())
    write = predict.writers.write_mask

    def full(path, *rest):
        if path.name == "b.png":
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise StorageError("the file could not be written", where=path, found=error.strerror) from error
        write(path, *rest)

    monkeypatch.setattr(predict.writers, "write_mask", full)
    package = bright()
    with pytest.raises(StorageError, match="No space left on device"):
        predict_files(package, [tmp_path / "images"], tmp_path / "out")
    assert [row["status"] for row in table(tmp_path / "out")] == ["done"]
    monkeypatch.undo()
    report = predict_files(package, [tmp_path / "images"], tmp_path / "out")
    assert (len(report.kept), len(report.done)) == (1, 2)


WITHOUT_TEXT = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("transformers", "tokenizers", "lightning", "monai"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from preceptor.delivery.package import load_package
from preceptor.delivery.predict import predict_files
report = predict_files(load_package(sys.argv[1]), [sys.argv[2]], sys.argv[3])
assert len(report.done) == 1 and not report.failed, report
assert not [name for name in sys.modules if name.startswith("preceptor.text")]
"""


def test_student_predicts_where_no_language_model_can_be_imported(tmp_path):
    from preceptor.data.transforms import Preprocessing
    from preceptor.delivery.package import save_package
    from preceptor.segmentors import zoo

    segmentor = {"name": "unguided", "size": "tiny", "options": {}, "in_channels": 3, "classes": 2, "condition": None}
    network = zoo.build("unguided", in_channels=3, classes=2, size="tiny")
    labels = {"background": 0, "lesion": 255}
    save_package(
        tmp_path / "package",
        network,
        segmentor=segmentor,
        preprocessing=Preprocessing((32, 32)),
        labels=labels,
        card={},
    )
    image = save(tmp_path / "a.png", halves())
    command = [sys.executable, "-c", WITHOUT_TEXT, str(tmp_path / "package"), str(image), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(np.unique(read_mask(tmp_path / "out" / "a.png").pixels)) <= {0, 255}
