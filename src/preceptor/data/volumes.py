"""NIfTI volumes as conventional slices, and back: the file's own order of axes is recorded, never lost.

A volume is brought into one view by its affine alone, so that files which store the same anatomy in another order or
flipped give the same slices. The slices are cut across the direction of the thickest voxels (1.5 times the next or
more: a stack of two-dimensional scans), or else from feet to head. Axial slices are then counted upwards, with rows
from anterior to posterior and columns from the patient's right to left, as radiologists look at them; coronal slices
are counted backwards and sagittal ones leftwards, both with rows from head to feet.
"""

import functools
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.errors import DataError
from preceptor.storage import write_bytes

VOXEL_LIMIT = 2**30
"""Largest volume that is read, in voxels (for example 512 x 512 x 4096)."""

THICK = 1.5
"""Voxels that are this much thicker in one direction than in the others tell the direction of the slices."""

_VIEWS = {"S": "LPS", "A": "LIP", "R": "PIL"}
"""Axis of the slices (its positive end) to the directions in which columns, rows and slices are counted."""

Affine = tuple[tuple[float, ...], ...]


def count_slices(path: Path) -> int | None:
    """Number of slices, None where the file is two-dimensional. Reads the header only."""
    volume = _open(path)
    shape, affine = _shape(path, volume.shape), _affine(volume)
    axis = _slice_axis(path, shape, affine)
    return shape[axis] if shape[axis] > 1 else None


def read_slice(path: Path, slice: int | None) -> tuple[np.ndarray, tuple[float, float], Affine, str]:
    """(pixels [H, W], spacing (row, column) in mm, affine of the view, the file's own orientation such as "RAS").

    slice: None only for two-dimensional files. Values are scaled as the header says, else in the stored type.
    The last volumes stay decoded, so that reading slice after slice decodes each file once.
    """
    status = os.stat(path)
    slices, affine, orientation = _load(path, status.st_mtime_ns, status.st_size)
    count = len(slices)
    if slice is None and count > 1:
        expected = f"a slice from 0 to {count - 1}"
        raise DataError("the file is a volume", where=path, found=f"{count} slices, none named", expected=expected)
    if slice is not None and not 0 <= slice < count:
        raise DataError("the volume has no such slice", where=path, found=slice, expected=f"0 to {count - 1}")
    column, row, _ = (float(size) for size in np.linalg.norm(np.array(affine)[:3, :3], axis=0))
    return np.ascontiguousarray(slices[slice or 0]), (row, column), affine, orientation


def write_label_volume(path: Path | str, slices: np.ndarray, like: Path | str) -> None:
    """Write class indices `slices` [D, H, W] (or [H, W]), as read from `like`, in that file's own axes and affine.

    The result is uint8 NIfTI, packed where the name ends with .gz. Raises DataError where the shapes differ.
    """
    path, like = Path(path), Path(like)
    source = _open(like)
    stored = to_stored(slices, like)
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    result = type(source)(stored.reshape(source.shape), source.affine, header)
    content = result.to_bytes()
    write_bytes(path, gzip.compress(content, 6, mtime=0) if path.name.lower().endswith(".gz") else content)


def to_stored(slices: np.ndarray, like: Path) -> np.ndarray:
    """Slices [D, H, W] (or [H, W]) of the view of `like` as an array in that file's own order of axes."""
    from nibabel.orientations import apply_orientation, ornt_transform

    source = _open(like)
    shape, affine = _shape(like, source.shape), _affine(source)
    stored, view = _orientations(like, shape, affine)
    volume = np.transpose(slices if slices.ndim == 3 else slices[None], (2, 1, 0))
    result = apply_orientation(volume, ornt_transform(view, stored))
    if result.shape != shape:
        raise DataError("the slices do not fit the volume", where=like, found=result.shape, expected=shape)
    return np.ascontiguousarray(result)


def _open(path: Path) -> Any:
    import nibabel

    return nibabel.load(path)


def _affine(source: Any) -> np.ndarray:
    """The header's affine; a two-dimensional file may lack the third direction, which is then across the others."""
    affine = np.array(source.affine, dtype=np.float64)
    if not affine[:3, 2].any():
        across = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = across / (np.linalg.norm(across) or 1.0)
    return affine


@functools.lru_cache(maxsize=2)
def _load(path: Path, changed: int, size: int) -> tuple[np.ndarray, Affine, str]:
    """(slices [D, H, W], affine of the view, stored orientation). The arguments beside `path` only key the cache."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt2axcodes, ornt_transform

    source = _open(path)
    shape, affine = _shape(path, source.shape), _affine(source)
    stored, view = _orientations(path, shape, affine)
    values = np.asanyarray(source.dataobj).reshape(shape)
    if values.dtype.kind not in "biuf":
        expected = "integers or real numbers"
        raise DataError("the NIfTI file holds no plain numbers", where=path, found=values.dtype, expected=expected)
    if values.dtype.kind == "f" and values.dtype.itemsize == 8 and source.get_data_dtype() != np.float64:
        values = values.astype(np.float32)  # scaled by the header; the stored type has fewer digits than that
    change = ornt_transform(stored, view)
    turned = apply_orientation(values, change)
    new_affine = affine @ inv_ornt_aff(change, shape)
    rows = tuple(tuple(float(value) for value in row) for row in new_affine)
    return np.transpose(turned, (2, 1, 0)), rows, "".join(ornt2axcodes(stored))


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(X, Y, Z) with Z = 1 for two-dimensional files; further axes must have length 1."""
    if len(shape) < 2 or any(size != 1 for size in shape[3:]):
        found, remedy = " x ".join(map(str, shape)), "save each time point or channel as its own file"
        raise DataError("the NIfTI file is no picture or volume", where=path, found=found, remedy=remedy)
    full = (*shape[:3], 1)[:3]
    if not 0 < full[0] * full[1] * full[2] <= VOXEL_LIMIT:
        expected = f"1 to {VOXEL_LIMIT:,} voxels"
        raise DataError("the volume's size is absurd", where=path, found=" x ".join(map(str, full)), expected=expected)
    return full[0], full[1], full[2]


def _slice_axis(path: Path, shape: tuple[int, int, int], affine: np.ndarray) -> int:
    single = [axis for axis, size in enumerate(shape) if size == 1]
    if len(single) == 1:
        return single[0]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.argsort(sizes)
    if sizes[order[2]] >= THICK * sizes[order[1]]:
        return int(order[2])
    return int(np.flatnonzero(_stored_orientation(path, affine)[:, 0] == 2)[0])


def _stored_orientation(path: Path, affine: np.ndarray) -> np.ndarray:
    from nibabel.orientations import io_orientation

    if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12:
        return io_orientation(affine)
    remedy = "write sform or qform with the voxel sizes"
    raise DataError("the NIfTI affine is singular", where=path, found=affine[:3].round(4).tolist(), remedy=remedy)


def _orientations(path: Path, shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the file's orientation, that of the view with axes column, row, slice), as nibabel writes them."""
    from nibabel.orientations import axcodes2ornt

    stored = _stored_orientation(path, affine)
    direction = "RAS"[int(stored[_slice_axis(path, shape, affine), 0])]
    return stored, axcodes2ornt(tuple(_VIEWS[direction]))
