"""Files to arrays: PNG, JPEG, BMP, TIFF, single-frame DICOM, and slices of NIfTI, HDF5 and npz files.

Arrays are row-major, [H, W] or [H, W, C], in the stored type: nothing is reduced to eight bits, scaled or resized. A
file is read as what its name says; one that holds something else, is cut short or is absurdly large is refused with an
error that names the file, the reader and what the content is.
"""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.arrays import count_array_slices, read_array
from preceptor.data.dicom import decode_dicom
from preceptor.data.pairing import SUFFIXES, suffix
from preceptor.data.pictures import decode_picture
from preceptor.data.volumes import count_slices, read_slice
from preceptor.errors import DataError

_FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
}
_NAMES = {
    "png": "PNG",
    "jpeg": "JPEG",
    "bmp": "BMP",
    "tiff": "TIFF",
    "nifti": "NIfTI",
    "dicom": "DICOM",
    "hdf5": "HDF5",
    "npz": "npz",
}
_ARRAYS = ("hdf5", "npz")

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive or Office document"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x08\x00", "DICOM without its preamble, or raw data"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a WebP picture or another RIFF file"),
    (b"%PDF", "a PDF document"),
    (b"<", "a web page or XML"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded"),
)


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a picture lie.

    shape: (H, W), row-major. spacing: (row, column) in mm, None where the file has none. format: "png", "nifti", ...
    affine: 4x4, from (column, row, slice) of the array as read to mm, right-anterior-superior; NIfTI only.
    orientation: the file's own axes, as "RAS", before they were brought into the conventional view; NIfTI only.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float] | None = None
    format: str = ""
    affine: tuple[tuple[float, ...], ...] | None = None
    orientation: str | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels: [H, W] or [H, W, C], row-major, in the stored type. volume: the file that it is a slice of, if of any."""

    pixels: np.ndarray
    geometry: Geometry
    volume: Path | None = None


def suffixes() -> tuple[str, ...]:
    """The endings of files that can be read, in lower case."""
    return SUFFIXES


def read_image(path: Path | str, slice: int | None = None) -> Picture:
    """Read an image. Alpha is dropped, palettes become colours, DICOM is rescaled and MONOCHROME1 inverted.

    slice: which slice of a volume, 0 the lowest (see `preceptor.data.volumes`); None for two-dimensional files.
    Raises DataError for missing, damaged, misnamed or oversized files and for slices that do not exist.
    """
    return _read(Path(path), slice, mask=False)


def read_mask(path: Path | str, slice: int | None = None) -> Picture:
    """Read the values that a mask stores: [H, W] numbers, or [H, W, 3] colours of an RGB or coloured palette file.

    Alpha is dropped, a grey palette becomes its grey values, bilevel files become 0 and 255, DICOM is not rescaled.
    Arguments and errors as for `read_image`.
    """
    return _read(Path(path), slice, mask=True)


def volume_slices(path: Path | str) -> int | None:
    """Number of slices of a volume file, None for a two-dimensional one. Reads headers only."""
    path = Path(path)
    kind = _FORMATS.get(suffix(path.name).lower(), "")
    if kind not in ("nifti", *_ARRAYS):
        return None
    _refuse_misnamed(path, kind)
    return _guarded(path, kind, lambda: count_slices(path) if kind == "nifti" else count_array_slices(path, kind))


def _read(path: Path, slice: int | None, mask: bool) -> Picture:
    kind = _format(path)
    if slice is not None and kind not in ("nifti", *_ARRAYS):
        raise DataError("only volumes have slices", where=path, found=f"slice {slice} of a {_NAMES[kind]} file")
    spacing = affine = orientation = None
    if kind == "nifti":
        pixels, spacing, affine, orientation = _guarded(path, kind, lambda: read_slice(path, slice))
    elif kind in _ARRAYS:
        pixels = _guarded(path, kind, lambda: read_array(path, kind, mask, slice))
    elif kind == "dicom":
        pixels, spacing = _guarded(path, kind, lambda: decode_dicom(path, mask))
    else:
        pixels, spacing = _guarded(path, kind, lambda: decode_picture(path, kind, mask))
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    height, width = pixels.shape[:2]
    geometry = Geometry((height, width), spacing, kind, affine, orientation)
    return Picture(pixels, geometry, None if slice is None else path)


def _format(path: Path) -> str:
    """The format by the file's name, after the content was seen to be of that format."""
    kind = _FORMATS.get(suffix(path.name).lower())
    if kind is None and not path.suffix and _content(path) == "dicom":
        kind = "dicom"  # scanners write files without an ending
    if kind is None:
        found = f"{path.suffix or 'no ending'}; the content is {_content(path)}"
        raise DataError("no reader for this kind of file", where=path, found=found, expected=", ".join(SUFFIXES))
    _refuse_misnamed(path, kind)
    return kind


def _refuse_misnamed(path: Path, kind: str) -> None:
    content = _content(path)
    if content == kind:
        return
    found = f"the content is {_NAMES.get(content, content)}"
    endings = [ending for ending, other in _FORMATS.items() if other == content]
    remedy = f"rename it to {endings[0]}" if endings else "copy, export or download the file again"
    if content == "a NIfTI file without compression":
        remedy = "rename it to .nii"
    raise DataError(f"this is not {_NAMES[kind]}, as its name says", where=path, found=found, remedy=remedy)


def _content(path: Path) -> str:
    """What the file is by its first bytes: a format's short name where it can be read, else words."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        remedy = "check the path" if isinstance(error, FileNotFoundError) else ""
        raise DataError("the file cannot be opened", where=path, found=error.strerror, remedy=remedy) from error
    if not start:
        return "an empty file (0 bytes)"
    packed = path.name.lower().endswith(".gz")
    if packed and start[:2] == b"\x1f\x8b":
        return _packed_content(path)
    if _is_nifti(start):
        return "a NIfTI file without compression" if packed else "nifti"
    if start[128:132] == b"DICM":
        return "dicom"
    if start[:4] == b"PK\x03\x04" and start[30 : 30 + int.from_bytes(start[26:28], "little")].endswith(b".npy"):
        return "npz"
    unknown = f"unknown; it begins with {start[:8].hex(' ')}"
    return next((name for magic, name in _STARTS if start.startswith(magic)), unknown)


def _packed_content(path: Path) -> str:
    try:
        with gzip.open(path, "rb") as file:
            start = file.read(512)
    except (OSError, EOFError, zlib.error):
        return f"a gzip archive cut short or damaged ({path.stat().st_size} bytes)"
    return "nifti" if _is_nifti(start) else f"a gzip archive with other content, beginning with {start[:8].hex(' ')}"


def _is_nifti(start: bytes) -> bool:
    return start[344:348] in (b"n+1\x00", b"ni1\x00") or start[4:8] in (b"n+2\x00", b"ni2\x00")


def _guarded(path: Path, kind: str, decode: Callable[[], Any]) -> Any:
    """What `decode` returns; any error of a decoding library as a DataError with the file and the reader."""
    try:
        return decode()
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("there is not enough memory to read the file", where=path) from error
    except Exception as error:  # each library has its own types, and damaged files raise nearly any of them
        raise DataError(
            f"the file cannot be read as {_NAMES[kind]}",
            where=path,
            found=f"{path.stat().st_size} bytes, damaged or cut short ({type(error).__name__}: {error})",
            remedy="copy or export the file again, or remove the case",
        ) from error
