"""The result in plain sentences: what the student gained, whether the teacher reads, and what to be careful about."""

import re
from collections.abc import Mapping
from typing import Any

from preceptor.evaluation.arms import gains, spoken

NOUNS = {"case": ("case", "group"), "slice": ("slice", "group"), "volume": ("volume", "patient")}
"""What one score is of, and what several of them share."""
NON_COMMERCIAL = re.compile(r"\bNC\b|non-?\s?commercial|research (use )?only", re.IGNORECASE)


def points(share: float) -> str:
    """A share as Dice points: 0.0321 is 3.2."""
    return f"{100 * share:z.1f}"


def p_text(p: float | None) -> str:
    """`p = 0.012`, `p < 0.001`, or that there is none."""
    if p is None:
        return "no p-value"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def answer(summary: Mapping[str, Any], confidence: float = 0.95) -> str:
    """One sentence on the main comparison, from a summary with `arms`, `gains`, `cases` and `seeds`.

    Student over control is the question asked beforehand, on Dice: its own p counts, without correction. The arm is
    better or worse only when p is below 1 - confidence and the interval excludes zero.
    """
    pairs = [(a, b) for a, b in gains(summary["arms"]) if f"{a}_over_{b}" in summary["gains"]]
    for ours, theirs in pairs:
        whose = "its" if ours == "student" else "the"
        gain = summary["gains"][f"{ours}_over_{theirs}"]["dice"]
        told = _comparison(summary, gain, f"the {spoken(ours)}", f"{whose} {spoken(theirs)}", confidence)
        if ours == "student" or len(pairs) == 1:
            return told
    if pairs:
        names = ", ".join(f"{spoken(ours)} {_points_over(summary, ours, theirs)}" for ours, theirs in pairs)
        return f"Nothing was distilled; over the control, in Dice points: {names} ({_size(summary)})."
    arms = summary["arms"]
    reached = [f"the {spoken(arm)} reaches Dice {arms[arm]['dice']['mean']:.3f}" for arm in arms]
    return f"{_capital(' and '.join(reached))} on {_size(summary)}; nothing was compared."


def _comparison(summary: Mapping[str, Any], gain: Mapping[str, Any], ours: str, theirs: str, confidence: float) -> str:
    span = f"{100 * confidence:g} % interval {points(gain['low'])} to {points(gain['high'])}"
    if gain["low"] != gain["low"]:
        span = "no interval"
    facts = f"{span}, {p_text(gain['p'])}; {_size(summary)}"
    if gain["few"]:
        scarce = "patients" if summary.get("scored") == "volume" and summary.get("groups") else "cases"
        return f"Too few {scarce} to tell whether {ours} beats {theirs}: {points(gain['mean'])} Dice points ({facts})."
    significant = gain["p"] < 1 - confidence
    if significant and gain["low"] > 0:
        return f"{_capital(ours)} beats {theirs} by {points(gain['mean'])} Dice points ({facts})."
    if significant and gain["high"] < 0:
        return f"{_capital(ours)} is worse than {theirs} by {points(-gain['mean'])} Dice points ({facts})."
    return f"{_capital(ours)} does not differ measurably from {theirs}: {points(gain['mean'])} Dice points ({facts})."


def _points_over(summary: Mapping[str, Any], ours: str, theirs: str) -> str:
    gain = summary["gains"][f"{ours}_over_{theirs}"]["dice"]
    return f"{points(gain['mean'])} [{points(gain['low'])}, {points(gain['high'])}]"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def judged_on(summary: Mapping[str, Any]) -> str:
    """`48 cases of 20 groups`, `10 volumes of 5 patients`; groups are named where cases share one."""
    noun, shared = NOUNS[summary.get("scored", "case")]
    groups = summary.get("groups")
    return counted(summary["cases"], noun) + (f" of {counted(groups, shared)}" if groups else "")


def _size(summary: Mapping[str, Any]) -> str:
    """`48 cases of 20 groups, 3 seeds`."""
    return f"{judged_on(summary)}, {counted(len(summary['seeds']), 'seed')}"


def reading(probes: Mapping[str, Mapping[str, Any]], margin: float, teacher: str = "teacher") -> tuple[bool, str]:
    """(text-blind or not, a sentence), from the falls in Dice when the teacher is shown other reports or attributes.

    Wrong ones decide; an empty one only where there is no other probe, since it may merely be unfamiliar.
    """
    one, many = ("attributes", "attributes") if "unknown" in probes else ("report", "reports")
    wrong = [name for name in ("shuffled", "wrong_side") if name in probes] or [n for n in probes if n != "right"]
    drops = {name: probes[name]["drop"]["mean"] for name in wrong}
    told = ", ".join(f"{points(drop)} points {PROBES.get(name, name).format(one)}" for name, drop in drops.items())
    blind = all(drop < margin for drop in drops.values())
    if blind:
        return True, (
            f"The {teacher} hardly reads its {many}: its Dice falls by only {told} (margin {points(margin)}). "
            f"A student cannot learn from it what the {many} say."
        )
    return False, f"The {teacher} reads its {many}: its Dice falls by {told}.{_misled(probes, margin)}"


def probes_by_arm(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The probes of each teacher that was probed, whether the run has one teacher or several."""
    probes = summary.get("probes") or {}
    return {"teacher": probes} if "message" in probes else dict(probes)


def _misled(probes: Mapping[str, Mapping[str, Any]], margin: float) -> str:
    """A sentence where the teacher does better without being told than with it: it learned what does not hold."""
    name = next((name for name in ("empty", "unknown") if name in probes), None)
    drop = probes[name]["drop"] if name else None
    if drop is None or drop["mean"] > -margin or drop["high"] >= 0:
        return ""
    what, without = ("reports", "an empty one") if name == "empty" else ("attributes", "none known")
    return f" But the {what} mislead it: with {without} its Dice is {points(-drop['mean'])} points higher."


PROBES = {
    "empty": "with an empty {}",
    "unknown": "with no {} known",
    "shuffled": "with another case's {}",
    "wrong_side": "with sides swapped",
}


def warnings(summary: Mapping[str, Any], left_out: int) -> list[str]:
    """What a reader must know before believing the numbers, the gravest first."""
    told = []
    noun, _ = NOUNS[summary.get("scored", "case")]
    leak = summary.get("leak") or {}
    if leak.get("leaks"):
        message = leak.get("message") or f"the reports describe the mask: leak score {leak.get('score')}"
        told.append(f"Leak: {message}.")
    for probes in probes_by_arm(summary).values():
        if probes["text_blind"] or "mislead" in probes["message"]:
            told.append(probes["message"])
    for arm, theirs in gains(summary["arms"]):
        gain = summary["gains"].get(f"{arm}_over_{theirs}", {}).get("dice")
        if arm != "student" and gain and gain["mean"] <= 0:
            told.append(
                f"The {spoken(arm)} is no better than the control ({points(gain['mean'])} Dice points): "
                "there is little that the student could learn from it."
            )
    if any(gain["few"] for entry in summary["gains"].values() for gain in entry.values()):
        told.append("Fewer than six cases or patients: intervals are rough, and no p-value is given.")
    if left_out:
        were = "was" if left_out == 1 else "were"
        told.append(f"{counted(left_out, noun)} {were} left out, since not every arm was judged on them.")
    if len(summary["seeds"]) == 1:
        told.append("One seed only: the intervals do not tell how much another training would change the result.")
    if NON_COMMERCIAL.search(summary.get("licence") or ""):
        told.append(
            f"The data's licence is non-commercial ({summary['licence']}): this holds for the networks trained on it."
        )
    return told
