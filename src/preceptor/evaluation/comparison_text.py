"""A comparison in words: what its networks are called, the answer, what to be careful about, and a table of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.evaluation.report import UNITS, count, score
from preceptor.evaluation.verdict import NON_COMMERCIAL, NOUNS, counted, judged_on, p_text, points

WIDTH = 120
"""Characters that the table of text may take; columns that do not fit are left to the page."""

NUMBERS = ("Dice", "gain", "parameters", "minutes")
"""Columns whose numbers stand below each other from the right."""


def labels(result: Mapping[str, Any]) -> dict[str, str]:
    """A short name for each entry: of a run of a matrix only those parts that differ within the comparison."""
    if result["kind"] == "runs":
        return {entry["name"]: entry["name"] for entry in result["entries"]}
    students = len({entry["student"] for entry in result["entries"] if entry["student"]}) > 1
    teachers = len({entry["teacher"] for entry in result["entries"] if entry["distiller"]}) > 1
    found = {}
    for entry in result["entries"]:
        if entry["role"] == "teacher":
            found[entry["name"]] = f"teacher {entry['teacher']}"
            continue
        parts = [entry["student"]] if students else []
        parts += [entry["teacher"]] if teachers and entry["teacher"] else []
        found[entry["name"]] = " · ".join([*parts, entry["distiller"] or "control"])
    return found


def answer(result: Mapping[str, Any]) -> str:
    """One sentence on Dice: how many distillations beat their control after Holm's correction, and the largest gain.

    One counts as better, or worse, when the corrected p is below 1 - confidence and its interval excludes zero.
    """
    gained = {entry["name"]: entry["gain"]["dice"] for entry in result["entries"] if entry["gain"]}
    called = labels(result)
    if not gained:
        best = result["entries"][0]
        told = f"{called[best['name']]} leads with Dice {best['dice']['mean']:.3f}"
        return f"Nothing was distilled here; {told} ({_size(result)})."
    top = max(gained, key=lambda name: gained[name]["mean"])
    gain, level, many = gained[top], 1 - result["confidence"], len(gained) > 1
    sure = {name: g for name, g in gained.items() if g["p_holm"] is not None and g["p_holm"] < level}
    better = [name for name, g in sure.items() if g["low"] > 0]
    worse = [called[name] for name, g in sure.items() if g["high"] < 0]
    if gain["few"]:
        which = f"any of {len(gained)} distillations" if many else "the distillation"
        head = f"Too few {shared(result)} to tell whether {which} helped"
    elif many:
        verb = "beat their control" if len(better) > 1 else "beats its control"
        head = f"{len(better) or 'None'} of {len(gained)} distillations {verb}{'' if better else ' measurably'}"
    else:
        verb = "beats" if better else "is worse than" if worse else "does not differ measurably from"
        head = f"The distillation {verb} its control"
    ahead = "largest gain" if gain["mean"] > 0 else "smallest loss"
    told = f"; {ahead}: {called[top]}, " if many else ": "
    p = f"{p_text(gain['p_holm'])}{' after Holm' if many and gain['p_holm'] is not None else ''}"
    facts = [f"{_span(gain, result['confidence'])}, {p}"]
    facts += [f"measurably worse: {', '.join(worse)}"] if worse and many else []
    return f"{head}{told}{points(gain['mean'])} Dice points ({'; '.join([*facts, _size(result)])})."


def _span(gain: Mapping[str, Any], confidence: float) -> str:
    if gain["low"] is None or gain["low"] != gain["low"]:
        return "no interval"
    return f"{100 * confidence:g} % interval {points(gain['low'])} to {points(gain['high'])}"


def shared(result: Mapping[str, Any]) -> str:
    """What is independent of each other, as a plural: groups or patients where cases share one, else the cases."""
    noun, group = NOUNS[result["scored"]]
    return f"{group if result['groups'] else noun}s"


def _size(result: Mapping[str, Any]) -> str:
    """`40 volumes of 20 patients, 1 to 3 seeds`."""
    seeds = sorted({len(entry["seeds"]) for entry in result["entries"] if entry["role"] != "teacher"} or {0})
    told = counted(seeds[-1], "seed")
    return f"{judged_on(result)}, {told if len(seeds) == 1 else f'{seeds[0]} to {told}'}"


def warnings(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the ranks, the gravest first."""
    entries = result["entries"]
    called, noun = labels(result), NOUNS[result["scored"]][0]
    ranked = [entry for entry in entries if entry["rank"] is not None]
    told = []
    if result["unfinished"]:
        names = ", ".join(item["run"] for item in result["unfinished"])
        are = "is" if len(result["unfinished"]) == 1 else "are"
        runs = counted(len(result["unfinished"]), "run")
        told.append(f"{runs} did not end and {are} missing from every figure here: {names}.")
    if any(gain["few"] for entry in entries for gain in entry["gain"].values()):
        told.append(f"Fewer than six {shared(result)}: intervals and ranks are rough, and no p-value is given.")
    told += _weak_teachers(entries, called)
    seeds = {len(entry["seeds"]) for entry in ranked}
    if len(seeds) > 1:
        few = [called[entry["name"]] for entry in ranked if len(entry["seeds"]) < max(seeds)]
        told.append(f"Not all networks have equally many seeds; of {', '.join(few)} there are fewer than {max(seeds)}.")
    if seeds == {1}:
        told.append("One seed only: neither intervals nor ranks tell how much another training would change them.")
    if len(ranked) > 1:
        told.append(
            f"The best of {len(ranked)} was picked after seeing these {' and '.join(result['splits'])} {noun}s, which "
            "flatters it; what is chosen here needs others to be judged on."
        )
    if result["left_out"]:
        told.append(f"{counted(result['left_out'], noun)} left out, since not every network was judged on them.")
    if len(result["tolerances"]) > 1:
        shown = ", ".join(f"{value:g}" for value in result["tolerances"])
        told.append(f"The runs were judged with different tolerances ({shown}): their surface Dice is not comparable.")
    if NON_COMMERCIAL.search(result["licence"] or ""):
        told.append(
            f"The data's licence is non-commercial ({result['licence']}): this holds for the networks trained on it."
        )
    return told


