"""Checks of volumes as wholes: image and label volume on one grid, told once a volume and read from headers alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from preceptor.data.case import Case, Finding
from preceptor.data.check_files import compare_places, in_pair
from preceptor.data.check_findings import finding, split_message
from preceptor.data.volumes import volume_grid
from preceptor.errors import DataError

_OF_FILES = ("unreadable-image", "unreadable-mask")


def check_volumes(cases: Sequence[Case]) -> tuple[tuple[Case, ...], list[Finding]]:
    """(the cases as they are to be looked into, findings). A finding's place is the volume's name.

    Slices whose mask has another shape than their image lose it, since no pixel of one is known to belong to the other.
    Files that cannot be read are left to whoever reads their slices.
    """
    found: dict[tuple[Path, Path], list[Finding]] = {}
    for case in cases:
        if in_pair(case):
            assert case.mask is not None
            pair = (case.image, case.mask)
            if pair not in found:
                found[pair] = _compare(case.volume or case.image.name, *pair)
    findings = [item for of in found.values() for item in of]
    unfit = {pair for pair, of in found.items() if any(item.code == "shape-mismatch" for item in of)}
    left = (replace(case, mask=None) if (case.image, case.mask) in unfit else case for case in cases)
    return tuple(left), findings


def once_a_volume(findings: Iterable[Finding], cases: Sequence[Case]) -> list[Finding]:
    """Findings in their order; what is said word by word of several slices of a volume is said of the volume once."""
    findings = list(findings)
    volumes = {case.name: case.volume for case in cases if case.volume is not None}
    alike = Counter((volumes.get(item.where), item.code, item.message) for item in findings)
    result: dict[Finding, None] = {}
    for item in findings:
        volume = volumes.get(item.where)
        if item.code in _OF_FILES and volume is not None and alike[volume, item.code, item.message] > 1:
            item = replace(item, where=volume)
        result[item] = None
    return list(result)


def require_one_grid(image: Path, mask: Path) -> None:
    """Raise DataError where a volume and its label volume differ in shape, place or spacing by more than rounding."""
    for item in _compare(image.name, image, mask):
        if item.level == "error":
            found, remedy = split_message(item.message)
            raise DataError("image and mask lie on different grids", where=mask, found=found, remedy=remedy)


def _compare(name: str, image: Path, mask: Path) -> list[Finding]:
    try:
        (one, here), (other, there) = volume_grid(image), volume_grid(mask)
    except Exception:  # a damaged header may raise nearly anything; reading the slices says what is wrong
        return []
    if one != other:
        found = f"image {_size(one)}, mask {_size(other)}"
        remedy = "check that they belong together, and resample the mask onto its image's grid"
        return [finding("error", "shape-mismatch", name, found, remedy)]
    return compare_places(name, "affines", here, there)


def _size(grid: tuple[int, int, int]) -> str:
    slices, rows, columns = grid
    return f"{slices} slices of {rows} x {columns}"
