"""The report of a run: one HTML file without scripts or outside resources, made only from what the run folder holds.

Names, reports and licences come from other people's data: the template escapes all of them, and the page's own policy
forbids scripts and any connection.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.data.case import Case, read_manifest
from preceptor.errors import UserError
from preceptor.evaluation.figures import Line, curves, differences, forest, mean_line, thinned
from preceptor.evaluation.metrics import METRIC_NAMES
from preceptor.evaluation.overlays import Showcase, choose, showcase
from preceptor.evaluation.scores import LOWER_IS_BETTER, METRICS, Scores, read_rows, scores_of
from preceptor.evaluation.verdict import p_text, points
from preceptor.recipe import Recipe, read_recipe
from preceptor.storage import read_json, write_text

ARMS = {
    "control": "Control",
    "student": "Distilled student",
    "teacher": "Teacher",
}
PLAIN = {"control": "the same network, no teacher", "student": "taught by the teacher", "teacher": "shown more"}
NEEDS = {"none": "image only", "report": "image and report", "attributes": "image and attributes"}
NEEDS |= {"class_mean": "image and mask"}
FAMILIES = (
    ("Per case, at the image's own resolution", METRICS[:7]),
    ("Pooled: the pixels of all cases together (TextFreeKD, LanGuideMedSeg)", METRICS[7:9]),
    ("Image mean, as published: empty against empty counts 0 (LViT, C2FVL)", METRICS[9:]),
)
GAINS = {
    "student_over_control": ("student", "Distilled student over control"),
    "teacher_over_control": ("teacher", "Teacher over control"),
}
PROBES = {
    "right": "its own report",
    "empty": "an empty report",
    "shuffled": "another case's report",
    "wrong_side": "sides swapped",
}
KINDS = {
    "both": "found (present in both)",
    "missed": "missed",
    "false_alarm": "false alarm",
    "empty": "correctly left empty",
}
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
    summary = read_json(run / "summary.json")
    recipe = read_recipe(run / "recipe.yaml")
    arms = [arm for arm in ARMS if arm in summary["arms"]]
    scores = {arm: scores_of(read_rows(run / arm / "cases.csv"), arm) for arm in arms}
    deciding = next(arm for arm in ("student", "control", "teacher") if arm in arms)
    return {
        "summary": summary,
        "recipe": recipe,
        "yaml": (run / "recipe.yaml").read_text(encoding="utf-8"),
        "environment": _optional(run / "environment.json"),
        "data": _optional(run / "data.json"),
        "verdict": headline(summary["answer"]),
        "arms": arms,
        "deciding": deciding,
        "names": METRIC_NAMES,
        "labels": ARMS,
        "roles": PLAIN,
        "needs": NEEDS,
        "families": FAMILIES,
        "kinds": KINDS,
        "gain_labels": {name: pair for name, pair in GAINS.items() if name in summary["gains"]},
        "lower": LOWER_IS_BETTER,
        "unit_name": "px" if summary["unit"] == "pixel" else summary["unit"],
        "forests": _forests(summary, arms),
        "curves": _curves(run, arms, summary["seeds"], recipe.training.monitor),
        "differences": _differences(scores),
        "probe_labels": PROBES,
        "showcases": _showcases(run, recipe, summary, scores, deciding, data_root),
        "failures": _failures(run, arms),
    }


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


def _forests(summary: Mapping[str, Any], arms: list[str]) -> dict[str, Any]:
    """Interval plots of Dice: the arms, what was gained, and the teacher's Dice lost to wrong reports."""
    gains = summary["gains"]
    probes = {name: entry for name, entry in (summary["probes"] or {}).items() if name in PROBES and name != "right"}
    return {
        "arms": forest([{"style": arm, "label": ARMS[arm], **summary["arms"][arm]["dice"]} for arm in arms]),
        "gains": forest(
            [{"style": s, "label": label, **gains[n]["dice"]} for n, (s, label) in GAINS.items() if n in gains],
            zero=True,
        ),
        "probes": forest(
            [{"style": "teacher", "label": PROBES[name], **entry["drop"]} for name, entry in probes.items()],
            zero=True,
        ),
    }


def _curves(run: Path, arms: list[str], seeds: list[int], monitor: str) -> list[dict[str, str]]:
    """Training loss and validation Dice of every arm and seed, with the mean over seeds."""
    charts = []
    for column, label in (("train_loss", "training loss"), (f"val_{monitor}", "validation Dice")):
        lines: list[Line] = []
        for arm in arms:
            found = [_column(run / arm / f"seed-{seed}" / "metrics.csv", column) for seed in seeds]
            own = [Line(arm, thinned(points), faint=True) for points in found if len(points) > 1]
            lines += [*own, mean_line(arm, [Line(arm, points) for points in found if len(points) > 1])]
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


def _differences(scores: Mapping[str, Scores]) -> dict[str, Any] | None:
    """Dice of the student minus the control's, case by case."""
    pair = ("student", "control") if "student" in scores else ("teacher", "control")
    if any(arm not in scores for arm in pair):
        return None
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


def _showcases(
    run: Path,
    recipe: Recipe,
    summary: Mapping[str, Any],
    scores: Mapping[str, Scores],
    deciding: str,
    data_root: Path | str | None,
) -> list[Showcase]:
    """The best, median and worst cases; predictions are those of each arm's first seed."""
    cases = _cases(run, data_root or recipe.data.root or None)
    main = scores[deciding]
    dice = dict(zip(main.cases, main.per_case().tolist(), strict=True))
    present = dict(zip(main.cases, (main.counts[:, :, 0, [0, 2]].sum(axis=(1, 2)) > 0).tolist(), strict=True))
    shown = []
    for place, name in choose({case: value for case, value in dice.items() if case in cases}, present):
        predictions, facts = {}, {}
        for arm, table in scores.items():
            if name not in table.cases:
                continue
            predictions[arm] = run / arm / f"seed-{table.seeds[0]}" / "predictions" / f"{name}.png"
            facts[arm] = _facts(table, name)
        shown.append(showcase(cases[name], place, recipe.data, predictions, facts))
    return shown


def _facts(table: Scores, name: str) -> dict[str, Any]:
    one = table.of_cases([name])
    tp, fp, fn = one.counts[0, :, 0].sum(axis=0)
    kind = ("both" if tp + fp else "missed") if tp + fn else ("false_alarm" if tp + fp else "empty")
    return {"dice": float(one.of_seed(0).per_case()[0]), "mean_dice": float(one.per_case()[0]), "kind": kind}


def _cases(run: Path, root: Path | str | None) -> dict[str, Case]:
    try:
        return {case.name: case for case in read_manifest(run / "cases.csv", root, files_exist=False)}
    except (UserError, OSError):
        return {}


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
