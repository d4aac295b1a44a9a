"""Many networks in one table: the runs of a matrix, or runs that are finished already.

Writes `comparison.json`, `ranking.csv` and `comparison.html`. A run that failed is listed, and the same command tries
it again.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.errors import RecipeError, StorageError
from preceptor.launching import Ended, Launcher, Processes, Task, launch, preceptor_command
from preceptor.matrix import Cell, Matrix, cells
from preceptor.progress import Progress
from preceptor.recipe import EvaluateRecipe, Recipe, read_recipe
from preceptor.resuming import locked
from preceptor.storage import read_json, write_json, write_text

METRICS = ("dice", "hd95", "iou", "surface_dice")
"""What a comparison shows; the first decides the ranks."""


@dataclass(frozen=True)
class Entrant:
    """An arm of a run that takes part in a comparison. control: the name of the entrant it is compared with."""

    name: str
    role: str
    folder: Path
    arm: str
    recipe: Recipe
    control: str = ""
    student: str = ""
    teacher: str = ""
    distiller: str = ""


@dataclass(frozen=True)
class Compared:
    """What a comparison left: its folder, the content of `comparison.json`, the page, and the runs that did not end."""

    folder: Path
    result: dict[str, Any]
    page: Path
    unfinished: dict[str, Ended]


def compare_matrix(
    matrix: Matrix, folder: Path, launcher: Launcher | None = None, progress: Progress | None = None
) -> Compared:
    """Run what is missing of a matrix below `folder`, and compare all that is finished.

    Raises RecipeError where a recipe of the matrix is not valid, before anything is run; StorageError where no run
    came to its end.
    """
    from preceptor.learning.arm import check_arms

    progress = progress or Progress()
    place = folder.resolve()
    planned = cells(matrix, place / "runs")
    for cell in planned:
        check_arms(cell.recipe)
    with locked(place):
        ended = launch([_task(cell, place / "runs") for cell in planned], launcher or Processes(), progress)
        entrants = [_entrant(cell, place / "runs") for cell in planned if ended[cell.name].state == "done"]
        unfinished = {name: end for name, end in ended.items() if end.state != "done"}
        return _write(place, matrix.name, matrix.description, entrants, unfinished)


def compare_runs(runs: Sequence[Path], folder: Path, intersect: bool = False) -> Compared:
    """Compare the arms of finished runs that were judged on the same cases; controls and teachers with equal weights
    are one. intersect: keep the cases that all runs share. Raises StorageError for folders that are no judged runs.
    """
    entrants: list[Entrant] = []
    seen: dict[tuple[str, ...], str] = {}
    names = _distinct(runs)
    for run, label in zip(runs, names, strict=True):
        if not (run / "summary.json").is_file():
            raise StorageError("this is no judged run", where=run, remedy="finish it with `preceptor run`")
        recipe = read_recipe(run / "recipe.yaml")
        control = ""
        for arm in sorted(recipe.arms, key=lambda arm: arm == "student"):
            role = "teacher" if arm in recipe.taught else arm
            weights = tuple(read_json(run / arm / f"seed-{seed}" / "judged.json")["weights"] for seed in recipe.seeds)
            name = seen.setdefault(weights, f"{label}: {arm}")
            if arm == "control":
                control = name
            if name == f"{label}: {arm}":
                distillers = ", ".join(part.name for part in recipe.distill) if role == "student" else ""
                against = control if role == "student" else ""
                student = recipe.segmentor_of(arm).name
                entrants.append(Entrant(name, role, run, arm, recipe, against, student, "", distillers))
    with locked(folder):
        return _write(folder, folder.name, "", entrants, {}, intersect)


def _distinct(runs: Sequence[Path]) -> list[str]:
    """The names of run folders, with their parents' where two are equal."""
    short = [run.resolve().name for run in runs]
    names = [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    if len(set(names)) < len(names):
        raise RecipeError("a run is named twice", where="compare", offenders=[str(run) for run in runs])
    return names


def _task(cell: Cell, folder: Path) -> Task:
    """The process that makes a cell. Its recipe lies beside its folder, so that people can run it alone."""
    path = folder / "recipes" / f"{cell.name}.yaml"
    write_text(path, cell.recipe.to_yaml())
    stages = [argument for stage in cell.stages for argument in ("--only", stage)]
    command = preceptor_command("run", str(path), "--out", str(folder / cell.name), *stages)
    return Task(cell.name, command, folder / cell.name, cell.needs, [cell.recipe.plain(), list(cell.stages)])


def _entrant(cell: Cell, folder: Path) -> Entrant:
    control = cell.needs[1] if cell.role == "student" else ""
    place = folder / cell.name
    parts = cell.student, cell.teacher, cell.distiller
    return Entrant(cell.name, cell.role, place, cell.role, cell.recipe, control, *parts)


def _write(
    folder: Path,
    name: str,
    description: str,
    entrants: Sequence[Entrant],
    unfinished: Mapping[str, Ended],
    intersect: bool = False,
) -> Compared:
    from preceptor.evaluation.comparison import write_page

    if not entrants:
        raise StorageError(
            "no run came to its end",
            where=folder,
            offenders=[f"{name}: {end.reason}" for name, end in unfinished.items()],
            remedy="mend what the logs tell, and give the same command again",
        )
    result = {
        "name": name,
        "description": description,
        **_ranked(entrants, intersect),
        "unfinished": [{"run": run, "state": end.state, "reason": end.reason} for run, end in unfinished.items()],
    }
    write_json(folder / "comparison.json", result)
    write_text(folder / "ranking.csv", _table(result))
    return Compared(folder, result, write_page(folder), dict(unfinished))


def _ranked(entrants: Sequence[Entrant], intersect: bool) -> dict[str, Any]:
    from preceptor.evaluation.metrics import POLICY
    from preceptor.evaluation.ranking import Contestant, ranking
    from preceptor.evaluation.scores import common_cases, read_rows, scores_of

    settings: EvaluateRecipe = entrants[0].recipe.evaluate
    tables = {entrant.name: read_rows(entrant.folder / entrant.arm / "cases.csv") for entrant in entrants}
    found = {name: scores_of(rows, name) for name, rows in tables.items()}
    scores, left_out = common_cases(found, intersect=intersect)
    known = {entrant.name: entrant for entrant in entrants}
    contestants = [
        Contestant(name, entrant.role, scores[name], entrant.control if entrant.control in known else "")
        for name, entrant in known.items()
    ]
    entries = ranking(contestants, settings, METRICS, METRICS[0])
    for entry in entries:
        entrant = known[entry["name"]]
        entry |= {key: getattr(entrant, key) for key in ("student", "teacher", "distiller")}
        entry |= {"folder": entrant.folder.name, **_cost(entrant)}
    first = next(iter(scores.values()))
    facts = entrants[0].folder / "data.json"
    spacings = read_json(facts)["facts"].get("spacings_mm") if facts.is_file() else None
    return {
        "metrics": list(METRICS),
        "primary": METRICS[0],
        "cases": len(first.cases),
        "groups": len(set(first.groups)) if first.groups else None,
        "left_out": left_out,
        "classes": list(first.classes),
        "confidence": settings.confidence,
        "resamples": settings.bootstrap,
        "tolerance": settings.tolerance,
        "unit": "mm" if spacings else "pixel",
        "policy": POLICY,
        "entries": entries,
    }


def _cost(entrant: Entrant) -> dict[str, Any]:
    """Medians over the seeds of what the network costs, and of the minutes that its training took."""
    places = [entrant.folder / entrant.arm / f"seed-{seed}" for seed in entrant.recipe.seeds]
    facts: dict[str, Any] = {}
    for file in ("cost.json", "done.json"):
        found = [read_json(place / file) for place in places if (place / file).is_file()]
        for key in ("parameters", "gflops", "latency_ms", "memory_mb", "epochs", "minutes"):
            values = [item[key] for item in found if key in item]
            if values:
                facts[key] = statistics.median(values)
    return facts


def _table(result: Mapping[str, Any]) -> str:
    """The ranked table as CSV, a row a network."""
    import pandas as pd

    rows = []
    for entry in result["entries"]:
        row = {key: entry.get(key) for key in ("rank", "rank_low", "rank_high", "first", "name", "role")}
        row |= {key: entry[key] for key in ("student", "teacher", "distiller")} | {"seeds": len(entry["seeds"])}
        for metric in result["metrics"]:
            row |= {f"{metric}{suffix}": entry[metric][key] for suffix, key in _BOUNDS}
            for name in result["classes"]:
                row[f"{metric} {name}"] = entry["per_class"][name][metric]["mean"]
            gain = entry["gain"].get(metric, {})
            row |= {
                f"{metric} gain{suffix}": gain.get(key)
                for suffix, key in (*_BOUNDS, (" p", "p"), (" p Holm", "p_holm"))
            }
        row |= {key: entry.get(key) for key in ("parameters", "gflops", "latency_ms", "memory_mb", "epochs", "minutes")}
        rows.append(row)
    return pd.DataFrame(rows).to_csv(index=False)


_BOUNDS = (("", "mean"), (" low", "low"), (" high", "high"))
