"""Segmentors and distillers that installed packages bring, found by name through their entry points.

A recipe names them like our own. Only installing a package adds a name: no recipe can point at code.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from preceptor.errors import RecipeError

SEGMENTORS = "preceptor.segmentors"
DISTILLERS = "preceptor.distillers"


def names(group: str) -> list[str]:
    """The names that installed packages give in an entry-point group, sorted; nothing is imported."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> Any | None:
    """What a package offers under `name`, imported now; None where no package does.

    Raises RecipeError where two packages offer the name, and where the package cannot be imported.
    """
    points = list(dict.fromkeys(entry_points(group=group, name=name)))
    if not points:
        return None
    if len(points) > 1:
        raise RecipeError(
            "several installed packages bring this name",
            where=f"{group}: {name}",
            offenders=[_told(point) for point in points],
            remedy="uninstall all but one of them",
        )
    try:
        return points[0].load()
    except Exception as error:
        raise RecipeError(
            "the installed package that brings this name cannot be imported",
            where=f"{group}: {name}",
            found=f"{_told(points[0])}: {type(error).__name__}: {error}",
            remedy="mend or reinstall that package",
        ) from error


def _told(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "a package"
    return f"{point.value} of {package}"
