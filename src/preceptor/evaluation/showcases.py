"""Which cases a report shows, and what of them: of a volume the slice that has most to show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.data.case import Case, read_manifest
from preceptor.data.masks import decode_mask
from preceptor.data.readers import read_mask
from preceptor.errors import UserError
from preceptor.evaluation.metrics import kind_of
from preceptor.evaluation.overlays import Showcase, choose, showcase
from preceptor.evaluation.scores import Scores
from preceptor.recipe import Recipe
from preceptor.recipe_data import DataRecipe


def showcases(
    run: Path, recipe: Recipe, scores: Mapping[str, Scores], deciding: str, root: Path | str | None = None
) -> list[Showcase]:
    """The best, median and worst cases or volumes by the Dice of the deciding arm.

    scores: by arm, in the order of the panels. Predictions are those of each arm's first seed. root: folder of the
    images, the recipe's where left out.
    """
    slices = _slices(run, recipe, root or recipe.data.root or None)
    main = scores[deciding]
    dice = dict(zip(main.cases, main.per_case().tolist(), strict=True))
    present = dict(zip(main.cases, (main.counts[:, :, 0, [0, 2]].sum(axis=(1, 2)) > 0).tolist(), strict=True))
    shown = []
    for place, name in choose({unit: value for unit, value in dice.items() if unit in slices}, present):
        case = fullest(slices[name], recipe.data)
        title = name
        if len(slices[name]) > 1 or case.name != name:
            title = f"{name}, slice {slices[name].index(case) + 1} of {len(slices[name])}"
        tables = {arm: table for arm, table in scores.items() if name in table.cases}
        files = {arm: run / arm / f"seed-{table.seeds[0]}" / "predictions" for arm, table in tables.items()}
        predictions = {arm: folder / f"{case.name}.png" for arm, folder in files.items()}
        facts = {arm: _facts(table, name) for arm, table in tables.items()}
        shown.append(showcase(case, place, recipe.data, predictions, facts, title))
    return shown


def fullest(slices: Sequence[Case], data: DataRecipe) -> Case:
    """The slice with most foreground in the reference; the middle one where there is none, or none can be read."""
    if len(slices) == 1:
        return slices[0]
    areas = []
    for case in slices:
        try:
            areas.append(_area(case, data))
        except (UserError, OSError, ValueError):
            areas.append(0)
    return slices[int(np.argmax(areas)) if any(areas) else len(slices) // 2]


def _area(case: Case, data: DataRecipe) -> int:
    """Pixels of the reference that belong to any foreground class."""
    if case.mask is None:
        return 0
    stored = read_mask(case.mask, case.slice).pixels
    mask = decode_mask(stored, data.labels, data.mask_rule, case.mask, data.ignore)
    return int(np.count_nonzero((mask > 0) & (mask < len(data.labels))))


def _slices(run: Path, recipe: Recipe, root: Path | str | None) -> dict[str, list[Case]]:
    """The cases of each thing that was scored, in the order of the slices; nothing where the manifest is damaged."""
    try:
        cases = read_manifest(run / "cases.csv", root, files_exist=False)
    except (UserError, OSError):
        return {}
    found: dict[str, list[Case]] = {}
    for case in cases:
        whole = case.volume is not None and recipe.evaluate.unit != "slice"
        found.setdefault(str(case.volume) if whole else case.name, []).append(case)
    return {name: sorted(part, key=lambda case: case.slice or 0) for name, part in found.items()}


def _facts(table: Scores, name: str) -> dict[str, Any]:
    one = table.of_cases([name])
    tp, fp, fn = one.counts[0, :, 0].sum(axis=0)
    kind = kind_of(int(tp), int(fp), int(fn))
    return {"dice": float(one.of_seed(0).per_case()[0]), "mean_dice": float(one.per_case()[0]), "kind": kind}
