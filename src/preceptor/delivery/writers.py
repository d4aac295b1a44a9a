"""Predictions to files, in the format, size and geometry of the image they belong to.

PNG gives PNG, TIFF gives TIFF, NIfTI gives NIfTI with the image's shape, affine and order of axes. JPEG, BMP and DICOM
give PNG: JPEG loses mask values, and a mask without its own DICOM header is no DICOM object. HDF5 and npz give NIfTI.
Masks hold the stored values of the package's labels, as the training masks did: what was trained on 0 and 255 writes 0
and 255.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from preceptor.data.pairing import stem, suffix
from preceptor.data.volumes import write_probability_volume
from preceptor.errors import DataError
from preceptor.storage import replacing, scratch

VOLUMES = {"nifti", "hdf5", "npz"}
"""Formats of `Geometry.format` whose masks are NIfTI."""

NOTES = {
    "hdf5": "written as NIfTI without affine: the file states none",
    "npz": "written as NIfTI without affine: the file states none",
    "jpeg": "written as PNG: JPEG would change mask values",
    "bmp": "written as PNG",
    "dicom": "written as PNG without DICOM header: the spacing is in this table",
}

MONTAGE = 9
"""Slices of a volume that its overlay shows."""

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Overlay colours that people with any colour vision can tell apart (Okabe and Ito), repeated where there are more."""


def mask_name(image: str) -> str:
    """File name of an image's mask: TIFF and NIfTI keep their ending, arrays get .nii.gz, every other becomes .png."""
    base, ending = stem(image), suffix(image)
    kept = {".tif": ending, ".tiff": ending, ".nii": ending, ".nii.gz": ending}
    return base + {**kept, ".h5": ".nii.gz", ".hdf5": ".nii.gz", ".npz": ".nii.gz"}.get(ending.lower(), ".png")


def stored_values(labels: Mapping[str, int | str | list[int]]) -> np.ndarray:
    """What is written for each class: [C] integers of the smallest fitting type, or [C, 3] uint8 colours.

    Of several values that mean one class, the first. Where any label is a colour, a number v is the grey (v, v, v).
    Raises DataError for a value that is neither, or that no mask file can hold.
    """
    first = [value[0] if isinstance(value, list) else value for value in labels.values()]
    if any(isinstance(value, str) for value in first):
        try:
            rows = [bytes.fromhex(v.removeprefix("#")) if isinstance(v, str) else bytes([v] * 3) for v in first]
            return np.array([list(row) for row in rows], dtype=np.uint8).reshape(len(first), 3)
        except ValueError as error:
            raise DataError("the labels are not values or colours #rrggbb", found=dict(labels)) from error
    numbers = np.array(first, dtype=np.int64)
    for kind in (np.uint8, np.uint16, np.int16, np.int32):
        if np.iinfo(kind).min <= numbers.min() and numbers.max() <= np.iinfo(kind).max:
            return numbers.astype(kind)
    raise DataError("the labels are too large for a mask file", found=dict(labels), expected="32-bit integers")


def write_mask(path: Path, classes: np.ndarray, values: np.ndarray) -> None:
    """Write class indices [H, W] as PNG or TIFF of stored values. Raises DataError where PNG cannot hold the values."""
    pixels = values[classes]
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        with replacing(path) as temporary:
            tifffile.imwrite(temporary, pixels, compression="zlib", photometric="rgb" if pixels.ndim == 3 else None)
        return
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            "PNG masks hold values from 0 to 65535 only",
            where=path,
            found=f"label values {values.min()} to {values.max()}",
            remedy="give the image as TIFF or NIfTI",
        )
    write_png(path, pixels)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write [H, W] uint8 or uint16, or [H, W, 3] uint8, as PNG, atomically."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def packed(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as sixteen-bit integers in units of 1/65535: exact to 8e-6 at half the memory."""
    return np.rint(probabilities * np.float32(65535)).astype(np.uint16)


@contextlib.contextmanager
def probability_volume(path: Path, like: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Takes probabilities [C, H, W] slice after slice, and writes them at the end as `write_probability_volume` does.

    Until then they wait on the disk of `path`, so that the memory does not grow with the number of slices.
    """
    shape: tuple[int, ...] = ()
    with scratch(path.parent) as file:

        def add(probabilities: np.ndarray) -> None:
            nonlocal shape
            shape = probabilities.shape
            file.write(packed(probabilities).tobytes())

        yield add
        file.flush()
        write_probability_volume(path, np.memmap(file, np.uint16, "r").reshape(-1, *shape), like)


def write_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write probabilities [C, H, W] as .npy in half precision, atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, probabilities.astype(np.float16), allow_pickle=False)


def draw_overlay(picture: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The image with every class tinted and outlined: uint8 [H, W, 3] of pixels [H, W(, C)] and classes [H, W].

    The outline is one pixel for every 400 of the longer side, so that it can be seen in large images.
    """
    from preceptor.evaluation.overlays import eight_bit

    grey = eight_bit(picture)
    result = np.array(grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2))
    width = max(1, round(max(classes.shape) / 400))
    for index in np.unique(classes):
        if index == 0:
            continue
        colour = np.array(COLOURS[(int(index) - 1) % len(COLOURS)])
        inside = classes == index
        result[inside] = (0.7 * result[inside] + 0.3 * colour).astype(np.uint8)
        result[inside & ~_shrunk(inside, width)] = colour
    return result


def shown_slices(count: int) -> list[int]:
    """Which of `count` slices a montage shows: the middles of at most MONTAGE equal parts, lowest first."""
    parts = min(count, MONTAGE)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


def draw_montage(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles [H, W, 3] of one size, row by row in a square as near as can be, on black: uint8 [., ., 3]."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    result = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        result[top : top + height, left : left + width] = tile
    return result


def _shrunk(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a bool mask [H, W] whose neighbours up to `width` away, along rows and columns, are in it too."""
    result = mask.copy()
    for _ in range(width):
        padded = np.pad(result, 1)
        result &= padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return result
