"""Predictions to files, in the format, size and geometry of the image they belong to.

PNG gives PNG, TIFF gives TIFF, NIfTI gives NIfTI with the image's shape, affine and order of axes. JPEG, BMP and DICOM
give PNG: JPEG loses mask values, and a mask without its own DICOM header is no DICOM object. Masks hold the stored
values of the package's labels, as the training masks did: what was trained on 0 and 255 writes 0 and 255.
"""

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.pairing import stem
from preceptor.errors import DataError
from preceptor.storage import replacing, write_bytes

NOTES = {
    "jpeg": "written as PNG: JPEG would change mask values",
    "bmp": "written as PNG",
    "dicom": "written as PNG without DICOM header: the spacing is in this table",
}

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Overlay colours that people with any colour vision can tell apart (Okabe and Ito), repeated where there are more."""


def mask_name(image: str) -> str:
    """File name of an image's mask: TIFF and NIfTI keep their ending, every other becomes .png."""
    base = stem(image)
    ending = image[len(base) :]
    return base + (ending if ending.lower() in (".tif", ".tiff", ".nii", ".nii.gz") else ".png")


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


def write_volume(path: Path, slices: np.ndarray, values: np.ndarray, like: Path) -> None:
    """Write class indices [D, H, W], as the slices of `like` were read, as NIfTI of stored values in `like`'s geometry.

    Colours cannot be stored; class indices are written then.
    """
    from preceptor.data.volumes import to_stored

    numbers = values if values.ndim == 1 else np.arange(len(values), dtype=np.uint8)
    _write_nifti(path, to_stored(numbers[slices], like), like)


def packed(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as sixteen-bit integers in units of 1/65535: exact to 8e-6 at half the memory."""
    return np.rint(probabilities * np.float32(65535)).astype(np.uint16)


def write_probability_volume(path: Path, slices: np.ndarray, like: Path) -> None:
    """Write `packed` probabilities [D, C, H, W] as a NIfTI of shape [X, Y, Z, C] in `like`'s geometry.

    The header's slope makes readers return 0..1; NIfTI has no half precision.
    """
    from preceptor.data.volumes import to_stored

    stored = np.stack([to_stored(slices[:, index], like) for index in range(slices.shape[1])], axis=-1)
    _write_nifti(path, stored, like, slope=1 / 65535)


def _write_nifti(path: Path, stored: np.ndarray, like: Path, slope: float = 1.0) -> None:
    import nibabel

    source: Any = nibabel.load(like)
    header = source.header.copy()
    header.set_data_dtype(stored.dtype)
    # Free texts and extensions may name the patient, and the display range is that of the image.
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        if field in header:
            header[field] = b""
    header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    image = type(source)(stored.reshape(source.shape) if stored.ndim == 3 else stored, source.affine, header)
    # The integers are what is stored: nibabel would divide by a slope that is set before.
    image.header.set_slope_inter(1, 0)
    content = image.to_bytes()
    if slope != 1:
        written = type(image.header).from_fileobj(io.BytesIO(content), check=False)
        written.set_slope_inter(slope, 0)
        fields = written.structarr.tobytes()
        content = fields + content[len(fields) :]
    write_bytes(path, gzip.compress(content, 6, mtime=0) if path.name.lower().endswith(".gz") else content)


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


def _shrunk(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a bool mask [H, W] whose neighbours up to `width` away, along rows and columns, are in it too."""
    result = mask.copy()
    for _ in range(width):
        padded = np.pad(result, 1)
        result &= padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return result
