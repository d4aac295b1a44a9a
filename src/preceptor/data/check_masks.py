"""Checks of what masks store: values against the declared labels, the remap to propose, classes that never occur."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preceptor.data.case import Finding
from preceptor.data.check_findings import finding
from preceptor.errors import LISTED
from preceptor.recipe import DataRecipe

KEPT = 64
"""Distinct stored values of one mask that are remembered; more are counted only."""

MANY = 8
"""A binary set whose masks hold more distinct values than this was interpolated or compressed with loss."""

Value = int | float | str
"""A stored value: a grey level, or a colour as "#rrggbb"."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What one mask stores: pixels by value (at most KEPT values), the number of distinct values, all pixels."""

    pixels: Mapping[Value, int]
    distinct: int
    total: int


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """One readable mask. classes: [C] pixels of each declared class, None where labels are missing or do not fit."""

    case: str
    split: str
    stored: Stored
    classes: tuple[int, ...] | None


def stored_values(pixels: np.ndarray) -> Stored:
    """Count the values of a mask [H, W] or [H, W, C]; colours are told as "#rrggbb", grey ones as numbers."""
    flat = pixels if pixels.ndim == 2 else _one_channel(pixels)
    colours = flat.dtype == np.uint32
    if flat.dtype == np.uint8:
        counts = np.bincount(flat.ravel(), minlength=1)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(flat[np.isfinite(flat)], return_counts=True)
    most = np.sort(np.argsort(-counts, kind="stable")[:KEPT])
    named = {
        (f"#{int(v):06x}" if colours else _number(v)): int(n) for v, n in zip(values[most], counts[most], strict=True)
    }
    return Stored(named, len(values), flat.size)


def _one_channel(pixels: np.ndarray) -> np.ndarray:
    """[H, W] of a mask with channels: the first where all are equal, else red, green and blue in one uint32."""
    colour = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
    if (colour == colour[..., :1]).all():
        return colour[..., 0]
    red, green, blue = (colour[..., i].astype(np.uint32) for i in range(3))
    return (red << 16) | (green << 8) | blue


def _number(value: Any) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def is_soft(stored: Stored) -> bool:
    """Whether a mask holds fractions, or more than MANY values up to white: interpolated, or compressed with loss."""
    numbers = [value for value in stored.pixels if not isinstance(value, str)]
    if any(isinstance(value, float) for value in numbers):
        return True
    return stored.distinct > MANY and len(numbers) == len(stored.pixels) and max(numbers, default=0) > 250


def foreground(pixels: np.ndarray) -> np.ndarray:
    """[H, W] bool: what is foreground in a mask whose labels are not declared: not 0, or above half if it is soft."""
    flat = pixels if pixels.ndim == 2 else _one_channel(pixels)
    stored = stored_values(pixels)
    if is_soft(stored):
        return np.nan_to_num(flat.astype(float)) > max(float(value) for value in stored.pixels) / 2
    result: np.ndarray = flat != 0
    return result


def declared_values(labels: Mapping[str, int | str | list[int]]) -> set[Value]:
    """All stored values that the labels declare."""
    lists = [value if isinstance(value, list) else [value] for value in labels.values()]
    return {value.lower() if isinstance(value, str) else value for values in lists for value in values}


def propose(values: Sequence[Value], soft: bool) -> tuple[dict[str, Value], str]:
    """(labels, mask rule) that would fit the values seen in a set's masks. The lowest value is the background."""
    if soft:
        top = max((value for value in values if not isinstance(value, str)), default=1)
        return {"background": 0, "foreground": _number(top)}, "threshold"
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    background: Value = "#000000" if ordered and isinstance(ordered[-1], str) else 0
    others = [value for value in ordered if value != background and not (value == 0 and background == "#000000")]
    if len(others) == 1:
        return {"background": background, "foreground": others[0]}, "exact"
    return {"background": background, **{f"class_{i}": value for i, value in enumerate(others, 1)}}, "exact"


def proposal(labels: Mapping[str, Value], rule: str) -> str:
    """The proposal as recipe lines on one line."""
    items = [f"{name}: {_quoted(value)}" for name, value in labels.items()]
    pairs = ", ".join(items if len(items) <= LISTED else [*items[:LISTED], "... and so on"])
    text = f"`labels: {{{pairs}}}`"
    return text if rule == "exact" else f"{text} and `mask_rule: {rule}`"


