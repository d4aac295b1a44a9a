"""The Markdown of a comparison, from its `comparison.json`: the ranked table, the gains, each class, and the cost."""

import json
from pathlib import Path
from typing import Any

from benchmarks.tables import p_value, table, with_interval

PRICES = ("parameters", "gflops", "latency_ms", "epochs", "minutes")


def comparison(folder: Path) -> str:
    """Everything that docs/results.md says of a comparison."""
    result = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    report = next(entry["report"] for entry in result["entries"] if entry["report"])
    first = (folder / report).parent
    made = json.loads((first / "environment.json").read_text(encoding="utf-8"))
    parts = [
        f"**{result['answer']}**",
        ranked(result),
        gained(result),
        by_class(result, "dice", 3),
        by_class(result, "hd95", 1),
        cost(result),
    ]
    if result["warnings"]:
        parts.append("\n".join(f"- {warning}" for warning in result["warnings"]))
    if result["unfinished"]:
        parts.append("\n".join(f"- {run['run']} {run['state']}: {run['reason']}" for run in result["unfinished"]))
    minutes = sum(entry["minutes"] * len(entry["seeds"]) for entry in result["entries"] if "minutes" in entry)
    groups = f" of {result['groups']} patients" if result["groups"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in made["packages"].items() if version)
    parts.append(
        f"{result['cases']} test {result['scored']}s{groups}, {100 * result['confidence']:g} % BCa bootstrap intervals "
        f"over {'patients' if groups else result['scored'] + 's'} ({result['resamples']} resamples), distances in "
        f"{result['unit'] if result['unit'] == 'mm' else result['unit'] + 's'}; training {minutes:.0f} minutes in all, "
        f"each run on one core beside others, {made['processor']}, {made['cores']} cores; {versions}."
    )
    return "\n\n".join(parts)


def ranked(result: dict[str, Any]) -> str:
    """A row a network, the best first."""
    rows = [["rank (interval)", "first in", "network", "seeds", "Dice", "HD95", "Dice of each seed"]]
    for entry in result["entries"]:
        stable = "–", "–"
        if entry["rank"] is not None:
            rank = f"{entry['rank']} ({entry['rank_low']} to {entry['rank_high']})"
            stable = rank, f"{100 * entry['first']:.0f} %"
        seeds = ", ".join(f"{seed['dice']:.3f}" for seed in entry["per_seed"])
        scores = with_interval(entry["dice"], 3), with_interval(entry["hd95"], 1)
        rows.append([*stable, entry["name"], str(len(entry["seeds"])), *scores, seeds])
    return table(rows)


def gained(result: dict[str, Any]) -> str:
    """What each student gained over its control."""
    rows = [["student", "Dice over control", "p", "p, Holm", "HD95 over control", "p", "p, Holm"]]
    for entry in result["entries"]:
        if entry["gain"]:
            cells = []
            for metric, digits in (("dice", 3), ("hd95", 1)):
                gain = entry["gain"][metric]
                cells += [with_interval(gain, digits, sign=True), p_value(gain["p"]), p_value(gain["p_holm"])]
            rows.append([entry["name"], *cells])
    return table(rows)


def by_class(result: dict[str, Any], metric: str, digits: int) -> str:
    """One metric for each class."""
    name = {"dice": "Dice", "hd95": "HD95"}[metric]
    rows = [[name, *(one.replace("_", " ") for one in result["classes"])]]
    for entry in result["entries"]:
        found = [with_interval(entry["per_class"][one][metric], digits) for one in result["classes"]]
        rows.append([entry["name"], *found])
    return table(rows)


def cost(result: dict[str, Any]) -> str:
    """What each network costs to use and to train."""
    rows = [["network", "parameters", "GFLOPs", "latency, ms", "epochs", "minutes a seed"]]
    for entry in result["entries"]:
        values = [entry.get(key) for key in PRICES]
        shown = ["–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values]
        rows.append([entry["name"], *shown])
    return table(rows)
