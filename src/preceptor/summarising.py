"""From the judgements of a run to its summary: what the arms scored, cost and took to train."""

import statistics
from pathlib import Path
from typing import Any

from preceptor.evaluation.summary import summarise_run
from preceptor.evaluation.units import distances_in, scored
from preceptor.evaluation_sets import EvaluationSet
from preceptor.recipe import Recipe
from preceptor.storage import read_json


def summary_of(folder: Path, recipe: Recipe, home: EvaluationSet) -> dict[str, Any]:
    """The content of `summary.json` of a run whose arms are all judged."""
    found = read_json(folder / "data.json")
    return summarise_run(
        folder,
        recipe,
        facts={arm: arm_facts(folder, recipe, arm) for arm in recipe.arms},
        data={key: value for key, value in found["facts"].items() if key != "root"},
        leak=found["leak"],
        unit=distances_in(home.cases, home.settings.unit),
        scored=scored(home.cases, home.settings.unit),
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
