"""NIfTI volumes as conventional slices, and back: the file's own order of axes is recorded, never lost.

A volume is brought into one view by its affine alone, so that files which store the same anatomy in another order or
flipped give the same slices. The slices are cut across the direction of the thickest voxels (1.5 times the next or
more: a stack of two-dimensional scans), or else from feet to head. Axial slices are then counted upwards, with rows
from anterior to posterior and columns from the patient's right to left, as radiologists look at them; coronal slices
are counted backwards and sagittal ones leftwards, both with rows from head to feet.
"""

import contextlib
import functools
import gzip
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.pairing import suffix
from preceptor.errors import DataError
from preceptor.storage import replacing

VOXEL_LIMIT = 2**30
"""Largest volume that is read, in voxels (for example 512 x 512 x 4096)."""

THICK = 1.5
"""Voxels that are this much thicker in one direction than in the others tell the direction of the slices."""

_VIEWS = {"S": "LPS", "A": "LIP", "R": "PIL"}
"""Axis of the slices (its positive end) to the directions in which columns, rows and slices are counted."""

Affine = tuple[tuple[float, ...], ...]

_LOADING = threading.Lock()


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
    with _LOADING:  # threads that want slices of one volume wait for the first of them to decode it
        slices, affine, orientation = _load(path, status.st_mtime_ns, status.st_size)
    count = len(slices)
    if slice is None and count > 1:
        expected = f"a slice from 0 to {count - 1}"
        raise DataError("the file is a volume", where=path, found=f"{count} slices, none named", expected=expected)
    if slice is not None and not 0 <= slice < count:
        raise DataError("the volume has no such slice", where=path, found=slice, expected=f"0 to {count - 1}")
    column, row, _ = (float(size) for size in np.linalg.norm(np.array(affine)[:3, :3], axis=0))
    return np.ascontiguousarray(slices[slice or 0]), (row, column), affine, orientation


def volume_spacing(path: Path | str) -> tuple[float, float, float] | None:
    """Distances (slice, row, column) in mm between the centres of neighbouring voxels, in the view's own order.

    From the header alone. None for files other than NIfTI, which state no distance between slices.
    """
    path = Path(path)
    if not _is_nifti(path):
        return None
    affine = _view(path, _open(path))[3]
    column, row, slice = (float(size) for size in np.linalg.norm(np.array(affine)[:3, :3], axis=0))
    return slice, row, column


def volume_grid(path: Path) -> tuple[tuple[int, int, int], Affine]:
    """((slices, rows, columns), affine of the view) of a NIfTI file, from its header alone."""
    _, stored, view, affine = _view(path, source := _open(path))
    shape = _shape(path, source.shape)
    by_direction = {int(axis): size for (axis, _), size in zip(stored, shape, strict=True)}
    columns, rows, slices = (by_direction[int(axis)] for axis, _ in view)
    return (slices, rows, columns), affine


def write_label_volume(
    path: Path | str,
    slices: np.ndarray | Sequence[np.ndarray],
    like: Path | str,
    values: np.ndarray | None = None,
) -> None:
    """Write class indices, [D, H, W], [H, W] or a list of [H, W] in slice order, as `like` has them when it is read.

    values: [C], what is stored for each class; the index itself where left out, and for colours [C, 3]. The result is
    NIfTI in the order of axes, affine and shape of `like`, packed where the name ends with .gz, without the free texts
    of its header. Of files other than NIfTI, the slices are stored as they are with a distance of 1.
    Raises DataError where the shapes differ.
    """
    classes = slices if isinstance(slices, np.ndarray) else np.stack(list(slices))
    stored = to_stored(classes, like)
    if values is not None and values.ndim == 1:
        stored = values[stored]
    elif stored.dtype == bool or stored.size == 0 or stored.max() < 256:
        stored = stored.astype(np.uint8)
    _write(Path(path), Path(like), stored.shape, stored.dtype, [stored])


def write_probability_volume(path: Path | str, slices: np.ndarray, like: Path | str) -> None:
    """Write probabilities [D, C, H, W], uint16 in units of 1/65535, as NIfTI [X, Y, Z, C] in the geometry of `like`.

    The header's slope makes readers return 0..1; NIfTI has no half precision. One class is turned at a time, so that
    an array on the disk need not fit the memory.
    """
    like = Path(like)
    shape = (*to_stored(slices[:, 0], like).shape, slices.shape[1])
    classes = (to_stored(slices[:, index], like) for index in range(slices.shape[1]))
    _write(Path(path), like, shape, np.dtype(np.uint16), classes, slope=1 / 65535)


