"""Single-frame DICOM files to arrays: rescaled, MONOCHROME1 inverted, with pixel spacing."""

from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.pictures import refuse_oversized
from preceptor.errors import DataError


def decode_dicom(path: Path, mask: bool) -> tuple[np.ndarray, tuple[float, float] | None]:
    """(pixels [H, W] or [H, W, 3], spacing (row, column) in mm or None).

    Grey images are rescaled by slope and intercept, as float32 unless that changes nothing, and MONOCHROME1 is inverted
    within its stored range, so that larger is always brighter. A mask keeps its stored values.
    Raises DataError for several frames, no pixels, or a compression that needs a decoder which is not installed.
    """
    import pydicom

    data = pydicom.dcmread(path)
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        remedy = "export its frames as single files"
        raise DataError("the DICOM file has several frames", where=path, found=frames, expected=1, remedy=remedy)
    if "PixelData" not in data:
        found = f"{data.get('Modality', 'an object')} without PixelData"
        raise DataError("the DICOM file holds no integer pixels", where=path, found=found)
    refuse_oversized(path, int(data.Rows), int(data.Columns))
    pixels = _pixels(path, data)
    photometric = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if pixels.ndim == 2 and not mask and photometric != "PALETTE COLOR":
        pixels = _shown(pixels, data, photometric == "MONOCHROME1")
    return pixels, _spacing(data)


def _pixels(path: Path, data: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, pixel_array

    syntax = data.file_meta.get("TransferSyntaxUID") if hasattr(data, "file_meta") else None
    try:
        pixels = pixel_array(data)  # colour comes as RGB
    except (RuntimeError, NotImplementedError) as error:
        if syntax is None or not syntax.is_compressed:
            raise
        raise DataError(
            "the DICOM file is compressed in a way that no installed decoder reads",
            where=path,
            found=syntax.name,
            remedy="install pylibjpeg with pylibjpeg-libjpeg and pylibjpeg-openjpeg, or save the file uncompressed",
        ) from error
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        return apply_color_lut(pixels, data)
    return pixels


def _shown(pixels: np.ndarray, data: Any, inverted: bool) -> np.ndarray:
    if inverted:
        bits = int(data.get("BitsStored", 8 * pixels.dtype.itemsize))
        ends = (1 << bits) - 1 if pixels.dtype.kind == "u" else -1
        pixels = (ends - pixels.astype(np.int64)).astype(pixels.dtype)
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    if (slope, intercept) == (1.0, 0.0):
        return pixels
    return (pixels * slope + intercept).astype(np.float32)


def _spacing(data: Any) -> tuple[float, float] | None:
    """PixelSpacing; for projections ImagerPixelSpacing, which is that of the detector."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        values = data.get(name)
        if values is not None and len(values) == 2:
            row, column = (float(value) for value in values)
            if 0 < row < float("inf") and 0 < column < float("inf"):
                return row, column
    return None
