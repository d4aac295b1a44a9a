"""Distances between the surfaces of two masks, in millimetres where a spacing is known.

The surface of a mask is every foreground pixel with a background neighbour that shares an edge (2-D) or a face (3-D);
what lies outside the image counts as background. Distances run between pixel centres.
"""

from collections.abc import Sequence

import numpy as np


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface pixel of one mask to the nearest surface pixel of the other.

    prediction, reference: bool [H, W] or [D, H, W], neither empty. spacing: one length an axis (1 where None).
    Returns (from prediction to reference, from reference to prediction), each 1-D float64.
    """
    steps = tuple(spacing) if spacing is not None else (1.0,) * prediction.ndim
    window = _bounding_box(prediction | reference)
    ours, theirs = surface(prediction[window]), surface(reference[window])
    points = np.count_nonzero(ours) + np.count_nonzero(theirs)
    nearest = _by_tree if points < ours.size / 30 else _by_transform
    return nearest(ours, theirs, steps), nearest(theirs, ours, steps)


def _by_tree(sources: np.ndarray, targets: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """A third of the time of the transform for thin surfaces, five times as long for noise."""
    from scipy.spatial import cKDTree

    scale = np.asarray(steps)
    return cKDTree(np.argwhere(targets) * scale).query(np.argwhere(sources) * scale)[0]


def _by_transform(sources: np.ndarray, targets: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~targets, sampling=steps)[sources]


def surface(mask: np.ndarray) -> np.ndarray:
    """The surface pixels of a bool mask, same shape."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        here = np.moveaxis(inside, axis, 0)
        source = np.moveaxis(mask, axis, 0)
        here[1:] &= source[:-1]
        here[:-1] &= source[1:]
        here[0] = False
        here[-1] = False
    return mask & ~inside


def hausdorff_95(to_reference: np.ndarray, to_prediction: np.ndarray) -> float:
    """HD95: the larger of the two directed 95th percentiles (linear interpolation), as MONAI defines it.

    Other libraries take one percentile of both directions pooled, which is smaller or equal.
    """
    return float(max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95)))


def average_distance(to_reference: np.ndarray, to_prediction: np.ndarray) -> float:
    """ASSD: mean over the surface pixels of both masks together, as MONAI's symmetric average surface distance."""
    return float((to_reference.sum() + to_prediction.sum()) / (to_reference.size + to_prediction.size))


def surface_dice(to_reference: np.ndarray, to_prediction: np.ndarray, tolerance: float) -> float:
    """Share of the surface pixels of both masks within `tolerance` of the other surface (at most, so <=).

    Counts surface pixels, as MONAI does by default; weighting by surface area (Nikolov et al. 2021) differs slightly.
    """
    near = np.count_nonzero(to_reference <= tolerance) + np.count_nonzero(to_prediction <= tolerance)
    return near / (to_reference.size + to_prediction.size)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)
