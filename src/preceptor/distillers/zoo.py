"""Distillers by the names that recipes use."""

import difflib
import inspect
from typing import Any

from preceptor.distillers.base import Distiller
from preceptor.distillers.channels import ChannelKL
from preceptor.distillers.contrastive import TokenContrast
from preceptor.distillers.logits import PixelKL
from preceptor.distillers.relations import TokenImportance, TokenSimilarity
from preceptor.distillers.tokens import TokenL1, TokenL2
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Tap

DISTILLERS: dict[str, type[Distiller]] = {
    "token_l1": TokenL1,
    "token_l2": TokenL2,
    "kl": PixelKL,
    "cwd": ChannelKL,
    "skd": TokenSimilarity,
    "imd": TokenImportance,
    "cta": TokenContrast,
}


def build(
    name: str,
    *,
    student_taps: tuple[Tap, ...],
    teacher_taps: tuple[Tap, ...],
    taps: dict[str, str] | None = None,
    **options: Any,
) -> Distiller:
    """The distiller `name` between two networks.

    taps: pairs from student tap to teacher tap; None pairs by name, then by equal stride. options: keyword arguments
    of the distiller (`seed` fixes the first weights of adapters).
    Raises RecipeError for unknown names and options, with the nearest known one.
    """
    if name not in DISTILLERS:
        raise _unknown("there is no such distiller", "distill.name", name, list(DISTILLERS))
    kind = DISTILLERS[name]
    known = options_of(name)
    for option, value in options.items():
        if option not in known:
            raise _unknown(f"the distiller {name} has no such option", "distill.options", option, list(known))
        default = known[option]
        if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
            if option == "temperature" and not 0 < value < float("inf"):
                raise RecipeError("out of range", where="distill.options.temperature", found=value, expected="above 0")
        elif type(value) is not type(default):
            raise RecipeError(
                "an option has the wrong type",
                where=f"distill.options.{option}",
                found=repr(value),
                expected=f"{type(default).__name__}, such as {default!r}",
            )
    return kind(student_taps, teacher_taps, taps, **options)


def options_of(name: str) -> dict[str, Any]:
    """The options of a distiller and their defaults."""
    parameters = inspect.signature(DISTILLERS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def describe() -> list[tuple[str, str]]:
    """(name, one line) of every distiller."""
    return [(name, (kind.__doc__ or "").strip().splitlines()[0]) for name, kind in DISTILLERS.items()]


def _unknown(what: str, where: str, found: str, known: list[str]) -> RecipeError:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.4)
    return RecipeError(
        what,
        where=where,
        found=found,
        expected=f"one of {', '.join(known)}",
        remedy=f"did you mean {near[0]}?" if near else "",
    )