def _weak_teachers(entries: Sequence[Mapping[str, Any]], called: Mapping[str, str]) -> list[str]:
    """A sentence for each teacher that is no better than the control of a network that it taught (fault 21)."""
    known = {entry["name"]: entry for entry in entries}
    pairs = {(teacher, e["control"]): None for e in entries for teacher in e["taught_by"] if e["control"]}
    told = []
    for teacher, control in pairs:
        gap = known[teacher]["dice"]["mean"] - known[control]["dice"]["mean"]
        if gap <= 0:
            told.append(
                f"The {called[teacher].removeprefix('the ')} is no better than {called[control]} ({points(gap)} Dice "
                "points): there is little that its students could learn from it."
            )
    return told


def as_text(result: Mapping[str, Any], width: int = WIDTH) -> str:
    """The ranked table for a terminal; costs are left out where the lines would be longer than `width`."""
    called = labels(result)
    heads = [
        "rank",
        "network",
        "Dice",
        "interval",
        f"HD95 {UNITS.get(result['unit'], result['unit'])}",
        "gain",
        "interval",
        "p, Holm",
    ]
    heads += ["parameters", "minutes"]
    rows = [heads]
    for entry in result["entries"]:
        gain = entry["gain"].get("dice")
        minutes = entry.get("minutes")
        rows.append(
            [
                "-" if entry["rank"] is None else f"{entry['rank']} ({entry['rank_low']}-{entry['rank_high']})",
                called[entry["name"]],
                score(entry["dice"]["mean"]),
                _bounds(entry["dice"], score),
                score(entry["hd95"]["mean"], "hd95"),
                points(gain["mean"]) if gain else "",
                _bounds(gain, points) if gain else "",
                p_text(gain["p_holm"]).removeprefix("p = ").removeprefix("p ") if gain else "",
                count(entry.get("parameters")),
                "" if minutes is None else f"{minutes:.1f}",
            ]
        )
    while True:
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        if sum(widths) + 2 * (len(widths) - 1) <= width or rows[0][-1] == "gain":
            break
        rows = [row[:-1] for row in rows]
    sides = [str.rjust if head in NUMBERS else str.ljust for head in rows[0]]
    lines = ["  ".join(side(cell, size) for side, cell, size in zip(sides, row, widths, strict=True)) for row in rows]
    lines = [line.rstrip() for line in lines]
    return "\n".join([*lines, "", *(f"warning: {line}" for line in result["warnings"]), result["answer"]])


def _bounds(entry: Mapping[str, Any], form: Any) -> str:
    known = entry["low"] is not None and entry["low"] == entry["low"]
    return f"{form(entry['low'])} to {form(entry['high'])}" if known else "no interval"
