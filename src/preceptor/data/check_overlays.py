"""Pictures of cases whose image and mask do not lie on one grid, for a person to see how they differ."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from preceptor.data.case import Case, Finding
from preceptor.data.check_findings import finding, split_message
from preceptor.data.readers import read_image, read_mask
from preceptor.data.volume_cases import by_volume
from preceptor.errors import LISTED, DataError
from preceptor.storage import write_bytes

_CODES = ("shape-mismatch", "geometry-mismatch")


def add_overlays(findings: Iterable[Finding], cases: Sequence[Case], folder: Path) -> list[Finding]:
    """Write `<case>.png` into `folder` for the first 20 mismatches, and name the file in their messages.

    Of a volume the middle slice is drawn; none where its mask has no such slice.
    """
    by_name = {name: slices[len(slices) // 2] for name, slices in by_volume(cases).items()}
    by_name |= {case.name: case for case in cases}
    result, drawn = [], 0
    for item in findings:
        if item.code in _CODES and drawn < LISTED:
            path = folder / f"{item.where}.png"
            try:
                write_bytes(path, overlay(by_name[item.where]))
            except DataError:
                result.append(item)
                continue
            found, remedy = split_message(item.message)
            item = finding(item.level, item.code, item.where, f"{found}; see {path}", remedy)
            drawn += 1
        result.append(item)
    return result


def overlay(case: Case) -> bytes:
    """PNG of a case's image with its mask in red, pixel upon pixel from the upper left corner, on black."""
    from PIL import Image

    image, mask = read_image(case.image, case.slice).pixels, read_mask(case.mask or case.image, case.slice).pixels
    grey = np.nan_to_num((image if image.ndim == 2 else image[..., :3].mean(-1)).astype(np.float32))
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-9) * 200
    shown = mask != 0 if mask.ndim == 2 else (mask != 0).any(-1)
    height, width = np.maximum(grey.shape, shown.shape)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: grey.shape[0], : grey.shape[1]] = grey[..., None]
    red = canvas[: shown.shape[0], : shown.shape[1], 0]
    red[shown] = red[shown] // 2 + 127
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG")
    return file.getvalue()
