"""Many networks in one table: the runs of a matrix, or runs that are finished already.

Writes `comparison.json`, `ranking.csv` and `comparison.html`. A run that failed is listed, and the same command tries
it again.
"""

import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from preceptor.data.case import Case
from preceptor.errors import RecipeError, StorageError
from preceptor.launchers import Processes
from preceptor.launching import LOG, Ended, Launcher, Task, launch, preceptor_command
from preceptor.matrix import Cell, Matrix, cells
from preceptor.progress import Progress
from preceptor.recipe import Recipe, read_recipe
from preceptor.recipe_evaluate import EvaluateRecipe
from preceptor.resuming import CHANGEABLE, differences, is_among, locked
from preceptor.storage import read_json, write_json, write_text

METRICS = ("dice", "hd95", "iou", "surface_dice")
"""What a comparison shows; the first decides the ranks."""


KEPT = tuple(key for key in CHANGEABLE if not key.endswith("epochs"))
"""Recipe keys that may differ when a matrix is resumed. Other epochs may not: what is trained on is not what is
trained so long at once, and its students would have learned from another teacher.
"""


LEARNED = ("checkpoints/*", "best.safetensors", "package", "done.json")
"""What an arm that learned something leaves some of in the folder of a seed."""
TAUGHT = "teacher/seed-*/package/package.json"