def _quoted(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def check_masks(records: Sequence[MaskRecord], data: DataRecipe) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, facts) on the masks of a set."""
    if not records:
        return [], {}
    seen = Counter[Value]()
    for record in records:
        seen.update(record.stored.pixels.keys())
    soft = any(is_soft(record.stored) for record in records)
    facts: dict[str, Any] = {"values": {str(value): count for value, count in seen.most_common(KEPT)}}
    if data.labels:
        findings = _against_labels(records, data, soft)
        names = list(data.labels)
        classes = [record.classes for record in records]
    else:
        labels, rule = propose(list(seen), soft)
        findings = [_undeclared_labels(seen, records, labels, rule)]
        names = ["background", "foreground"] if soft else list(labels)
        classes = [_by_proposal(record.stored, labels) if not soft else record.classes for record in records]
        facts["proposed"] = {"labels": labels, "mask_rule": rule}
    shares, empty, absent = _shares(records, classes, names)
    facts |= {"foreground_share": shares, "empty_masks": dict(empty)}
    findings += [
        finding("note", "empty-mask", record.case, f"all {record.stored.total} pixels are background ({record.split})")
        for record, counts in zip(records, classes, strict=True)
        if counts is not None and not sum(counts[1:])
    ]
    return findings + absent, facts


def _undeclared_labels(
    seen: Counter[Value], records: Sequence[MaskRecord], labels: Mapping[str, Value], rule: str
) -> Finding:
    most = max(record.stored.distinct for record in records)
    kind = "colours" if any(isinstance(value, str) for value in seen) else "values"
    found = f"{len(records)} masks store the {kind} {_listed(list(seen))}"
    if rule == "threshold":
        found += f" (up to {most} in one mask: interpolated or compressed with loss)"
    return finding("warning", "no-labels", "data.labels", found, f"if this is meant, add {proposal(labels, rule)}")


def _listed(values: Sequence[Value], most: int = 12) -> str:
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    text = ", ".join(str(value) for value in ordered[:most])
    return text if len(ordered) <= most else f"{text} and {len(ordered) - most} more"


def _against_labels(records: Sequence[MaskRecord], data: DataRecipe, soft: bool) -> list[Finding]:
    declared = declared_values(data.labels)
    other: dict[str, list[Value]] = {}
    for record in records:
        values = [
            value
            for value in record.stored.pixels
            if value not in declared and not (value == 0 and "#000000" in declared)
        ]
        if values:
            other[record.case] = values
    if not other:
        return []
    by_name = {record.case: record.stored for record in records}
    if data.mask_rule != "exact":
        remedy = f"`mask_rule: {data.mask_rule}` decides which of them are foreground; look at an overlay"
        return [
            finding("warning", "soft-mask", case, f"{by_name[case].distinct} values: {_listed(values)}", remedy)
            for case, values in other.items()
        ]
    every = {value for record in records for value in record.stored.pixels}
    told = _listed(sorted(declared, key=str))
    if soft and len(data.labels) == 2:
        remedy = "`mask_rule: threshold` takes what is above half of the largest value; better: masks without loss"
        code = "soft-mask"
    else:
        remedy = f"declare them, for example {proposal(*propose(list(every), soft))}; declared are {told}"
        code = "undeclared-value"
    return [
        finding("error", code, case, f"stores {_listed(values)}, expected only {told}", remedy)
        for case, values in other.items()
    ]


def _by_proposal(stored: Stored, labels: Mapping[str, Value]) -> tuple[int, ...]:
    return tuple(
        stored.pixels.get(value, 0) + (stored.pixels.get(0, 0) if value == "#000000" else 0)
        for value in labels.values()
    )


def _shares(
    records: Sequence[MaskRecord], classes: Sequence[tuple[int, ...] | None], names: Sequence[str]
) -> tuple[dict[str, dict[str, float]], Counter[str], list[Finding]]:
    """(mean share of each class by split, empty masks by split, findings on classes that a split lacks)."""
    sums: dict[str, np.ndarray] = {}
    masks, empty = Counter[str](), Counter[str]()
    for record, counts in zip(records, classes, strict=True):
        if counts is None:
            continue
        split = record.split or "none"
        sums[split] = sums.get(split, np.zeros(len(names))) + np.array(counts) / record.stored.total
        masks[split] += 1
        empty[split] += not sum(counts[1:])
    shares = {
        split: {name: float(value / masks[split]) for name, value in zip(names[1:], total[1:], strict=True)}
        for split, total in sums.items()
    }
    consequence = {"train": "it cannot be learned", "val": "it cannot be watched", "test": "it cannot be judged"}
    absent = [
        finding(
            "warning",
            "absent-class",
            f"{split}: {name}",
            f"in none of {masks[split]} masks",
            consequence.get(split, ""),
        )
        for split, of in shares.items()
        for name, share in of.items()
        if not share
    ]
    return shares, +empty, absent
