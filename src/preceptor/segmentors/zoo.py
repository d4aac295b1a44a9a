"""The dictionary from a segmentor's name to its builder."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Condition, Segmentor, Size
from preceptor.segmentors.guided import Guided
from preceptor.segmentors.unguided import Unguided

SEGMENTORS: dict[str, Callable[..., Segmentor]] = {"guided": Guided, "unguided": Unguided}
"""Name to builder: keyword arguments in_channels, classes, size, its options, and `condition` where it takes one."""

_LINES = {
    "guided": "TextFreeKD's teacher (variant languide: LanGuideMedSeg): ConvNeXt, decoder guided by the report",
    "unguided": "TextFreeKD's report-free student: the same encoder and decoder, from the image alone",
}

_COMMON = ("in_channels", "classes", "size", "condition")


def describe() -> list[tuple[str, str]]:
    """(name, one line) of every segmentor."""
    return [(name, _LINES[name]) for name in SEGMENTORS]


def options(name: str) -> dict[str, Any]:
    """The options of a segmentor with their defaults. Raises RecipeError for an unknown name."""
    parameters = inspect.signature(_builder(name)).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in _COMMON}


def build(
    name: str,
    *,
    in_channels: int,
    classes: int,
    size: Size = "base",
    condition: Condition | None = None,
    **chosen: Any,
) -> Segmentor:
    """A fresh segmentor by name. `condition` reaches only those that take one.

    Raises RecipeError for an unknown name or option, with the nearest valid one, and for a missing condition.
    """
    builder = _builder(name)
    known = options(name)
    for option in chosen:
        if option not in known:
            raise RecipeError(
                f"the segmentor {name} has no such option",
                where=f"segmentor {name}",
                found=option,
                remedy=_nearest(option, known),
            )
    given: dict[str, Any] = {"in_channels": in_channels, "classes": classes, "size": size, **chosen}
    if "condition" in inspect.signature(builder).parameters:
        if condition is None:
            raise RecipeError(
                "this segmentor is guided by reports, but is shown none",
                where=f"segmentor {name}",
                remedy="set the privilege `report`, or choose a segmentor that needs the image alone",
            )
        given["condition"] = condition
    return builder(**given)


def _builder(name: str) -> Callable[..., Segmentor]:
    if name not in SEGMENTORS:
        raise RecipeError(
            "there is no such segmentor", where="segmentor", found=name, remedy=_nearest(name, SEGMENTORS)
        )
    return SEGMENTORS[name]


def _nearest(name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
