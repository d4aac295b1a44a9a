"""What one score is of - a case, a slice or a volume - and the unit of its distances."""

from collections.abc import Sequence

from preceptor.data.case import Case
from preceptor.data.readers import read_image
from preceptor.data.volume_cases import by_volume
from preceptor.data.volumes import volume_spacing
from preceptor.errors import RecipeError


def units(cases: Sequence[Case], unit: str) -> list[tuple[str, tuple[Case, ...]]]:
    """What one score is of: its name and its cases, a volume's slices in their order."""
    if unit == "slice":
        return [(case.name, (case,)) for case in cases]
    if unit == "volume" and any(case.volume is None for case in cases):
        raise RecipeError(
            "the cases are no slices of volumes", where="evaluate.unit", found=unit, remedy="set evaluate.unit=auto"
        )
    return list(by_volume(cases).items())


def scored(cases: Sequence[Case], unit: str) -> str:
    """What one score is of, in one word: "volume", "slice" of a volume, or "case" where not all cases are slices."""
    if not all(case.volume is not None for case in cases):
        return "case"
    return "slice" if unit == "slice" else "volume"


def distances_in(cases: Sequence[Case], unit: str) -> str:
    """The unit of the distances, told by the first case: "mm" where its file states a spacing, else "pixel", or "voxel"
    where volumes are scored.
    """
    if scored(cases, unit) == "volume":
        return "voxel" if volume_spacing(cases[0].image) is None else "mm"
    return "pixel" if read_image(cases[0].image, cases[0].slice).geometry.spacing is None else "mm"
