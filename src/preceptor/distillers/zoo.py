"""Distillers by the names that recipes use, and the settings under which they were published."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from preceptor import plugins
from preceptor.distillers.attention import Attention
from preceptor.distillers.base import Distiller
from preceptor.distillers.boundary import BoundaryKL
from preceptor.distillers.channels import ChannelKL
from preceptor.distillers.contrastive import TokenContrast
from preceptor.distillers.correlation import Correlation
from preceptor.distillers.decoupled import DecoupledKL
from preceptor.distillers.generative import MaskedGeneration
from preceptor.distillers.hint import Hint
from preceptor.distillers.logits import PixelKL
from preceptor.distillers.prototypes import ClassVariation
from preceptor.distillers.relations import TokenImportance, TokenSimilarity
from preceptor.distillers.review import Review
from preceptor.distillers.structural import Structural
from preceptor.distillers.tokens import TokenL1, TokenL2
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Tap

DISTILLERS: dict[str, type[Distiller]] = {
    "kd": PixelKL,
    "at": Attention,
    "dkd": DecoupledKL,
    "dist": Correlation,
    "cwd": ChannelKL,
    "review": Review,
    "fitnet": Hint,
    "skd": Structural,
    "ifvd": ClassVariation,
    "mgd": MaskedGeneration,
    "boundary": BoundaryKL,
    "token_l1": TokenL1,
    "token_l2": TokenL2,
    "token_skd": TokenSimilarity,
    "imd": TokenImportance,
    "cta": TokenContrast,
}
"""Name to distiller. Installed packages add theirs by entry points of the group `preceptor.distillers`."""


@dataclass(frozen=True)
class Preset:
    """The weight for the recipe's `weight`, and the options that differ from the defaults."""

    weight: float
    options: Mapping[str, Any] = field(default_factory=dict)


_TEACHER_SIZE = {"align": "teacher", "interpolation": "nearest"}

PRESETS: dict[str, dict[str, Preset]] = {
    # The configurations of 605671435/mmseg-kd on Synapse. They enlarge the student's logits to the teacher's.
    "mmseg-kd": {
        "kd": Preset(10.0, {"temperature": 2.0, "reduction": "element", **_TEACHER_SIZE}),
        # 1e-5 on the sum over 2 x 512 x 512 pixels, which is 5.24 on their mean.
        "dkd": Preset(5.24288, {"temperature": 4.0, "alpha": 1.0, "beta": 20.0, "at": "label"}),
        # Its configurations say 3, 0.4 or 1; its code never applies the weight.
        "dist": Preset(1.0, {"temperature": 1.0, "align": "teacher", "skip_constant": False}),
        "cwd": Preset(3.0, {"on": "logits", "temperature": 4.0, **_TEACHER_SIZE}),
        "at": Preset(250.0, {"p": 2, "reduction": "mean"}),
        # The ConvNeXt teacher's stages weigh 0.1, 0.01, 0.001 and 0.1 from shallow to deep: set `stage_weights`.
        "review": Preset(1.0, {"mid": 512}),
    },
}
"""Published settings by name, then by distiller. `preset: name` in a recipe's part takes the options; the weight
stays the recipe's, so write it there too."""


def build(
    name: str,
    *,
    student_taps: tuple[Tap, ...],
    teacher_taps: tuple[Tap, ...],
    taps: dict[str, str] | None = None,
    preset: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Distiller:
    """The distiller `name` between two networks.

    taps: pairs from student tap to teacher tap; None pairs them by name, order or stride (`pairs.pair_taps`).
    preset: a name of `PRESETS`, whose options hold where `options` names none. seed: fixes the first weights of
    adapters. options: keyword arguments of the distiller.
    Raises RecipeError for unknown names and options, with the nearest known one, and for values of another type.
    """
    kind, known = _kind(name), options_of(name)
    chosen = {**({} if preset is None else _preset(preset, name).options), **options}
    for option in chosen:
        if option not in known:
            raise _unknown(f"the distiller {name} has no such option", "distill.options", option, list(known))
    hints = get_type_hints(kind.__init__)
    checked = {option: _checked(option, value, hints[option], known[option]) for option, value in chosen.items()}
    if "seed" in known:
        checked["seed"] = _checked("seed", seed, int, 0)
    return kind(student_taps, teacher_taps, taps, **checked)


def _kind(name: str) -> type[Distiller]:
    kind = DISTILLERS.get(name) or plugins.load(plugins.DISTILLERS, name)
    if kind is None:
        raise _unknown("there is no such distiller", "distill.name", name, _names())
    return kind


def _names() -> list[str]:
    return list(dict.fromkeys([*DISTILLERS, *plugins.names(plugins.DISTILLERS)]))


def _preset(preset: str, name: str) -> Preset:
    if preset not in PRESETS:
        raise _unknown("there is no such preset", "distill.preset", preset, list(PRESETS))
    if name not in PRESETS[preset]:
        raise _unknown(f"the preset {preset} has no such distiller", "distill.name", name, list(PRESETS[preset]))
    return PRESETS[preset][name]


def _checked(option: str, value: Any, annotation: Any, default: Any) -> Any:
    """The value as its annotation has it: whole numbers will do for floats and lists for tuples. Raises RecipeError."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    where = f"distill.options.{option}"
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
        result = adapter.validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        raise RecipeError(
            "an option has the wrong value", where=where, found=repr(value), expected=_words(annotation, default)
        ) from error
    if option == "temperature" and result <= 0:
        raise RecipeError("out of range", where=where, found=value, expected="above 0")
    return result


def _words(annotation: Any, default: Any) -> str:
    """What an annotation allows, in words."""
    if get_origin(annotation) is Literal:
        *others, last = (str(choice) for choice in get_args(annotation))
        return f"{', '.join(others)} or {last}" if others else last
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("None", "null")
    return f"{name}, such as {default!r}"


def options_of(name: str) -> dict[str, Any]:
    """The options of a distiller and their defaults."""
    parameters = inspect.signature(_kind(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def describe() -> list[tuple[str, str]]:
    """(name, one line) of every distiller: ours, and those of installed packages."""
    ours = [(name, (kind.__doc__ or "").strip().splitlines()[0]) for name, kind in DISTILLERS.items()]
    return [*ours, *((name, "of an installed package") for name in _names() if name not in DISTILLERS)]


def _unknown(what: str, where: str, found: str, known: list[str]) -> RecipeError:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.4)
    return RecipeError(
        what,
        where=where,
        found=found,
        expected=f"one of {', '.join(known)}",
        remedy=f"did you mean {near[0]}?" if near else "",
    )
