"""The page of a comparison: one HTML file without scripts or outside resources, made from `comparison.json` alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.evaluation.comparison_figures import Point, cost_axis, scatter
from preceptor.evaluation.comparison_text import labels, shared
from preceptor.evaluation.figures import forest
from preceptor.evaluation.metrics import METRIC_NAMES
from preceptor.evaluation.report import DISTANCES, UNITS, environment, headline
from preceptor.evaluation.scores import LOWER_IS_BETTER
from preceptor.evaluation.verdict import judged_on
from preceptor.storage import read_json, write_text

ROLES = {"control": "Control", "student": "Distilled student", "teacher": "Teacher"}


def write_page(folder: Path | str) -> Path:
    """Write `comparison.html` from the `comparison.json` of a folder; returns its path."""
    place = Path(folder)
    path = place / "comparison.html"
    result = read_json(place / "comparison.json")
    write_text(path, environment().get_template("comparison.html").render(context(result)))
    return path


def context(result: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows."""
    entries, called = result["entries"], labels(result)
    ranked = sorted((e for e in entries if e["rank"] is not None), key=lambda e: e["rank"])
    return {
        "result": result,
        "entries": entries,
        "ranked": ranked,
        "labels": called,
        "verdict": headline(result["answer"]),
        "names": METRIC_NAMES,
        "roles": ROLES,
        "lower": LOWER_IS_BETTER,
        "unit_name": UNITS.get(result["unit"], result["unit"]),
        "distances": DISTANCES.get(result["unit"], ""),
        "units": shared(result),
        "judged_on": judged_on(result),
        "seeds": sorted({len(entry["seeds"]) for entry in ranked}),
        "gained": [entry for entry in entries if entry["gain"]],
        "forests": _forests(result, called),
        "scatter": _scatter(entries, called),
        "elsewhere": [_elsewhere(other) for other in result.get("elsewhere", {}).values()],
        "teachers": len({entry["teacher"] for entry in entries if entry["distiller"]}),
        "students": len({entry["student"] for entry in entries if entry["distiller"]}),
    }


def _elsewhere(other: Mapping[str, Any]) -> dict[str, Any]:
    """What the section of another data set shows."""
    return {
        "result": other,
        "gained": any(entry["gain"] for entry in other["entries"]),
        "unit_name": UNITS.get(other["unit"], other["unit"]),
        "distances": DISTANCES.get(other["unit"], ""),
        "judged_on": judged_on(other),
    }


def _forests(result: Mapping[str, Any], called: Mapping[str, str]) -> list[dict[str, Any]]:
    """Gains in Dice on one scale: a plot for each student network, its title "" where there is only one."""
    gained = [entry for entry in result["entries"] if entry["gain"]]
    rows = [
        {"style": "student", "label": called[e["name"]], "student": e["student"], **e["gain"]["dice"]} for e in gained
    ]
    whole = forest(sorted(rows, key=lambda row: -row["mean"]), zero=True)
    students = dict.fromkeys(entry["student"] for entry in gained)
    plots = []
    for student in students:
        own = [row for row in whole["rows"] if row["student"] == student]
        plots.append({**whole, "rows": own, "title": student if len(students) > 1 else ""})
    return plots


def _scatter(entries: list[dict[str, Any]], called: Mapping[str, str]) -> str:
    axis = cost_axis(entries)
    if axis is None:
        return ""
    key, label, divisor = axis
    points = [Point(e["role"], _mark(e, called), e[key] / divisor, e["dice"]["mean"]) for e in entries]
    return scatter(points, label, "Dice")


def _mark(entry: Mapping[str, Any], called: Mapping[str, str]) -> str:
    """What stands beside a point: the rank, which the table tells more of, or a teacher's name."""
    return called[entry["name"]] if entry["rank"] is None else str(entry["rank"])
