"""The report of a run: one HTML file without scripts or outside resources, made only from what the run folder holds.

Names, reports and licences come from other people's data: the template escapes all of them, and the page's own policy
forbids scripts and any connection.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.evaluation import arms as names_of
from preceptor.evaluation.figures import Line, curves, differences, forest, mean_line, thinned
from preceptor.evaluation.metrics import FAMILIES, METRIC_NAMES
from preceptor.evaluation.scores import LOWER_IS_BETTER, Scores, read_rows, scores_of
from preceptor.evaluation.showcases import showcases
from preceptor.evaluation.verdict import NOUNS, judged_on, p_text, points, probes_by_arm
from preceptor.learning.privilege import PRIVILEGES
from preceptor.recipe import Recipe, read_recipe
from preceptor.storage import read_json, write_text

UNITS = {"pixel": "px", "voxel": "voxels"}
DISTANCES = {
    "mm": "Distances are in mm.",
    "pixel": "Distances are in pixels: the files state no spacing.",
    "voxel": "Distances are in voxels: the files state no spacing, so that a step from slice to slice counts as one "
    "from pixel to pixel.",
}
COLOURS = 10
"""How many classes have a colour of their own."""
PROBES = {
    "right": "its own",
    "empty": "an empty report",
    "unknown": "nothing known",
    "shuffled": "another case's",
    "wrong_side": "sides swapped",
}
KINDS = {
    "both": "found (present in both)",
    "missed": "missed",
    "false_alarm": "false alarm",
    "empty": "correctly left empty",
}
ELSEWHERE = ("dice", "iou", "precision", "recall", "hd95", "assd", "surface_dice", "dice_pooled")
"""Metrics that are shown of other data sets; all are in `summary.json`."""
FAILURES = 40


def write_report(run_folder: Path | str, data_root: Path | str | None = None) -> Path:
    """Write `report.html` into a run folder that has been evaluated; returns its path.

    data_root: folder of the images, the recipe's where left out. Images that are gone leave a note in the report.
    Raises StorageError where `summary.json` or `recipe.yaml` is missing or damaged.
    """
    run = Path(run_folder)
    path = run / "report.html"
    write_text(path, environment().get_template("report.html").render(context(run, data_root)))
    return path


def environment() -> Any:
    """The templates of the pages, with the filters that they use; everything is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"points": points, "p": p_text, "score": score, "count": count, "plain": plain}
    return page


def context(run: Path, data_root: Path | str | None = None) -> dict[str, Any]:
    """Everything that the template shows, read from the run folder."""
    summary = {"scored": "case", **read_json(run / "summary.json")}
    recipe = read_recipe(run / "recipe.yaml")
    arms = names_of.ordered(summary["arms"])
    styles, labels = names_of.styles(arms), {arm: names_of.label(arm) for arm in arms}
    scores = {arm: scores_of(read_rows(run / arm / "cases.csv"), arm) for arm in arms}
    deciding = next((arm for arm in ("student", "control") if arm in arms), arms[0])
    pairs = [pair for pair in names_of.gains(arms) if "_over_".join(pair) in summary["gains"]]
    gains = {"_over_".join(pair): (styles[pair[0]], f"{labels[pair[0]]} over {pair[1]}") for pair in pairs}
    probes = probes_by_arm(summary)
    return {
        "summary": summary,
        "recipe": recipe,
        "yaml": (run / "recipe.yaml").read_text(encoding="utf-8"),
        "environment": _optional(run / "environment.json"),
        "data": _optional(run / "data.json"),
        "verdict": headline(summary["answer"]),
        "arms": arms,
        "styles": styles,
        "deciding": deciding,
        "names": METRIC_NAMES,
        "labels": labels,
        "roles": {arm: _role(arm, recipe) for arm in arms},
        "needs": {name: privilege.sees for name, privilege in PRIVILEGES.items()},
        "families": [family for family in FAMILIES if all(name in summary["arms"][arms[0]] for name in family.metrics)],
        "kinds": KINDS,
        "gain_labels": gains,
        "lower": LOWER_IS_BETTER,
        "unit_name": UNITS.get(summary["unit"], summary["unit"]),
        "distances": DISTANCES.get(summary["unit"], ""),
        "judged_on": judged_on(summary),
        "noun": NOUNS[summary["scored"]][0],
        "nouns": [f"{noun}s" for noun in NOUNS[summary["scored"]]],
        "forests": _forests(summary, arms, gains, probes),
        "curves": _curves(run, styles, summary["seeds"], recipe.training.monitor),
        "differences": _differences(scores, pairs),
        "probes": probes,
        "probe_labels": PROBES,
        "showcases": showcases(run, recipe, scores, deciding, data_root),
        "colours": {name: f"k{index % COLOURS}" for index, name in enumerate(list(recipe.data.labels)[1:])},
        "failures": _failures(run, arms),
        "elsewhere": {name: _elsewhere(other, styles, labels) for name, other in summary.get("elsewhere", {}).items()},
    }


