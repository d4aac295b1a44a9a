"""Checks of one case's files: readable, numbers, and image and mask on one grid."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preceptor.data.case import Case, Finding
from preceptor.data.check_findings import finding
from preceptor.data.check_masks import MaskRecord, Stored, foreground, is_soft, summarise_values
from preceptor.data.leak import mask_targets
from preceptor.data.masks import IGNORED, decode_mask
from preceptor.data.pairing import suffix
from preceptor.data.readers import Geometry, Picture, read_image, read_mask
from preceptor.errors import DataError, UserError
from preceptor.recipe_data import DataRecipe

ROUNDING = 1e-3
"""Affines and spacings that differ by less than this (mm) differ by rounding."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One readable image. shape: (H, W). mode: stored type, channels. content: hash of its pixels, None if constant."""

    case: str
    shape: tuple[int, int]
    spacing: tuple[float, float] | None
    mode: str
    content: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one look at a case's files gave; small, so that a set's pixels are never held together.

    targets: [7] of `leak.mask_targets`, None without a usable mask.
    """

    findings: tuple[Finding, ...]
    image: ImageRecord | None = None
    mask: MaskRecord | None = None
    targets: np.ndarray | None = None


def inspect_case(case: Case, data: DataRecipe, root: Path) -> Inspection:
    """Read a case's image and mask once and say what is wrong with them. Faulty files become findings."""
    findings: list[Finding] = []
    image = _read(case, "image", case.image, root, findings)
    record = _inspect_image(case, image, findings) if image else None
    if case.mask is None:
        return Inspection(tuple(findings), record)
    mask = _read(case, "mask", case.mask, root, findings)
    if mask is None:
        return Inspection(tuple(findings), record)
    if image is not None and not in_pair(case):  # such volumes are compared as wholes, by their headers
        findings += compare_geometry(case, image.geometry, mask.geometry)
    bad = _not_finite(mask.pixels)
    if bad:
        found = f"{bad} of {mask.pixels.size} values in {_short(case.mask, root)}"
        findings.append(finding("error", "nan-mask", case.name, found, "write the mask again with whole numbers"))
        return Inspection(tuple(findings), record)
    try:
        stored = summarise_values(mask.pixels)
    except UserError as error:
        findings.append(_unreadable(case, "mask", case.mask, root, error))
        return Inspection(tuple(findings), record)
    masked, targets = _inspect_mask(case, mask.pixels, stored, data)
    return Inspection(tuple(findings), record, masked, targets)


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _read(case: Case, kind: str, path: Path, root: Path, findings: list[Finding]) -> Picture | None:
    try:
        return (read_image if kind == "image" else read_mask)(path, case.slice)
    except UserError as error:
        findings.append(_unreadable(case, kind, path, root, error))
        return None


def _unreadable(case: Case, kind: str, path: Path, root: Path, error: UserError) -> Finding:
    told = f"{_short(path, root)}: {error.what}" + (f"; found {error.found}" if error.found is not None else "")
    told += f"; expected {error.expected}" if error.expected is not None else ""
    remedy = error.remedy or "replace the file, or take the case out"
    return finding("error", f"unreadable-{kind}", case.name, told, remedy)


def _inspect_image(case: Case, image: Picture, findings: list[Finding]) -> ImageRecord:
    pixels = image.pixels
    bad = _not_finite(pixels)
    low, high = pixels.min(), pixels.max()
    constant = bool(low == high)
    if bad:
        remedy = "repair the image; a single such value makes the whole training NaN"
        findings.append(finding("error", "nan-image", case.name, f"{bad} of {pixels.size} values", remedy))
    elif constant:
        remedy = "it becomes all zeros; look at it, and take the case out if it is broken"
        findings.append(finding("warning", "constant-image", case.name, f"every value is {low}", remedy))
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    mode = f"{pixels.dtype}, {channels} channel{'s' if channels > 1 else ''}"
    height, width = image.geometry.shape
    content = None if constant or bad else content_hash(pixels)
    return ImageRecord(case.name, (height, width), image.geometry.spacing, mode, content)


def _not_finite(pixels: np.ndarray) -> int:
    return 0 if pixels.dtype.kind not in "fc" else int(pixels.size - np.isfinite(pixels).sum())


