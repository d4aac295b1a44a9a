"""HDF5 and npz files that hold an image beside its labels: slices [H, W] or volumes [D, H, W].

Source: the files of SSL4MIS (`image`, `label` in HDF5) and TransUNet (npz slices, HDF5 volumes); the specification of
segmentors, section 8. Neither format has a header for spacing or orientation: rows and columns are taken as stored.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.pictures import refuse_oversized
from preceptor.data.volumes import VOXEL_LIMIT
from preceptor.errors import DataError

IMAGE = ("image",)
LABEL = ("label", "mask")
"""Names of the datasets, the first that a file has."""


def read_array(path: Path, kind: str, mask: bool, slice: int | None) -> np.ndarray:
    """Pixels [H, W] of the image (or of the label where `mask`) in a "hdf5" or "npz" file, in the stored type.

    slice: of a volume; None only for files of one slice. Of HDF5 only this slice is read; volumes in npz stay decoded,
    the last few, so that reading slice after slice decodes each once. Raises DataError for files without the dataset,
    for arrays that are no slice or volume of numbers, and for slices that do not exist.
    """
    with _opened(path, kind) as file:
        name, shape = _find(path, kind, file, LABEL if mask else IMAGE)
        if len(shape) == 2 or (shape[0] == 1 and slice is None):
            if slice:
                raise DataError("the file holds a single slice", where=path, found=f"slice {slice} of {list(shape)}")
            slice = None if len(shape) == 2 else 0
        elif slice is None:
            expected = f"a slice from 0 to {shape[0] - 1}"
            raise DataError(
                "the file is a volume", where=path, found=f"{shape[0]} slices, none named", expected=expected
            )
        elif not 0 <= slice < shape[0]:
            raise DataError("the volume has no such slice", where=path, found=slice, expected=f"0 to {shape[0] - 1}")
        if mask:
            _require_equal_depth(path, kind, file, shape)
        if slice is None:
            return np.asarray(file[name])
        if kind == "hdf5":
            return file[name][slice]
    status = os.stat(path)
    return _unpacked(path, name, status.st_mtime_ns, status.st_size)[slice].copy()


def count_array_slices(path: Path, kind: str) -> int | None:
    """Number of slices of the image; None where it is a single one. Reads headers only."""
    with _opened(path, kind) as file:
        _, shape = _find(path, kind, file, IMAGE)
    return shape[0] if len(shape) == 3 and shape[0] > 1 else None


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Any]:
    """The open file: a mapping from the names of its arrays."""
    if kind == "npz":
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as archive:  # np.load(path) leaks damaged files
            yield archive
    else:
        import h5py

        with h5py.File(path, "r", locking=False) as file:  # many read, none writes; some file systems have no locks
            yield file


def _find(path: Path, kind: str, file: Any, names: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    """The name that the file has of `names`, and the shape of its array."""
    name = next((name for name in names if name in file), None)
    if name is None:
        found = ", ".join(sorted(file)) or "none"
        remedy = "save image and label as arrays of these names" if names == LABEL else "save the image under this name"
        what = f"the file has no array `{names[0]}`"
        raise DataError(what, where=path, found=found, expected=" or ".join(names), remedy=remedy)
    shape, dtype = _npz_header(file, name) if kind == "npz" else _hdf5_header(path, file[name])
    if len(shape) not in (2, 3) or dtype.kind not in "biuf":
        found = f"`{name}`: {dtype} {list(shape)}"
        raise DataError(
            "the array is no slice or volume", where=path, found=found, expected="numbers [H, W] or [D, H, W]"
        )
    refuse_oversized(path, *shape[-2:])
    if not 0 < np.prod(shape, dtype=float) <= VOXEL_LIMIT:
        expected = f"1 to {VOXEL_LIMIT:,} voxels"
        raise DataError("the volume's size is absurd", where=path, found=" x ".join(map(str, shape)), expected=expected)
    return name, shape


def _hdf5_header(path: Path, item: Any) -> tuple[tuple[int, ...], np.dtype]:
    import h5py

    if not isinstance(item, h5py.Dataset) or item.shape is None:
        found = f"`{item.name.strip('/')}` is a {type(item).__name__.lower()}"
        raise DataError("the file has no array of this name", where=path, found=found, expected="an HDF5 dataset")
    return item.shape, item.dtype


def _npz_header(file: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type, from the first bytes of the array."""
    with file.zip.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


@functools.lru_cache(maxsize=4)
def _unpacked(path: Path, name: str, changed: int, size: int) -> np.ndarray:
    """The whole array. The arguments after `name` only key the cache."""
    with _opened(path, "npz") as archive:
        return archive[name]


def _require_equal_depth(path: Path, kind: str, file: Any, shape: tuple[int, ...]) -> None:
    """A label volume with more or fewer slices than the image beside it would be read shifted or cut short."""
    if not any(name in file for name in IMAGE):
        return
    _, image = _find(path, kind, file, IMAGE)
    if image[:-2] != shape[:-2]:
        found = f"image {list(image)}, label {list(shape)}"
        raise DataError("image and label differ in their number of slices", where=path, found=found)