def _elsewhere(other: Mapping[str, Any], styles: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    """What the section of another data set shows beside its part of the summary."""
    arms = [arm for arm in names_of.ordered(other["arms"]) if arm in styles]
    pairs = names_of.gains(arms)
    gains = {"_over_".join(pair): (styles[pair[0]], f"{labels[pair[0]]} over {pair[1]}") for pair in pairs}
    drop = [{"style": styles[arm], "label": labels[arm], **other["drop"][arm]} for arm in arms if arm in other["drop"]]
    return {
        "summary": other,
        "arms": arms,
        "gain_labels": gains,
        "metrics": [name for name in ELSEWHERE if name in other["arms"][arms[0]]],
        "unit_name": UNITS.get(other["unit"], other["unit"]),
        "distances": DISTANCES.get(other["unit"], ""),
        "judged_on": judged_on(other),
        "noun": NOUNS[other["scored"]][0],
        "forests": {**_forests(other, arms, gains, {}), "drop": forest(drop, zero=True) if drop else None},
    }


def _role(arm: str, recipe: Recipe) -> str:
    """What an arm is, in a few words."""
    if arm in recipe.taught:
        network = recipe.segmentor_of(arm)
        privilege = recipe.privilege_of(arm)
        if privilege != "none":
            return PRIVILEGES[privilege].caveat or "shown more"
        return f"another network: {network.name}, {network.size}"
    if arm == "student":
        return f"taught by the teacher{'s' * (len(recipe.taught) > 1)}"
    return "the same network, no teacher"


def headline(answer: str) -> tuple[str, str]:
    """The sentence without the figures in brackets at its end, and these figures ("" where there are none)."""
    head, bracket, tail = answer.rpartition(" (")
    return (f"{head}.", tail[:-2]) if bracket and tail.endswith(").") else (answer, "")


def score(value: float | None, metric: str = "") -> str:
    """A metric for a table: three decimals for shares, two for distances, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.2f}" if metric in LOWER_IS_BETTER else f"{value:.3f}"


def count(value: float | None) -> str:
    """Numbers of parameters and the like, short: 1.20 M."""
    if value is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def plain(value: Any) -> str:
    """Any JSON value in words, for tables of facts whose shape is not ours to know."""
    if isinstance(value, Mapping):
        nested = [isinstance(item, Mapping) for item in value.values()]
        forms = ["{} ({})" if inner else "{}: {}" for inner in nested]
        parts = [form.format(key, plain(item)) for form, (key, item) in zip(forms, value.items(), strict=True)]
        return ", ".join(parts) or "none"
    if isinstance(value, list | tuple):
        told = ", ".join(plain(item) for item in value[:20])
        return told + (f" and {len(value) - 20} more" if len(value) > 20 else "")
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _forests(
    summary: Mapping[str, Any],
    arms: list[str],
    gains: Mapping[str, tuple[str, str]],
    probes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Interval plots of Dice: the arms, what was gained, and of each teacher what it loses to wrong reports."""
    styles = names_of.styles(arms)
    entries = summary["arms"]
    return {
        "arms": forest([{"style": styles[a], "label": names_of.label(a), **entries[a]["dice"]} for a in arms]),
        "gains": forest(
            [{"style": s, "label": label, **summary["gains"][name]["dice"]} for name, (s, label) in gains.items()],
            zero=True,
        ),
        "probes": {
            arm: forest(
                [
                    {"style": styles[arm], "label": PROBES[name], **entry["drop"]}
                    for name, entry in found.items()
                    if name in PROBES and name != "right"
                ],
                zero=True,
            )
            for arm, found in probes.items()
        },
    }


def _curves(run: Path, styles: Mapping[str, str], seeds: list[int], monitor: str) -> list[dict[str, str]]:
    """Training loss and validation Dice of every arm and seed, with the mean over seeds."""
    charts = []
    for column, label in (("train_loss", "training loss"), (f"val_{monitor}", "validation Dice")):
        lines: list[Line] = []
        for arm, style in styles.items():
            found = [_column(run / arm / f"seed-{seed}" / "metrics.csv", column) for seed in seeds]
            own = [Line(style, thinned(points), faint=True) for points in found if len(points) > 1]
            lines += [*own, mean_line(style, [Line(style, points) for points in found if len(points) > 1])]
        svg = curves(lines, label, f"{label} over epochs, one colour an arm")
        if svg:
            charts.append({"label": label, "svg": svg})
    return charts


def _column(path: Path, name: str) -> tuple[tuple[float, float], ...]:
    """(epoch, value) of a column of `metrics.csv`; epochs without a value are left out."""
    if not path.is_file():
        return ()
    found = []
    with open(path, newline="", encoding="utf-8") as file:
        for index, row in enumerate(csv.DictReader(file)):
            try:
                point = float(row.get("epoch") or index), float(row.get(name) or "nan")
            except ValueError:
                continue
            if point[1] == point[1] and abs(point[1]) != float("inf"):
                found.append(point)
    return tuple(found)


def _differences(scores: Mapping[str, Scores], pairs: list[tuple[str, str]]) -> dict[str, Any] | None:
    """Dice of the student (else of the first teacher) minus the control's, case by case."""
    if not pairs:
        return None
    pair = pairs[0]
    shared = [case for case in scores[pair[0]].cases if case in set(scores[pair[1]].cases)]
    ours, theirs = (scores[arm].of_cases(shared).per_case() for arm in pair)
    gaps = (ours - theirs).tolist()
    return {
        "svg": differences(gaps),
        "arm": pair[0],
        "highest": max(gaps),
        "lowest": min(gaps),
        "better": sum(gap > 0 for gap in gaps),
        "worse": sum(gap < 0 for gap in gaps),
        "same": sum(gap == 0 for gap in gaps),
    }


def _failures(run: Path, arms: list[str]) -> dict[str, Any]:
    """Cases that an arm missed or invented, with the number of seeds, the most frequent first."""
    table: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    for arm in arms:
        rows = read_rows(run / arm / "cases.csv")
        rows = rows[rows["kind"].isin(["missed", "false_alarm"])]
        for case, name, kind in zip(rows["case"], rows["class"], rows["kind"], strict=True):
            kinds = table.setdefault((case, name), {}).setdefault(arm, {})
            kinds[kind] = kinds.get(kind, 0) + 1
    ordered = sorted(table.items(), key=lambda item: (-sum(sum(k.values()) for k in item[1].values()), item[0]))
    rows_shown = [{"case": case, "class": name, "arms": found} for (case, name), found in ordered[:FAILURES]]
    return {"rows": rows_shown, "more": max(0, len(ordered) - FAILURES)}
