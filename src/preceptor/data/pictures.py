"""PNG, JPEG, BMP and TIFF to arrays. Sixteen bits stay sixteen; the size is bounded before any pixel is decoded."""

from pathlib import Path
from typing import Any

import numpy as np

from preceptor.errors import DataError

PIXEL_LIMIT = 2**27
"""Largest picture that is read, in pixels (for example 11,585 x 11,585)."""

_CHANNELS = 4


def decode_picture(path: Path, kind: str, mask: bool) -> tuple[np.ndarray, None]:
    """(pixels [H, W] or [H, W, 3], no spacing) of a "png", "jpeg", "bmp" or "tiff" file.

    mask: a coloured palette stays colour either way; a grey one becomes grey values in masks.
    Raises DataError for several pages or frames, oversized pictures and types that cannot be kept; else what the
    decoding library raises.
    """
    pixels = _tiff(path, mask) if kind == "tiff" else _pillow(path, kind, mask)
    return pixels, None


def refuse_oversized(path: Path, height: int, width: int) -> None:
    """Raise DataError where a header announces more pixels than `PIXEL_LIMIT`, or none."""
    if not 0 < height * width <= PIXEL_LIMIT:
        found, expected = f"{height} x {width} pixels", f"1 to {PIXEL_LIMIT:,} pixels"
        raise DataError("the picture's size is absurd", where=path, found=found, expected=expected, remedy="cut tiles")


def _pillow(path: Path, kind: str, mask: bool) -> np.ndarray:
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

    # The format's own class is opened, since Image.open tries others and turns large pictures into global warnings.
    plugins: dict[str, Any] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
    }
    with open(path, "rb") as file:
        image = plugins[kind](file)
        refuse_oversized(path, image.height, image.width)
        if getattr(image, "n_frames", 1) > 1:
            raise DataError("the file holds several pictures", where=path, found=image.n_frames, expected=1)
        _refuse_lost_bits(path, kind, image)
        image.load()
    return _plain(image, mask)


def _refuse_lost_bits(path: Path, kind: str, image: Any) -> None:
    """Pillow reads colour of sixteen bits as eight; rather none than fewer bits than stored."""
    if kind == "png" and image.mode in ("RGB", "RGBA"):
        with open(path, "rb") as file:
            depth = file.read(25)[24]  # IHDR is the first chunk: width, height, then the bit depth
    else:
        depth = max(image.tag_v2.get(258, (8,))) if kind == "tiff" and image.mode in ("RGB", "RGBA") else 8
    if depth > 8:
        found = f"{depth} bits for each of {len(image.mode)} channels"
        remedy = "save it as TIFF without compression or with deflate"
        raise DataError("colour of more than eight bits cannot be read here", where=path, found=found, remedy=remedy)


def _plain(image: Any, mask: bool) -> np.ndarray:
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("LA", "La"):
        image = image.getchannel(0)
    elif image.mode in ("P", "PA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"):
        paletted = image.mode in ("P", "PA")
        image = image.convert("RGB")
        if paletted:
            colours = np.asarray(image)
            grey = bool((colours == colours[..., :1]).all())
            return np.ascontiguousarray(colours[..., 0]) if grey and mask else colours
    return np.array(image)


def _tiff(path: Path, mask: bool) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series
        pages = len(series)
        shape, axes = (series[0].shape, series[0].axes) if pages else ((), "")
        if pages != 1 or "".join(axes) not in ("YX", "YXS", "SYX", "CYX"):
            raise DataError(
                "the TIFF holds more than one plain picture",
                where=path,
                found=f"{pages} pictures, the first {' x '.join(map(str, shape))} ({axes})",
                expected="one picture of rows and columns, with 1 to 4 channels",
                remedy="save each page as its own file",
            )
        sizes = dict(zip(axes, shape, strict=True))
        refuse_oversized(path, sizes["Y"], sizes["X"])
        kind = file.pages[0].photometric  # type: ignore[union-attr]
        if kind not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.RGB):
            return _pillow(path, "tiff", mask)  # palettes and YCbCr
        try:
            pixels = series[0].asarray()
        except (KeyError, ValueError, ImportError) as error:
            if "imagecodecs" not in str(error) and "compression" not in str(error):
                raise
            return _pillow(path, "tiff", mask)  # LZW and JPEG, which tifffile leaves to a further package
    if axes in ("SYX", "CYX"):
        pixels = np.moveaxis(pixels, 0, -1)
    if kind == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
        pixels = ~pixels
    return _few_channels(path, pixels)


def _few_channels(path: Path, pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[-1]
    if channels > _CHANNELS:
        raise DataError("the TIFF has too many channels", where=path, found=channels, expected=f"1 to {_CHANNELS}")
    kept = {1: 1, 2: 1, 3: 3, 4: 3}[channels]  # two and four: the last is alpha
    return np.ascontiguousarray(pixels[..., 0] if kept == 1 else pixels[..., :kept])
