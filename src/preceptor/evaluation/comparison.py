"""The result of a comparison for people: a table of text, and `comparison.html`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.evaluation.figures import forest
from preceptor.evaluation.metrics import METRIC_NAMES
from preceptor.evaluation.report import count, environment, score
from preceptor.evaluation.verdict import p_text, points
from preceptor.storage import read_json, write_text

ROLES = {"control": "control", "student": "student", "teacher": "teacher"}


def write_page(folder: Path | str) -> Path:
    """Write `comparison.html` from the `comparison.json` of a folder; returns its path."""
    place = Path(folder)
    path = place / "comparison.html"
    write_text(
        path, environment().get_template("comparison.html").render(context(read_json(place / "comparison.json")))
    )
    return path


def context(result: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows."""
    gained = [entry for entry in result["entries"] if entry["gain"]]
    return {
        "result": result,
        "names": METRIC_NAMES,
        "roles": ROLES,
        "answer": answer(result),
        "unit_name": "px" if result["unit"] == "pixel" else result["unit"],
        "scores": forest([{"style": e["role"], "label": e["name"], **e["dice"]} for e in result["entries"]]),
        "gains": forest([{"style": "student", "label": e["name"], **e["gain"]["dice"]} for e in gained], zero=True),
    }


def answer(result: Mapping[str, Any]) -> str:
    """One sentence: which distillations beat their control on Dice, after Holm's correction, and which were worse."""
    gained = [entry for entry in result["entries"] if entry["gain"]]
    if not gained:
        return "Nothing was distilled here; no gain over a control can be told."
    level = 1 - result["confidence"]
    if all(entry["gain"]["dice"]["few"] for entry in gained):
        units = gained[0]["gain"]["dice"]["units"]
        above = [entry["name"] for entry in gained if entry["gain"]["dice"]["low"] > 0]
        told = (
            f"intervals that exclude zero: {', '.join(above)}"
            if above
            else "no interval excludes zero on the good side"
        )
        return f"{units} independent units are too few for a test of {len(gained)} distillations; {told}."
    sure = [e for e in gained if (p := e["gain"]["dice"]["p_holm"]) is not None and p < level]
    better = [e["name"] for e in sure if e["gain"]["dice"]["mean"] > 0]
    worse = [e["name"] for e in sure if e["gain"]["dice"]["mean"] < 0]
    parts = (
        [f"better than their control: {', '.join(better)}"]
        if better
        else ["none is measurably better than its control"]
    )
    parts += [f"worse: {', '.join(worse)}"] if worse else []
    return f"Of {len(gained)} distillations, after Holm's correction: {'; '.join(parts)}."


def as_text(result: Mapping[str, Any]) -> str:
    """The ranked table for a terminal."""
    unit = "px" if result["unit"] == "pixel" else result["unit"]
    heads = ["rank", "network", "Dice", "interval", f"HD95 {unit}", "gain", "interval", "p (Holm)", "parameters"]
    rows = [heads]
    for entry in result["entries"]:
        gain = entry["gain"].get("dice")
        rows.append(
            [
                "-" if entry["rank"] is None else f"{entry['rank']} ({entry['rank_low']}-{entry['rank_high']})",
                entry["name"],
                score(entry["dice"]["mean"]),
                f"{score(entry['dice']['low'])} to {score(entry['dice']['high'])}",
                score(entry["hd95"]["mean"], "hd95"),
                points(gain["mean"]) if gain else "",
                f"{points(gain['low'])} to {points(gain['high'])}" if gain else "",
                p_text(gain["p_holm"]).removeprefix("p = ") if gain else "",
                count(entry.get("parameters")),
            ]
        )
    widths = [max(len(row[index]) for row in rows) for index in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", answer(result)])