def write_image_volume(path: Path | str, slices: np.ndarray, spacing: tuple[float, float, float] | None = None) -> None:
    """Write pixels [D, H, W] as NIfTI that is read as these very slices, in their type.

    spacing: (slice, row, column) in mm; 1 without unit where left out.
    """
    stored = np.transpose(slices, (2, 1, 0))
    _write_nifti(Path(path), _plain_header(spacing), stored.shape, stored.dtype, [stored])


def _write(
    path: Path, like: Path, shape: tuple[int, ...], kind: np.dtype, parts: Iterable[np.ndarray], slope: float = 1.0
) -> None:
    if not _is_nifti(like):
        _write_nifti(path, _plain_header(None), shape, kind, parts, slope)
        return
    source = _open(like)
    header = source.header.copy()
    # Free texts and extensions may name the patient, and the display range is that of the image.
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        if field in header:
            header[field] = b""
    header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    flat = len(shape) == 3 and np.prod(shape) == np.prod(source.shape)
    _write_nifti(path, header, tuple(source.shape) if flat else shape, kind, parts, slope)


def _plain_header(spacing: tuple[float, float, float] | None) -> Any:
    """A header whose stored axes are columns to the left, rows to the back, and slices upwards: the axial view."""
    from nibabel.nifti1 import Nifti1Header

    slice, row, column = spacing or (1.0, 1.0, 1.0)
    header = Nifti1Header()
    header.set_data_shape((1, 1, 1))
    header.set_sform(np.diag([-column, -row, slice, 1.0]), code=1)
    header.set_qform(np.diag([-column, -row, slice, 1.0]), code=1)
    header.set_xyzt_units("mm" if spacing else "unknown")
    return header


def _write_nifti(
    path: Path, header: Any, shape: tuple[int, ...], kind: np.dtype, parts: Iterable[np.ndarray], slope: float = 1.0
) -> None:
    """Write parts [X, Y, Z], in NIfTI's order of voxels, one after the other behind the header."""
    zooms = header.get_zooms()
    header.set_data_shape(shape)
    header.set_data_dtype(kind)
    header.set_zooms((*zooms, *[1.0] * len(shape))[: len(shape)])
    header["vox_offset"] = 0  # the header sets the least that is needed
    header.set_slope_inter(slope, 0)
    order = header.get_data_dtype()
    with replacing(path) as temporary, open(temporary, "wb") as raw, contextlib.ExitStack() as stack:
        file: Any = raw
        if path.name.lower().endswith(".gz"):
            file = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        header.write_to(file)
        for part in parts:
            file.write(part.astype(order, copy=False).tobytes(order="F"))


def to_stored(slices: np.ndarray, like: Path | str) -> np.ndarray:
    """Slices [D, H, W] (or [H, W]) of the view of `like` as an array [X, Y, Z] in that file's own order of axes.

    Raises DataError where they do not fit a NIfTI file; of other files, they become [W, H, D].
    """
    from nibabel.orientations import apply_orientation, ornt_transform

    like = Path(like)
    volume = np.transpose(slices if slices.ndim == 3 else slices[None], (2, 1, 0))
    if not _is_nifti(like):
        return volume
    source = _open(like)
    shape, stored, view, _ = _view(like, source)
    result = apply_orientation(volume, ornt_transform(view, stored))
    if result.shape != shape:
        raise DataError("the slices do not fit the volume", where=like, found=result.shape, expected=shape)
    return result


def _is_nifti(path: Path) -> bool:
    return suffix(path.name).lower() in (".nii", ".nii.gz")


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
    from nibabel.orientations import apply_orientation, ornt2axcodes, ornt_transform

    source = _open(path)
    shape, stored, view, affine = _view(path, source)
    values = np.asanyarray(source.dataobj).reshape(shape)
    if values.dtype.kind not in "biuf":
        expected = "integers or real numbers"
        raise DataError("the NIfTI file holds no plain numbers", where=path, found=values.dtype, expected=expected)
    if values.dtype.kind == "f" and values.dtype.itemsize == 8 and source.get_data_dtype() != np.float64:
        values = values.astype(np.float32)  # scaled by the header; the stored type has fewer digits than that
    turned = apply_orientation(values, ornt_transform(stored, view))
    return np.transpose(turned, (2, 1, 0)), affine, "".join(ornt2axcodes(stored))


def _view(path: Path, source: Any) -> tuple[tuple[int, int, int], np.ndarray, np.ndarray, Affine]:
    """(shape [X, Y, Z] as stored, the file's orientation, that of the view, affine of the view)."""
    from nibabel.orientations import inv_ornt_aff, ornt_transform

    shape, affine = _shape(path, source.shape), _affine(source)
    stored, view = _orientations(path, shape, affine)
    turned = affine @ inv_ornt_aff(ornt_transform(stored, view), shape)
    return shape, stored, view, tuple(tuple(float(value) for value in row) for row in turned)


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
