"""The scale of values of a whole volume, which all its slices share; computed once a volume.

Sources: scaling by minimum and maximum after clipping, TransUNet's preparation of Synapse (specification of segmentors,
section 8); by the percentiles 2 and 98, SIKD's preparation of ACDC (specification of SIKD, section 5).
"""

import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from preceptor.data.readers import read_image, volume_slices
from preceptor.errors import DataError

PERCENTILES = (2, 98)
_COMPUTING = threading.Lock()


@dataclass(frozen=True)
class Scale:
    """Values to (v - offset) / width; all 0 where the width is 0. bounds: what values are clipped to before."""

    offset: float
    width: float
    bounds: tuple[float, float] | None = None

    def apply(self, image: Tensor) -> Tensor:
        """The image in this scale, in its own precision and shape."""
        if self.width == 0:
            return image * 0
        if self.bounds is not None:
            image = image.clamp(*self.bounds)
        return (image - self.offset) / self.width


def volume_scale(path: Path, mode: str, clip: tuple[float, float] | None = None) -> Scale:
    """The scale of the volume in a file, all slices together. Arguments and errors as for `scale_of`.

    The last volumes' scales are remembered until their files change. Raises DataError where a slice cannot be read.
    """
    status = os.stat(path)
    with _COMPUTING:  # threads that want slices of one volume wait for the first of them
        return _of_file(path, mode, clip, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _of_file(path: Path, mode: str, clip: tuple[float, float] | None, changed: int, size: int) -> Scale:
    """The last two arguments only key the cache."""
    count = volume_slices(path)
    numbers = [None] if count is None else range(count)
    volume = np.stack([read_image(path, number).pixels.astype(np.float32) for number in numbers])
    return scale_of(volume, mode, clip, path)


def scale_of(values: np.ndarray, mode: str, clip: tuple[float, float] | None = None, where: object = None) -> Scale:
    """The scale of values of any shape, computed in float32 after clipping.

    mode: "volume_minmax" (minimum and maximum to 0 and 1), "volume_zscore" (mean 0, population standard deviation 1)
    or "volume_percentile" (percentiles 2 and 98, with linear interpolation, to 0 and 1, what lies beyond cut off).
    where: named in errors. Raises DataError for values that are not finite.
    """
    values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise DataError("the volume has values that are not finite numbers", where=where, found=f"{count} of them")
    if clip is not None:
        values = values.clip(*clip)
    if mode == "volume_minmax":
        low, high = values.min(), values.max()
        return Scale(float(low), float(high - low))
    if mode == "volume_zscore":
        mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        # the deviation of equal values is a rounding error, not 0
        return Scale(float(mean), float(deviation) if values.min() < values.max() else 0.0)
    if mode != "volume_percentile":
        raise ValueError(mode)
    low, high = np.percentile(values, PERCENTILES).astype(np.float32)
    width = np.float32(1e-10) + high - low  # in this order: the summand only matters near 0
    return Scale(float(low), float(width), (float(low), float(high)))
