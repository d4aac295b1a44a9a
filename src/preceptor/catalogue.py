"""Everything that a recipe may name, in one place for people to read."""

from pathlib import Path
from typing import get_args

Entries = list[tuple[str, str]]


def catalogue() -> dict[str, Entries]:
    """From kind to (name, one line) of each entry."""
    from preceptor import recipe as parts
    from preceptor.distillers import zoo as distillers
    from preceptor.evaluation.metrics import CASE_METRICS
    from preceptor.learning.losses import LOSSES
    from preceptor.learning.privilege import PRIVILEGES
    from preceptor.segmentors import zoo as segmentors
    from preceptor.text.encoders import describe as encoders

    layouts = get_args(parts.DataRecipe.model_fields["layout"].annotation)
    rules = get_args(parts.DataRecipe.model_fields["mask_rule"].annotation)
    return {
        "segmentors": segmentors.describe(),
        "distillers": distillers.describe(),
        "privileges": [(name, _first_line(view)) for name, view in PRIVILEGES.items()],
        "encoders": encoders(),
        "losses": [(name, _first_line(loss)) for name, loss in LOSSES.items()],
        "layouts": [(name, "") for name in layouts],
        "mask rules": [(name, "") for name in rules],
        "metrics": [(name, "") for name in CASE_METRICS],
        "recipes": [(name, str(parts.read_yaml(path).get("description", ""))) for name, path in _recipes()],
    }


def _recipes() -> list[tuple[str, Path]]:
    from preceptor.recipe import shipped_recipes

    return list(shipped_recipes().items())


def _first_line(function: object) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]
