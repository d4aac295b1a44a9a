"""Checks across cases: splits that are missing or small, patients and images that are in several splits."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.data.case import Case, Finding
from preceptor.data.check_findings import finding
from preceptor.recipe_data import DataRecipe

SMALL_TEST = 6
"""Fewer test cases than this give no p-value."""

_SPLITS = ("train", "val", "test")


def check_splits(
    cases: Sequence[Case], data: DataRecipe, hashes: Mapping[str, str]
) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, facts) on splits. hashes: case name to content hash of its decoded image, where there is one."""
    counts = {split: sum(case.split == split for case in cases) for split in _SPLITS}
    groups = {case.group for case in cases if case.group is not None}
    facts = {"splits": counts, "groups": len(groups), "ungrouped": sum(case.group is None for case in cases)}
    volumes = {split: len({case.volume for case in cases if case.split == split} - {None}) for split in _SPLITS}
    if any(volumes.values()):
        facts["volumes"] = volumes
    findings = [*_sizes(cases, counts), *_groups(cases, data), *_duplicates(cases, hashes)]
    return findings, facts


def _sizes(cases: Sequence[Case], counts: Mapping[str, int]) -> list[Finding]:
    found = ", ".join(f"{split} {count}" for split, count in counts.items())
    result = []
    only_test = counts["test"] > 0 and not counts["train"] and not counts["val"]
    if only_test:
        remedy = "fine for evaluating a package; training needs `train` and `val`"
        result.append(finding("warning", "missing-split", "train, val", found, remedy))
    elif cases:
        if not counts["train"]:
            remedy = "name training cases in the layout or the manifest, or set `data.split.rule: random`"
            result.append(finding("error", "missing-split", "train", found, remedy))
        if not counts["val"]:
            remedy = "set `data.split.validation` above 0, so that some are cut from the training cases"
            result.append(finding("warning", "missing-split", "val", found, remedy))
        if not counts["test"]:
            remedy = "nothing can be judged without; name test cases or set `data.split.rule: random`"
            result.append(finding("warning", "missing-split", "test", found, remedy))
    judged = len({case.volume or case.name for case in cases if case.split == "test"})
    if 0 < judged < SMALL_TEST:
        remedy = "intervals will be wide and there will be no p-value; add test cases"
        unit = "cases" if judged == counts["test"] else "volumes"
        told = f"{judged} {unit}, at least {SMALL_TEST} are needed for a test of significance"
        result.append(finding("warning", "small-test", "test", told, remedy))
    return result


def _groups(cases: Sequence[Case], data: DataRecipe) -> list[Finding]:
    rule = data.split.groups
    if cases and all(case.group is None for case in cases):
        if rule == "waived":
            return []
        remedy = "add groups.csv (case,group), a `group` column to the manifest, or `data.group_pattern`"
        remedy += "" if rule == "required" else "; `data.split.groups: waived` says that each case is its own patient"
        found = f"{len(cases)} cases; cases of one patient may be in several splits{_alike(cases)}"
        return [finding("error" if rule == "required" else "warning", "no-groups", "groups", found, remedy)]
    lost = [case for case in cases if case.group is None] if rule == "required" else []
    result = [
        finding("error", "no-groups", case.name, "no group", "add it to groups.csv or the manifest") for case in lost
    ]
    places: dict[str, dict[str, int]] = {}
    for case in cases:
        if case.group is not None:
            of = places.setdefault(case.group, {})
            of[case.split] = of.get(case.split, 0) + 1
    for group, of in places.items():
        if len(of) > 1:
            found = ", ".join(f"{count} in {split or 'no split'}" for split, count in sorted(of.items()))
            remedy = "put all cases of a group in one split, or let `data.split.rule: random` do it"
            level = "warning" if rule == "waived" else "error"
            result.append(finding(level, "group-overlap", f"group {group}", found, remedy))  # type: ignore[arg-type]
    return result


def _alike(cases: Sequence[Case]) -> str:
    """Names that differ in their last number only, where that joins some cases and not most: a hint, never applied."""
    stems: dict[str, list[Case]] = {}
    for case in cases:
        stems.setdefault(re.sub(r"[^0-9]?\d+$", "", case.name), []).append(case)
    if not 0.2 * len(cases) <= len(stems) <= 0.9 * len(cases):
        return ""
    pairs = [of for of in stems.values() if len(of) > 1]
    apart = sum(len({case.split for case in of}) > 1 for of in pairs)
    told = f"; names such as {pairs[0][0].name} and {pairs[0][1].name} look like one patient's"
    return told + (f", and {apart} such groups are in several splits" if apart else "")


def _duplicates(cases: Sequence[Case], hashes: Mapping[str, str]) -> list[Finding]:
    same: dict[str, list[Case]] = {}
    for case in cases:
        if case.name in hashes:
            same.setdefault(hashes[case.name], []).append(case)
    result = []
    for of in same.values():
        if len(of) < 2:
            continue
        names = ", ".join(f"{case.name} ({case.split or 'no split'})" for case in of[:5])
        names += f" and {len(of) - 5} more" if len(of) > 5 else ""
        if len({case.split for case in of}) > 1:
            remedy = "keep one of each, or the test measures what was trained on"
            result.append(finding("error", "duplicate-across-splits", of[0].name, f"same pixels in {names}", remedy))
        else:
            remedy = "keep one of each, unless several references of one image are meant"
            result.append(finding("warning", "duplicate-image", of[0].name, f"same pixels in {names}", remedy))
    return result
