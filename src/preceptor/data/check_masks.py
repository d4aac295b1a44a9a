"""Checks of what masks store: values against the declared labels, the remap to propose, classes that never occur."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preceptor.data.case import Finding
from preceptor.data.check_findings import finding
from preceptor.data.masks import decode_mask, propose_labels, stored_values
from preceptor.errors import LISTED
from preceptor.recipe_data import DataRecipe

KEPT = 64
"""Distinct stored values of one mask that are remembered; more are counted only."""

MANY = 8
"""A binary set whose masks hold more distinct values than this was interpolated or compressed with loss."""

Value = int | float | str
"""A stored value: a number, or a colour as "#rrggbb"."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What one mask stores: pixels by value (at most KEPT values), the number of distinct values, all pixels."""

    pixels: Mapping[Value, int]
    distinct: int
    total: int


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """One readable mask. classes: [C] pixels of each class, None where labels are missing or do not fit.

    fault: (what was found, remedy) where the declared labels or rule do not fit the mask. volume: its volume's name.
    """

    case: str
    split: str
    stored: Stored
    classes: tuple[int, ...] | None
    fault: tuple[str, str] | None = None
    volume: str | None = None


def summarise_values(pixels: np.ndarray) -> Stored:
    """Count the values of a mask. Raises DataError where the array is no mask."""
    counts = stored_values(pixels)
    most = sorted(counts, key=lambda value: -counts[value])[:KEPT]
    return Stored({value: counts[value] for value in counts if value in set(most)}, len(counts), sum(counts.values()))


def is_soft(stored: Stored) -> bool:
    """Whether a mask holds fractions, or more than MANY grey levels up to a bright one: interpolated, or lossy."""
    numbers = [value for value in stored.pixels if not isinstance(value, str)]
    if any(isinstance(value, float) for value in numbers):
        return True
    return stored.distinct > MANY and len(numbers) == len(stored.pixels) and 127 < max(numbers, default=0) <= 255


def foreground(pixels: np.ndarray, soft: bool) -> np.ndarray:
    """[H, W] bool: foreground of a mask whose labels are not declared: not 0, or by the threshold rule if it is soft.

    Raises DataError where the rule does not fit.
    """
    if soft:
        return decode_mask(pixels, {}, "threshold") > 0
    return pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(-1)


def propose(values: Iterable[Value], soft: bool, names: Sequence[str] = ()) -> tuple[dict[str, int | str], str]:
    """(labels, mask rule) that fit the values of a whole set. names: of declared classes, kept if they are as many."""
    seen = set(values)
    if soft:
        top = max(value for value in seen if not isinstance(value, str))
        labels: dict[str, int | str] = {"background": 0, "foreground": 1 if top <= 1 else 255}
        rule = "threshold"
    else:
        labels, rule = propose_labels(seen)
    if rule == "threshold" and not soft:  # more classes than a proposal for one mask believes
        background, *others = sorted((int(value) for value in seen if not isinstance(value, str)), key=abs)
        labels, rule = {"background": background, **{f"class_{i}": v for i, v in enumerate(others, 1)}}, "exact"
    return (dict(zip(names, labels.values(), strict=True)) if len(names) == len(labels) else labels), rule


def proposal(labels: Mapping[str, int | str], rule: str) -> str:
    """The proposal as recipe lines on one line."""
    if not labels:
        return "masks with one number or colour for each class"
    items = [f'{name}: "{value}"' if isinstance(value, str) else f"{name}: {value}" for name, value in labels.items()]
    pairs = ", ".join(items if len(items) <= LISTED else [*items[:LISTED], "... and so on"])
    text = f"`labels: {{{pairs}}}`"
    return text if rule == "exact" else f"{text} and `mask_rule: {rule}`"