def content_hash(pixels: np.ndarray) -> str:
    """Hash of decoded pixels: equal for one picture in several formats, names, or as grey and as grey RGB(A)."""
    if pixels.ndim == 3:
        colour = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
        pixels = colour[..., 0] if (colour == colour[..., :1]).all() else colour
    low, high, whole = pixels.min(), pixels.max(), pixels.dtype.kind != "f"
    small = "u1" if low >= 0 and high < 2**8 else "<u2" if low >= 0 and high < 2**16 else "<i8"
    stored = np.ascontiguousarray(pixels, dtype=small if whole else "<f8")
    return hashlib.sha256(f"{pixels.shape} {stored.dtype}".encode() + stored.tobytes()).hexdigest()


def in_pair(case: Case) -> bool:
    """Whether a case is a slice of a NIfTI volume whose mask is another NIfTI file."""
    if case.slice is None or case.mask is None or case.mask == case.image:
        return False
    return all(suffix(path.name).lower() in (".nii", ".nii.gz") for path in (case.image, case.mask))


def compare_geometry(case: Case, image: Geometry, mask: Geometry) -> list[Finding]:
    """Findings on shape, then on affine or spacing where both files state them: equal, rounding, or mismatch."""
    if tuple(image.shape) != tuple(mask.shape):
        found = f"image {_size(image.shape)}, mask {_size(mask.shape)}"
        return [finding("error", "shape-mismatch", case.name, found, _shape_remedy(image.shape, mask.shape))]
    name, one, other = _comparable(image, mask)
    return compare_places(case.name, name, one, other) if name else []


def compare_places(where: str, name: str, one: object, other: object) -> list[Finding]:
    """A finding on two arrays of numbers in mm, the image's and the mask's; none where they are equal.

    name: what the numbers are, in the plural. where: the case or volume.
    """
    difference = float(np.abs(np.asarray(one, float) - np.asarray(other, float)).max())
    if not difference:
        return []
    if difference < ROUNDING:
        return [finding("note", "geometry-rounding", where, f"{name} differ by {difference:.1e} mm")]
    found = f"{name} of image {_round(one)}, of mask {_round(other)}; they differ by up to {difference:.3g} mm"
    remedy = "resample the mask onto its image's grid, or copy the header where the pixels do fit"
    return [finding("error", "geometry-mismatch", where, found, remedy)]


def _comparable(image: Geometry, mask: Geometry) -> tuple[str, object, object]:
    if image.affine is not None and mask.affine is not None:
        return "affines", image.affine, mask.affine
    if image.spacing is not None and mask.spacing is not None:
        return "spacings", image.spacing, mask.spacing
    return "", None, None


def _round(value: object) -> str:
    return str(np.asarray(value, float).round(4).tolist())


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _shape_remedy(image: Sequence[int], mask: Sequence[int]) -> str:
    if tuple(image) == (mask[1], mask[0]):
        return "the axes look swapped: transpose the mask"
    if abs(image[0] * mask[1] - image[1] * mask[0]) <= max(image) / 2:  # the same ratio but for half a pixel
        return "the mask looks resized: write it again at its image's size (nearest neighbour)"
    return "check that image and mask belong together, and write the mask at its image's size"


def _inspect_mask(
    case: Case, pixels: np.ndarray, stored: Stored, data: DataRecipe
) -> tuple[MaskRecord, np.ndarray | None]:
    try:
        if not data.labels:
            soft = is_soft(stored)
            shown = foreground(pixels, soft)
            classes = (int(shown.size - shown.sum()), int(shown.sum())) if soft else None
            return MaskRecord(case.name, case.split, stored, classes, None, case.volume), mask_targets(shown)
        decoded = decode_mask(pixels, data.labels, data.mask_rule, case.name, data.ignore)
    except DataError as error:
        fault = (f"{error.what}; found {error.found}", error.remedy)
        return MaskRecord(case.name, case.split, stored, None, fault, case.volume), None
    counts = tuple(np.bincount(decoded.ravel(), minlength=len(data.labels))[: len(data.labels)].tolist())
    shown = (decoded > 0) & (decoded != IGNORED)
    return MaskRecord(case.name, case.split, stored, counts, None, case.volume), mask_targets(shown)
