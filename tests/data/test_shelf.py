"""Claims about prepared arrays on the disk."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data import shelf as module
from preceptor.data.case import Case
from preceptor.data.readers import read_image
from preceptor.data.shelf import Shelf, build_shelf, is_sound, shelf_bytes
from preceptor.data.transforms import Preprocessing
from preceptor.errors import DataError, StorageError

LABELS = {"background": 0, "left": 100, "right": 255}
SETTINGS = Preprocessing((16, 12), 3)


def write_cases(folder: Path, count: int = 5, colour: bool = False) -> list[Case]:
    numbers = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    cases = []
    for n in range(count):
        pixels = numbers.integers(0, 255, (24, 20, 3) if colour and n == count - 1 else (24, 20)).astype(np.uint8)
        mask = np.zeros((24, 20), np.uint8)
        mask[:12, :8], mask[12:, 10:] = 100, 255
        Image.fromarray(pixels).save(folder / f"{n}.png")
        Image.fromarray(mask).save(folder / f"{n}_mask.png")
        cases.append(Case(f"case-{n}", folder / f"{n}.png", folder / f"{n}_mask.png", "train", report=f"report {n}"))
    return cases


def build(cases: list[Case], folder: Path, settings: Preprocessing = SETTINGS, **options: object) -> Shelf:
    return build_shelf(cases, settings, LABELS, "exact", folder, **options)  # type: ignore[arg-type]


def test_images_are_those_of_the_preprocessing_and_masks_keep_every_label(tmp_path: Path) -> None:
    for colour in (False, True):
        cases = write_cases(tmp_path / f"data-{colour}", colour=colour)
        shelf = build(cases, tmp_path / "cache")
        assert shelf.images.shape == (5, 3, 16, 12)
        assert shelf.stored.shape[1] == (3 if colour else 1)
        for n, case in enumerate(cases):
            np.testing.assert_allclose(shelf.images[n], SETTINGS.apply(read_image(case.image)).numpy(), atol=1e-6)
        assert shelf.masks is not None
        assert shelf.masks.dtype == np.uint8
        assert set(np.unique(shelf.masks)) == {0, 1, 2}
        assert (shelf.masks[0, :8, :4] == 1).all()
        assert (shelf.masks[0, 9:, 7:] == 2).all()


def test_ignored_values_reach_the_masks_as_255(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data")
    whole = build(cases, tmp_path / "cache")
    shelf = build_shelf(cases, SETTINGS, {"background": 0, "right": 255}, "exact", tmp_path / "cache", ignore=[100])
    assert shelf.masks is not None
    assert whole.masks is not None
    np.testing.assert_array_equal(shelf.masks, np.array([0, 255, 1], np.uint8)[whole.masks])
    none = build_shelf(cases, SETTINGS, LABELS, "exact", tmp_path / "cache", ignore=[])
    assert none.folder == whole.folder, "an empty list is no change"


def test_an_equal_request_reads_the_files_no_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = write_cases(tmp_path / "data")
    first = build(cases, tmp_path / "cache")

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "read_image", refuse)
    again = build(cases, tmp_path / "cache")
    assert again.folder == first.folder
    np.testing.assert_array_equal(again.images, first.images)


def test_changed_files_order_labels_or_settings_give_another_shelf(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data")
    places = [build(cases, tmp_path / "cache").folder, build(cases[::-1], tmp_path / "cache").folder]
    places.append(build(cases, tmp_path / "cache", Preprocessing((16, 12), 3, antialias=False)).folder)
    swapped = {"background": 0, "right": 255, "left": 100}
    places.append(build_shelf(cases, SETTINGS, swapped, "exact", tmp_path / "cache").folder)
    os.utime(cases[0].image, ns=(1, 1))
    places.append(build(cases, tmp_path / "cache").folder)
    assert len(set(places)) == 5


@pytest.mark.parametrize("damage", ["byte", "short", "gone", "facts"])
def test_a_damaged_shelf_is_built_again(tmp_path: Path, damage: str) -> None:
    cases = write_cases(tmp_path / "data")
    shelf = build(cases, tmp_path / "cache")
    good = np.array(shelf.images)
    file = shelf.folder / ("shelf.json" if damage == "facts" else "images.npy")
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[-50] ^= 0xFF
        file.write_bytes(bytes(content) if damage == "byte" else bytes(content[: len(content) // 2]))
    assert not is_sound(Shelf(shelf.folder, shelf.cases, SETTINGS))
    again = build(cases, tmp_path / "cache")
    assert is_sound(again)
    np.testing.assert_array_equal(again.images, good)


def test_a_file_that_cannot_be_read_is_named_with_its_case_and_nothing_is_left(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data", 12)
    cases[6].image.write_bytes(cases[6].image.read_bytes()[:200])
    with pytest.raises(DataError, match="case-6") as caught:
        build(cases, tmp_path / "cache")
    assert str(cases[6].image) in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_missing_file_an_undeclared_label_and_another_shape_are_named(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data")
    Image.fromarray(np.full((24, 20), 7, np.uint8)).save(cases[2].mask)
    with pytest.raises(DataError, match="case-2") as caught:
        build(cases, tmp_path / "cache")
    assert str(cases[2].mask) in str(caught.value)
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(cases[2].mask)
    with pytest.raises(DataError, match=r"case-2.*shape"):
        build(cases, tmp_path / "cache")
    cases[1].image.unlink()
    with pytest.raises(DataError, match="case-1"):
        build(cases, tmp_path / "cache")


def test_a_full_disk_is_told_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = write_cases(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="too little space"):
        build(cases, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_fills_up_leaves_no_half_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = write_cases(tmp_path / "data")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_checksum", full)
    with pytest.raises(StorageError, match="No space left"):
        build(cases, tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_progress_tells_the_size_first_and_then_every_case(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    build(write_cases(tmp_path / "data"), tmp_path / "cache", progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == [0, 1, 2, 3, 4, 5]
    assert all(total == 5 and "MiB" in what for _, total, what in calls)
    assert shelf_bytes(5, SETTINGS) == 5 * 16 * 12 * 13


def test_cases_without_masks_have_a_shelf_but_not_beside_cases_with_masks(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "data")
    bare = [Case(case.name, case.image) for case in cases]
    assert build(bare, tmp_path / "cache").masks is None
    with pytest.raises(DataError, match="no mask") as caught:
        build([*cases[:4], bare[4]], tmp_path / "cache")
    assert "case-4" in str(caught.value)
    with pytest.raises(DataError, match="no cases"):
        build([], tmp_path / "cache")


def test_a_shelf_travels_to_another_process_without_its_arrays(tmp_path: Path) -> None:
    shelf = build(write_cases(tmp_path / "data"), tmp_path / "cache")
    assert shelf.images.nbytes > 10_000
    content = pickle.dumps(shelf)
    assert len(content) < 4_000
    np.testing.assert_array_equal(pickle.loads(content).images, shelf.images)  # noqa: S301


def test_real_images_become_normalised_arrays_with_binary_masks(real_data: Path, tmp_path: Path) -> None:
    from preceptor.data.layouts import read_cases
    from preceptor.recipe_data import DataRecipe

    labels = {"background": 0, "nucleus": 255}
    data = DataRecipe(root=str(real_data / "monuseg-text" / "MoNuSeg"), labels=labels, image_size=64)
    cases = read_cases(data).of("val")
    assert len(cases) == 6
    shelf = build_shelf(cases, Preprocessing.from_recipe(data), labels, "exact", tmp_path)
    assert shelf.stored.shape == (6, 3, 64, 64)
    np.testing.assert_allclose(shelf.stored.mean(axis=(2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(shelf.stored.std(axis=(2, 3)), 1, atol=1e-3)
    assert shelf.masks is not None
    assert set(np.unique(shelf.masks)) == {0, 1}
    assert 0.1 < shelf.masks.mean() < 0.5


def test_slices_of_volumes_are_prepared_in_the_scale_of_their_volume(tmp_path: Path) -> None:
    from preceptor.data.volume_cases import expand_volumes

    volume = np.arange(3 * 16 * 12, dtype=np.float32).reshape(3, 16, 12)
    label = np.zeros((3, 16, 12), np.uint8)
    label[1, :8] = 1
    label[1, 8:] = 3
    path = tmp_path / "v.npz"
    np.savez(path, image=volume, label=label)
    cases = list(expand_volumes([Case("v", path, path, "train")]))
    labels = {"background": 0, "one": 1, "three": 3}
    settings = Preprocessing((16, 12), 1, normalize="volume_minmax")
    shelf = build_shelf(cases, settings, labels, "exact", tmp_path / "cache")
    np.testing.assert_allclose(shelf.stored[:, 0], volume / volume.max(), atol=1e-6)
    assert shelf.masks is not None
    assert [sorted(np.unique(mask)) for mask in shelf.masks] == [[0], [1, 2], [0]]
    settings = Preprocessing((16, 12), 1, normalize="none")
    np.testing.assert_array_equal(
        build_shelf(cases, settings, labels, "exact", tmp_path / "cache").stored[:, 0], volume
    )


def test_slice_files_cannot_be_scaled_by_a_volume_that_is_not_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "v_1.npz", image=np.zeros((4, 4)), label=np.zeros((4, 4)))
    case = Case("v_1", tmp_path / "v_1.npz", tmp_path / "v_1.npz", "train", volume="v")
    with pytest.raises(DataError, match=r"(?s)case v_1 cannot be prepared.*does not tell its volume.*data\.normalize"):
        build([case], tmp_path / "cache", Preprocessing((4, 4), 1, normalize="volume_zscore"))