def check_masks(
    records: Sequence[MaskRecord], data: DataRecipe, known: Mapping[str, int] | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, facts) on the masks of a set. known: the data set's own labels, proposed where none are declared."""
    if not records:
        return [], {}
    seen = Counter[Value]()
    for record in records:
        seen.update(record.stored.pixels.keys())
    soft = any(is_soft(record.stored) for record in records)
    facts: dict[str, Any] = {"values": {str(value): count for value, count in seen.most_common(KEPT)}}
    if data.labels:
        findings = _against_labels(records, data, soft)
        names, classes = list(data.labels), [record.classes for record in records]
    else:
        labels, rule = propose(seen, soft)
        if known and set(seen) <= set(known.values()):
            labels, rule = dict(known), "exact"
        findings = [_undeclared_labels(seen, records, labels, rule)]
        names = list(labels)
        classes = [record.classes if soft else _counts(record.stored, labels) for record in records]
        facts["proposed"] = {"labels": labels, "mask_rule": rule}
    shares, empty, absent = _shares(records, classes, names)
    facts |= {"foreground_share": shares, "empty_masks": dict(empty)}
    findings += _empty(records, classes)
    declared = bool(data.labels) or len(names) == 2  # of many proposed classes none is expected anywhere yet
    return findings + (absent if declared else []), facts


def _empty(records: Sequence[MaskRecord], classes: Sequence[tuple[int, ...] | None]) -> list[Finding]:
    """A note for each empty mask, but a single one for all empty slices of volumes that have others."""
    pairs = zip(records, classes, strict=True)
    empty = [record for record, counts in pairs if counts is not None and not sum(counts[1:])]
    lost = Counter(record.volume for record in empty if record.volume)
    whole = Counter(record.volume for record in records if record.volume)
    partly = [record for record in empty if record.volume and lost[record.volume] < whole[record.volume]]
    findings = [
        finding("note", "empty-mask", record.case, f"all {record.stored.total} pixels are background ({record.split})")
        for record in empty
        if not record.volume
    ]
    findings += [
        finding("note", "empty-mask", volume, f"all {count} slices are background")
        for volume, count in lost.items()
        if count == whole[volume]
    ]
    if partly:
        volumes = len({record.volume for record in partly})
        splits = Counter(record.split or "no split" for record in partly)
        told = ", ".join(f"{split} {count}" for split, count in splits.items())
        found = f"{len(partly)} of {whole.total()} slices, in {volumes} of {len(whole)} volumes ({told})"
        findings.append(finding("note", "empty-slices", "volumes", found))
    return findings


def _undeclared_labels(
    seen: Counter[Value], records: Sequence[MaskRecord], labels: Mapping[str, int | str], rule: str
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
    declared = {value for of in data.labels.values() for value in (of if isinstance(of, list) else [of])}
    declared |= set(data.ignore)
    told, codes = _listed(list(declared)), {_code(value) for value in declared}
    soft = soft and len(data.labels) == 2
    labels, rule = propose((value for record in records for value in record.stored.pixels), soft, list(data.labels))
    findings = []
    for record in records:
        other = _listed([value for value in record.stored.pixels if _code(value) not in codes])
        if data.mask_rule != "exact":
            if record.fault:
                findings.append(finding("error", "undeclared-value", record.case, *record.fault))
            elif other:
                remedy = f"`mask_rule: {data.mask_rule}` decides which are foreground; look at an overlay"
                found = f"{record.stored.distinct} values, among them {other}"
                findings.append(finding("warning", "soft-mask", record.case, found, remedy))
        elif record.fault:
            found = f"stores {other or 'rare values'}, expected only {told}"
            if soft:
                remedy = "`mask_rule: threshold` takes what is above half of full scale; better are masks without loss"
                findings.append(finding("error", "soft-mask", record.case, found, remedy))
            else:
                remedy = f"declare what is meant, for example {proposal(labels, rule)}"
                findings.append(finding("error", "undeclared-value", record.case, found, remedy))
    return findings


def _code(value: Value) -> Value:
    """One name for a grey level and the colour of the same look."""
    grey = isinstance(value, int) and 0 <= value <= 255
    return f"#{value:02x}{value:02x}{value:02x}" if grey else value.lower() if isinstance(value, str) else value


def _counts(stored: Stored, labels: Mapping[str, Value]) -> tuple[int, ...]:
    pixels = {_code(value): count for value, count in stored.pixels.items()}
    return tuple(pixels.get(_code(value), 0) for value in labels.values())


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
        for split, total in sorted(sums.items(), key=lambda item: ("train", "val", "test", "none").index(item[0]))
    }
    consequence = {"train": "it cannot be learned", "test": "it cannot be judged"}
    absent = [
        finding("warning", "absent-class", f"{split}: {name}", f"in none of {masks[split]} masks; {consequence[split]}")
        for split, of in shares.items()
        if split in consequence
        for name, share in of.items()
        if not share
    ]
    return shares, +empty, absent
