"""docs/results.md from finished runs: `python -m benchmarks.results runs/demo ... --write docs/results.md`.

Every figure is read from a run's summary.json and environment.json, or from a comparison's comparison.json; nothing is
typed by hand. Text outside the marked blocks stays as it is. `--readme README.md` writes the short table there.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.comparison import comparison
from benchmarks.tables import p_value, table, with_interval
from preceptor.learning.privilege import PRIVILEGES

COLUMNS = {
    "dice": "Dice, per case",
    "iou": "IoU, per case",
    "dice_pooled": "Dice, pooled",
    "iou_pooled": "IoU, pooled",
    "dice_image_mean": "Dice, image mean",
    "iou_image_mean": "IoU, image mean",
    "hd95": "HD95",
}


def main() -> None:
    """Print the blocks, or write each into its place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--readme", type=Path)
    given = parser.parse_args()
    compared = [run for run in given.runs if (run / "comparison.json").is_file()]
    if given.readme is not None:
        write_readme(given.readme, [run for run in given.runs if run not in compared])
    blocks = {run.name: comparison(run) if run in compared else block(run) for run in given.runs}
    if given.write is None:
        print("\n\n".join(blocks.values()))
        return
    text = given.write.read_text(encoding="utf-8")
    for name, content in blocks.items():
        pattern = re.compile(rf"<!-- run {re.escape(name)} -->.*?<!-- end -->", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{given.write} has no block `<!-- run {name} --> ... <!-- end -->`")
        text = pattern.sub(lambda _, n=name, c=content: f"<!-- run {n} -->\n{c}\n<!-- end -->", text)
    given.write.write_text(text, encoding="utf-8")


def write_readme(path: Path, runs: list[Path]) -> None:
    """The short table between the marks of the README; rows of runs that are not given stay."""
    text = path.read_text(encoding="utf-8")
    start, end = text.index("<!-- results:"), text.index("<!-- end of results -->")
    head = text[start : text.index("-->", start) + 3]
    lines = [line for line in text[start:end].splitlines() if line.startswith("| `")]
    rows = {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines)}
    for run in runs:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        rows |= {row[0]: row for row in short_rows(summary, f"`{summary['name']}`")}
        for other, found in summary.get("elsewhere", {}).items():
            rows |= {row[0]: row for row in short_rows(found, f"`{summary['name']}` on `{other}`")}
    titles = ["run", "test cases, seeds", "teacher", "control", "student", "student over control", "p"]
    told = (
        "Dice per case at the images' own size, with 95 % intervals over cases. By `make results`; everything else, "
        "with what it was made on, is in [docs/results.md](docs/results.md)."
    )
    shown = table([titles, *rows.values()])
    path.write_text(f"{text[:start]}{head}\n{shown}\n\n{told}\n{text[end:]}", encoding="utf-8")


def short_rows(summary: dict[str, Any], name: str) -> list[list[str]]:
    """The row of one data set, if a student was compared with its control there."""
    if "student_over_control" not in summary["gains"]:
        return []
    gain = summary["gains"]["student_over_control"]["dice"]
    arms = [summary["arms"].get(arm) for arm in ("teacher", "control", "student")]
    dice = ["–" if arm is None else with_interval(arm["dice"], 3) for arm in arms]
    size = f"{summary['cases']}, {len(summary['seeds'])}"
    return [[name, size, *dice, with_interval(gain, 3, sign=True), p_value(gain["p"])]]


def block(run: Path) -> str:
    """The Markdown of one run: answer, arms, gains, probes, warnings, and what it was made with."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    made = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    parts = [f"**{summary['answer']}**", *judged(summary)]
    if summary["probes"]:
        parts.append(probes(summary["probes"]))
    for name, other in summary.get("elsewhere", {}).items():
        of = f", of {other['groups']} patients" if other["groups"] else ""
        head = f"On `{name}`, without any further training ({other['cases']} {other['scored']}s{of}):"
        parts += [head, *judged(other)]
    parts += ["\n".join(f"- {warning}" for warning in summary["warnings"])] if summary["warnings"] else []
    minutes = sum(arm["minutes"] * len(summary["seeds"]) for arm in summary["arms"].values() if "minutes" in arm)
    versions = ", ".join(f"{name} {version}" for name, version in made["packages"].items() if version)
    parts.append(
        f"{summary['cases']} test cases, seeds {summary['seeds']}, 95 % BCa bootstrap intervals over cases "
        f"({summary['resamples']} resamples), distances in {summary['unit']}s, training {minutes:.0f} minutes in all, "
        f"{made['processor']}, {made['threads']} of {made['cores']} cores; {versions}."
    )
    return "\n\n".join(parts)


def judged(summary: dict[str, Any]) -> list[str]:
    """The tables of one data set: arms, their classes where there are several, and gains."""
    classes = [by_class(summary)] if len(summary["classes"]) > 1 else []
    return [arms(summary), *classes, gains(summary)]


def by_class(summary: dict[str, Any]) -> str:
    """Dice and HD95 of each arm and class."""
    names = summary["classes"]
    told = [f"{title}, {name.replace('_', ' ')}" for title in ("Dice", "HD95") for name in names]
    rows = [["arm", *told]]
    for arm, found in summary["arms"].items():
        cells = [
            with_interval(found["per_class"][name][metric], digits)
            for metric, digits in (("dice", 3), ("hd95", 1))
            for name in names
        ]
        rows.append([arm, *cells])
    return table(rows)


def arms(summary: dict[str, Any]) -> str:
    """A row an arm, a column a metric, each with its interval."""
    rows = [["arm", "sees", "parameters", *COLUMNS.values()]]
    for name, arm in summary["arms"].items():
        sees = "image" if arm["needs"] == "none" else PRIVILEGES[arm["needs"]].sees
        cells = [with_interval(arm[metric], 1 if metric == "hd95" else 3) for metric in COLUMNS]
        rows.append([name, sees, f"{arm['parameters'] / 1e6:.2f} M", *cells])
    return table(rows)


def gains(summary: dict[str, Any]) -> str:
    """The differences between arms in Dice and IoU, with p-values as they are and after Holm's correction."""
    rows = [["gain", "metric", "difference", "p", "p, Holm", "effect d"]]
    for name, gain in summary["gains"].items():
        for metric in ("dice", "iou", "dice_pooled", "hd95"):
            entry = gain[metric]
            effect = "–" if entry["effect"] is None else f"{entry['effect']:.2f}"
            cells = [p_value(entry["p"]), p_value(entry["p_holm"]), effect]
            difference = with_interval(entry, 1 if metric == "hd95" else 3, sign=True)
            rows.append([name.replace("_", " "), COLUMNS[metric], difference, *cells])
    return table(rows)


def probes(found: dict[str, Any]) -> str:
    """The teacher's Dice with right and wrong reports."""
    rows = [["report shown to the teacher", "Dice", "cases", "fall against the right report"]]
    for name, entry in found.items():
        if isinstance(entry, dict):
            fall = with_interval(entry["drop"], 3) if "drop" in entry else "–"
            rows.append([name.replace("_", " "), f"{entry['dice']:.3f}", str(entry["n"]), fall])
    return f"{table(rows)}\n\n{found['message']}"


if __name__ == "__main__":
    main()