@dataclass(frozen=True)
class Entrant:
    """An arm of a run that takes part in a comparison. control, taught_by: names of entrants.

    student, teacher, distiller: what it is made of, as a matrix or a recipe calls it.
    """

    name: str
    role: str
    folder: Path
    arm: str
    recipe: Recipe
    control: str = ""
    taught_by: tuple[str, ...] = ()
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

    Raises RecipeError where a recipe of the matrix is not valid, or is not the one that a run in the folder learned
    with, and what the reading of the cases raises, all of it before anything is run; StorageError where no run came to
    its end.
    """
    from preceptor.data.splits import usable
    from preceptor.learning.arm import check_arms
    from preceptor.preparing import read_case_set

    progress = progress or Progress()
    place = folder.resolve() / "runs"
    planned = [_as_begun(cell, place) for cell in cells(matrix, place)]
    for cell in planned:
        check_arms(cell.recipe)
    shared = planned[0].recipe
    with locked(folder.resolve()):
        case_set = read_case_set(shared, progress)  # the same for all; phantoms are made once, not by many at a time
        _require_same_recipes(planned, place)
        ended = launch([_task(cell, place) for cell in planned], launcher or Processes(), progress)
        entrants = [_entrant(cell, place) for cell in planned if ended[cell.name].state == "done"]
        unfinished = {name: end for name, end in ended.items() if end.state != "done"}
        usual = usable(case_set.cases, shared.data)
        judged = [case for split in shared.evaluate.splits for case in usual if case.split == split]
        return _write(folder.resolve(), matrix.name, matrix.description, entrants, unfinished, "matrix", judged=judged)


def compare_runs(runs: Sequence[Path], folder: Path, intersect: bool = False) -> Compared:
    """Compare the arms of finished runs that were judged on the same cases; controls and teachers with equal weights
    are one. intersect: keep the cases that all runs share. Raises StorageError for folders that are no judged runs,
    DataError for runs that were judged on other cases or classes.
    """
    entrants: list[Entrant] = []
    seen: dict[tuple[str, ...], str] = {}
    for run, label in zip(runs, _distinct(runs), strict=True):
        recipe = _judged(run)
        names = {arm: seen.setdefault(_identity(run, arm, recipe), f"{label}: {arm}") for arm in recipe.arms}
        for arm, name in names.items():
            if name != f"{label}: {arm}":
                continue
            student = recipe.segmentor_of(arm).name
            if arm != "student":
                role = "teacher" if arm in recipe.taught else arm
                entrants.append(Entrant(name, role, run, arm, recipe, student=student))
                continue
            taught_by = tuple(names[teacher] for teacher in recipe.taught)
            made_of = student, ", ".join(taught_by), ", ".join(part.name for part in recipe.distill)
            entrants.append(Entrant(name, arm, run, arm, recipe, names["control"], taught_by, *made_of))
    with locked(folder):
        return _write(folder, folder.resolve().name, "", entrants, {}, "runs", intersect)


def _judged(run: Path) -> Recipe:
    missing = next((name for name in ("recipe.yaml", "summary.json") if not (run / name).is_file()), None)
    if missing:
        found = f"no {missing}" if run.is_dir() else "no such folder"
        raise StorageError("this is no judged run", where=run, found=found, remedy="finish it with `preceptor run`")
    return read_recipe(run / "recipe.yaml")


def _identity(run: Path, arm: str, recipe: Recipe) -> tuple[str, ...]:
    """What tells an arm from those of other runs: the hashes of the weights that were judged, one a seed.

    A student is its run's alone, since it is compared with the control of that run and shown with its distillers.
    """
    weights = tuple(read_json(run / arm / f"seed-{seed}" / "judged.json")["weights"] for seed in recipe.seeds)
    return (str(run.resolve()), *weights) if arm == "student" else weights


def _distinct(runs: Sequence[Path]) -> list[str]:
    """The names of run folders, with their parents' where two are equal."""
    short = [run.resolve().name for run in runs]
    names = [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    if len(set(names)) < len(names):
        raise RecipeError("a run is named twice", where="compare", offenders=[str(run) for run in runs])
    return names


def _as_begun(cell: Cell, folder: Path) -> Cell:
    """A teacher's run names a student only because every recipe does: the one it began with stays, whichever student is
    the first of the matrix now, where the teacher trains the same beside it.
    """
    path = folder / cell.name / "recipe.yaml"
    teacher = cell.recipe.teacher
    if cell.role != "teacher" or teacher is None or not path.is_file():
        return cell
    begun = read_recipe(path)
    if begun.teacher is None or begun.training_of("teacher") != cell.recipe.training_of("teacher"):
        return cell
    teacher = teacher.model_copy(update={"training": begun.teacher.training})
    kept = {"student": begun.student, "training": begun.training, "teacher": teacher}
    return replace(cell, recipe=cell.recipe.model_copy(update=kept))


def _require_same_recipes(planned: Sequence[Cell], folder: Path) -> None:
    """Refuse, all at once, what runs in the folder learned otherwise; a run that learned nothing yet begins anew."""
    refused, seeds = [], {cell.name: cell.recipe.seeds for cell in planned}
    for cell in planned:
        place = folder / cell.name
        if not (place / "recipe.yaml").is_file():
            continue
        found = differences(read_recipe(place / "recipe.yaml").plain(), cell.recipe.plain())
        changed = [line for line in found if not is_among(line, KEPT)]
        if changed and not any(path for name in LEARNED for path in place.glob(f"{cell.role}/seed-*/{name}")):
            shutil.rmtree(place)
        else:
            other = _other_seeds(cell, seeds[cell.needs[0]], folder) if cell.role == "student" else []
            refused += [f"{cell.name}: {line}" for line in [*changed, *other]]
    if refused:
        raise RecipeError(
            "runs in this folder were made with another matrix",
            where=folder,
            offenders=refused,
            remedy="undo the change, name another folder with --out, or remove the folders of these runs",
        )


def _other_seeds(cell: Cell, teacher_seeds: Sequence[int], folder: Path) -> list[str]:
    """A line for each seed of a student that learned from another seed of its teacher than it would now: students
    without a teacher of their own seed were done, and then the teacher got more seeds.
    """
    lines, place = [], folder / cell.name
    there = {int(path.parts[-3].removeprefix("seed-")) for path in (folder / cell.needs[0]).glob(TAUGHT)}
    for seed in cell.recipe.seeds:
        taken = place / "teacher" / f"seed-{seed}" / "package" / "package.json"
        if not ((place / "student" / f"seed-{seed}" / "taught.json").is_file() and taken.is_file()):
            continue
        before, known = read_json(taken)["card"].get("seed"), there | set(teacher_seeds)
        now = seed if seed in known else min(known)
        if before not in (None, now):
            lines.append(f"teacher_seeds: seed {seed} learned from seed {before} of {cell.needs[0]}, not from {now}")
    return lines


def _task(cell: Cell, folder: Path) -> Task:
    """The process that makes a cell. Its recipe lies beside its folder, so that people can run it alone."""
    path = folder / "recipes" / f"{cell.name}.yaml"
    write_text(path, cell.recipe.to_yaml())
    stages = [argument for stage in cell.stages for argument in ("--only", stage)]
    command = preceptor_command("run", str(path), "--out", str(folder / cell.name), *stages)
    seeds = [f"{cell.role}/seed-{seed}/{name}" for seed in cell.recipe.seeds for name in ("done.json", "judged.json")]
    key, leaves = [cell.recipe.plain(), list(cell.stages)], (*seeds, f"{cell.role}/cases.csv")
    return Task(cell.name, command, folder / cell.name, cell.needs, key, leaves)


def _entrant(cell: Cell, folder: Path) -> Entrant:
    taught = cell.role == "student"
    place, control, taught_by = folder / cell.name, cell.needs[1] if taught else "", cell.needs[:1] if taught else ()
    made_of = cell.student, cell.teacher, cell.distiller
    return Entrant(cell.name, cell.role, place, cell.role, cell.recipe, control, taught_by, *made_of)


def _write(
    folder: Path,
    name: str,
    description: str,
    entrants: Sequence[Entrant],
    unfinished: Mapping[str, Ended],
    kind: Literal["matrix", "runs"],
    intersect: bool = False,
    judged: Sequence[Case] = (),
) -> Compared:
    from preceptor.evaluation.comparison import write_page
    from preceptor.evaluation.comparison_text import answer, warnings

    logs = {name: folder / "runs" / name / LOG for name in unfinished}
    if not entrants:
        raise StorageError(
            "no run came to its end",
            where=folder,
            offenders=[f"{name}: {end.state} {end.reason}" for name, end in unfinished.items()],
            remedy=f"read a log such as {next(iter(logs.values()), '')}, mend it, and give the same command again",
        )
    result = {
        "name": name,
        "kind": kind,
        "description": description,
        **_ranked(entrants, folder, intersect, judged),
        "unfinished": [
            {"run": run, "state": end.state, "reason": end.reason, "log": _below(logs[run], folder)}
            for run, end in unfinished.items()
        ],
    }
    result["answer"] = answer(result)
    result["warnings"] = warnings(result)
    result["elsewhere"] = _elsewhere(entrants, folder, intersect)
    write_json(folder / "comparison.json", result)
    write_text(folder / "ranking.csv", _table(result))
    for other, found in result["elsewhere"].items():
        write_text(folder / f"ranking-{other}.csv", _table(found))
    return Compared(folder, result, write_page(folder), dict(unfinished))


def _below(path: Path, folder: Path) -> str | None:
    """A path as a link on the page in `folder`; None where it does not exist."""
    return Path(os.path.relpath(path, folder)).as_posix() if path.is_file() else None


def _elsewhere(entrants: Sequence[Entrant], folder: Path, intersect: bool) -> dict[str, Any]:
    """For each other data set on which at least two networks were judged, the ranking there."""
    result = {}
    for name in dict.fromkeys(name for entrant in entrants for name in entrant.recipe.evaluate.elsewhere):
        place = Path("elsewhere", name)
        there = [entrant for entrant in entrants if (entrant.folder / entrant.arm / place / "cases.csv").is_file()]
        if len(there) > 1:
            result[name] = {"name": name, **_ranked(there, folder, intersect, (), place)}
    return result


def _ranked(
    entrants: Sequence[Entrant], folder: Path, intersect: bool, judged: Sequence[Case], place: Path = Path()
) -> dict[str, Any]:
    """The ranking of networks by the tables at `place` below their arms: the runs' own data, or other data."""
    from preceptor.evaluation.metrics import POLICY
    from preceptor.evaluation.ranking import Contestant, ranking
    from preceptor.evaluation.scores import common_cases, read_rows, scores_of

    settings: EvaluateRecipe = entrants[0].recipe.evaluate
    tables = {entrant.name: read_rows(entrant.folder / entrant.arm / place / "cases.csv") for entrant in entrants}
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
        entry["taught_by"] = [name for name in entrant.taught_by if name in known]
        entry |= {"report": _below(entrant.folder / "report.html", folder), **_cost(entrant)}
    first = next(iter(scores.values()))
    checked = _read(entrants, place / "data.json")
    data = checked.get("facts", {})
    summary = checked if place.name else _read(entrants, "summary.json") or _told(judged, settings.unit)
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
        "tolerances": sorted({entrant.recipe.evaluate.tolerance for entrant in entrants}),
        "unit": summary.get("unit", "pixel"),
        "scored": summary.get("scored", "case"),
        "splits": list(settings.splits),
        "licence": data.get("licence", "") if place.name else entrants[0].recipe.data.licence,
        "data": {key: value for key, value in data.items() if key != "root"},
        "policy": POLICY,
        "entries": entries,
    }


def _read(entrants: Sequence[Entrant], name: str | Path) -> dict[str, Any]:
    """A file of the first run that has it; runs of teachers alone have no summary."""
    return next((read_json(e.folder / name) for e in entrants if (e.folder / name).is_file()), {})


def _told(judged: Sequence[Case], unit: str) -> dict[str, str]:
    """What a summary would tell of the cases that were judged."""
    from preceptor.evaluation.units import distances_in, scored

    return {"unit": distances_in(judged, unit), "scored": scored(judged, unit)}


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
