"""The result of a run as one dictionary: `summary.json`.

Each case is averaged over seeds first, then cases (or groups of them) are resampled; the spread over seeds is apart.
The comparisons of one family of metrics are corrected together: Holm over its metrics in all gains that are reported.
Families that retell the same cases by another convention so cost the others nothing.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preceptor.evaluation.arms import gains as pairs_of
from preceptor.evaluation.arms import spoken, teachers
from preceptor.evaluation.metrics import FAMILIES, POLICY
from preceptor.evaluation.scores import LOWER_IS_BETTER, MEANS, METRICS, Scores, common_cases, read_rows, scores_of
from preceptor.evaluation.statistics import bootstrap, cohens_d, compare, holm, paired_test, rank_biserial
from preceptor.evaluation.verdict import answer, reading, warnings
from preceptor.recipe import Recipe
from preceptor.recipe_evaluate import EvaluateRecipe

if TYPE_CHECKING:
    from pandas import DataFrame


def summarise_run(
    folder: Path | str,
    recipe: Recipe,
    *,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, Any] | None = None,
    leak: Mapping[str, Any] | None = None,
    unit: str = "pixel",
    scored: str = "case",
    intersect: bool = False,
) -> dict[str, Any]:
    """`summarise` of the `cases.csv` of each of the recipe's arms, and its teachers' `probes.csv`, in a run folder."""
    folder = Path(folder)
    arms = dict.fromkeys([*recipe.taught, "control", "student"])
    tables = {arm: folder / arm / "cases.csv" for arm in arms}
    probes = {arm: folder / arm / "probes.csv" for arm in recipe.taught}
    return summarise(
        {arm: read_rows(path) for arm, path in tables.items() if path.is_file()},
        name=recipe.name,
        settings=recipe.evaluate,
        probes={arm: read_rows(path) for arm, path in probes.items() if path.is_file()},
        facts=facts,
        data=data,
        leak=leak,
        licence=recipe.data.licence,
        unit=unit,
        scored=scored,
        intersect=intersect,
    )


def summarise(
    arms: Mapping[str, "DataFrame"],
    *,
    name: str,
    settings: EvaluateRecipe | None = None,
    probes: "Mapping[str, DataFrame] | DataFrame | None" = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, Any] | None = None,
    leak: Mapping[str, Any] | None = None,
    licence: str = "",
    unit: str = "pixel",
    scored: str = "case",
    intersect: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """The summary of a run, the same for the same rows and `seed`.

    arms: a table of rows (case x class x seed) an arm. probes: rows with a column `probe`, of the teacher or by arm.
    facts: what else is known of an arm (parameters, latency_ms, memory_mb, needs, ...), copied. unit: of the distances
    (mm, pixel, voxel). scored: what one score is of (case, slice, volume).
    intersect: compare on the cases that all arms share. Raises DataError for gaps and for differing case lists.
    """
    settings = settings or EvaluateRecipe()
    scores, left_out = common_cases({arm: scores_of(rows, arm) for arm, rows in arms.items()}, intersect=intersect)
    first = next(iter(scores.values()))
    summary: dict[str, Any] = {
        "name": name,
        "cases": len(first.cases),
        "groups": len(set(first.groups)) if first.groups else None,
        "seeds": sorted({seed for arm in scores.values() for seed in arm.seeds}),
        "classes": list(first.classes),
        "primary": "dice",
        "lower_is_better": sorted(LOWER_IS_BETTER),
        "policy": POLICY,
        "tolerance": settings.tolerance,
        "unit": unit,
        "scored": scored,
        "confidence": settings.confidence,
        "resamples": settings.bootstrap,
        "arms": {arm: {**_arm(s, settings, seed), **(facts or {}).get(arm, {})} for arm, s in scores.items()},
        "gains": _gains(scores, settings, seed),
        "probes": _all_probes(scores, probes, settings, seed),
        "leak": dict(leak) if leak else None,
        "licence": licence,
        "data": dict(data or {}),
    }
    summary["answer"] = answer(summary, settings.confidence)
    summary["warnings"] = warnings(summary, left_out)
    return summary


def _arm(scores: Scores, settings: EvaluateRecipe, seed: int) -> dict[str, Any]:
    classes = {name: _intervals(scores.of_class(i), settings, seed) for i, name in enumerate(scores.classes)}
    per_seed = [{"seed": s, **scores.of_seed(i).metrics()} for i, s in enumerate(scores.seeds)]
    return {
        **_intervals(scores, settings, seed),
        "per_class": classes,
        "per_seed": per_seed,
        "seed_spread": {name: _spread([row[name] for row in per_seed]) for name in METRICS},
        "kinds": scores.kinds,
    }


def _intervals(scores: Scores, settings: EvaluateRecipe, seed: int) -> dict[str, dict[str, float]]:
    found = bootstrap(scores.totals(), scores.metrics_of, settings.bootstrap, settings.confidence, seed)
    return {name: entry._asdict() for name, entry in zip(METRICS, found, strict=True)}


def _spread(values: list[float]) -> dict[str, float | None]:
    """Standard deviation over seeds (None for one), smallest and largest: apart from the interval over cases."""
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    return {"sd": deviation, "min": min(values), "max": max(values)}


def _gains(scores: Mapping[str, Scores], settings: EvaluateRecipe, seed: int) -> dict[str, dict[str, Any]]:
    gains = {f"{a}_over_{b}": gain_between(scores[a], scores[b], settings, seed) for a, b in pairs_of(scores)}
    for family in FAMILIES:
        places = [(name, metric) for name in gains for metric in family.metrics]
        adjusted = holm([gains[name][metric]["p"] for name, metric in places])
        for (name, metric), p in zip(places, adjusted, strict=True):
            gains[name][metric]["p_holm"] = p
    return gains


def gain_between(ours: Scores, theirs: Scores, settings: EvaluateRecipe, seed: int) -> dict[str, dict[str, Any]]:
    """The gain in each metric; effect sizes for those that are means over cases."""
    seeds = math.lcm(len(ours.seeds), len(theirs.seeds))
    a, b = ours.repeated(seeds), theirs.repeated(seeds)
    found = compare(a.totals(), b.totals(), a.metrics_of, settings.bootstrap, settings.confidence, seed)
    result = {}
    for name, gain in zip(METRICS, found, strict=True):
        effects: dict[str, float | None] = {"effect": None, "rank_biserial": None}
        if name in MEANS:
            difference = ours.per_case(name) - theirs.per_case(name)
            effects = {"effect": cohens_d(difference), "rank_biserial": rank_biserial(difference)}
        result[name] = {**gain, **effects, "n": len(ours.cases)}
    return result


def _all_probes(
    scores: Mapping[str, Scores],
    probes: "Mapping[str, DataFrame] | DataFrame | None",
    settings: EvaluateRecipe,
    seed: int,
) -> dict[str, Any] | None:
    """Of the one teacher what `_probes` finds; of several, that by arm; None where nobody was probed."""
    tables = probes if isinstance(probes, Mapping) else {} if probes is None else {"teacher": probes}
    found = {arm: _probes(arm, scores[arm], tables[arm], settings, seed) for arm in teachers(scores) if arm in tables}
    known = {arm: entry for arm, entry in found.items() if entry}
    return known.get("teacher", known or None)


def _probes(arm: str, teacher: Scores, rows: "DataFrame", settings: EvaluateRecipe, seed: int) -> dict[str, Any] | None:
    """A teacher's Dice with its own reports and with others, and the paired fall."""
    dice = teacher.metrics()["dice"]
    result: dict[str, Any] = {"right": {"dice": dice, "n": len(teacher.cases)}}
    for name in rows["probe"].unique():
        probed = scores_of(rows[rows["probe"] == name], f"{arm} probe {name}")
        shared = [case for case in teacher.cases if case in set(probed.cases)]
        if not shared:
            continue
        right, other = teacher.of_cases(shared), probed.of_cases(shared)
        drop = paired_test(
            right.per_case(), other.per_case(), right.groups, settings.bootstrap, settings.confidence, seed
        )
        result[name] = {"dice": other.metrics()["dice"], "n": len(shared), "drop": drop}
    if len(result) == 1:
        return None
    blind, message = reading(result, settings.margin, spoken(arm))
    return {**result, "text_blind": blind, "message": message}
