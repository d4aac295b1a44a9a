"""From the judgements of a run to its summary: what the arms scored, cost and took to train."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.evaluation.elsewhere import summarise_elsewhere
from preceptor.evaluation.scores import read_rows
from preceptor.evaluation.summary import summarise_run
from preceptor.evaluation.units import distances_in, scored
from preceptor.evaluation_sets import EvaluationSet
from preceptor.recipe import Recipe
from preceptor.storage import read_json


def summary_of(
    folder: Path, recipe: Recipe, home: EvaluationSet, others: Mapping[str, EvaluationSet] | None = None
) -> dict[str, Any]:
    """The content of `summary.json` of a run whose arms are all judged; with `elsewhere` where there are other data."""
    found = read_json(folder / "data.json")
    summary = summarise_run(
        folder,
        recipe,
        facts={arm: arm_facts(folder, recipe, arm) for arm in recipe.arms},
        data={key: value for key, value in found["facts"].items() if key != "root"},
        leak=found["leak"],
        unit=distances_in(home.cases, home.settings.unit),
        scored=scored(home.cases, home.settings.unit),
    )
    elsewhere = {name: _elsewhere(folder, recipe, judged) for name, judged in (others or {}).items()}
    return {**summary, "elsewhere": elsewhere} if elsewhere else summary


def _elsewhere(folder: Path, recipe: Recipe, judged: EvaluationSet) -> dict[str, Any]:
    """What the arms scored on another data set; arms that cannot be shown what they need are left out."""
    arms = [arm for arm in recipe.arms if judged.shows(recipe.privilege_of(arm))]
    probes = {arm: folder / arm / judged.place / "probes.csv" for arm in arms}
    found = read_json(folder / judged.place / "data.json")
    counted = {ours for of in judged.classes.values() for ours in of}
    values = [
        f"{key} {getattr(judged.data, key)}, at home {getattr(recipe.data, key)}"
        for key in ("normalize", "clip")
        if getattr(judged.data, key) != getattr(recipe.data, key)
    ]
    return summarise_elsewhere(
        {arm: read_rows(folder / arm / judged.place / "cases.csv") for arm in arms},
        {arm: read_rows(folder / arm / "cases.csv") for arm in arms},
        name=judged.name,
        classes=judged.classes,
        settings=judged.settings,
        unshared=tuple(name for name in judged.of[1:] if name not in counted),
        left_out=tuple(arm for arm in recipe.arms if arm not in arms),
        values="; ".join(values),
        probes={arm: read_rows(path) for arm, path in probes.items() if path.is_file()},
        facts={arm: arm_facts(folder, recipe, arm) for arm in arms},
        data={key: value for key, value in found["facts"].items() if key != "root"},
        leak=found["leak"],
        licence=judged.data.licence,
        unit=distances_in(judged.cases, judged.settings.unit),
        scored=scored(judged.cases, judged.settings.unit),
    )


def arm_facts(folder: Path, recipe: Recipe, arm: str) -> dict[str, Any]:
    """Cost and training of an arm: the medians of what its seeds measured, and what its network needs."""
    places = [folder / arm / f"seed-{seed}" for seed in recipe.seeds]
    costs, done = ([read_json(place / name) for place in places] for name in ("cost.json", "done.json"))
    facts = {
        name: statistics.median(item[name] for item in items)
        for items, names in (
            (costs, ("parameters", "gflops", "latency_ms", "memory_mb")),
            (done, ("epochs", "minutes")),
        )
        for name in names
        if all(name in item for item in items)
    }
    return {**facts, "parameters": int(facts["parameters"]), "needs": costs[0]["needs"]}
